"""Servers of the conformance list: two applications under two protocol classes of uvicorn.

One application echoes messages by ASGI, the other is a `Socket` whose channel echoes payloads. A
`Peer` is one raw client of either; it sends contents in the form of the application and states
which answers it expects, so that a case is written once for all servers.
"""

import asyncio
import json
import socket as sockets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import uvicorn
import uvloop
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from adsum.channels import on
from adsum.channels.wire.wsframes import COMPRESSED
from tests.support.waiting import until

from .app import connections
from .raw_websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    RSV1,
    TEXT,
    Deflate,
    RawFrame,
    RawWebSocket,
    close_payload,
)
from .served_app import Room, ServedApp, uvicorn_server

#: Bytes of a message that the servers accept.
MAX_SIZE = 100_000
#: The protocol classes: that of uvicorn, and that with a direct path for connections of a `Socket`.
PLAIN, DIRECT = "websockets-sansio", "adsum.channels.uvicorn:WebSocketProtocol"


class Served(Protocol):
    """An application of the list, and how its messages look."""

    path: str
    #: Bytes of the shortest message whose echo can be told from its size.
    least: int

    async def start(self, stack: AsyncExitStack) -> Any:
        """Start all that the application needs; returns the ASGI application."""

    async def begin(self, peer: "Peer") -> None:
        """Do what must be done before messages are echoed."""

    def message(self, content: str | bytes) -> RawFrame:
        """The message that is answered with an echo of the content."""

    def content(self, frame: RawFrame) -> str | bytes:
        """The content that was echoed."""

    async def close(self, code: int, reason: str) -> None:
        """Close the connection of the only client."""

    async def has_ended(self, code: int, reason: str | None) -> None:
        """Wait until the application has learned of the end of the connection, and how it ended."""


class Echo:
    """An ordinary ASGI application."""

    path = "/"
    least = 0

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._send: Callable[[Any], Coroutine[Any, Any, None]] | None = None

    async def start(self, stack: AsyncExitStack) -> Any:
        return self._serve

    async def begin(self, peer: "Peer") -> None:
        assert self.events == [{"type": "websocket.connect"}]

    def message(self, content: str | bytes) -> RawFrame:
        if isinstance(content, bytes):
            return RawFrame(BINARY, content)
        return RawFrame(TEXT, content.encode())

    def content(self, frame: RawFrame) -> str | bytes:
        assert frame.opcode in (TEXT, BINARY), frame
        return frame.payload.decode() if frame.opcode == TEXT else frame.payload

    async def close(self, code: int, reason: str) -> None:
        assert self._send is not None
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def has_ended(self, code: int, reason: str | None) -> None:
        await until(lambda: self.events[-1]["type"] == "websocket.disconnect")
        expected = {"type": "websocket.disconnect", "code": code}
        assert self.events[-1] == (expected if reason is None else {**expected, "reason": reason})

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await send({"type": "http.response.start", "status": 426, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        self.events = events = [await receive()]
        self._send = send
        offered = scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None})
        while True:
            event = await receive()
            events.append(event)
            if event["type"] == "websocket.disconnect":
                return
            with suppress(OSError):  # the client closes
                await send({**event, "type": "websocket.send"})


class Gate(Room, topic="room:{room}"):
    """Echoes, and handles nothing while its gate is closed."""

    gate = asyncio.Event()

    @on("wait")
    async def wait(self, payload: Any) -> Any:
        await self.gate.wait()
        return payload


class Channels:
    """A `Socket` whose clients join one channel, which echoes."""

    path = "/socket/websocket?vsn=2.0.0"
    least = len('["1","1","room:1","echo",{"a":""}]')

    def __init__(self) -> None:
        self.made: ServedApp

    async def start(self, stack: AsyncExitStack) -> Any:
        self.made = ServedApp(channels=[Gate])
        await stack.enter_async_context(self.made.node)
        return self.made.socket

    async def begin(self, peer: "Peer") -> None:
        self.made.ends.clear()
        Gate.gate = asyncio.Event()
        join = json.dumps(["1", "0", "room:1", "phx_join", {}]).encode()
        await peer.send(RawFrame(TEXT, join))
        reply = ["1", "0", "room:1", "phx_reply", {"status": "ok", "response": {}}]
        assert json.loads((await peer.read()).payload) == reply
        is_direct = getattr(peer.protocol, "direct", None) is not None
        assert is_direct == (peer.server.ws == DIRECT)

    def message(self, content: str | bytes) -> RawFrame:
        if isinstance(content, bytes):
            return RawFrame(BINARY, bytes([0, 1, 1, 6, 3]) + b"11room:1bin" + content)
        text = json.dumps(content, ensure_ascii=False)
        return RawFrame(TEXT, f'["1","1","room:1","echo",{{"a":{text}}}]'.encode())

    def content(self, frame: RawFrame) -> str | bytes:
        if frame.opcode == BINARY:
            head = bytes([1, 1, 1, 6, 2]) + b"11room:1ok"
            assert frame.payload.startswith(head)
            return frame.payload.removeprefix(head)
        answer = json.loads(frame.payload)
        assert answer[:4] == ["1", "1", "room:1", "phx_reply"], answer
        return answer[4]["response"]["a"]  # type: ignore[no-any-return]  # what was sent

    async def close(self, code: int, reason: str) -> None:
        (connection,) = connections(self.made.socket)
        connection.close(code, reason)

    async def has_ended(self, code: int, reason: str | None) -> None:
        await until(lambda: self.made.socket.stats()["connections"] == 0 and self.made.ends)
        assert self.made.ends == [("room:1", "closed")]


