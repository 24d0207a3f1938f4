"""Showing and hiding a slice of 100,000 presences: its steps, and the longest of them.

python -m benchmarks.visibility
"""

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

from adsum.replication.entry import Entry
from adsum.replication.state import Replica, Slice
from adsum.replication.view import View
from adsum.replication.visibility import Visibility
from adsum.values.jsontext import dump
from benchmarks.workload import key, meta

_PRESENCES = 100_000
_REPETITIONS = 5
_ROW = "{:>8} {:>8} {:>8} {:>6} {:>6} {:>14} {:>10}"


def main() -> None:
    print(_ROW.format("topics", "watched", "others", "", "steps", "longest step", "in all"))
    for topics in (1, 1_000, _PRESENCES):
        for watched in (False, True):
            for others in (0, _PRESENCES):
                measure(topics, watched, others)


def measure(topics: int, watched: bool, others: int) -> None:
    """Show and hide a slice beside another one with as many entries under the same keys."""
    steps: dict[str, list[int]] = {"show": [], "hide": []}
    longest: dict[str, list[float]] = {"show": [], "hide": []}
    total: dict[str, list[float]] = {"show": [], "hide": []}
    for _ in range(_REPETITIONS):
        view = View()
        for entry in slice_of(Replica("other", 1), others, topics).entries.values():
            view.change(None, entry)
        for number in range(topics if watched else 0):
            view.watch(f"room:{number}")
        slice, visibility = slice_of(Replica("node", 1), _PRESENCES, topics), Visibility(view)
        for what, visible in (("show", True), ("hide", False)):
            view.take_changes()
            visibility.step()
            gc.collect()
            gc.disable()  # its pauses are another matter; see `benchmarks.memory`
            took = [timed(partial(visibility.turn, slice, visible))]
            while visibility:
                took.append(timed(visibility.step))
                view.take_changes()
            gc.enable()
            steps[what].append(len(took))
            longest[what].append(max(took))
            total[what].append(sum(took))
    for what in steps:
        figures = [1000 * statistics.median(of[what]) for of in (longest, total)]
        cells = f"{topics:,}", "yes" if watched else "no", f"{others:,}", what, steps[what][0]
        print(_ROW.format(*cells, f"{figures[0]:.1f} ms", f"{figures[1]:.0f} ms"), flush=True)


def slice_of(replica: Replica, count: int, topics: int) -> Slice:
    slice = Slice(replica)
    for number in range(1, count + 1):
        text = dump(meta(number))
        entry: Entry = (
            number,
            number,
            f"room:{number % topics}",
            key(number),
            text,
            None,
            *replica,
        )
        slice.add(entry)
    return slice


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
