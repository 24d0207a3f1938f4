"""Nodes that are linked over a carrier: presences, messages, and outages of the carrier."""

import asyncio
import logging
from typing import Any

import pytest

import adsum
from adsum.bus.bustransport import BusTransport
from adsum.driver import carrierdriver
from adsum.replication.engine import Engine
from tests.support.carrier_nodes import DOWN_AFTER, SECRET, all_linked, bus_of, carrier_node
from tests.support.memory_bus import MemoryBroker
from tests.support.nodes import run
from tests.support.waiting import until


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    broker = MemoryBroker()
    monkeypatch.setattr(carrierdriver, "make_client", broker.make_client)
    return broker


@pytest.mark.usefixtures("broker")
def test_three_nodes_join_and_share_presences_and_messages(cluster_name: str) -> None:
    async def main() -> None:
        nodes = [carrier_node(name, cluster_name) for name in ("a", "b", "c")]
        for node in nodes:
            await node.start()
            assert node.joined
        await all_linked(*nodes)
        presences = [adsum.Presence(node) for node in nodes]
        inboxes = [adsum.PubSub(node).subscribe("news") for node in nodes]
        for presence in presences:
            presence.track("room:1", presence.node.name, owner=None)
        await until(lambda: all(presence.count("room:1") == 3 for presence in presences))
        assert await adsum.PubSub(nodes[0]).publish("news", {"n": 1}) == 0
        assert [(await anext(inbox)).payload for inbox in inboxes] == [{"n": 1}] * 3
        await nodes[0].stop()
        await until(lambda: all(presence.count("room:1") == 2 for presence in presences[1:]))
        for node in nodes[1:]:
            await node.stop()

    run(main())


@pytest.mark.usefixtures("broker")
def test_newcomer_lists_all_presences_when_start_returns(cluster_name: str) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            for node in a, b:
                presence = adsum.Presence(node)
                for number in range(2000):
                    presence.track("room:1", f"{node.name} {number}", {"n": number}, owner=None)
            async with carrier_node("c", cluster_name) as c:
                assert c.joined
                assert adsum.Presence(c).count("room:1") == 4000

    run(main())


@pytest.mark.usefixtures("broker")
def test_node_alone_on_its_carrier_joins_at_once(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name, join_timeout=3600) as node:
            assert node.joined
            assert node.stats()["carrier_connected"] == 1
            assert node.address is not None
            assert node.address.startswith("bus:")

    with caplog.at_level(logging.INFO):
        run(main())
    assert "alone" in caplog.text


