"""Presences that stay for a while after their server closed the connection to restart."""

import asyncio
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Client, Limits, Socket
from adsum.channels.carriers.sessions import Sessions
from adsum.channels.connection import Connection
from adsum.channels.wire.frames import V2_TEXT
from tests.support.waiting import until

from .asgi_client import AsgiClient, asgi_client
from .leak_check import run

pytestmark = pytest.mark.usefixtures("each_carrier")


class Room(Channel, topic="room:{room}"):
    """Tracks."""

    async def join(self, payload: Any) -> None:
        self.track(self.topic)


class Slow(Channel, topic="slow:{room}"):
    """Tracks once it may."""

    joining = tracked = False
    go_on: asyncio.Event

    async def join(self, payload: Any) -> None:
        Slow.joining = True
        await Slow.go_on.wait()
        self.track(self.topic)
        Slow.tracked = True


class App:
    """A node whose presences linger, and a socket."""

    def __init__(self, linger: float, **limits: Any) -> None:
        self.node = adsum.Node(siblings=False, linger=linger)
        self.presence = adsum.Presence(self.node)
        self.socket = Socket(self.presence, [Room, Slow], limits=Limits(**limits))

    async def come_and_go(self, topic: str, code: int) -> None:
        """Be a client that is present, and whose connection ends with a code."""
        made = AsgiClient(self.socket)
        await made.open()
        await made.join(topic)
        assert topic in self.presence.topics()
        made.vanish(code)
        await made.served()


@pytest.mark.parametrize(("code", "stay"), [(1012, True), (1000, False), (1001, False)])
def test_server_restart_lingers_only_its_disconnected_clients(code: int, stay: bool) -> None:
    async def main() -> None:
        app = App(30.0)
        async with app.node:
            await app.come_and_go("room:1", code)
            assert app.presence.topics() == (["room:1"] if stay else [])
            assert app.socket.stats()["connections"] == 0

    run(main())


def test_lingering_clients_count_towards_the_connection_limit() -> None:
    async def main() -> None:
        app = App(30.0, connections=5)
        async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket):
            await ann.join("room:ann")
            for n in range(20):
                await app.come_and_go(f"room:{n}", 1012)
            lingering = set(app.presence.topics()) - {"room:ann"}
            assert lingering
            assert 2 + len(lingering) <= 5

    run(main())


def test_ended_linger_frees_room_for_other_lingering_clients() -> None:
    async def main() -> None:
        app = App(0.05, connections=2)
        async with app.node:
            for n in range(3):
                await app.come_and_go(f"room:{n}", 1012)
                await until(lambda: app.presence.topics() == [])
            assert app.socket._shared.registry.lingers(restarts=True) == 0.05

    run(main())


def test_client_cancelled_by_a_stopping_server_lingers_and_is_closed_with_1012() -> None:
    async def main() -> None:
        app = App(30.0)
        async with app.node:
            made = AsgiClient(app.socket)
            await made.open()
            await made.join("room:1")
            await made.cancel()
            assert app.presence.topics() == ["room:1"]
            assert made.closed == 1012

    run(main())


def test_any_close_code_lingers_while_the_node_is_about_to_stop() -> None:
    async def main() -> None:
        app = App(30.0)
        async with app.node:
            app.node.begin_stop()
            await app.come_and_go("room:1", 1006)
            assert app.presence.topics() == ["room:1"]

    run(main())


@pytest.mark.parametrize("stopping", [False, True])
def test_polling_client_whose_session_ends_during_the_stop_lingers(stopping: bool) -> None:
    async def main() -> None:
        app = App(30.0)
        async with app.node:
            sessions = Sessions.of(app.node)
            connection = Connection(app.socket._shared, Client(), V2_TEXT)
            sessions.begin(connection)
            [session] = sessions._sessions.values()
            await session.send('["1","1","room:1","phx_join",{}]', lines=False)
            await until(lambda: app.presence.topics() == ["room:1"])
            if stopping:
                app.node.begin_stop()
            session.end()
            await until(lambda: connection._finished)
            assert app.presence.topics() == (["room:1"] if stopping else [])

    run(main())


def test_client_that_leaves_its_channel_during_the_stop_leaves_at_once() -> None:
    async def main() -> None:
        app = App(30.0)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            app.node.begin_stop()
            ann.push("1", "2", "room:1", "phx_leave", {})
            await ann.reply("2")
            assert app.presence.topics() == []

    run(main())


def test_join_that_outlives_its_connection_is_never_shown() -> None:
    async def main() -> None:
        app = App(30.0)
        async with app.node:
            made = AsgiClient(app.socket)
            await made.open()
            Slow.joining, Slow.tracked, Slow.go_on = False, False, asyncio.Event()
            made.push("1", "1", "slow:1", "phx_join", {})
            await until(lambda: Slow.joining)
            app.node.begin_stop()
            made.vanish(1012)
            await until(lambda: app.socket.stats()["connections"] == 0)
            Slow.go_on.set()
            await made.served()
            assert Slow.tracked
            assert app.presence.topics() == []

    run(main())


def test_disconnected_client_is_sent_nothing() -> None:
    async def main() -> None:
        app = App(0.0)
        async with app.node:
            made = AsgiClient(app.socket)
            await made.open()
            await made.join("room:1")
            made.vanish(1001)
            await made.served()
            for _ in range(10):
                await asyncio.sleep(0)
            assert made.closed is None

    run(main())
