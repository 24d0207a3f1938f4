"""A browser for tests of an application's channels: no server, no network, no sleeping.

It calls a `Socket` as a server does, in the event loop of the test, with real frames. It waits for
frames under way and not for time: diffs of presences that a socket would collect for some
milliseconds are sent at once.
"""

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from adsum.arguments import instance
from adsum.channels import Socket
from adsum.errors import AdsumError

#: Seconds after which an expected frame counts as missing.
PATIENCE = 5.0
#: Turns of the event loop without a new frame after which no frame is under way.
_QUIET_TURNS = 20

#: Presences by key, as `Presence.list` returns them.
Entries = dict[str, Any]


class RefusedByServerError(AdsumError):
    """The server refused a connection, a join or an event.

    Attributes:
        response: The response of the server; empty for a connection.
    """

    def __init__(self, event: str, response: Any) -> None:
        super().__init__(f"{event} was refused: {response!r}")
        self.response = response


class Browser:
    """A client of an application's channels, with one connection: ``async with``, then `join`.

    Args:
        socket: The application's socket. Its node has to run.
        params: As phoenix.js's option ``params``.
        token: As phoenix.js's option ``authToken``.
        headers: Headers of the request, as ``{"cookie": "..."}``.

    Raises:
        ConfigurationError: `socket` is not a `Socket`.
        RefusedByServerError: The server refused the connection, on entering the block.

    Example:
        >>> import asyncio, adsum
        >>> from adsum.channels import Channel, Socket, on
        >>> from adsum.testing import Browser
        >>> class Room(Channel, topic="room:{room}"):
        ...     async def join(self, payload):
        ...         self.track(self.client.params["user"])
        ...
        ...     @on("shout")
        ...     async def shout(self, payload):
        ...         await self.broadcast("shout", payload)
        >>> async def main():
        ...     node = adsum.Node(siblings=False)
        ...     socket = Socket(adsum.Presence(node), [Room])
        ...     async with node, Browser(socket, {"user": "ann"}) as ann:
        ...         room = await ann.join("room:1")
        ...         await room.push("shout", {"text": "hi"})
        ...         return await room.expect("shout"), list(await room.presence())
        >>> asyncio.run(main())
        ({'text': 'hi'}, ['ann'])
    """

    def __init__(
        self,
        socket: Socket,
        params: dict[str, str] | None = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        instance("socket", socket, Socket, "an adsum.channels.Socket, not the application around")
        self._socket = socket
        self._scope = _scope(params or {}, token, headers or {})
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        # Received frames that no call has expected yet; presence frames are not among them.
        self._frames: list[list[Any]] = []
        self._arrived = asyncio.Event()
        self._ref = 0
        self._task: asyncio.Task[None] | None = None
        self._rooms: dict[str, JoinedChannel] = {}
        #: The code with which the server closed the connection.
        self.closed: int | None = None
        self._accepted = False
        # The message of an error that the server made; empty if it made none.
        self._broken = ""

    async def connect(self) -> Self:
        """Connect without an ``async with`` block; call `close` at the end.

        Raises:
            RefusedByServerError: The server refused the connection.
        """
        self._task = asyncio.create_task(
            self._socket(self._scope, self._to_server.get, self._from_server)
        )
        self._to_server.put_nowait({"type": "websocket.connect"})
        await self._until(lambda: self._accepted or self.closed is not None, "an answer")
        if not self._accepted:
            await self._task
            raise RefusedByServerError("the connection", {})
        return self

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect without leaving, as when the tab is closed or the network is lost.

        Presences tracked with a `linger` stay for that time. Returns when the server has handled it
        completely.
        """
        if self._task is not None and not self._task.done():
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": 1001})
            await self._task

    async def join(self, topic: str, payload: Any = None) -> "JoinedChannel":
        """Join a channel.

        Returns:
            The channel; `response` is the server's reply.

        Raises:
            RefusedByServerError: The server refused; the error has its response.
            AssertionError: The channel crashed, or no reply came.
        """
        channel = JoinedChannel(self, topic, self._next_ref())
        self._rooms[topic] = channel
        channel.response = await self._request(channel, "phx_join", payload)
        return channel

    async def expect_close(self) -> int:
        """Wait until the server closes the connection; returns the code."""
        await self._until(lambda: self.closed is not None, "the end of the connection")
        return self.closed or 0

    async def _request(self, channel: "JoinedChannel", event: str, payload: Any) -> Any:
        ref = channel.join_ref if event == "phx_join" else self._next_ref()
        self._send(channel, ref, event, payload)
        frame = await self._expect(
            lambda frame: (
                (frame[1] == ref and frame[3] == "phx_reply")
                or (frame[0] == channel.join_ref and frame[2:4] == [channel.topic, "phx_error"])
            ),
            f"a reply to {event!r} on {channel.topic!r} (a handler that returns None sends none)",
        )
        if frame[3] == "phx_error":
            self._frames.append(frame)
            raise AssertionError(
                f"{channel.topic!r} crashed before a reply to {event!r}; see the log"
            )
        if frame[4]["status"] != "ok":
            raise RefusedByServerError(f"{event!r} on {channel.topic!r}", frame[4]["response"])
        return frame[4]["response"]

    def _send(self, channel: "JoinedChannel", ref: str, event: str, payload: Any) -> None:
        body = {} if payload is None else payload
        if isinstance(body, bytes):
            words = [word.encode() for word in (channel.join_ref, ref, channel.topic, event)]
            head = bytes([0, *(len(word) for word in words)])
            message = {"type": "websocket.receive", "bytes": head + b"".join(words) + body}
        else:
            text = json.dumps([channel.join_ref, ref, channel.topic, event, body])
            message = {"type": "websocket.receive", "text": text}
        self._to_server.put_nowait(message)

    async def _from_server(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            self._accepted = True
        elif message["type"] == "websocket.close":
            self.closed = message.get("code", 1000) if self._accepted else 403
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": self.closed})
        elif message["type"] == "websocket.http.response.start":
            self.closed = message["status"]
        elif message["type"] == "websocket.send":
            self._take(message)
        self._arrived.set()

    def _take(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        frame = json.loads(text) if text is not None else _read_binary(message["bytes"])
        room = self._rooms.get(frame[2])
        try:
            if room is None or not room._fold(frame):
                self._frames.append(frame)
        except KeyError as error:
            self._broken = (
                f"{frame[3]} on {frame[2]!r} names {error}, which was not listed: {frame}"
            )

    async def _expect(self, right: Callable[[list[Any]], bool], event: str) -> list[Any]:
        found: list[list[Any]] = []

        def take() -> bool:
            for index, frame in enumerate(self._frames):
                if right(frame):
                    found.append(self._frames.pop(index))
                    return True
            return False

        await self._until(take, event)
        return found[0]

    async def _until(self, condition: Callable[[], bool], event: str) -> None:
        """Wait until a condition holds; meanwhile the socket sends collected diffs at once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while not condition():
            if self._task is not None and self._task.done() and self.closed is None:
                self._task.result()
                self.closed = 1006
                continue
            if self._broken:
                raise AssertionError(self._broken)
            if loop.time() > deadline or self.closed is not None:
                raise AssertionError(f"{event} did not come; there is {self._received()}")
            self._arrived.clear()
            await self._turn()

    async def _turn(self) -> None:
        """Let the event loop run until a frame arrives, for some turns and then 10 ms for I/O."""
        for _ in range(_QUIET_TURNS):
            self._socket.flush_presences()
            await asyncio.sleep(0)
            if self._arrived.is_set():
                return
        try:
            async with asyncio.timeout(0.01):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _quiet(self) -> None:
        """Wait until all frames under way have arrived."""
        turns = 0
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while turns < _QUIET_TURNS:
            if self._broken:
                raise AssertionError(self._broken)
            self._arrived.clear()
            fetching = self._socket.flush_presences()
            await asyncio.sleep(0.001 if fetching else 0)
            turns = 0 if self._arrived.is_set() or fetching else turns + 1
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"events do not end; there is {self._received()}")

    def _next_ref(self) -> str:
        self._ref += 1
        return str(self._ref)

    def _received(self) -> str:
        ended = "" if self.closed is None else f"; the connection was closed with {self.closed}"
        return f"{[frame[2:] for frame in self._frames]}{ended}"