def test_restart_of_the_carrier_shows_no_leave_and_loses_no_change(
    cluster_name: str, broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            one, two = adsum.Presence(a), adsum.Presence(b)
            two.track("room:1", "bob", owner=None)
            await until(lambda: one.count("room:1") == 1)
            watch = one.watch("room:1")
            await anext(watch)
            broker.stop()
            await until(lambda: a.stats()["carrier_connected"] == 0)
            two.track("room:1", "ben", owner=None)
            await asyncio.sleep(3 * DOWN_AFTER)
            assert one.count("room:1") == 1
            broker.start()
            diff = await anext(watch)
            assert (list(diff.joins), list(diff.leaves)) == (["ben"], [])
            await all_linked(a, b)
            assert await adsum.PubSub(a).publish("news", {}) == 0

    with caplog.at_level(logging.INFO):
        run(main())
    gone = [each.getMessage() for each in caplog.records if "is gone" in each.getMessage()]
    back = [each.getMessage() for each in caplog.records if "is back after" in each.getMessage()]
    assert (len(gone), len(back)) == (2, 2)
    assert "password" not in caplog.text


def test_outage_of_one_node_alone_shows_no_leave_there(
    cluster_name: str, broker: MemoryBroker
) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            one, two = adsum.Presence(a), adsum.Presence(b)
            two.track("room:1", "bob", owner=None)
            one.track("room:1", "ann", owner=None)
            await until(lambda: one.count("room:1") == two.count("room:1") == 2)
            broker.clients[0].lose("the cable was pulled")
            await until(lambda: two.count("room:1") == 1)
            watch = one.watch("room:1")
            assert sorted((await anext(watch)).joins) == ["ann", "bob"]
            broker.clients[0].restore()
            await until(lambda: two.count("room:1") == 2)
            await all_linked(a, b)
            one.track("room:1", "abe", owner=None)
            diff = await anext(watch)
            assert (list(diff.joins), list(diff.leaves)) == (["abe"], [])

    run(main())


@pytest.mark.parametrize("grace", [0, 0.2])
def test_outage_beyond_the_grace_ends_the_presences_of_others_until_the_return(
    cluster_name: str, broker: MemoryBroker, grace: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"cluster": cluster_name, "carrier_grace": grace}
        async with carrier_node("a", **settings) as a, carrier_node("b", **settings) as b:
            one, two = adsum.Presence(a), adsum.Presence(b)
            one.track("room:1", "ann", owner=None)
            two.track("room:1", "bob", owner=None)
            await until(lambda: one.count("room:1") == two.count("room:1") == 2)
            broker.stop()
            await until(lambda: one.count("room:1") == two.count("room:1") == 1)
            assert a.stats()["links"] == 0
            broker.start()
            await until(lambda: one.count("room:1") == two.count("room:1") == 2)
            await all_linked(a, b)

    run(main())
    assert ("has been away for" in caplog.text) == bool(grace)


def test_killed_process_is_detected_by_the_refusal_of_the_carrier(
    cluster_name: str, broker: MemoryBroker
) -> None:
    async def main() -> None:
        # Silence alone would take longer than the test.
        names = ("a", "b", "c")
        a, b, c = (carrier_node(name, cluster_name, down_after=600.0) for name in names)
        async with a, b, c:
            await all_linked(a, b, c)
            adsum.Presence(c).track("room:1", "cid", owner=None)
            await until(lambda: adsum.Presence(a).count("room:1") == 1)
            broker.clients[2].abandon()
            for node in a, b:
                await until(lambda node=node: adsum.Presence(node).count("room:1") == 0)  # type: ignore[misc]  # bound now

    run(main())


def test_refusal_of_the_carrier_closes_the_link_as_gone_and_a_goodbye_does_not(
    cluster_name: str, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[bool] = []
    link_down = Engine.link_down

    def recorded(engine: Engine, id: int, now: float, gone: bool = False) -> None:
        ends.append(gone)
        link_down(engine, id, now, gone)

    async def main() -> None:
        names = ("a", "b", "c")
        a, b, c = (carrier_node(name, cluster_name, down_after=600.0) for name in names)
        async with a, b, c:
            await all_linked(a, b, c)
            broker.clients[2].abandon()
            await until(lambda: len(ends) == 2)
            assert ends == [True, True]
            ends.clear()
            await b.stop()
            await until(lambda: ends)
            assert not any(ends)

    monkeypatch.setattr(Engine, "link_down", recorded)
    run(main())


def test_carrier_that_cannot_be_reached_fails_the_start_and_leaves_nothing(
    cluster_name: str, broker: MemoryBroker, short_path: Any
) -> None:
    async def main() -> None:
        broker.up, tasks = False, asyncio.all_tasks()
        node = carrier_node("a", cluster_name, siblings=True, runtime_dir=str(short_path))
        with pytest.raises(adsum.CarrierError, match="start the server"):
            await node.start()
        assert not node.running
        assert not [path for path in short_path.rglob("*") if path.is_socket()]
        assert tasks == asyncio.all_tasks()
        broker.up = True
        async with node:
            assert node.joined

    run(main())


@pytest.mark.parametrize("way", ["stop", "cancel"])
def test_start_that_waits_for_the_carrier_ends_with_the_node(
    cluster_name: str, broker: MemoryBroker, way: str
) -> None:
    async def main() -> None:
        broker.hangs, tasks = True, asyncio.all_tasks()
        node = carrier_node("a", cluster_name)
        starting = asyncio.create_task(node.start())
        await asyncio.sleep(0.02)
        if way == "stop":
            await node.stop()
            with pytest.raises(adsum.NodeNotRunningError):
                await starting
        else:
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
        assert not node.running
        assert asyncio.all_tasks() == tasks

    run(main())


@pytest.mark.usefixtures("broker")
def test_node_with_another_secret_stays_out(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        other = SECRET[::-1]
        async with (
            carrier_node("a", cluster_name) as a,
            carrier_node("b", cluster_name) as b,
            carrier_node("x", cluster_name, secret=other, join_timeout=0.2) as stranger,
        ):
            await all_linked(a, b)
            adsum.Presence(a).track("room:1", "ann", owner=None)
            await until(lambda: adsum.Presence(b).count("room:1") == 1)
            assert [member.name for member in stranger.members()] == ["x"]
            assert [member.name for member in a.members()] == ["a", "b"]
            assert not stranger.joined

    run(main())
    assert "the secrets differ" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.usefixtures("broker")
def test_siblings_and_nodes_of_other_hosts_are_linked_once_and_listed_once(
    cluster_name: str, short_path: Any
) -> None:
    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        a, b = (carrier_node(name, cluster_name, **here) for name in ("a", "b"))
        c = carrier_node("c", cluster_name)
        watched = list[int]()

        async def watch(node: adsum.Node) -> None:
            async for diff in adsum.Presence(node).watch("room:1"):
                watched.extend(len(entry["metas"]) for entry in diff.joins.values())

        async with c:
            watching = asyncio.create_task(watch(c))
            async with a, b:
                await all_linked(a, b, c)
                assert len(bus_of(a)._links) == len(bus_of(b)._links) == 1
                assert len(bus_of(c)._links) == 2
                for node in a, b, c:
                    adsum.Presence(node).track("room:1", node.name, owner=None)
                for node in a, b, c:
                    presence = adsum.Presence(node)
                    await until(lambda presence=presence: presence.count("room:1") == 3)  # type: ignore[misc]  # bound now
                    listed = presence.list("room:1")
                    assert {
                        key: len(entry["metas"]) for key, entry in listed.items()
                    } == dict.fromkeys("abc", 1)
            watching.cancel()
        assert set(watched) == {1}

    run(main())


@pytest.mark.usefixtures("broker")
def test_siblings_alone_on_a_carrier_join_without_a_dial_over_it(
    cluster_name: str, short_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dials = list[str]()
    dial = BusTransport.dial

    async def record(transport: BusTransport, address: str) -> None:
        dials.append(address)
        await dial(transport, address)

    monkeypatch.setattr(BusTransport, "dial", record)

    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        async with (
            carrier_node("a", cluster_name, **here) as a,
            carrier_node("b", cluster_name, **here, join_timeout=3600) as b,
        ):
            assert b.joined
            assert not bus_of(a)._links
            assert not bus_of(b)._links

    run(main())
    assert not dials


@pytest.mark.usefixtures("broker")
def test_siblings_that_do_not_find_each_other_are_linked_over_the_carrier(
    cluster_name: str, short_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.driver.socketdriver.CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(carrierdriver, "SIBLING_PATIENCE", 0.1)
    monkeypatch.setattr("adsum.driver.siblings.Siblings.find", lambda _: None)

    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        async with (
            carrier_node("a", cluster_name, **here) as a,
            carrier_node("b", cluster_name, **here, join_timeout=0) as b,
        ):
            await all_linked(a, b)
            assert len(bus_of(a)._links) == len(bus_of(b)._links) == 1

    run(main())


@pytest.mark.usefixtures("broker")
def test_portal_runs_a_node_on_a_carrier(cluster_name: str) -> None:
    with adsum.Portal(carrier_node("a", cluster_name)) as portal:
        portal.track("room:1", "ann", owner="a request")
        assert portal.count("room:1") == 1
        assert portal.node.running
