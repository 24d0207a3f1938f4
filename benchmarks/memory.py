"""What a presence costs in memory, and what all of them cost the garbage collector."""

import asyncio
import gc
import time

import adsum
from benchmarks.figures import Figure
from benchmarks.host import Host
from benchmarks.measure import CollectorProbe
from benchmarks.plan import Plan
from benchmarks.processes import workers
from benchmarks.workload import TOPICS, presences

_ORIGINAL = {"owner": "2,000 B resident", "replica": "2,500 B resident"}
#: Presences that come while the collector's pauses are timed, relative to those held: enough for
#: the full collection that CPython makes when its oldest generation has grown by a quarter.
_CHURN = 0.4


def resident(plan: Plan) -> list[Figure]:
    """Resident bytes per presence, on the node that tracks and on one that replicates."""
    samples: dict[tuple[str, int], list[float]] = {}
    for _ in range(plan.weighings):
        for topics in (1, TOPICS):
            for where, weight in zip(("owner", "replica"), _weigh(plan.large, topics), strict=True):
                samples.setdefault((where, topics), []).append(weight)
    return [
        Figure(
            group="Memory",
            name=f"a presence on its {where}, {topics:,} topic{'s' * (topics > 1)}",
            unit="bytes",
            samples=tuple(values),
            original=_ORIGINAL[where],
            target="about 700",
        )
        for (where, topics), values in samples.items()
    ]


def _weigh(count: int, topics: int) -> list[float]:
    with workers(Host, 2) as (owner, replica):
        address = owner.call("start", "owner", listen="127.0.0.1:0")
        replica.call("start", "replica", listen="127.0.0.1:0", peers=address)
        owner.call("fill", 1)
        replica.call("settle", 2, 1)
        before = [worker.call("resident") for worker in (owner, replica)]
        owner.call("fill", count, topics, first=1)
        replica.call("settle", 2, count + 1)
        after = [worker.call("resident") for worker in (owner, replica)]
    return [(now - then) / count for now, then in zip(after, before, strict=True)]


class Burdened:
    """A node with very many presences, in a process of its own."""

    async def churn(self, held: int) -> tuple[float, float]:
        """The longest automatic pause while tracking goes on, and that of a full collection."""
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            for topic, key, meta in presences(held):
                presence.track(topic, key, meta, owner=None)
            with CollectorProbe() as automatic:
                for topic, key, meta in presences(int(_CHURN * held), first=held):
                    presence.track(topic, key, meta, owner="guests")
                presence.untrack_all("guests")
                await asyncio.sleep(0)
            began = time.perf_counter()
            gc.collect()
            return max(automatic.pauses, default=0.0), time.perf_counter() - began


def collector(plan: Plan) -> list[Figure]:
    """How long the garbage collector stops a process that holds very many presences."""
    pauses = []
    for _ in range(plan.weighings):
        with workers(Burdened, 1) as (burdened,):
            pauses.append(burdened.call("churn", plan.collected))
    held = f"{plan.collected:,} presences held"
    names = (f"longest pause, {held}, while tracking", f"gc.collect(), {held}")
    return [
        Figure(
            group="Garbage collector",
            name=name,
            unit="ms",
            samples=tuple([1e3 * value for value in values]),
        )
        for name, values in zip(names, zip(*pauses, strict=True), strict=True)
    ]
