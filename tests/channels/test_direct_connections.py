"""Connections over a server's direct path: order, pauses, ends, and when it is used."""

import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect

from adsum.channels import Channel, Limits, on
from adsum.channels.carriers.direct import offered
from adsum.channels.connection import Connection
from tests.support.waiting import until

from . import asgi_client as clients
from .app import App, Tracking, connections
from .asgi_client import AsgiClient, asgi_client
from .captured_log import Log
from .leak_check import leak_checked
from .served_app import ServedApp, served_app, uvicorn_server
from .test_unread import Unread
from .ws_client import url, ws_client

WS = "adsum.channels.uvicorn:WebSocketProtocol"


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server in the process of the test offers direct connections."""
    monkeypatch.setattr(clients, "DIRECT", True)


class Counter(Channel, topic="counter"):
    """Counts its events."""

    counted = 0

    @on("count")
    async def count(self, payload: Any) -> None:
        Counter.counted += 1


@pytest.mark.usefixtures("direct")
@leak_checked
async def test_frames_before_a_disconnect_are_handled_although_they_were_held() -> None:
    Counter.counted = 0
    app = App(Counter, limits=Limits(waiting=10_000))
    async with app.node:
        ann = AsgiClient(app.socket)
        await ann.open()
        await ann.join("counter")
        for _ in range(2000):  # more than the budget of one turn
            ann.push("1", None, "counter", "count", {})
        ann.vanish()
        await ann.served()
        assert Counter.counted == 2000


@pytest.mark.usefixtures("direct")
@leak_checked
async def test_crash_while_held_frames_are_handled_closes_with_1011(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(Tracking)
    async with app.node:
        ann = AsgiClient(app.socket)
        await ann.open()
        await ann.join("room")

        def crash(self: Connection, data: object) -> None:
            raise RuntimeError("not expected")

        (connection,) = connections(app.socket)
        connection.share.charge(10**9)  # so that frames are held
        monkeypatch.setattr(Connection, "receive", crash)
        ann.push(None, "1", "phoenix", "heartbeat", {})
        await ann.served()
        assert ann.closed == 1011
        assert "could not be handled" in log.everything


class Nested:
    """A source that sends a frame while its own is made."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def frame(self) -> str:
        self._connection.send("second")
        return "first"


@pytest.mark.usefixtures("direct")
@leak_checked
async def test_frame_sent_while_another_is_made_follows_it() -> None:
    app = App(Tracking)
    async with app.node, asgi_client(app.socket) as ann:
        (connection,) = connections(app.socket)
        connection.outbox.put_source(Nested(connection))
        await until(lambda: len(ann.frames) == 2)  # the budget of the turn may be spent
        assert ann.frames == ["first", "second"]


@leak_checked
async def test_slow_consumer_that_is_given_up_frees_its_socket_at_once(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.channels.connection.GRACE", 0.2)
    async with served_app(limits=Limits(outbox=200_000), timeout=1.0, ws=WS) as made:
        unread = Unread(made)
        await unread.open()
        await unread.flood()
        await until(lambda: made.socket.stats()["connections"] == 0, "it still counts")
        assert made.server is not None
        sockets = made.server.server_state.connections
        await until(lambda: not sockets, "the server holds its socket")
        unread.close()


@leak_checked
async def test_frames_keep_their_order_while_a_client_reads_slowly() -> None:
    limits = Limits(outbox=64 * 1024 * 1024)
    async with (
        served_app(ws=WS, limits=limits) as made,
        connect(url(made), proxy=None, compression=None, max_queue=1) as ann,
    ):
        await ann.send(json.dumps(["3", "3", "room:1", "phx_join", {}]))
        await ann.recv()
        text = "x" * 20_000
        for n in range(400):  # more than the buffers of both sockets
            await ann.send(json.dumps(["3", f"e{n}", "room:1", "echo", {"text": text}]))
        (connection,) = connections(made.socket)
        await until(lambda: connection.outbox)
        for n in range(400):
            assert json.loads(await ann.recv())[1] == f"e{n}"
        assert connection.outbox.frames == 401


@leak_checked
async def test_compressing_client_receives_replies_and_broadcasts() -> None:
    async with served_app(ws=WS) as made, connect(url(made), proxy=None) as ann:
        assert ann.protocol.extensions
        await ann.send(json.dumps(["3", "3", "room:1", "phx_join", {}]))
        await ann.recv()
        for size in (1, 300, 3000, 10_000):
            text = "word " * size
            await ann.send(json.dumps(["3", "4", "room:1", "echo", {"text": text}]))
            assert json.loads(await ann.recv())[4]["response"] == {"text": text}
            await made.socket.broadcast("room:1", "news", {"text": text})
            assert json.loads(await ann.recv())[4] == {"text": text}


@leak_checked
async def test_middleware_can_withdraw_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def admit(scope: Any) -> None:
        seen.append(scope["extensions"].pop("adsum.direct"))

    async with served_app(ws=WS) as made:
        inner = made.socket._upgrade

        async def without(scope: Any, *rest: Any) -> Any:
            await admit(scope)
            return await inner(scope, *rest)

        monkeypatch.setattr(made.socket, "_upgrade", without)
        async with ws_client(made) as ann:
            await ann.is_alive()
            (connection,) = connections(made.socket)
            assert connection._carrier is not None
            assert not connection._carrier.write("not direct")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "extensions", [None, {}, {"adsum.direct": {}}, {"adsum.direct": {"open": 1}}]
)
def test_unusable_extension_is_ignored(extensions: Any) -> None:
    assert offered({"extensions": extensions}) is None
    assert offered({}) is None


@pytest.mark.usefixtures("direct")
@leak_checked
async def test_written_frames_count_as_sent() -> None:
    app = App(Tracking)
    async with app.node, asgi_client(app.socket) as ann:
        await ann.is_alive()
        stats = app.socket.stats()
        assert stats["sent_frames_total"] == 1
        assert stats["sent_bytes_total"] == sum(len(frame) for frame in ann.frames)


@leak_checked
async def test_frames_are_sent_without_delay_also_by_the_workers_of_uvicorn() -> None:
    made = ServedApp()
    async with (
        made.node,
        uvicorn_server(made.socket, ws=WS, proto=0) as (server, port),
        connect(f"ws://127.0.0.1:{port}/websocket?vsn=2.0.0"),
    ):
        (connection,) = server.server_state.connections
        found = connection.transport.get_extra_info("socket")
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
