"""Test simulated clusters under random faults, in virtual time.

python -m adsum.testing --seconds 60     trials for a minute, on every core
python -m adsum.testing --seeds 1000     a thousand trials
python -m adsum.testing --on bus         trials on a message engine instead of the network
python -m adsum.testing --replay 4711    one trial; if it fails, its shortest failing schedule
python -m adsum.testing --replay 4711 --trace    every message of a trial
python -m adsum.testing --replay-file kept.json  a trial that --keep saved
"""

import argparse
import contextlib
import os
import sys
from functools import partial
from pathlib import Path

from .simulator.soak import cores, range_of, soak
from .simulator.trial import KINDS, LENGTH, Trial


def attempt(seed: int, *, keep: Path | None = None, medium: str = "network") -> str | None:
    """Run one trial; returns a report of its failure, or None."""
    trial = Trial.from_seed(seed, medium=medium)
    if trial.passes():
        return None
    shortest = trial.shrunk()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        keep.joinpath(f"{medium}-{seed}.json").write_text(shortest.to_json() + "\n")
    return trial.report(shortest)


def replay(trial: Trial, *, trace: bool) -> int:
    """Run one trial here; returns the exit code."""
    if trace:
        with contextlib.suppress(Exception):  # the report below has it
            trial.run(print)
    if trial.passes():
        print(f"seed {trial.seed} keeps every law")
        return 0
    print(trial.report())
    return 1


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m adsum.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seeds", type=int, help="stop after so many")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes")
    parser.add_argument("--keep", type=Path, help="a folder for the trials that fail")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run this seed alone, here")
    parser.add_argument("--replay-file", type=Path, help="run a trial that was kept")
    parser.add_argument("--on", choices=KINDS, default="network", help="how nodes are connected")
    parser.add_argument("--steps", type=int, default=LENGTH, help="of a trial to replay")
    parser.add_argument("--trace", action="store_true", help="show every event of it")
    options = parser.parse_args()
    if options.replay_file is not None:
        try:
            trial = Trial.from_json(options.replay_file.read_text())
        except (OSError, ValueError, LookupError, TypeError) as error:
            name = str(options.replay_file)
            parser.error(f"--replay-file {name!r}: must be a file that --keep wrote: {error!r}")
        return replay(trial, trace=options.trace)
    if options.replay is not None:
        return replay(
            Trial.from_seed(options.replay, options.steps, options.on), trace=options.trace
        )
    seeds = range_of(options.first, options.seeds)
    run = partial(attempt, keep=options.keep, medium=options.on)
    return (
        1 if soak(f"trials on the {options.on}", run, seeds, options.seconds, options.jobs) else 0
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of the trace has closed the pipe
        os._exit(0)
