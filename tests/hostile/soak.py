"""Hostile members without end, on every core: ``python -m tests.hostile.soak --seconds 60``.

A seed that fails is kept in `regressions.txt`, which the normal tests run ever after.
"""

import argparse
import sys
from pathlib import Path

from adsum.testing.soak import cores, range_of, soak

from .fuzz import run

REGRESSIONS = Path(__file__).with_name("regressions.txt")


def attempt(seed: int) -> str | None:
    """Run one seed; returns why it fails, or None."""
    try:
        run(seed)
    except AssertionError as error:
        return f"{error}\nreplay: python -m tests.hostile.soak --replay {seed}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seeds", type=int, help="stop after so many")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run this seed alone, here")
    options = parser.parse_args()
    if options.replay is not None:
        run(options.replay)
        return 0
    seeds = range_of(options.first, options.seeds)
    failed = soak("hostile peers", attempt, seeds, options.seconds, cores())
    with REGRESSIONS.open("a") as file:
        file.writelines(f"{seed}\n" for seed in failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
