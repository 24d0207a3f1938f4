"""A WebSocket client of an ASGI application, without a server: frames sent and received.

It is as fast as the socket, so a test can send thousands of frames, and it can be a client that
does not read.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from adsum.channels import Socket
from adsum.channels.wire.frames import Wire
from adsum.channels.wire.prepared import Prepared
from tests.support.waiting import until

#: Whether the server offers direct connections; the fixture `each_carrier` sets it.
DIRECT = False


class Reads(asyncio.Event):
    """Set while a client reads; its server is called when it reads again."""

    resumed: Callable[[], None] | None = None

    def set(self) -> None:
        super().set()
        if self.resumed is not None:
            self.resumed()


class DirectServer:
    """The server's side of a direct connection, see ``docs/direct-connections.md``.

    Args:
        client: The client.
        messages: Its messages.
        receiver: The application.
    """

    def __init__(
        self, client: "AsgiClient", messages: "asyncio.Queue[dict[str, Any]]", receiver: Any
    ) -> None:
        self._client = client
        self._messages = messages
        self._receiver = receiver
        self._reading = asyncio.Event()
        self._ended = False
        self._pump = asyncio.create_task(self._read())
        client.reads.resumed = self._resume_writing

    @property
    def has_room(self) -> bool:
        return self._client.reads.is_set() and not self._ended

    def write(self, frame: Wire | Prepared) -> bool:
        if self.has_room:
            self._client.frames.append(frame.wire if isinstance(frame, Prepared) else frame)
            return True
        return False

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def close(self, code: int, reason: str) -> None:
        self._client.closed = code
        self._end(code, reason)

    def abort(self) -> None:
        self._client.closed = 1006
        self._end(1006, "")

    def _resume_writing(self) -> None:
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._receiver.writable)

    async def _read(self) -> None:
        while not self._ended:
            await self._reading.wait()
            message = await self._messages.get()
            if message["type"] == "websocket.disconnect":
                self._end(message["code"], "")
            elif not self._ended:
                text = message.get("text")
                self._receiver.received(message["bytes"] if text is None else text)

    def _end(self, code: int, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._pump.cancel()
            self._receiver.ended(code, reason)


class AsgiClient:
    """One WebSocket connection, as an ASGI server gives it to the application.

    Args:
        socket: The application.
        query: What the client puts into its URL.
    """

    def __init__(self, socket: Socket, query: str = "vsn=2.0.0") -> None:
        self._socket = socket
        self._scope = {
            "type": "websocket",
            "path": "/socket/websocket",
            "query_string": query.encode(),
            "headers": [(b"host", b"testserver")],
            "subprotocols": [],
            "client": ("testclient", 0),
            "extensions": {"adsum.direct": {"open": self._open_directly}} if DIRECT else {},
        }
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        #: All frames that the client took.
        self.frames: list[str | bytes] = []
        #: The code with which the server closed the connection.
        self.closed: int | None = None
        #: Cleared for a client that does not read.
        self.reads = Reads()
        self.reads.set()
        self.accepted = False
        self._task: asyncio.Task[None] | None = None
        # How many frames the test has looked at.
        self._seen = 0

    async def open(self) -> None:
        """Connect; returns when the server has accepted or refused."""
        self._task = asyncio.create_task(
            self._socket(self._scope, self._to_server.get, self._from_server)
        )
        self._to_server.put_nowait({"type": "websocket.connect"})
        await until(lambda: self.accepted or self.closed is not None)

    async def close(self) -> None:
        """Go away; returns when the server has done all about it, and raises what it raised."""
        self.reads.set()
        self.vanish()
        await self.served()

    def vanish(self, code: int = 1006) -> None:
        """Go away without waiting."""
        self._to_server.put_nowait({"type": "websocket.disconnect", "code": code})

    async def served(self) -> None:
        """Wait until the server has let the client go."""
        assert self._task is not None
        await self._task

    async def cancel(self) -> None:
        """Stop as servers do that tell nothing: by cancelling the application."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def send(self, frame: str | bytes) -> None:
        """Send a frame as it is."""
        kind = "text" if isinstance(frame, str) else "bytes"
        self._to_server.put_nowait({"type": "websocket.receive", kind: frame})

    def push(self, *frame: Any) -> None:
        """Send a frame that is JSON."""
        self.send(json.dumps(frame))

    @property
    def unread(self) -> int:
        """How many frames the server has not taken from the client yet."""
        return self._to_server.qsize()

    async def read(self) -> str | bytes:
        """The next frame, as it is."""
        await until(lambda: len(self.frames) > self._seen or self.closed is not None)
        assert len(self.frames) > self._seen, f"closed with {self.closed}"
        self._seen += 1
        return self.frames[self._seen - 1]

    async def reply(self, ref: str) -> Any:
        """The reply with a ref; frames before it are passed over."""
        while True:
            text = await self.read()
            frame = json.loads(text) if isinstance(text, str) else [None] * 5
            if frame[1] == ref and frame[3] == "phx_reply":
                return frame[4]

    async def payload(self, event: str) -> Any:
        """The payload of the next such event; frames before it are passed over."""
        while True:
            text = await self.read()
            if isinstance(text, str) and json.loads(text)[3] == event:
                return json.loads(text)[4]

    def events(self) -> list[str]:
        """The events of all text frames that came."""
        return [json.loads(frame)[3] for frame in self.frames if isinstance(frame, str)]

    async def join(self, topic: str, payload: Any = None, ref: str = "1") -> Any:
        """Join; returns the reply."""
        self.push(ref, ref, topic, "phx_join", payload or {})
        return await self.reply(ref)

    async def is_alive(self) -> None:
        """The connection still answers; what came before is passed over."""
        self.push(None, "beat", "phoenix", "heartbeat", {})
        assert await self.reply("beat") == {"status": "ok", "response": {}}

    def _open_directly(self, receiver: Any) -> "DirectServer":
        return DirectServer(self, self._to_server, receiver)

    async def _from_server(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            self.accepted = True
            return
        await self.reads.wait()
        if message["type"] == "websocket.close":
            self.closed = message.get("code", 1000) if self.accepted else 403
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": self.closed})
        else:
            text = message.get("text")
            self.frames.append(message["bytes"] if text is None else text)


@asynccontextmanager
async def asgi_client(socket: Socket, query: str = "vsn=2.0.0") -> AsyncIterator[AsgiClient]:
    """A line that is open."""
    made = AsgiClient(socket, query)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