class JoinedChannel:
    """A channel that a `Browser` joined.

    Attributes:
        topic: Its topic.
        response: The server's reply to the join.
    """

    def __init__(self, browser: Browser, topic: str, join_ref: str) -> None:
        self.topic = topic
        self.join_ref = join_ref
        self.response: Any = None
        self._browser = browser
        # The presences, folded from the frames; None before the first state.
        self._present: Entries | None = None

    async def push(self, event: str, payload: Any = None) -> None:
        """Send an event and do not wait for a reply. Bytes are sent as a binary frame."""
        self._browser._send(self, self._browser._next_ref(), event, payload)
        await asyncio.sleep(0)

    async def ask(self, event: str, payload: Any = None) -> Any:
        """Send an event and wait for the reply.

        Raises:
            RefusedByServerError: The reply was ``error``; the exception has its response.
            AssertionError: The channel crashed, or no reply came.
        """
        return await self._browser._request(self, event, payload)

    async def expect(self, event: str) -> Any:
        """Wait for an event on this topic, pushed or broadcast; returns the payload of the next.

        Raises:
            AssertionError: The event did not come.
        """
        frame = await self._browser._expect(
            lambda frame: self._concerns(frame) and frame[3] == event,
            f"{event!r} on {self.topic!r}",
        )
        return frame[4]

    async def refute(self, event: str) -> None:
        """Check that an event did not come, once all frames under way have arrived.

        Raises:
            AssertionError: The event came.
        """
        await self._browser._quiet()
        for frame in self._browser._frames:
            if self._concerns(frame) and frame[3] == event:
                raise AssertionError(f"{event!r} came on {self.topic!r}: {frame[4]!r}")

    async def presence(self) -> dict[str, Any]:
        """The presences that this client has received, in the form of `Presence.list`.

        They equal those of phoenix.js's ``Presence``, fields that `fetch` added included, except
        for the order of metas.

        Raises:
            AssertionError: No state came. Does the channel track or follow?
        """
        await self._browser._until(
            lambda: self._present is not None,
            f"presence_state on {self.topic!r} (see Channel.track and Channel.follow)",
        )
        await self._browser._quiet()
        present = self._present or {}
        return {key: {**present[key], "metas": [*present[key]["metas"]]} for key in sorted(present)}

    async def leave(self) -> None:
        """Leave the channel."""
        await self._browser._request(self, "phx_leave", None)

    def _concerns(self, frame: list[Any]) -> bool:
        return frame[2] == self.topic and frame[0] in (None, self.join_ref)

    def _fold(self, frame: list[Any]) -> bool:
        """Apply a frame to the presences; returns whether it was a presence frame."""
        if frame[3] == "presence_state" and self._concerns(frame):
            self._present = {}
            _add(self._present, frame[4])
        elif frame[3] == "presence_diff" and self._present is not None and self._concerns(frame):
            _add(self._present, frame[4]["joins"])
            _remove(self._present, frame[4]["leaves"])
        else:
            return False
        return True


