"""phoenix.js loses its connection, and comes back before its linger ends: nobody sees it leave."""

from functools import partial

import pytest

from tests.support.waiting import until

from .scenario import ROOM, joined_times, run
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes

#: Seconds, longer than any test waits.
LONG = 600.0


async def watched_guest(site: SiteCluster, node: str, linger: float) -> None:
    """Eve follows the room on each node; Bob is in it, over the balancer, on one."""
    for name in site.alive:
        await site.connect(f"eve-{name}", "eve", name)
        await site.join(f"eve-{name}", ROOM)
    for name in site.alive:
        if name != node:
            site.balancer.ports.pop(name)
    await site.connect("bob", "bob")
    await site.join("bob", ROOM, {"of": "bob"}, linger)
    await site.agree(ROOM, {"bob": [{"of": "bob"}]})


def departures(site: SiteCluster) -> list[str]:
    """The keys that a client was told have left altogether."""
    return [key for ledger in site.seen.values() for key in ledger.gone]


def test_reconnect_to_the_same_node_shows_no_leave_and_no_join() -> None:
    async def scenario(site: SiteCluster) -> None:
        await watched_guest(site, "n1", LONG)
        for times in (2, 3):
            assert site.balancer.drop("bob") == 1
            await until(partial(joined_times, site, "bob", times), "bob is back")
        await site.agree(ROOM, {"bob": [{"of": "bob"}]})
        assert departures(site) == []
        assert [len(site.seen[f"eve-{name}", ROOM].joins) for name in site.alive] == [1, 1]

    run(scenario)


def test_reconnect_to_another_node_never_shows_the_key_gone() -> None:
    async def scenario(site: SiteCluster) -> None:
        await watched_guest(site, "n1", 10.0)
        site.balancer.ports = {"n2": site.servers["n2"].port}
        site.balancer.drop("bob")
        await until(partial(joined_times, site, "bob", 2), "bob is back")
        assert site.balancer.node_of("bob") == "n2"
        await site.agree(ROOM, {"bob": [{"of": "bob"}]})  # the old meta has left by now
        assert departures(site) == []
        assert [len(site.seen[f"eve-{name}", ROOM].joins) for name in site.alive] == [2, 2]

    run(scenario)


def test_leave_of_the_channel_is_immediate() -> None:
    async def scenario(site: SiteCluster) -> None:
        await watched_guest(site, "n1", LONG)
        await site.clients.ask("leave", client="bob", topic=ROOM)
        await site.clients.ask("forget", client="bob")
        await site.agree(ROOM, {})
        assert departures(site) == ["bob", "bob"]

    run(scenario)


def test_kill_of_the_node_ends_its_lingering_presences() -> None:
    async def scenario(site: SiteCluster) -> None:
        await watched_guest(site, "n1", LONG)
        await site.clients.ask("forget", client="bob")
        await until(partial(is_alone, site), "bob is disconnected")
        await site.agree(ROOM, {"bob": [{"of": "bob"}]})
        await site.clients.ask("forget", client="eve-n1")
        await site.kill("n1")
        await site.agree(ROOM, {})

    run(scenario)


async def is_alone(site: SiteCluster) -> bool:
    stats = await site.servers["n1"].get("stats")
    return bool(stats["connections"] == 1)
