"""Several sockets on one node: a topic is one topic, and a client one client, wherever it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Client, Socket, on
from adsum.testing import Browser
from tests.support.nodes import running
from tests.support.waiting import until

from .asgi_poller import AsgiPoller
from .leak_check import run


class Room(Channel, topic="room:{room}"):
    """Tracks, and lets everybody be heard."""

    async def join(self, payload: Any) -> None:
        self.track(self.client.params.get("user", "?"))

    @on("shout")
    async def shout(self, payload: Any) -> None:
        await self.broadcast_from("shout", payload)

    @on("echo")
    async def echo(self, payload: Any) -> Any:
        return payload


async def identify(client: Client) -> None:
    client.id = client.params.get("user")


def socket_on(presence: adsum.Presence) -> Socket:
    return Socket(presence, [Room], connect=identify)


@asynccontextmanager
async def four_sockets(cluster: str) -> AsyncIterator[list[Socket]]:
    """Two nodes with two sockets each."""
    async with running(2, cluster=cluster) as nodes:
        presences = [adsum.Presence(node) for node in nodes]
        yield [socket_on(presence) for presence in presences for _ in range(2)]


def test_broadcast_reaches_clients_of_all_sockets_once(cluster_name: str) -> None:
    async def main() -> None:
        async with four_sockets(cluster_name) as sockets:
            browsers = [await Browser(one, {"user": "ann"}).connect() for one in sockets]
            rooms = [await browser.join("room:1") for browser in browsers]
            await rooms[0].push("shout", {"n": 1})
            for room in rooms[1:]:
                assert await room.expect("shout") == {"n": 1}
            await sockets[0].broadcast("room:1", "news", {"n": 2})
            for room in rooms:
                assert await room.expect("news") == {"n": 2}
                await room.refute("news")
                await room.refute("shout")
            for browser in browsers:
                await browser.close()

    run(main())


def test_disconnect_closes_the_connections_of_all_sockets(cluster_name: str) -> None:
    async def main() -> None:
        async with four_sockets(cluster_name) as sockets:
            browsers = [await Browser(one, {"user": "ann"}).connect() for one in sockets]
            async with Browser(sockets[1], {"user": "bob"}) as other:
                await sockets[0].disconnect("ann")
                for browser in browsers:
                    assert await browser.expect_close() == 1000
                    await browser.close()
                await other.join("room:1")

    run(main())


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("asked", range(4))
def test_longpoll_session_is_found_through_any_socket(
    own: int, asked: int, cluster_name: str
) -> None:
    async def main() -> None:
        async with four_sockets(cluster_name) as sockets:
            ann = AsgiPoller(sockets[own])
            await ann.begin()
            ann.socket = sockets[asked]
            assert await ann.post(["1", "1", "room:1", "phx_join", {}]) == 200
            assert await ann.post(["1", "2", "room:1", "echo", {"n": 1}]) == 200
            frames: list[str] = []
            while not any('"2"' in frame for frame in frames):
                said = await ann.get()
                assert said["status"] in (200, 204)
                frames += said["messages"]
            assert sockets[own].stats()["connections"] == 1

    run(main())


def test_sockets_of_one_node_see_the_same_presences() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        one, two = socket_on(presence), socket_on(presence)
        async with node, Browser(one, {"user": "ann"}) as ann:
            room = await ann.join("room:1")
            async with Browser(two, {"user": "bob"}) as bob:
                other = await bob.join("room:1")
                assert list(await other.presence()) == ["ann", "bob"]
                assert list(await room.presence()) == ["ann", "bob"]
            await until(lambda: list(presence.list("room:1")) == ["ann"])
            assert list(await room.presence()) == ["ann"]

    run(main())
