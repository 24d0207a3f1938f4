"""Bytes on the wire, as the kernel counts what a TCP link received, headers left out."""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

import adsum
from benchmarks.figures import Figure
from benchmarks.host import knows
from benchmarks.measure import received_bytes
from benchmarks.plan import Plan
from benchmarks.waiting import until
from benchmarks.workload import presences

#: Presences that stay: whoever loses nearly all is sent what is left instead of what is gone.
_STAY = 20_000
_LONE = 20
_BURST = 10_000

_COMPARED = {
    "a join, alone": ("474 B", "250 B"),
    "a join, in a burst of 10,000": ("142 B", "60 B"),
    "a leave, in a burst of 10,000": ("44 B", ""),
}


def run(plan: Plan) -> list[Figure]:
    """Bytes per change, alone and in a burst."""
    samples: dict[str, list[float]] = {}
    for repetition in range(plan.repetitions):
        for what, value in asyncio.run(measure(repetition)).items():
            samples.setdefault(what, []).append(value)
    return [
        Figure(
            group="Wire",
            name=what,
            unit="bytes",
            samples=tuple(values),
            original=_COMPARED.get(what, ("", ""))[0],
            target=_COMPARED.get(what, ("", ""))[1],
        )
        for what, values in samples.items()
    ]


async def measure(repetition: int, secret: str | None = None) -> dict[str, float]:
    """Bytes per change, by the kind of change."""
    async with (
        _node("owner", [], secret) as first,
        _node("replica", list(first.addresses), secret) as second,
    ):
        return await _changes(first, second, repetition * 1_000_000)


def _node(name: str, peers: list[str], secret: str | None) -> adsum.Node:
    """A node without heartbeats that would fall into the measurement."""
    return adsum.Node(
        name=name,
        siblings=False,
        listen="127.0.0.1:0",
        peers=peers,
        secret=secret,
        heartbeat_interval=600.0,
        down_after=1800.0,
        forget_after=3600.0,
    )


async def _changes(first: adsum.Node, second: adsum.Node, start: int) -> dict[str, float]:
    presence = adsum.Presence(first)
    handles: list[adsum.Tracked] = []
    shuffle = Random(start).shuffle  # the same order in every run

    async def arrived(entries: int) -> None:
        await until(lambda: second.stats()["presences"] == entries and knows(second, 2, entries))
        await asyncio.sleep(0.05)

    async def cost(work: Callable[[], None], changes: int, entries: int) -> float:
        before = received_bytes(second) + received_bytes(first)
        work()
        await arrived(entries)
        return (received_bytes(second) + received_bytes(first) - before) / changes

    def track(count: int, number: int) -> None:
        for topic, key, meta in presences(count, first=number):
            handles.append(presence.track(topic, key, meta, owner=None))

    def untrack(count: int) -> None:
        shuffle(handles)  # people leave in another order than they came
        for _ in range(count):
            handles.pop().untrack()

    await arrived(0)
    lone = [await cost(partial(track, 1, start + n), 1, n + 1) for n in range(_LONE)]
    await cost(partial(track, _STAY, start + _LONE), _STAY, _LONE + _STAY)
    all_but_burst = _LONE + _STAY
    burst = partial(track, _BURST, start + all_but_burst)
    return {
        "a join, alone": sum(lone) / _LONE,
        f"a join, in a burst of {_BURST:,}": await cost(burst, _BURST, all_but_burst + _BURST),
        f"a leave, in a burst of {_BURST:,}": await cost(
            partial(untrack, _BURST), _BURST, all_but_burst
        ),
        "a leave, alone": await cost(partial(untrack, 1), 1, all_but_burst - 1),
    }
