"""One key with many presences: what a change costs the next `list`, as medians.

python -m benchmarks.groups
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator

import adsum
from benchmarks.workload import meta

_SIZES = (100, 2_000, 20_000, 100_000)
_REPETITIONS = 21
_ROW = "{:>10} {:>12} {:>14} {:>14} {:>14} {:>14}"


async def main() -> None:
    print(
        _ROW.format(
            "metas", "first list", "after a join", "after an update", "after a leave", "get"
        )
    )
    for size in _SIZES:
        async with adsum.Node(siblings=False) as node:
            print(_ROW.format(f"{size:,}", *measure(adsum.Presence(node), size)), flush=True)


def measure(presence: adsum.Presence, size: int) -> Iterator[str]:
    """The columns of one row."""
    held = [presence.track("room", "key", meta(n), owner=n) for n in range(size)]
    joined: list[adsum.Tracked] = []
    numbers = iter(range(size, 2 * size + _REPETITIONS))

    def join() -> None:
        n = next(numbers)
        joined.append(presence.track("room", "key", meta(n), owner=n))

    yield timed(lambda: presence.list("room"))
    yield median(join, lambda: presence.list("room"))
    yield median(lambda: held[size // 2].update(meta(1)), lambda: presence.list("room"))
    yield median(lambda: joined.pop().untrack(), lambda: presence.list("room"))
    yield median(lambda: held[size // 3].update(meta(2)), lambda: presence.get("room", "key"))


def median(change: Callable[[], object], read: Callable[[], object]) -> str:
    """Read after each of some changes."""
    took = list[float]()
    for _ in range(_REPETITIONS):
        change()
        began = time.perf_counter()
        read()
        took.append(time.perf_counter() - began)
    return f"{statistics.median(took) * 1000:.3f} ms"


def timed(read: Callable[[], object]) -> str:
    began = time.perf_counter()
    read()
    return f"{(time.perf_counter() - began) * 1000:.1f} ms"


if __name__ == "__main__":
    asyncio.run(main())
