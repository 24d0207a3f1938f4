"""Services: resolves per second by strategy and size, and the time to drop a dead instance.

python -m benchmarks services

A busy resolver has two requests in use at each instance, so ``least_used`` compares all of them.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterable
from functools import partial

import adsum
from benchmarks.figures import Figure
from benchmarks.measure import seconds
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers
from benchmarks.waiting import until

#: Resolves of one sample.
_RESOLVES = 20_000
_GROUP = "Services"
_NAME = "bench"
#: (strategy, whether the instances are busy)
_WAYS = (("least_used", False), ("least_used", True), ("round_robin", False), ("weight", False))
#: Picks that together reach each of three instances.
_ROUND = 6


class Server:
    """A node that registers one address, in a process of its own."""

    async def start(self, name: str, cluster: str) -> None:
        """Start the node and register."""
        self._node = adsum.Node(name=name, cluster=cluster)
        services = adsum.Services(self._node)
        await self._node.start()
        services.register(_NAME, name)


def run(plan: Plan) -> list[Figure]:
    """Both measures."""
    return [*asyncio.run(_rates(plan)), *asyncio.run(_deaths(plan))]


async def _rates(plan: Plan) -> list[Figure]:
    node = adsum.Node(siblings=False)
    services = adsum.Services(node)
    async with node:
        for size in plan.instances:
            for number in range(size):
                weight = 1 + number % 3
                services.register(f"of-{size}", f"10.0.0.{number}:80", weight=weight)
        return [
            _rate(services, size, strategy, plan.repetitions, busy=busy)
            for strategy, busy in _WAYS
            for size in plan.instances
        ]


def _rate(
    services: adsum.Services, size: int, strategy: str, repetitions: int, *, busy: bool
) -> Figure:
    name = f"of-{size}"
    held = [services.use(name) for _ in range(2 * size)] if busy else []
    resolve = partial(services.resolve, name, pick=strategy)
    samples = tuple(1 / seconds(resolve, _RESOLVES) for _ in range(repetitions))
    for use in held:
        use.release()
    title = f"resolve by {strategy}{', all busy' if busy else ''}, {size} instances"
    return Figure(group=_GROUP, name=title, unit="per second", samples=samples, target="10,000")


async def _deaths(plan: Plan) -> list[Figure]:
    """From kill -9 of one of three servers until it is not resolved, and until it is not listed."""
    cluster = f"bench-services-{os.getpid()}"
    node = adsum.Node(cluster=cluster)
    services = adsum.Services(node)
    skipped, unlisted = list[float](), list[float]()
    async with node:
        with workers(Server, 2) as lasting:
            await asyncio.to_thread(_start, lasting, cluster, "lasting")
            for number in range(plan.repetitions):
                with workers(Server, 1) as (victim,):
                    await asyncio.to_thread(_start, [victim], cluster, f"victim-{number}")
                    await services.wait_for(_NAME, 3, timeout=30)
                    await asyncio.sleep(0.3)
                    died = time.perf_counter()
                    victim.signal(signal.SIGKILL)
                    await until(partial(_is_skipped, services, f"victim-{number}-0"), pause=0.0005)
                    skipped.append(1e3 * (time.perf_counter() - died))
                    await until(lambda: len(services.instances(_NAME)) == 2, pause=0.0005)
                    unlisted.append(1e3 * (time.perf_counter() - died))
    return [
        Figure(group=_GROUP, name=f"kill -9 until it is not {what}", unit="ms", samples=(*taken,))
        for what, taken in (("resolved", skipped), ("listed", unlisted))
    ]


def _start(servers: Iterable[Worker], cluster: str, name: str) -> None:
    for number, server in enumerate(servers):
        server.call("start", f"{name}-{number}", cluster)


def _is_skipped(services: adsum.Services, address: str) -> bool:
    """Whether a round of resolves misses an instance."""
    picked = [services.resolve(_NAME, pick="round_robin") for _ in range(_ROUND)]
    return all(instance.address != address for instance in picked)
