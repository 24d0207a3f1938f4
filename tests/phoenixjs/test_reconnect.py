"""phoenix.js reconnects and rejoins by itself; nobody is shown twice or is missing afterwards."""

import asyncio
import itertools
from functools import partial

import pytest

from tests.support.waiting import until

from .scenario import ROOM, is_refused, joined_times, joins_of, received, room_of, run
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes

FOUR = {name: [{"of": name}] for name in ("ann", "bob", "cat", "dan")}


async def four_people(site: SiteCluster) -> None:
    """Ann and Bob, Cat and Dan, wherever the balancer put them, in one room."""
    for name in FOUR:
        await site.connect(name, name)
        await site.join(name, ROOM, {"of": name})
    await site.agree(ROOM, FOUR)


def test_reconnect_after_a_node_crash_shows_no_missing_or_duplicate() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        before = {name: site.balancer.node_of(name) for name in FOUR}
        assert set(before.values()) == {"n1", "n2"}
        await site.kill("n1")
        await site.agree(ROOM, FOUR)
        assert {site.balancer.node_of(name) for name in FOUR} == {"n2"}
        for name, node in before.items():
            assert await joins_of(site, name) == (2 if node == "n1" else 1)
        for ledger in site.seen.values():
            assert ledger.came_back() == []

    run(scenario)


def test_server_restart_is_a_reconnect_for_its_clients() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        moved = [name for name in FOUR if site.balancer.node_of(name) == "n2"]
        await site.terminate("n2")
        await site.agree(ROOM, FOUR)
        looks = await site.look()
        assert [looks[name]["closes"] for name in moved] == [[1012]] * len(moved)
        await site.start("n2")
        site.balancer.drop(moved[0])
        await site.agree(ROOM, FOUR)

    run(scenario)


def test_reconnect_of_all_clients_after_every_server_restarts() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        for name in site.alive:
            await site.terminate(name)
        for name in site.servers:
            await site.start(name)
        await site.agree(ROOM, FOUR)

    run(scenario)


def test_reconnect_during_linger_shows_no_leave_and_no_join() -> None:
    async def scenario(site: SiteCluster) -> None:
        await site.connect("ann", "ann", "n1")
        await site.join("ann", ROOM)
        site.balancer.ports.pop("n1")
        await site.connect("cat", "cat")
        await site.join("cat", ROOM, {"of": "cat"})
        await site.agree(ROOM, {"cat": [{"of": "cat"}]})
        site.balancer.ports["n1"] = site.servers["n1"].port
        await site.terminate("n2")
        await until(partial(joined_times, site, "cat", 2), "cat is back")
        await site.agree(ROOM, {"cat": [{"of": "cat"}]})
        told = site.seen["ann", ROOM]
        assert (len(told.joins), told.gone) == (2, [])

    run(scenario, environment={"ADSUM_LINGER": "10"}, server="direct")


def test_crashed_channel_rejoins_and_other_channels_are_unaffected() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        await site.join("ann", "room:other", {"of": "ann"})
        await site.clients.ask("push", client="ann", topic=ROOM, event="crash", waits=False)
        await until(partial(joined_times, site, "ann", 2), "ann joins again")
        await site.agree(ROOM, FOUR)
        ann = (await site.look())["ann"]
        assert (ann["opens"], ann["rooms"]["room:other"]["joins"]) == (1, 1)

    run(scenario)


def test_channel_ended_by_the_server_does_not_rejoin() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        stopped = await site.clients.ask("push", client="ann", topic=ROOM, event="stop")
        assert stopped == {"status": "ok", "response": {"stopping": True}}
        await until(partial(is_closed, site, "ann"), "ann's channel is closed")
        others = {name: metas for name, metas in FOUR.items() if name != "ann"}
        await site.clients.ask("forget", client="ann")
        await site.agree(ROOM, others)

    run(scenario)


async def is_closed(site: SiteCluster, client: str) -> bool:
    return bool((await room_of(site, client))["status"] == "closed")


