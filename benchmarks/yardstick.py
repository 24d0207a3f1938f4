"""adsum beside a presence on Redis: the same work, by turns, in the same process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import adsum
from benchmarks.figures import Figure, percentile
from benchmarks.host import WATCHED, Host
from benchmarks.measure import seconds
from benchmarks.plan import Plan
from benchmarks.processes import workers
from benchmarks.redis_presence import RedisPresence, redis_server
from benchmarks.workload import key, meta, presences

_GROUP = "Beside a presence on Redis"
_TASKS = 100
_INTERVAL = 0.02
_KINDS = ("join", "update", "leave", "list", "a change")
Samples = dict[tuple[str, str], list[float]]


class RedisWatcher:
    """A process that follows one room by pub/sub."""

    def __init__(self) -> None:
        self._delays: list[float] = []
        self._ready = asyncio.Event()

    async def observe(self, port: int) -> None:
        """Begin to follow; returns once the subscription is there."""
        self._task = asyncio.create_task(self._observe(port))
        await asyncio.wait_for(self._ready.wait(), 10)

    async def _observe(self, port: int) -> None:
        async for change in RedisPresence(port).watch(WATCHED):
            now = time.monotonic_ns()
            self._ready.set()
            self._delays += [(now - m["at"]) / 1e9 for m in change.get("joins", {}).values()]

    def take_delays(self) -> list[float]:
        """Seconds from each join to its message here, since the last call."""
        delays, self._delays = self._delays, []
        return delays


def run(plan: Plan) -> list[Figure]:
    """Changes per second, lists, and how soon a change is seen in another process."""
    samples: Samples = {}
    with (
        redis_server() as port,
        workers(Host, 2) as (tracker, watcher),
        workers(RedisWatcher, 1) as (redis_watcher,),
    ):
        address = tracker.call("start", "tracker", listen="127.0.0.1:0")
        watcher.call("start", "watcher", listen="127.0.0.1:0", peers=address)
        watcher.call("settle", 2, 0)
        watcher.call("observe")
        redis_watcher.call("observe", port)
        asyncio.run(_compare(plan, port, samples))
        for _ in range(plan.repetitions):
            tracker.call("send_changes", plan.changes, _INTERVAL, 0)
            _note_delays(samples, "adsum", watcher.call("take_delays"))
            asyncio.run(_send_changes(port, plan.changes))
            _note_delays(samples, "Redis", redis_watcher.call("take_delays"))
    return [
        Figure(group=_GROUP, name=f"{what}: {who}", unit=_unit(what), samples=tuple(values))
        for (what, who), values in sorted(samples.items(), key=lambda item: _rank(item[0][0]))
    ]


def _unit(what: str) -> str:
    return "per second" if what in ("join", "update", "leave") else "ms"


def _rank(what: str) -> int:
    """Where a row belongs: its kind first; rows of a kind stay in the order of measuring."""
    return next(rank for rank, kind in enumerate(_KINDS) if what.startswith(kind))


def _note_delays(samples: Samples, who: str, delays: list[float]) -> None:
    for percent in (50, 99):
        what = f"a change seen in another process, p{percent}"
        samples.setdefault((what, who), []).append(1e3 * percentile(delays, percent))


async def _compare(plan: Plan, port: int, samples: Samples) -> None:
    node = adsum.Node(siblings=False)
    presence, redis = adsum.Presence(node), RedisPresence(port)
    async with node:
        for size in plan.listed:
            users = [(key(number), meta(number)) for number in range(size)]
            for user, value in users:
                presence.track(f"room:of:{size}", user, value, owner="users")
            presence.list(f"room:of:{size}")  # the first list of a topic is measured elsewhere
            for start in range(0, size, 1_000):
                await redis.fill(f"room:of:{size}", dict(users[start : start + 1_000]))
        try:
            for _ in range(plan.repetitions):
                await _compare_changes(presence, redis, 20 * plan.changes, samples)
                for size in plan.listed:
                    await _compare_lists(presence, redis, size, samples)
        finally:
            await redis.close()


async def _compare_changes(
    presence: adsum.Presence, redis: RedisPresence, count: int, samples: Samples
) -> None:
    coming = list(presences(count, topics=100))

    def note(what: str, who: str, work: float) -> None:
        samples.setdefault((what, who), []).append(count / work)

    began = time.perf_counter()
    for topic, user, value in coming:
        presence.track(topic, user, value, owner="guests")
    note("join", "adsum", time.perf_counter() - began)
    began = time.perf_counter()
    for topic, user, value in coming:
        presence.update(topic, user, value, owner="guests")
    note("update", "adsum", time.perf_counter() - began)
    began = time.perf_counter()
    for topic, user, _ in coming:
        presence.untrack(topic, user, owner="guests")
    note("leave", "adsum", time.perf_counter() - began)

    steps: list[tuple[str, Callable[[str, str, dict[str, Any]], Awaitable[None]]]] = [
        ("join", redis.join),
        ("update", redis.join),
        ("leave", lambda topic, user, _: redis.leave(topic, user)),
    ]
    for what, step in steps:
        began = time.perf_counter()
        for change in coming[: count // 2]:
            await step(*change)
        note(what, "Redis, one by one", 2 * (time.perf_counter() - began))
    for what, step in steps:
        began = time.perf_counter()
        await asyncio.gather(*[_in_turn(step, coming[n::_TASKS]) for n in range(_TASKS)])
        note(what, f"Redis, {_TASKS} tasks at once", time.perf_counter() - began)


async def _in_turn(
    step: Callable[[str, str, dict[str, Any]], Awaitable[None]],
    changes: list[tuple[str, str, dict[str, Any]]],
) -> None:
    for change in changes:
        await step(*change)


async def _compare_lists(
    presence: adsum.Presence, redis: RedisPresence, size: int, samples: Samples
) -> None:
    topic, user = f"room:of:{size}", key(5)
    presence.update(topic, user, meta(6), owner="users")
    what = f"list of {size:,}, after a change"
    samples.setdefault((what, "adsum"), []).append(1e3 * seconds(lambda: presence.list(topic)))
    await redis.join(topic, user, meta(6))
    began = time.perf_counter()
    await redis.list(topic)
    samples.setdefault((what, "Redis"), []).append(1e3 * (time.perf_counter() - began))


async def _send_changes(port: int, count: int) -> None:
    redis = RedisPresence(port)
    for number in range(count):
        await asyncio.sleep(_INTERVAL)
        await redis.join(WATCHED, f"user:{number}", {"at": time.monotonic_ns()})
    await asyncio.sleep(0.1)
    await redis.close()