def _add(present: Entries, entries: Entries) -> None:
    for key, entry in entries.items():
        known = present[key]["metas"] if key in present else []
        present[key] = {**entry, "metas": [*known, *entry["metas"]]}


def _remove(present: Entries, entries: Entries) -> None:
    for key, entry in entries.items():
        refs = {meta["phx_ref"] for meta in entry["metas"]}
        known = present[key]["metas"]
        missing = refs - {meta["phx_ref"] for meta in known}
        if missing:
            raise KeyError(missing.pop())
        present[key]["metas"] = [meta for meta in known if meta["phx_ref"] not in refs]
        if not present[key]["metas"]:
            del present[key]


def _scope(params: dict[str, str], token: str | None, headers: dict[str, str]) -> dict[str, Any]:
    given = {"host": "testserver", **headers}
    if token is not None:
        given["x-phoenix-authtoken"] = token
    return {
        "type": "websocket",
        "path": "/socket/websocket",
        "query_string": urlencode({**params, "vsn": "2.0.0"}).encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "subprotocols": [],
        "client": ("testclient", 0),
        "extensions": {},
    }


def _read_binary(data: bytes) -> list[Any]:
    """Decode a binary frame of a server into the array of a text frame."""
    counts = {0: 3, 1: 4, 2: 2}[data[0]]
    words, at = list[str](), 1 + counts
    for length in data[1 : 1 + counts]:
        words.append(data[at : at + length].decode())
        at += length
    body = data[at:]
    if data[0] == 1:
        join_ref, ref, topic, status = words
        return [join_ref, ref, topic, "phx_reply", {"status": status, "response": body}]
    if data[0] == 0:
        return [words[0], None, words[1], words[2], body]
    return [None, None, words[0], words[1], body]
