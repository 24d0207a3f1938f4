"""One node by itself: changing and reading."""

import asyncio
import gc
import time
from functools import partial

import adsum
from benchmarks.figures import Figure, percentile
from benchmarks.measure import seconds
from benchmarks.plan import Plan
from benchmarks.processes import workers
from benchmarks.workload import key, meta, presences

_ORIGINAL_TRACK = {1_000: "75,000", 10_000: "75,000", 100_000: "25,000 to 34,000"}
_TARGET_TRACK = {10_000: "300,000", 100_000: "200,000 to 270,000"}
_ORIGINAL_UPDATE = {100_000: "16,000 to 34,000"}
_ORIGINAL_UNTRACK = {100_000: "22,000, dips to 2,000"}
_ORIGINAL_LIST = {
    10: "7 us",
    1_000: "0.2 to 0.9 ms",
    10_000: "2.3 to 10 ms",
    100_000: "61 to 139 ms",
}
_TARGET_LIST = {10_000: "0.23 to 1 ms"}
_COMPARED = ("list, unchanged", "list, after one update", "list, after one join")
#: Changes timed in one repetition.
_CHANGES = 5_000
_CALLERS = 100


class Holder:
    """A node that holds presences while more come and go, in a process of its own."""

    async def hold(self, count: int) -> None:
        """Start the node and track so many."""
        node = adsum.Node(siblings=False)
        self._presence = adsum.Presence(node)
        await node.start()
        for topic, user, value in presences(count):
            self._presence.track(topic, user, value, owner=None)
        gc.collect()

    async def rates(self, count: int) -> list[tuple[str, float]]:
        """Track, update and untrack so many; returns how many of each per second."""
        coming = list(presences(count, first=10_000_000))
        began = time.perf_counter()
        tracked = [
            self._presence.track(topic, user, value, owner=None) for topic, user, value in coming
        ]
        track = time.perf_counter() - began
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        for handle, (_, _, value) in zip(tracked, coming, strict=True):
            handle.update(value)
        update = time.perf_counter() - began
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        for handle in tracked:
            handle.untrack()
        untrack = time.perf_counter() - began
        return [("track", count / track), ("update", count / update), ("untrack", count / untrack)]


def changes(plan: Plan) -> list[Figure]:
    """Track, update and untrack per second, beside what is held already."""
    samples: dict[tuple[str, int], list[float]] = {}
    with workers(Holder, len(plan.held)) as holders:
        for size, holder in zip(plan.held, holders, strict=True):
            holder.call("hold", size)
        for _ in range(plan.repetitions):
            for size, holder in zip(plan.held, holders, strict=True):
                for what, rate in holder.call("rates", min(size, _CHANGES)):
                    samples.setdefault((what, size), []).append(rate)
    return [
        Figure(
            group="Changing",
            name=f"{what}, {size:,} held",
            unit="per second",
            samples=tuple(samples[what, size]),
            original=original.get(size, ""),
            target=target.get(size, ""),
        )
        for what, original, target in (
            ("track", _ORIGINAL_TRACK, _TARGET_TRACK),
            ("update", _ORIGINAL_UPDATE, {}),
            ("untrack", _ORIGINAL_UNTRACK, {}),
        )
        for size in plan.held
    ]


def reads(plan: Plan) -> list[Figure]:
    """List, get and count, at the sizes of a topic."""
    samples: dict[tuple[str, int], list[float]] = {}
    for _ in range(plan.repetitions):
        asyncio.run(_read(plan, samples))
        gc.collect()
    figures = []
    for what in (
        "list, first",
        "list, unchanged",
        "list, after one update",
        "list, after one join",
        "list, first page of 100",
        "list, next page of 100",
    ):
        for size in plan.listed:
            compared = what in _COMPARED
            figures.append(
                Figure(
                    group="Reading",
                    name=f"{what}, topic of {size:,}",
                    unit="ms",
                    samples=tuple(samples[what, size]),
                    original="" if "page" in what else _ORIGINAL_LIST.get(size, ""),
                    target=_TARGET_LIST.get(size, "") if compared else "",
                )
            )
    for what in ("get", "count"):
        for size in plan.listed:
            values = tuple(samples[what, size])
            name = f"{what}, topic of {size:,}"
            figures.append(Figure(group="Reading", name=name, unit="us", samples=values))
    size = min(10_000, max(plan.listed))
    for what, original in (("p50", "240 to 290 ms"), ("p99", "0.7 to 0.9 s")):
        figures.append(
            Figure(
                group="Reading",
                name=f"list, {_CALLERS} callers at once, topic of {size:,}: {what}",
                unit="ms",
                samples=tuple(samples[what, size]),
                original=original,
                target="readers never queue",
            )
        )
    return figures


async def _read(plan: Plan, samples: dict[tuple[str, int], list[float]]) -> None:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)

    def note(what: str, size: int, value: float) -> None:
        samples.setdefault((what, size), []).append(value)

    async with node:
        for size in plan.listed:
            topic = f"room:of:{size}"
            for number in range(size):
                presence.track(topic, key(number), meta(number), owner="users")
            gc.collect()
            times = max(1, 10_000 // size)
            page = partial(presence.list, topic, limit=100)
            note("list, first page of 100", size, 1e3 * seconds(page))
            page = partial(page, after=key(5))
            note("list, next page of 100", size, 1e3 * seconds(page, 10))
            read = partial(presence.list, topic)
            note("list, first", size, 1e3 * seconds(read))
            note("list, unchanged", size, 1e3 * seconds(read, times))
            presence.update(topic, key(5), meta(6), owner="users")
            note("list, after one update", size, 1e3 * seconds(read))
            presence.track(topic, "user:5a", meta(5), owner="users")
            note("list, after one join", size, 1e3 * seconds(read))
            note("get", size, 1e6 * seconds(partial(presence.get, topic, key(5)), 1_000))
            note("count", size, 1e6 * seconds(partial(presence.count, topic), 1_000))
        size = min(10_000, max(plan.listed))
        waits = await _list_together(presence, f"room:of:{size}")
        note("p50", size, 1e3 * percentile(waits, 50))
        note("p99", size, 1e3 * percentile(waits, 99))


async def _list_together(presence: adsum.Presence, topic: str) -> list[float]:
    """How long each of many tasks waits for its list when all ask at one moment."""
    presence.update(topic, key(5), meta(7), owner="users")
    began = time.perf_counter()

    async def ask() -> float:
        presence.list(topic)
        return time.perf_counter() - began

    return await asyncio.gather(*[ask() for _ in range(_CALLERS)])
