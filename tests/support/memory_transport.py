"""An in-memory network, for tests of whole nodes without sockets.

Only the kernel is replaced: links, framing, handshake, limits and fair delivery are those of
`adsum.transport.sockets`, and every byte passes through them. All nodes share one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from adsum.errors import (
    ConfigurationError,
    DialError,
    DialRefusedError,
    ListenError,
)
from adsum.transport.address import TcpAddress, parse
from adsum.transport.contract import LinkHandler, NodeIdentity
from adsum.transport.link import StreamLink
from adsum.transport.linkpool import LinkPool
from adsum.transport.options import TransportOptions

#: Bytes that a wire delivers in one loop turn at most, as a socket's `recv` would.
_CHUNK = 64 * 1024
_FIRST_FREE_PORT = 49152


class MemoryNetwork:
    """The network that the transports of a test share: its listeners and its partitions.

    Example:
        >>> network = MemoryNetwork()
        >>> network.partition("a", "b")
        >>> network.is_cut("b", "a")
        True
    """

    def __init__(self) -> None:
        self._listeners: dict[str, MemoryTransport] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._next_port = _FIRST_FREE_PORT

    def partition(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Silently drop all bytes from node `one` to node `other`, and back unless `one_way`.

        Links stay open, as they do over a network that loses packets, but writes during the
        partition are lost for good. An authenticated link detects the loss at the next frame and
        closes. Dials between the two nodes time out.
        """
        self._cuts.add((one, other))
        if not one_way:
            self._cuts.add((other, one))

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """End the partition between two nodes, or every partition."""
        if one is None or other is None:
            self._cuts.clear()
        else:
            self._cuts -= {(one, other), (other, one)}

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether writes of `sender` to `receiver` are lost."""
        return (sender, receiver) in self._cuts

    def sever(self, link: StreamLink) -> None:
        """Break a link like a connection reset: both ends lose it, without a goodbye."""
        wire = link.wire
        if not isinstance(wire, MemoryWire):
            raise TypeError(f"{link!r} is not a link of a memory network")
        wire.reset()

    def _bind(self, text: str, transport: "MemoryTransport") -> str:
        for candidate in self._candidates(text):
            if candidate not in self._listeners:
                self._listeners[candidate] = transport
                return candidate
        raise ListenError(f"{text}: taken on this memory network; choose another address")

    def _candidates(self, text: str) -> list[str]:
        try:
            address = parse(text)
        except ConfigurationError:
            return [text]  # Any string names a listener here.
        if isinstance(address, TcpAddress) and address.port == 0:
            self._next_port += 1
            return [str(TcpAddress(address.host, self._next_port, self._next_port))]
        return [str(single) for single in address.each_port()]

    def _release(self, transport: "MemoryTransport") -> None:
        kept = {text: owner for text, owner in self._listeners.items() if owner is not transport}
        self._listeners = kept

    def _listener(self, text: str) -> "MemoryTransport | None":
        return self._listeners.get(text)


class MemoryTransport(LinkPool):
    """A transport on a `MemoryNetwork`; fulfils `Transport`.

    Args:
        network: The network to listen and dial on.
        identity: The identity of the node.
        handler: Receives the events of links.
        options: The options that all links share; nothing is encrypted.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        identity: NodeIdentity,
        handler: LinkHandler,
        options: TransportOptions | None = None,
    ) -> None:
        super().__init__(identity, handler, options or TransportOptions())
        self._network = network

    async def listen(self, address: str) -> str:
        """Accept links at `address`: `host:port` with ranges and port 0, or any other string.

        Raises:
            ListenError: Another transport listens there already, or this one is closed.
        """
        if self.closing:
            raise ListenError(f"{address}: the transport is closed")
        return self._network._bind(address, self)

    async def dial(self, address: str) -> None:
        """Open a link to the node that listens at `address`. See `Transport.dial`.

        Raises:
            DialRefusedError: No transport listens there.
            DialError: The network is cut in between, or the peer did not answer in time.
            HandshakeError: The peer was reached, but it and this node cannot form a link.
        """
        listener = self._network._listener(address)
        if listener is None:
            raise DialRefusedError(f"{address}: nothing listens there")
        mine, theirs = self.identity.name, listener.identity.name
        if self._network.is_cut(mine, theirs) or self._network.is_cut(theirs, mine):
            await asyncio.sleep(self.limits.connect_timeout)
            raise DialError(f"{address}: no answer within {self.limits.connect_timeout:g} s")
        greeting = self.begin_dial(address)
        accepted = listener.accept_connection()
        if accepted is None:
            greeting.connection.abort("connection lost during the handshake")
        else:
            connect(
                greeting.connection,
                accepted,
                lambda: self._network.is_cut(mine, theirs),
                lambda: self._network.is_cut(theirs, mine),
            )
        with self.attempt(greeting) as outcome:
            await outcome

    async def close(self) -> None:
        """Stop listening and close every link. Idempotent."""
        self._network._release(self)
        await self.close_connections()

    def abandon(self) -> None:
        """Abort every link, as the end of its process does."""
        self._network._release(self)
        for connection in self.connections():
            connection.hang_up()


