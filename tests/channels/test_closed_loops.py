"""Clients of an event loop that is closed without `stop`: the next run has nothing of them."""

import asyncio
import gc
from typing import Any
from weakref import ref

import pytest

from adsum.channels import Channel, Client
from adsum.channels.carriers.sessions import Sessions
from adsum.channels.carriers.tokens import Token
from adsum.channels.connection import Connection
from adsum.channels.wire.frames import V2_TEXT
from tests.support.closed_loops import closed_loop_warnings, collect_closed_loops, run_and_close
from tests.support.eager_tasks import fetch_names
from tests.support.waiting import until

from .app import App
from .asgi_client import AsgiClient, asgi_client
from .leak_check import run

__all__ = ["collect_closed_loops"]

pytestmark = closed_loop_warnings


class Room(Channel, topic="room"):
    async def join(self, payload: Any) -> None:
        self.follow()


@pytest.mark.parametrize("fetch", [None, fetch_names], ids=["plain", "fetch"])
def test_feed_of_the_next_run_sends_every_change(
    fetch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(Room, fetch=fetch)
    old = list[AsgiClient]()

    async def begin() -> None:
        await app.node.start()
        old.append(AsgiClient(app.socket))
        await old[0].open()
        await old[0].join("room")
        app.presence.track("room", "old", owner=None)
        await old[0].payload("presence_diff")
        app.presence.track("room", "later", owner=None)  # and its diff is being made

    async def begin_again() -> None:
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            assert await ann.payload("presence_state") == {}
            for key in ("ann", "bob"):
                app.presence.track("room", key, owner=None)
                assert list((await ann.payload("presence_diff"))["joins"]) == [key]
            await app.socket.broadcast("room", "news", {})
            assert await ann.payload("news") == {}
            stats = app.socket.stats()
            assert (stats["connections"], stats["channels"], stats["followers"]) == (1, 1, 1)
            assert app.socket._shared.registry._sweeper is not None

    run_and_close(begin())
    frames = len(old[0].frames)
    run(begin_again())
    assert len(old[0].frames) == frames
    assert "failed" not in caplog.text


def test_longpoll_sessions_and_questions_are_dropped_with_a_closed_loop() -> None:
    app = App(Room)
    sessions = Sessions.of(app.node)
    begun = list[Any]()

    async def begin() -> None:
        await app.node.start()
        connection = Connection(app.socket._shared, Client(), V2_TEXT)
        token = Token.read(sessions.begin(connection))
        assert token is not None
        begun.append(asyncio.create_task(sessions.poll(app.node.name, token)))
        await asyncio.sleep(0)

    async def begin_again() -> None:
        async with app.node:
            assert sessions._sessions == {}
            assert app.socket.stats()["connections"] == 0

    run_and_close(begin())
    run(begin_again())


@pytest.mark.slow
def test_connections_of_an_interrupted_stop_are_dropped() -> None:
    app = App(Room, timeout=4.0)  # swept each second
    kept = list[Any]()

    async def begin() -> None:
        await app.node.start()
        kept.append(AsgiClient(app.socket))
        await kept[0].open()
        kept.append(asyncio.create_task(app.node.stop()))
        await asyncio.sleep(0)

    async def begin_again() -> None:
        async with app.node, asgi_client(app.socket):
            assert app.socket.stats()["connections"] == 1
            registry = app.socket._shared.registry
            sweeps = registry.sweeps
            await until(lambda: registry.sweeps > sweeps)

    run_and_close(begin())
    run(begin_again())


def test_closed_loop_with_queued_clients_leaks_nothing() -> None:
    async def flood() -> Any:
        app = App(Room)
        await app.node.start()
        for _ in range(10):
            flooder = AsgiClient(app.socket)
            await flooder.open()
            for _ in range(2000):
                flooder.send('[null,"b","phoenix","heartbeat",{}]')
        await asyncio.sleep(0)
        loops.append(ref(asyncio.get_running_loop()))

    loops = list[Any]()
    for _ in range(2):
        run_and_close(flood())
    gc.collect()
    assert loops[0]() is None  # the signals of the process keep the last one


def test_client_of_a_loop_closed_during_connect_is_not_counted() -> None:
    async def connect(client: Client) -> None:
        await asyncio.Event().wait()

    async def begin() -> None:
        await app.node.start()
        ann = AsgiClient(app.socket)
        begun.append(asyncio.create_task(ann.open()))
        await until(lambda: registry.admissions)
        begun.append(ann)

    async def begin_again() -> None:
        async with app.node:
            assert not registry.admissions

    app, begun = App(Room, connect=connect), list[Any]()
    registry = app.socket._shared.registry
    run_and_close(begin())
    run(begin_again())
