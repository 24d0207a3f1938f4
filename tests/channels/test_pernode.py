"""What all sockets of a node share: one object for each node, as long as the node lives."""

import gc
import weakref

import adsum
from adsum.channels import Socket
from adsum.channels.carriers.sessions import Sessions
from adsum.channels.pernode import PerNode
from adsum.driver.observer import Observer
from tests.support.waiting import until

from .app import Tracking
from .direct_carrier import Direct
from .leak_check import run


class SocketParts(Observer):
    """Refers to its node, as everything does that observes one."""

    def __init__(self, node: adsum.Node) -> None:
        self.node = node


def test_sockets_of_one_node_share_one_object() -> None:
    one, other = adsum.Node(), adsum.Node()
    first, second = Socket(adsum.Presence(one), [Tracking]), Socket(adsum.Presence(one), [Tracking])
    another = Socket(adsum.Presence(other), [Tracking])
    assert first._longpoll._sessions is second._longpoll._sessions is Sessions.of(one)
    assert another._longpoll._sessions is Sessions.of(other) is not Sessions.of(one)


def test_shared_object_outlives_its_users_and_ends_with_its_node() -> None:
    per_node = PerNode(SocketParts)
    node = adsum.Node()
    shared = weakref.ref(per_node.of(node))
    gc.collect()
    assert per_node.of(node) is shared()
    forgotten = weakref.ref(node)
    del node
    gc.collect()
    assert forgotten() is None
    assert shared() is None


def test_node_with_a_socket_is_collected() -> None:
    node = adsum.Node()
    Socket(adsum.Presence(node), [Tracking])
    forgotten = weakref.ref(node)
    del node
    gc.collect()
    assert forgotten() is None


def test_broadcast_reaches_all_sockets_of_a_node_and_each_counts_its_own_channels() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        first, second = (Socket(adsum.Presence(node), [Tracking]) for _ in range(2))
        async with node:
            clients = [Direct(first), Direct(first), Direct(second)]
            for client in clients:
                client.send("1", "1", "room", "phx_join", {})
            await until(lambda: all(client.frames for client in clients))
            assert (first.stats()["channels"], second.stats()["channels"]) == (2, 1)
            await second.broadcast("room", "news", {})
            assert [client.events().count("news") for client in clients] == [1, 1, 1]
            await clients[0].connection.finish()
            await first.broadcast("room", "news", {})
            assert [client.events().count("news") for client in clients] == [1, 2, 2]
            assert (first.stats()["channels"], second.stats()["channels"]) == (1, 1)
            for client in clients[1:]:
                await client.connection.finish()
            assert (first.stats()["channels"], second.stats()["channels"]) == (0, 0)

    run(main())
