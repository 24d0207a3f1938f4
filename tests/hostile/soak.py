"""Hostile members without end, on every core.

python -m tests.hostile.soak --seconds 60        attacks for a minute
python -m tests.hostile.soak --replay 4711       the attack of one seed
python -m tests.hostile.soak --replay-file FILE  an attack that was kept

An attack that breaks a law is shortened and kept in tests/hostile/regressions, which the tests run.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from adsum.testing.simulator.soak import cores, range_of, soak

from .fuzz import attack
from .recorded_attack import RecordedAttack

REGRESSIONS = Path(__file__).with_name("regressions")


def attempt(seed: int, *, keep: Path) -> str | None:
    """Run the attack of a seed, and keep it if it fails; returns the report, or None."""
    case = attack(seed)
    if case is None:
        return None
    case = case.shortened()
    keep.mkdir(parents=True, exist_ok=True)
    file = keep / f"{seed}.json"
    file.write_text(case.to_json() + "\n")
    return f"{case.report()}\nreplay: python -m tests.hostile.soak --replay-file {file}"


def replay(case: RecordedAttack | None) -> int:
    """Print the report of a case that fails; returns the exit code."""
    if case is None or case.failure() is None:
        print("every law holds")
        return 0
    print(case.shortened().report())
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seeds", type=int, help="stop after so many")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run this seed alone, here")
    parser.add_argument("--replay-file", type=Path, help="run an attack that was kept")
    options = parser.parse_args()
    if options.replay_file is not None:
        return replay(RecordedAttack.from_json(options.replay_file.read_text()))
    if options.replay is not None:
        return replay(attack(options.replay))
    seeds = range_of(options.first, options.seeds)
    attempt_and_keep = partial(attempt, keep=REGRESSIONS)
    failed = soak("hostile peers", attempt_and_keep, seeds, options.seconds, cores())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
