"""A process on the path: it answers at an address, relays to another, and may alter everything."""

import asyncio
import json

from adsum.transport.address import TcpAddress, parse
from adsum.transport.frame_mac import TAG_BYTES
from adsum.transport.framing import HELLO, PROOF


class RelayedDirection(asyncio.Protocol):
    """One direction of a relayed connection: what one end sends, cut into frames with their tags.

    The greeting is passed on. What follows is passed on as well, or kept in `held`.
    """

    def __init__(self, relay: "Relay") -> None:
        self.relay = relay
        self.wire: asyncio.Transport | None = None
        self.other: RelayedDirection | None = None
        #: Frames with their tags.
        self.seen: list[bytes] = []
        self.held: list[bytes] = []
        self.hold = False
        self.wishes_tags = False
        self.proved = False
        self.closed = False
        self._buffer = b""
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        for data in self._early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (size := self._size()) <= len(self._buffer):
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            self._pass(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.other is not None and self.other.wire is not None:
            self.other.wire.close()

    def write(self, data: bytes) -> None:
        """Send bytes of any kind to the end that this flow comes from."""
        if self.wire is None:
            self._early.append(data)
        else:
            self.wire.write(data)

    def inject(self, data: bytes) -> None:
        """Send bytes of any kind to the other end, as if they came from this one."""
        assert self.other is not None
        self.other.write(data)

    def _size(self) -> int:
        if len(self._buffer) < 4:
            return 4
        assert self.other is not None
        has_tag = self.proved and (self.wishes_tags or self.other.wishes_tags)
        return 4 + int.from_bytes(self._buffer[:4], "big") + (TAG_BYTES if has_tag else 0)

    def _pass(self, frame: bytes) -> None:
        if self.proved:
            self.seen.append(frame)
            if self.hold:
                self.held.append(frame)
                return
        if frame[4] == HELLO:
            self.wishes_tags = json.loads(frame[5:])[7:] == [1]
        elif frame[4] == PROOF:
            self.proved = True
        self.inject(frame)


class Relay:
    """Accepts connections, and connects each to one address."""

    def __init__(self, target: str) -> None:
        where = parse(target)
        assert isinstance(where, TcpAddress)
        self._target = where.host, where.port
        #: By connection: what the dialler sends, and what the acceptor sends.
        self.links: list[tuple[RelayedDirection, RelayedDirection]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen; returns the address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self) -> RelayedDirection:
        dialler, acceptor = RelayedDirection(self), RelayedDirection(self)
        dialler.other, acceptor.other = acceptor, dialler
        self.links.append((dialler, acceptor))
        task = asyncio.get_running_loop().create_task(self._connect(acceptor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return dialler

    async def _connect(self, acceptor: RelayedDirection) -> None:
        await asyncio.get_running_loop().create_connection(lambda: acceptor, *self._target)

    async def close(self) -> None:
        """Hang up on all."""
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for flow in (flow for link in self.links for flow in link):
            if flow.wire is not None:
                flow.wire.abort()
        await asyncio.sleep(0)
