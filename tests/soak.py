"""Random faults without end: `make soak` runs seed after seed on every core until it is stopped.

A seed that fails is printed with how to replay it, and kept in `replication/regressions.txt`, which
the normal tests run ever after.

    python -m tests.soak --seconds 600     as long as that
    python -m tests.soak --seeds 1000      as many as that
    python -m tests.soak --replay 4711     one seed, with its traceback
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from tests.replication.chaos import Chaos

REGRESSIONS = Path(__file__).parent / "replication" / "regressions.txt"
#: The normal tests have the seeds below.
FIRST_SEED = 1000
STEPS = 100


def run(seed: int) -> None:
    """One run of bad luck; raises AssertionError if a law is broken."""
    chaos = Chaos(seed)
    chaos.run(STEPS)
    chaos.settle()


def attempt(seed: int) -> tuple[int, str | None]:
    """Run a seed, and tell what went wrong, if anything did."""
    try:
        run(seed)
    except Exception as error:
        return seed, f"{type(error).__name__}: {error}"
    return seed, None


def soak(seeds: Iterator[int], seconds: float, jobs: int) -> list[int]:
    """Run seeds in parallel, for so long or until there are no more; returns those that failed."""
    failed, done, began = list[int](), 0, time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[tuple[int, str | None]]] = set()
        while True:
            in_time = time.monotonic() - began < seconds
            for seed in itertools.islice(seeds, 2 * jobs - len(running)) if in_time else ():
                running.add(pool.submit(attempt, seed))
            if not running:
                return failed
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                seed, error = future.result()
                done += 1
                if error is not None:
                    failed.append(seed)
                    print(f"\nseed {seed} fails: {error[:500]}")
                    print(f"  python -m tests.soak --replay {seed}")
            tell(done, len(failed), time.monotonic() - began)


def tell(done: int, failed: int, seconds: float) -> None:
    """Show how it goes, on one line where somebody is looking."""
    if sys.stdout.isatty():
        rate = done / max(seconds, 0.001)
        print(f"\r{done} seeds, {failed} failed, {rate:.1f} a second ", end="", flush=True)


def keep(failed: list[int]) -> None:
    """Make the failed seeds part of the normal tests."""
    with REGRESSIONS.open("a") as file:
        file.writelines(f"{seed}\n" for seed in failed)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seeds", type=int, help="stop after so many")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the seed to begin with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--replay", type=int, help="run this seed alone, here")
    options = parser.parse_args()
    if options.replay is not None:
        run(options.replay)
        print(f"seed {options.replay} passes")
        return 0
    last = None if options.seeds is None else options.first + options.seeds
    seeds = itertools.count(options.first) if last is None else iter(range(options.first, last))
    try:
        failed = soak(seeds, options.seconds, options.jobs)
    except KeyboardInterrupt:
        print("\nstopped")
        return 0
    keep(failed)
    print(f"\n{len(failed)} seeds failed" if failed else "\nno seed failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
