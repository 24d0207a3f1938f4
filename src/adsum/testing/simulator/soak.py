"""Soak: run seed after seed on every core for a given time, to find rare failures."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

#: Seconds between two lines of progress if the output is not a terminal.
PRINT_INTERVAL = 15.0

#: Runs one seed; returns a report of its failure, or None. It is called in other processes.
Attempt = Callable[[int], str | None]


@dataclass
class Progress:
    """The progress of a soak, shown as one line that is overwritten."""

    name: str
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    failed: list[int] = field(default_factory=list)
    _printed_at: float = 0.0

    def finish(self, seed: int, failure: str | None) -> None:
        """Count a finished seed, and print its failure if there is one."""
        self.done += 1
        if failure is not None:
            self.failed.append(seed)
            print(f"\n{failure}\n", flush=True)

    def show(self) -> None:
        """Print the progress; without a terminal at most once in `PRINT_INTERVAL`."""
        now = time.monotonic()
        if not sys.stdout.isatty() and now - self._printed_at < PRINT_INTERVAL:
            return
        self._printed_at = now
        seconds = now - self.began
        line = f"{self.name}: {self.done} seeds, {len(self.failed)} failed, {seconds:.0f} s"
        rate = f", {self.done / max(seconds, 0.001):.1f} a second"
        print(f"\r{line}{rate} ", end="" if sys.stdout.isatty() else "\n", flush=True)


def soak(name: str, attempt: Attempt, seeds: Iterator[int], seconds: float, jobs: int) -> list[int]:
    """Run seeds in parallel, for some seconds or until there are no more.

    Args:
        name: The name of the soak, for the display.
        attempt: A function of a module, since it is called in other processes.
        seeds: The seeds to run.
        seconds: Seconds after which no seed is begun; those under way are finished.
        jobs: The number of processes.

    Returns:
        The seeds that failed.
    """
    progress = Progress(name)
    try:
        with ProcessPoolExecutor(jobs) as pool:
            running: set[Future[tuple[int, str | None]]] = set()
            while True:
                in_time = time.monotonic() - progress.began < seconds
                for seed in itertools.islice(seeds, 2 * jobs - len(running)) if in_time else ():
                    running.add(pool.submit(_run, attempt, seed))
                if not running:
                    break
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    progress.finish(*future.result())
                progress.show()
    except KeyboardInterrupt:
        print("\nstopped")
    print(f"\n{name}: {progress.done} seeds, {len(progress.failed)} failed {progress.failed[:20]}")
    return progress.failed


def _run(attempt: Attempt, seed: int) -> tuple[int, str | None]:
    return seed, attempt(seed)


def range_of(first: int, count: int | None) -> Iterator[int]:
    """The seeds from `first` on: `count` of them, or without an end if it is None."""
    return itertools.count(first) if count is None else iter(range(first, first + count))


def cores() -> int:
    """The number of processes to run at once: one for each core."""
    return os.cpu_count() or 1
