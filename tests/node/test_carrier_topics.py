"""Messages over a carrier: they reach subscribed nodes only, exactly once and in order."""

import asyncio
import logging
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

import adsum
from adsum.bus.busmessages import Bulletin, BusCodec
from adsum.bus.bustransport import BusTransport
from adsum.bus.limits import TOPIC_BACKLOG
from adsum.bus.topicslots import slot_of
from adsum.driver import carrierdriver
from tests.support.carrier_nodes import SECRET, all_linked, bus_of, carrier_node
from tests.support.memory_bus import MemoryBroker, MemoryBusClient
from tests.support.nodes import run
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    broker = MemoryBroker()
    monkeypatch.setattr(carrierdriver, "make_client", broker.make_client)
    return broker


def client_of(node: adsum.Node) -> MemoryBusClient:
    client = bus_of(node)._client
    assert isinstance(client, MemoryBusClient)
    return client


def subject_of(node: adsum.Node, topic: str) -> str:
    return f"adsum.{node.cluster}.topic.{slot_of(topic):03x}"


def topics_of(node: adsum.Node) -> set[str]:
    """The subjects of topics that a node subscribes to."""
    return {subject for subject in client_of(node).subjects if ".topic." in subject}


def on_topics(node: adsum.Node) -> int:
    """The number of messages on topics that the engine has delivered to a node."""
    received = client_of(node).received
    return sum(count for subject, count in received.items() if ".topic." in subject)


async def read(inbox: adsum.Subscription, count: int) -> list[Any]:
    return [(await anext(inbox)).payload for _ in range(count)]


def numbered(count: int, first: int = 0) -> list[dict[str, int]]:
    return [{"n": number} for number in range(first, first + count)]


async def publish_all(node: adsum.Node, payloads: Iterable[Any], topic: str = "news") -> None:
    for payload in payloads:
        assert await adsum.PubSub(node).publish(topic, payload) == 0


def test_message_reaches_nodes_with_a_subscription_to_its_topic_only(cluster_name: str) -> None:
    async def main() -> None:
        nodes = [carrier_node(name, cluster_name) for name in "abcd"]
        a, b, c, d = nodes
        async with a, b, c, d:
            await all_linked(*nodes)
            news, sports = adsum.PubSub(b).subscribe("news"), adsum.PubSub(c).subscribe("sports")
            await publish_all(a, numbered(10))
            await publish_all(d, numbered(3), "sports")
            assert await read(news, 10) == numbered(10)
            assert await read(sports, 3) == numbered(3)
            assert [on_topics(node) for node in nodes] == [0, 10, 3, 0]

    run(main())