def connect(
    dialler: asyncio.Protocol,
    acceptor: asyncio.Protocol,
    dialler_is_cut: Callable[[], bool] = bool,
    acceptor_is_cut: Callable[[], bool] = bool,
) -> None:
    """Connect two protocols by a pair of wires.

    Args:
        dialler: The end that opened the connection.
        acceptor: The other end; its `connection_made` is called first.
        dialler_is_cut: Whether writes of the dialler are lost at present.
        acceptor_is_cut: Whether writes of the acceptor are lost at present.
    """
    one = MemoryWire(dialler, dialler_is_cut)
    other = MemoryWire(acceptor, acceptor_is_cut)
    one.join(other)
    other.join(one)
    loop = asyncio.get_running_loop()
    loop.call_soon(acceptor.connection_made, other)
    loop.call_soon(dialler.connection_made, one)


class MemoryWire(asyncio.Transport):
    """One end of a connection in memory: an `asyncio.Transport` over two queues of writes.

    Bytes written here are queued until the other end reads them, in order, one chunk a loop turn.
    While the other end has paused reading, the queue grows, and `pause_writing` applies
    backpressure to this end.
    """

    def __init__(self, protocol: asyncio.Protocol, is_cut: Callable[[], bool]) -> None:
        super().__init__({"peername": ("127.0.0.1", 0)})
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._is_cut = is_cut
        self._other: MemoryWire = self
        self._unread: deque[memoryview] = deque()
        self._size = 0
        self._high = self._low = _CHUNK
        self._full = False
        self._reading = True
        self._closing = False
        self._lost = False
        self._pump_scheduled = False

    def join(self, other: "MemoryWire") -> None:
        """Set the other end, before anything is written."""
        self._other = other

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._high = _CHUNK if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return self._size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes for the other end; they are lost if the network is partitioned now."""
        if not data or self._closing or self._is_cut():
            return
        self._unread.append(memoryview(bytes(data)))
        self._size += len(data)
        self._schedule_pump()
        if self._size > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._reading = False

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._reading = True
        self._other._schedule_pump()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing

    def close(self) -> None:
        """Close once everything written has been read."""
        self._closing = True
        self._schedule_pump()

    def abort(self) -> None:
        """Close now; bytes that the other end has not read are lost."""
        self._unread.clear()
        self._size = 0
        self.close()

    def reset(self) -> None:
        """Reset the connection: both ends lose it at once, and all unread bytes."""
        for wire in (self, self._other):
            wire._unread.clear()
            wire._closing = True
            self._loop.call_soon(wire._lose, ConnectionResetError("connection reset"))

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See `asyncio.BaseTransport`."""
        return self._protocol

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Deliver one chunk to the other end, like one readiness event of a socket."""
        self._pump_scheduled = False
        if self._other._lost:
            self._unread.clear()
        elif self._unread and self._other._reading:
            self._carry()
        if self._unread and self._other._reading:
            self._schedule_pump()
        elif self._closing and not self._unread:
            self._lose(None)
            self._other._hang_up()

    def _carry(self) -> None:
        chunk = self._unread.popleft()
        if len(chunk) > _CHUNK:
            self._unread.appendleft(chunk[_CHUNK:])
            chunk = chunk[:_CHUNK]
        self._size -= len(chunk)
        self._other._protocol.data_received(bytes(chunk))
        if self._full and self._size <= self._low:
            self._full = False
            self._protocol.resume_writing()

    def _hang_up(self) -> None:
        """Signal the end of the stream, as a socket does when the other end has closed."""
        if not self._lost and not self._closing:
            self._protocol.eof_received()
            self.abort()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._protocol.connection_lost(error)