@dataclass
class ConformanceServer:
    """One server of the list, which serves while something runs in its loop.

    Attributes:
        app: Its application.
        ws: Its protocol class.
        server: The server.
        port: Its port.
        run: Runs a coroutine in the loop of the server.
    """

    app: Echo | Channels
    ws: str
    server: uvicorn.Server = field(init=False)
    port: int = field(init=False)
    run: Callable[[Coroutine[Any, Any, None]], None] = field(init=False)

    def idle(self) -> bool:
        """Whether the server has no connection, and runs no application."""
        state = self.server.server_state
        return not state.connections and not state.tasks


class Peer:
    """One raw client of a server of the list.

    Attributes:
        server: The server.
        client: The connection.
        deflate: Its compression, if it was negotiated.
    """

    def __init__(self, server: ConformanceServer) -> None:
        self.server = server
        self.app = server.app
        self.client = RawWebSocket()
        self.deflate: Deflate | None = None

    async def open(
        self, extensions: str | None = None, *, buffers: int | None = None
    ) -> dict[str, str]:
        """Connect, with a valid handshake, and be ready for messages; returns the headers.

        Args:
            extensions: The offered extensions.
            buffers: Bytes that the kernel holds at each end, each way, if not as many as always.
        """
        await self.client.connect(self.server.port, buffers=buffers)
        changes = {"Sec-WebSocket-Extensions": extensions}
        status, headers = await self.client.handshake(self.app.path, changes)
        assert status == 101
        if buffers is not None:
            sock = self.protocol.transport.get_extra_info("socket")
            for option in (sockets.SO_RCVBUF, sockets.SO_SNDBUF):
                sock.setsockopt(sockets.SOL_SOCKET, option, buffers)
        await self.app.begin(self)
        return headers

    async def send(self, *frames: RawFrame) -> None:
        """Send frames in one piece."""
        await self.client.send(b"".join(frame.encode() for frame in frames))

    async def read(self) -> RawFrame:
        """The next frame of the server, decompressed; whether it was is as the class states."""
        frame = await self.client.read()
        if self.deflate is None or frame.opcode not in (TEXT, BINARY):
            return frame
        least = COMPRESSED if isinstance(self.app, Channels) and self.server.ws == DIRECT else 0
        if not frame.rsv:
            assert len(frame.payload) < least, frame
            return frame
        message = self.deflate.decompress(frame)
        assert (frame.fin, frame.rsv) == (True, RSV1), frame
        assert len(message.payload) >= least, frame
        return message

    async def receives(self, *frames: RawFrame) -> None:
        """The next frames are exactly these."""
        for frame in frames:
            assert await self.read() == frame

    async def echoes(self, *contents: str | bytes) -> None:
        """The next messages of the server echo these contents, each in one frame."""
        for content in contents:
            frame = await self.read()
            assert (frame.fin, frame.rsv) == (True, 0)
            assert self.app.content(frame) == content

    async def is_alive(self) -> None:
        """The server answers messages and pings, and sends nothing else before."""
        await self.send(self.app.message("alive"), RawFrame(PING, b"alive"))
        both = [await self.read() for _ in range(2)]
        assert RawFrame(PONG, b"alive") in both
        both.remove(RawFrame(PONG, b"alive"))
        assert self.app.content(both[0]) == "alive"

    async def is_failed(self, code: int) -> None:
        """The server fails the connection with a code, and tells the application that code."""
        frame = await self.read()
        assert (frame.opcode, frame.fin, frame.rsv) == (CLOSE, True, 0)
        assert frame.payload[:2] == close_payload(code), frame
        await self.is_closed()
        await self.app.has_ended(code, frame.payload[2:].decode())

    @property
    def protocol(self) -> WebSocketsSansIOProtocol:
        """The server's end of the connection, the only one."""
        (connection,) = self.server.server.server_state.connections
        assert isinstance(connection, WebSocketsSansIOProtocol)
        return connection

    async def is_closed(self) -> None:
        """The server sends nothing more, and closes the connection."""
        assert await self.client.read_rest() == b""

    async def leave(self) -> None:
        """Close the connection, and wait until the server has ended all that belongs to it."""
        self.client.close()
        Gate.gate.set()
        await until(self.server.idle, "the server holds the connection")


#: Applications and protocol classes, and whether the loop is that of uvloop.
SERVERS: dict[str, tuple[Callable[[], Echo | Channels], str, bool]] = {
    "echo": (Echo, PLAIN, False),
    "echo-direct": (Echo, DIRECT, False),
    "channels": (Channels, PLAIN, False),
    "channels-direct": (Channels, DIRECT, False),
    "channels-direct-uvloop": (Channels, DIRECT, True),
}


@contextmanager
def conformance_server(name: str) -> Iterator[ConformanceServer]:
    """Start a server of `SERVERS`."""
    app, ws, uv = SERVERS[name]
    made = ConformanceServer(app(), ws)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None) as runner:
        made.run = runner.run
        stack = AsyncExitStack()

        async def start() -> None:
            made.server, made.port = await stack.enter_async_context(
                uvicorn_server(
                    await made.app.start(stack), ws=ws, ws_max_size=MAX_SIZE, interface="asgi3"
                )
            )

        try:
            runner.run(start())
            yield made
        finally:
            runner.run(stack.aclose())
