"""Broadcasts between nodes on a carrier: they reach the nodes with clients of their topic only."""

from typing import Any

import pytest

import adsum
from adsum.bus.topicslots import slot_of
from adsum.channels import Channel, Socket
from adsum.channels.broadcasts import Broadcasts
from adsum.channels.broadcastwindow import MARK_INTERVAL
from adsum.channels.disconnects import Disconnects
from adsum.channels.flow.fairshare import FairShare
from adsum.driver import carrierdriver
from adsum.values.names import RESERVED
from tests.support.carrier_nodes import all_linked, bus_of, carrier_node
from tests.support.memory_bus import MemoryBroker, MemoryBusClient
from tests.support.waiting import until

from .leak_check import leak_checked
from .test_broadcast_pass import joined, said


class Room(Channel, topic="room:{number}"):
    async def join(self, payload: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    broker = MemoryBroker()
    monkeypatch.setattr(carrierdriver, "make_client", broker.make_client)
    return broker


def received(node: adsum.Node, topic: str) -> int:
    """The number of messages that the engine has delivered to a node, on the subject of a topic."""
    client = bus_of(node)._client
    assert isinstance(client, MemoryBusClient)
    return client.received[f"adsum.{node.cluster}.topic.{slot_of(topic):03x}"]


def test_broadcast_reaches_the_nodes_with_clients_of_its_topic(cluster_name: str) -> None:
    @leak_checked
    async def main() -> None:
        nodes = [carrier_node(name, cluster_name) for name in "abc"]
        a, b, c = nodes
        async with a, b, c:
            await all_linked(*nodes)
            sockets = [Socket(adsum.Presence(node), [Room]) for node in nodes]
            here = await joined(sockets[1], 2, "room:1")
            elsewhere = await joined(sockets[2], 1, "room:2")
            count = 2 * MARK_INTERVAL
            for number in range(count):
                await sockets[0].broadcast("room:1", "said", {"n": number})
            await sockets[0].broadcast("room:1", "said", b"binary")
            await until(lambda: len(here[0].frames) == len(here[1].frames) == count + 1)
            assert [frame[4]["n"] for frame in here[0].frames[:count]] == list(range(count))
            assert said(elsewhere[0]) == []
            text, mark = f"{RESERVED}channels/text/room:1", f"{RESERVED}channels/mark"
            assert [received(node, text) for node in nodes] == [0, count, 0]
            # Marks reach the nodes with clients, which acknowledge them.
            assert [received(node, mark) for node in nodes] == [0, 3, 3]
            window = Broadcasts.of(a)._window
            await until(lambda: window._members.keys() == {"b", "c"})

    main()


def test_topics_without_clients_are_not_wanted(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.bus.topicslots.UNFOLLOW_AFTER", 0.01)

    @leak_checked
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a:
            socket = Socket(adsum.Presence(a), [Room])
            client = bus_of(a)._client
            assert isinstance(client, MemoryBusClient)
            before = set(client.subjects)
            clients = await joined(socket, 2, "room:1")
            assert len(client.subjects) == len(before) + 3
            await clients[0].connection.finish()
            assert len(client.subjects) == len(before) + 3
            await clients[1].connection.finish()
            await until(lambda: client.subjects == before)

    main()


def test_channels_that_outlive_a_run_receive_broadcasts_in_the_next(cluster_name: str) -> None:
    @leak_checked
    async def main() -> None:
        a, b = carrier_node("a", cluster_name), carrier_node("b", cluster_name)
        broadcasts = Broadcasts.of(b)
        sockets = [Socket(adsum.Presence(node), [Room]) for node in (a, b)]
        async with a:
            async with b:
                (client,) = await joined(sockets[1], 1, "room:1")
                process = client.connection.processes["room:1"]
            broadcasts.subscribe(process)
            async with b:
                await all_linked(a, b)
                await sockets[0].broadcast("room:1", "said", {"n": 1})
                await until(lambda: received(b, f"{RESERVED}channels/text/room:1"))
                broadcasts.unsubscribe(process)

    main()


class Closing:
    """A connection that notes when it is closed."""

    def __init__(self) -> None:
        self.id: str | None = "user:1"
        self.share = FairShare()
        self.codes: list[int] = []

    def close(self, code: int, reason: str) -> None:
        self.codes.append(code)


def test_disconnect_arrives_although_the_engine_loses_it(
    cluster_name: str, broker: MemoryBroker
) -> None:
    @leak_checked
    async def main() -> None:
        async with carrier_node("a", cluster_name) as a, carrier_node("b", cluster_name) as b:
            await all_linked(a, b)
            socket, connection = Socket(adsum.Presence(a), [Room]), Closing()
            Disconnects.of(b).add(connection)
            lost = [True]
            broker.loses = lambda *_: bool(lost) and lost.pop()
            await socket.disconnect("user:1")
            await until(lambda: connection.codes == [1000])

    main()
