"""A phoenix.js that reads too slowly is told less often, and in the end of everything, once."""

import asyncio
from collections.abc import Iterable
from functools import partial
from random import Random
from typing import Any

import pytest

from tests.support.waiting import until

from .scenario import ROOM, joined_times, room_of, run
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes

#: Bytes in an update, at random, so that servers cannot compress them: what Ann is not sent in
#: these tests is far more than what may wait in buffers on the way to her.
PADDING = 2000
CROWD = [f"user{number}" for number in range(12)]


async def crowded(site: SiteCluster) -> dict[str, list[Any]]:
    """A room with a crowd, at which Ann looks on."""
    await site.connect("ann", "ann")
    await site.join("ann", ROOM)
    for name in CROWD:
        await site.connect(name, name)
        await site.join(name, ROOM, {"n": 0})
    expected = {name: [{"n": 0}] for name in CROWD}
    await site.agree(ROOM, expected)
    return expected


async def update_all(site: SiteCluster, rounds: Iterable[int]) -> dict[str, list[Any]]:
    """Let everybody update so often; returns who is there then."""
    rng, metas = Random(1), dict[str, Any]()
    for number in rounds:
        for name in CROWD:
            metas[name] = {"n": number, "padding": rng.randbytes(PADDING // 2).hex()}
        update = partial(site.clients.ask, "update", topic=ROOM)
        await asyncio.gather(*(update(client=name, meta=metas[name]) for name in CROWD))
    return {name: [meta] for name, meta in metas.items()}


@pytest.mark.parametrize("server", ["uvicorn", "direct"])
def test_slow_consumer_gets_missed_changes_as_one_diff(server: str) -> None:
    async def scenario(site: SiteCluster) -> None:
        await crowded(site)
        await room_of(site, "ann")  # takes the log
        site.balancer.hold("ann")
        expected = await update_all(site, range(1, 60))
        site.balancer.release("ann")
        await site.agree(ROOM, expected)
        ann = await room_of(site, "ann")
        assert (ann["states"], ann["joins"]) == (1, 1)
        refs = len(site.seen["ann", ROOM].joins)
        assert refs < 40 * len(CROWD), "nothing was merged"

    run(scenario, updates=100_000, buffer=4096, server=server)


def test_slow_consumer_beyond_history_gets_a_state_as_difference() -> None:
    async def scenario(site: SiteCluster) -> None:
        await crowded(site)
        site.balancer.hold("ann")
        expected = await update_all(site, range(1, 150))
        site.balancer.release("ann")
        await site.agree(ROOM, expected)
        ann = await room_of(site, "ann")
        assert (ann["states"], ann["joins"]) == (2, 1)

    run(scenario, updates=100_000, buffer=4096)


def test_slow_consumer_beyond_history_rejoins_if_configured() -> None:
    async def scenario(site: SiteCluster) -> None:
        await crowded(site)
        site.balancer.hold("ann")
        expected = await update_all(site, range(1, 150))
        site.balancer.release("ann")
        await until(partial(joined_times, site, "ann", 2), "ann is back")
        await site.agree(ROOM, expected)

    run(scenario, updates=100_000, buffer=4096, when_slow="close", complaint="does not read")