def test_topic_is_subscribed_to_while_it_has_subscriptions(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.bus.topicslots.UNFOLLOW_AFTER", 0.01)

    async def main() -> None:
        async with carrier_node("a", cluster_name) as a:
            assert topics_of(a) == set()
            pubsub, news = adsum.PubSub(a), {subject_of(a, "news")}
            one, two = pubsub.subscribe("news"), adsum.PubSub(a).subscribe("news")
            three = pubsub.subscribe("news")
            assert topics_of(a) == news
            one.add("sports")
            assert topics_of(a) == news | {subject_of(a, "sports")}
            one.remove("sports")
            await until(lambda: topics_of(a) == news)
            one.close()
            two.close()
            await asyncio.sleep(0.05)
            assert topics_of(a) == news
            del three  # collected
            await until(lambda: topics_of(a) == set())

    run(main())


def test_subscription_begins_with_the_next_run_of_a_node(cluster_name: str) -> None:
    async def main() -> None:
        a, b = carrier_node("a", cluster_name), carrier_node("b", cluster_name)
        async with a:
            for _ in range(2):
                async with b:
                    await all_linked(a, b)
                    inbox = adsum.PubSub(b).subscribe("news")
                    await publish_all(a, numbered(1))
                    assert await read(inbox, 1) == numbered(1)
                await until(lambda: a.stats()["links"] == 0)

    run(main())


def test_message_published_after_a_later_change_of_the_subscriber_arrives(
    cluster_name: str,
) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            watch = adsum.Presence(a).watch("readers")
            await anext(watch)
            for number in range(20):
                inbox = adsum.PubSub(b).subscribe(f"news:{number}")
                adsum.Presence(b).track("readers", str(number), owner=None)
                while str(number) not in (await anext(watch)).joins:
                    pass
                await publish_all(a, numbered(1), f"news:{number}")
                assert await read(inbox, 1) == numbered(1)

    run(main())


def test_messages_keep_the_order_of_their_publisher_over_topics_and_kinds(
    cluster_name: str,
) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            inbox = adsum.PubSub(b).subscribe("x")
            inbox.add("y")
            pubsub, sent = adsum.PubSub(a), list[Any]()
            for number in range(30):
                payload: Any = {"n": number} if number % 3 else bytes([number]) * 200_000
                sent.append(payload)
                assert await pubsub.publish("xy"[number % 2], payload) == 0
            assert await read(inbox, 30) == sent

    run(main())


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_001])
def test_bytes_arrive_complete_at_subscribed_nodes_only(cluster_name: str, size: int) -> None:
    async def main() -> None:
        nodes = [carrier_node(name, cluster_name) for name in "abc"]
        a, b, c = nodes
        async with a, b, c:
            await all_linked(*nodes)
            inbox = adsum.PubSub(b).subscribe("data")
            data = bytes(range(256)) * (size // 256 + 1)
            await publish_all(a, [data[:size]], "data")
            assert await read(inbox, 1) == [data[:size]]
            assert on_topics(b) == max(1, -(-size // 65_536))
            assert on_topics(c) == 0

    run(main())


def test_bytes_with_a_lost_piece_do_not_arrive(cluster_name: str, broker: MemoryBroker) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            inbox = adsum.PubSub(b).subscribe("data")
            pieces = list[bytes]()

            def is_second(sender: object, receiver: object, data: bytes) -> bool:
                pieces.extend([data] if len(data) > 65_536 else [])
                return len(data) > 65_536 and len(pieces) == 2

            broker.loses = is_second
            await publish_all(a, [Random(1).randbytes(4 * 65_536), b"last"], "data")
            assert await read(inbox, 1) == [b"last"]
            assert len(pieces) == 4
            assert b.stats()["incomplete_messages_total"] == 1

    run(main())


def test_siblings_and_nodes_over_the_carrier_receive_each_message_once(
    cluster_name: str, short_path: Any
) -> None:
    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        a, b = (carrier_node(name, cluster_name, **here) for name in "ab")
        c, d = (carrier_node(name, cluster_name) for name in "cd")
        nodes = [a, b, c, d]
        async with c, d, a, b:
            await all_linked(*nodes)
            inboxes = [adsum.PubSub(node).subscribe("news") for node in nodes]
            for number, node in enumerate(nodes):
                await publish_all(node, numbered(20, 100 * number))
            for inbox in inboxes:
                got = [payload["n"] for payload in await read(inbox, 80)]
                for number in range(4):
                    own = [n for n in got if n // 100 == number]
                    assert own == list(range(100 * number, 100 * number + 20))
                await asyncio.sleep(0.05)
                assert not inbox._has_more()

    run(main())


def test_messages_while_siblings_change_from_the_carrier_to_a_direct_link_arrive_once(
    cluster_name: str, short_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.driver.socketdriver.CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(carrierdriver, "SIBLING_PATIENCE", 0.0)

    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        with monkeypatch.context() as blind:
            blind.setattr("adsum.driver.siblings.Siblings.find", lambda _: None)
            a, b = (carrier_node(name, cluster_name, **here, join_timeout=0) for name in "ab")
            await a.start()
            await b.start()
            await all_linked(a, b)
            assert len(bus_of(a)._links) == 1
            inbox = adsum.PubSub(b).subscribe("news")
        # They see each other's sockets from now on.
        number, moved = 0, 0
        while moved < 50:
            assert await adsum.PubSub(a).publish("news", {"n": number}) == 0
            number += 1
            moved += not bus_of(a)._links
            await asyncio.sleep(0.001)
        got = [payload["n"] for payload in await read(inbox, number)]
        assert sorted(got) == list(range(number))
        assert on_topics(b) > 0
        await a.stop()
        await b.stop()

    run(main())


def test_sibling_that_is_linked_both_ways_is_excluded_from_the_topic(
    cluster_name: str, short_path: Any, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.driver.socketdriver.CHECK_INTERVAL", 0.02)
    # The links over the carrier stay, beside the direct ones.
    monkeypatch.setattr(BusTransport, "close_link", lambda *_: None)

    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        a, b = (carrier_node(name, cluster_name, **here) for name in "ab")
        c = carrier_node("c", cluster_name)
        async with a, b, c:
            await all_linked(a, b, c)
            a.driver.loop.call_soon(bus_of(a)._call, bus_of(a)._core.dial, bus_of(b).address)  # type: ignore[union-attr]  # it has a loop
            await until(lambda: len(bus_of(a)._links) == len(bus_of(b)._links) == 2)
            inbox, far = adsum.PubSub(b).subscribe("news"), adsum.PubSub(c).subscribe("news")
            bulletins = list[Bulletin]()

            def record(sender: object, receiver: object, data: bytes) -> bool:
                message = BusCodec(SECRET.encode(), cluster_name).decode(data)[1]
                bulletins.extend([message] if isinstance(message, Bulletin) else [])
                return False

            broker.loses = record
            await publish_all(a, numbered(5))
            assert await read(inbox, 5) == await read(far, 5) == numbered(5)
            lives = {address for each in bulletins for address in map(bytes.hex, each.excluded)}
            assert lives == {bus_of(b).address.removeprefix("bus:")}
            await asyncio.sleep(0.02)
            assert not inbox._has_more()

    run(main())


def test_restart_of_the_carrier_keeps_subscriptions_and_counts_missed_messages(
    cluster_name: str, broker: MemoryBroker
) -> None:
    async def main() -> None:
        nodes = [carrier_node(name, cluster_name) for name in "abc"]
        a, b, c = nodes
        async with a, b, c:
            await all_linked(*nodes)
            inbox = adsum.PubSub(b).subscribe("news")
            await publish_all(a, numbered(1))
            broker.stop()
            await until(lambda: a.stats()["carrier_connected"] == 0)
            await asyncio.sleep(0.01)
            assert await adsum.PubSub(a).publish("news", {"n": "missed"}) == 2
            assert a.stats()["missed_messages_total"] == 2
            later = adsum.PubSub(b).subscribe("sports")
            broker.start()
            await all_linked(*nodes)

            async def accepted() -> bool:
                return await adsum.PubSub(a).publish("news", {"n": 1}) == 0

            await until(accepted)
            await publish_all(a, numbered(1), "sports")
            assert await read(inbox, 2) == numbered(2)
            assert await read(later, 1) == numbered(1)

    run(main())


def test_recorded_messages_are_dropped(cluster_name: str, broker: MemoryBroker) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            recorded = list[tuple[MemoryBusClient, bytes]]()

            def record(sender: object, receiver: MemoryBusClient, data: bytes) -> bool:
                recorded.append((receiver, data))
                return False

            broker.loses = record
            inbox = adsum.PubSub(b).subscribe("news")
            await publish_all(a, numbered(5))
            assert await read(inbox, 5) == numbered(5)
            for receiver, data in list(recorded):
                receiver.handler.bus_received(data)
            await publish_all(a, numbered(1, 5))
            assert await read(inbox, 1) == numbered(1, 5)

    run(main())


def test_publisher_waits_for_the_backlog_of_the_client(cluster_name: str) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            inbox, client = adsum.PubSub(b).subscribe("news"), client_of(a)
            client.unwritten = TOPIC_BACKLOG + 1
            await publish_all(a, numbered(1))  # this one fills it
            publishing = asyncio.create_task(publish_all(a, numbered(10, 1)))
            assert await read(inbox, 1) == numbered(1)
            await asyncio.sleep(0.05)
            assert not publishing.done()
            assert on_topics(b) == 1
            client.unwritten = 0
            await publishing
            assert await read(inbox, 10) == numbered(10, 1)

    run(main())


def test_publisher_waits_a_second_at_most_and_counts_the_members(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.replication.messaging.PATIENCE", 0.1)

    async def main() -> None:
        nodes = [carrier_node(name, cluster_name) for name in "abc"]
        async with nodes[0] as a, nodes[1], nodes[2]:
            await all_linked(*nodes)
            client_of(a).unwritten = TOPIC_BACKLOG + 1
            assert await adsum.PubSub(a).publish("news", {}) == 0
            assert await adsum.PubSub(a).publish("news", {}) == 2
            client_of(a).unwritten = 0

            async def accepted() -> bool:
                return await adsum.PubSub(a).publish("news", {}) == 0

            await until(accepted)

    run(main())


def test_flood_of_messages_does_not_replace_frames_of_links(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adsum.bus.bustransport.MAX_TOPIC_QUEUED", 1000)

    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            inbox = adsum.PubSub(b).subscribe("news")
            await publish_all(a, numbered(1))
            assert await read(inbox, 1) == numbered(1)
            bus_of(b)._queued += 1000  # as if so much were queued
            await publish_all(a, numbered(1))
            adsum.Presence(a).track("room", "ann", owner=None)
            await until(lambda: adsum.Presence(b).count("room") == 1)
            assert not inbox._has_more()
            bus_of(b)._queued -= 1000

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "messages are dropped" in caplog.text


def test_member_that_publishes_another_kind_of_frame_loses_its_link(cluster_name: str) -> None:
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            adsum.PubSub(b).subscribe("news")
            inbox = adsum.PubSub(b).subscribe("news")
            bus_of(a).publish_topic("news", b"[1]", frozenset())
            links = set(bus_of(b)._links)
            await until(lambda: links.isdisjoint(bus_of(b)._links))
            await all_linked(a, b)
            await publish_all(a, numbered(1))
            assert await read(inbox, 1) == numbered(1)

    run(main())
