"""Messages over real servers: subscribed nodes only, once and in order, also after a restart."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum.bus.busmessages import Bulletin, claims
from adsum.bus.topicslots import slot_of
from tests.support.bus_servers import BusServer, NatsServer, RedisServer, running
from tests.support.carrier_nodes import SECRET, all_linked, bus_of
from tests.support.nodes import run
from tests.support.waiting import until

from .recorder import connected

pytestmark = pytest.mark.processes


@pytest.fixture(params=[NatsServer, RedisServer])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BusServer]:
    server: BusServer = request.param(tmp_path)
    with running(server):
        yield server


def node(name: str, cluster: str, server: BusServer, **settings: Any) -> adsum.Node:
    usual = {"siblings": False, "heartbeat_interval": 0.1, "down_after": 10.0, "secret": SECRET}
    return adsum.Node(name=name, cluster=cluster, carrier=server.url, **{**usual, **settings})


def numbered(first: int, end: int) -> list[dict[str, int]]:
    return [{"n": number} for number in range(first, end)]


async def read(inbox: adsum.Subscription, count: int) -> list[Any]:
    return [(await anext(inbox)).payload for _ in range(count)]


async def reached(sender: adsum.Node, topic: str, *inboxes: adsum.Subscription) -> None:
    """Publish until the subscriptions are at the engine, and read all that was published."""
    pubsub = adsum.PubSub(sender)
    while not all(inbox._has_more() for inbox in inboxes):
        await pubsub.publish(topic, {})
        await asyncio.sleep(0.01)
    await pubsub.publish(topic, {"last": True})
    for inbox in inboxes:
        while not (await anext(inbox)).payload:
            pass


def count_topics(node: adsum.Node) -> list[bytes]:
    """The messages on topics that the engine delivers to a node from now on."""
    bus, found = bus_of(node), list[bytes]()
    receive = bus.bus_received

    def received(data: bytes) -> None:
        found.extend([data] if claims(data, Bulletin) else [])
        receive(data)

    bus.bus_received = received  # type: ignore[method-assign]
    return found


def test_messages_reach_subscribed_nodes_only(server: BusServer, cluster_name: str) -> None:
    async def main() -> None:
        nodes = [node(name, cluster_name, server) for name in "abc"]
        a, b, c = nodes
        async with a, b, c:
            await all_linked(*nodes)
            inbox = adsum.PubSub(b).subscribe("news", limit=5000)
            await reached(a, "news", inbox)
            at_b, at_c = count_topics(b), count_topics(c)
            for payload in numbered(0, 2000):
                assert await adsum.PubSub(a).publish("news", payload) == 0
            assert await read(inbox, 2000) == numbered(0, 2000)
            large = bytes(range(256)) * 32 * 1024
            assert await adsum.PubSub(a).publish("news", large) == 0
            assert await read(inbox, 1) == [large]
            assert (len(at_b), len(at_c)) == (2000 + 128, 0)

    run(main())


def test_restart_of_the_server_keeps_the_subscription(server: BusServer, cluster_name: str) -> None:
    async def main() -> None:
        async with node("a", cluster_name, server) as a, node("b", cluster_name, server) as b:
            await all_linked(a, b)
            inbox = adsum.PubSub(b).subscribe("news")
            await reached(a, "news", inbox)
            server.kill()
            await until(lambda: a.stats()["carrier_connected"] == 0)

            async def missed() -> bool:
                return await adsum.PubSub(a).publish("news", {}) == 1

            await until(missed)
            server.start()
            await until(lambda: bus_of(a).connected and bus_of(b).connected)
            await reached(a, "news", inbox)
            for payload in numbered(0, 100):
                assert await adsum.PubSub(a).publish("news", payload) == 0
            assert await read(inbox, 100) == numbered(0, 100)

    run(main())


def test_message_published_after_a_later_change_of_the_subscriber_arrives(
    server: BusServer, cluster_name: str
) -> None:
    async def main() -> None:
        async with node("a", cluster_name, server) as a, node("b", cluster_name, server) as b:
            await all_linked(a, b)
            watch = adsum.Presence(a).watch("readers")
            await anext(watch)
            for number in range(50):
                inbox = adsum.PubSub(b).subscribe(f"news:{number}")
                adsum.Presence(b).track("readers", str(number), owner=None)
                while str(number) not in (await anext(watch)).joins:
                    pass
                assert await adsum.PubSub(a).publish(f"news:{number}", {"n": number}) == 0
                assert await read(inbox, 1) == [{"n": number}]

    run(main())


def test_recorded_messages_are_dropped(server: BusServer, cluster_name: str) -> None:
    async def main() -> None:
        subject = f"adsum.{cluster_name}.topic.{slot_of('news'):03x}"
        async with (
            connected(server.url, subject) as (stranger, recorder),
            node("a", cluster_name, server) as a,
            node("b", cluster_name, server) as b,
        ):
            await all_linked(a, b)
            inbox = adsum.PubSub(b).subscribe("news")
            await reached(a, "news", inbox)
            for payload in numbered(0, 5):
                await adsum.PubSub(a).publish("news", payload)
            assert await read(inbox, 5) == numbered(0, 5)
            await until(lambda: len(recorder.received) >= 6)
            recorded, at_b = list(recorder.received), count_topics(b)
            for data in recorded:
                stranger.publish(subject, data)
            await until(lambda: len(at_b) == len(recorded))
            await adsum.PubSub(a).publish("news", {"n": 5})
            assert await read(inbox, 1) == numbered(5, 6)

    run(main())


def test_siblings_and_other_nodes_receive_each_message_once(
    server: BusServer, cluster_name: str, short_path: Path
) -> None:
    async def main() -> None:
        here: dict[str, Any] = {"siblings": True, "runtime_dir": str(short_path)}
        a, b = (node(name, cluster_name, server, **here) for name in "ab")
        c = node("c", cluster_name, server)
        async with a, b, c:
            await all_linked(a, b, c)
            inboxes = [adsum.PubSub(each).subscribe("news") for each in (b, c)]
            await reached(a, "news", *inboxes)
            for payload in numbered(0, 300):
                assert await adsum.PubSub(a).publish("news", payload) == 0
            for inbox in inboxes:
                assert await read(inbox, 300) == numbered(0, 300)
            await asyncio.sleep(0.1)
            assert not any(inbox._has_more() for inbox in inboxes)

    run(main())