def test_disconnect_of_an_id_on_every_node_makes_its_clients_reconnect() -> None:
    async def scenario(site: SiteCluster) -> None:
        for client, user, node in (("a1", "ann", "n1"), ("a2", "ann", "n2"), ("b", "bob", "n2")):
            await site.connect(client, user, node)
            await site.join(client, ROOM, {"of": client})
        await site.servers["n1"].post("disconnect/users:ann")
        for client in ("a1", "a2"):
            await until(partial(joined_times, site, client, 2), f"{client} is back")
        looks = await site.look()
        closes = [looks[client]["closes"] for client in ("a1", "a2", "b")]
        assert closes == [[1000], [1000], []]
        await site.agree(ROOM, {"ann": [{"of": "a1"}, {"of": "a2"}], "bob": [{"of": "b"}]})

    run(scenario)


def test_duplicate_join_on_one_socket_replaces_the_first() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        await site.join("ann", ROOM, {"of": "ann again"})
        await site.agree(ROOM, {**FOUR, "ann": [{"of": "ann again"}]})

    run(scenario)


def test_immediate_rejoin_in_a_busy_room_gets_no_stale_diff() -> None:
    """Diffs for the channel before are under way when the new one joins, and must not reach it."""

    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        site.balancer.delay = 0.03
        busy = asyncio.create_task(update_on_and_on(site, "bob"))
        for _ in range(20):
            await site.clients.ask("leave", client="ann", topic=ROOM, waits=False)
            await site.join("ann", ROOM, {"of": "ann"}, waits=False)
            await until(partial(joined_times, site, "ann", 1), "ann is back")
        busy.cancel()
        site.balancer.delay = 0.0
        await site.clients.ask("update", client="bob", topic=ROOM, meta={"of": "bob"})
        await site.agree(ROOM, FOUR)

    run(scenario, server="direct")


async def update_on_and_on(site: SiteCluster, client: str) -> None:
    for number in itertools.count():
        meta = {"of": client, "n": number}
        await site.clients.ask("update", client=client, topic=ROOM, meta=meta)


def test_client_without_heartbeat_leaves_after_the_timeout() -> None:
    async def scenario(site: SiteCluster) -> None:
        await site.connect("ann", "ann", heartbeatIntervalMs=2_000)
        await site.join("ann", ROOM, {"of": "ann"})
        await site.connect("bob", "bob", heartbeatIntervalMs=60_000)
        await site.join("bob", ROOM, {"of": "bob"})
        await until(partial(joined_times, site, "bob", 2), "bob comes back")
        await site.agree(ROOM, {"ann": [{"of": "ann"}], "bob": [{"of": "bob"}]})
        assert await joins_of(site, "ann") == 1

    run(scenario, timeout=5.0)


def test_refused_client_stays_disconnected() -> None:
    async def scenario(site: SiteCluster) -> None:
        await site.connect("ann", "ann")
        refused = await site.join("ann", "room:cellar", {})
        assert refused == {"status": "error", "response": {"reason": "unauthorized"}}
        unknown = await site.join("ann", "nope:1", {})
        assert unknown == {"status": "error", "response": {"reason": "unmatched topic"}}
        await site.connect("nobody", "")
        await until(partial(is_refused, site, "nobody"), "nobody is refused")

    run(scenario, complaint="no channel matches the topic")


def test_broadcast_reaches_all_nodes_and_push_one_client() -> None:
    async def scenario(site: SiteCluster) -> None:
        await four_people(site)
        shouted = await site.clients.ask(
            "push", client="ann", topic=ROOM, event="shout", payload={"text": "hi"}
        )
        assert shouted == {"status": "ok", "response": {"heard": True}}
        for name in FOUR:  # messages of two nodes have no order
            await until(partial(received, site, name, [["shout", {"text": "hi"}]]), f"{name} hears")
        whisper = {"to": "bob", "text": "psst"}
        await site.clients.ask(
            "push", client="dan", topic=ROOM, event="whisper", payload=whisper, waits=False
        )
        for name in FOUR:
            heard = [["shout", {"text": "hi"}]] + [["whisper", whisper]] * (name == "bob")
            await until(partial(received, site, name, heard), f"{name} hears")

    run(scenario)
