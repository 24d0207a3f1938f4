"""One link: frames in and out of one connection, from handshake to goodbye.

A link is an asyncio protocol, so it works over any `asyncio.Transport`: sockets, TLS, and the
in-memory wires of the tests. Its phases::

    GREETING ──proved──▶ OPEN ──close(), error, goodbye, connection lost──▶ CLOSED
        └──────────────────── error, timeout, connection lost ─────────────────┘

A link that this end closes lingers: it has written the queued frames and its goodbye, waits for
the peer to hang up, and discards the bytes that still arrive. If the socket were closed at once
while it holds unread bytes, the kernel would reset the connection, and the goodbye could be lost.
"""

import asyncio
import contextlib
import enum
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, cast

from adsum.activetime import ActiveTimer, Cancellable
from adsum.errors import (
    ConfigurationError,
    DialError,
    HandshakeError,
    ProtocolError,
)
from adsum.quoting import printable
from adsum.transport.address import parse
from adsum.transport.base import NodeIdentity
from adsum.transport.frame_mac import TAG_BYTES, FrameMac
from adsum.transport.framing import (
    DEFLATED,
    FRAME_LIMIT,
    GOODBYE,
    PAYLOAD,
    FrameReader,
    decode_goodbye,
    encode_goodbye,
    encode_payload,
    inflate,
)
from adsum.transport.turns import FRAME_COST

if TYPE_CHECKING:
    from adsum.transport.linkpool import LinkPool

#: Start of the one goodbye reason that does not reject the peer: it may dial again.
_TOO_LATE = "no handshake within"

_NOBODY = NodeIdentity("", "", 0, ())


class _Phase(enum.Enum):
    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


class StreamLink(asyncio.Protocol):
    """A `Link` over one stream connection. Made by a `LinkPool` only.

    Args:
        hub: The transport that owns the link.
        dialled: The address that this end dialled.
        origin: The source IP address of an inbound connection, if it has one.
        protected: Whether its frames need no tags, see `Handshake`.
        refusal: The reason to refuse the peer, sent to it at once; or empty.

    Attributes:
        peer: The identity of the peer; meaningful once the link is open. Wildcard hosts in its
            addresses are replaced by the source address of its connection.
        dialled: The address that this end dialled, or None.
        version: The version of the wire protocol that both ends speak.
        outcome: On a dialled link, a future that is done when the link is open or has failed.
    """

    def __init__(
        self,
        pool: "LinkPool",
        *,
        dialled: str | None = None,
        origin: str | None = None,
        protected: bool = False,
        refusal: str = "",
    ) -> None:
        loop = asyncio.get_running_loop()
        self.peer = _NOBODY
        self.dialled = dialled
        self.version = 0
        self.waiting = False
        self.outcome: asyncio.Future[None] | None = loop.create_future() if dialled else None
        self._pool = pool
        self._origin = origin
        self._refusal = refusal
        self._loop = loop
        self._phase = _Phase.GREETING
        self._reader = FrameReader()
        self._handshake = pool.begin_handshake(dialling=dialled is not None, protected=protected)
        # Makes the tags of the frames sent after the proof; None on a link without tags.
        self._mac: FrameMac | None = None
        # None before the connection is made; stays set when it is lost.
        self._wire: asyncio.Transport | None = None
        self._gone = False
        # Whether the peer has sent any bytes.
        self._heard = False
        # Frames of this loop turn, with their tags; `_flush` joins them into one write.
        self._outbound: list[bytes] = []
        # Bytes in `_outbound`, plus the write buffer of the wire when the first frame was queued.
        self._queued = 0
        # The last value passed to the handler's `link_writable`.
        self._writable = True
        # Whether the write buffer of the wire is above a quarter of the high-water mark.
        self._backed_up = False
        self._reading_paused = False
        # The reason of a lost connection, set while received frames are still to be delivered.
        self._lost: str | None = None
        # Limits the time of the handshake, and later of lingering.
        self._timer: Cancellable | None = None

    def __repr__(self) -> str:
        return f"<link {self._phase.value} {self.describe()}>"

    @property
    def wire(self) -> asyncio.Transport | None:
        """The asyncio transport of the connection; None before it is made."""
        return self._wire

    def describe(self) -> str:
        """The peer for a log line: its address, and its name once that is proved."""
        where = printable(self.dialled or self._origin or "a process of this host", 320)
        return f"{self.peer.name!r} ({where})" if self.peer.name else where

    # Called by the node.

    def send(self, payload: bytes) -> None:
        """See `Link.send`."""
        frame = encode_payload(payload)
        if self._phase is not _Phase.OPEN:
            return
        if not self._outbound:
            self._loop.call_soon(self._flush)
            self._queued = self._wire.get_write_buffer_size() if self._wire is not None else 0
        self._queue(frame)
        if self._queued > self._pool.limits.send_limit:
            self._overflow()
        elif self._queued > self._pool.limits.send_high_water:
            self._set_writable(False)

    def close(self, reason: str) -> None:
        """See `Link.close`."""
        if self._phase is _Phase.OPEN:
            self._writable = False  # without a call: the handler itself closes it
            self._part(reason)

    # Called by the transport.

    def shut(self, reason: str) -> None:
        """Close an open link in order or abort a handshake; a closed link is left alone."""
        if self._phase is _Phase.OPEN:
            self.close(reason)
        elif self._phase is _Phase.GREETING:
            self.abort(reason)

    def abort(self, reason: str, *, logged: bool = False) -> None:
        """Drop the connection, unsent frames included; `logged` if the caller has logged why."""
        self._drop_outbound()
        if self._phase is _Phase.GREETING:
            self._refuse(DialError, reason, tell=False, logged=logged)
        elif self._phase is _Phase.OPEN:
            self._end(reason)
        if self._wire is None:
            self._forget()
        else:
            self._wire.abort()
            # uvloop calls no `connection_lost` if making the connection was cancelled.
            self._loop.call_soon(self._forget)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake, or refuse the peer."""
        # A cast, because the transports of other event loops need not be subclasses.
        wire = self._wire = cast(asyncio.Transport, transport)
        if self._phase is not _Phase.GREETING:
            wire.abort()
            return
        # The high-water mark is checked in `send`; the wire reports when most of it has drained.
        low_water = self._pool.limits.send_high_water // 4
        wire.set_write_buffer_limits(low_water, low_water)
        _disable_delay(wire)
        if self._refusal:
            self._refuse(HandshakeError, self._refusal, tell=True, logged=True)
            return
        self._timer = ActiveTimer(self._pool.limits.handshake_timeout, self._time_out, self._loop)
        hello = self._handshake.start()
        if hello:
            wire.write(hello)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; deliver complete frames as far as the budget of this turn allows."""
        self._heard = True
        self._reader.feed(data)
        if self._phase is _Phase.CLOSED:
            self._look_for_goodbye()
            return
        self._pool.turns.offer(self)
        if (
            self.waiting
            and not self._reading_paused
            and len(self._reader) > self._pool.limits.receive_backlog
        ):
            self._pause_reading()

    def eof_received(self) -> bool:
        """The peer hung up: abort, because nobody will read the unsent bytes."""
        if self._wire is not None:
            self._wire.abort()
        return False

    def pause_writing(self) -> None:
        """The write buffer of the wire is above a quarter of the high-water mark."""
        self._backed_up = True

    def resume_writing(self) -> None:
        """The write buffer of the wire has drained to a quarter of the high-water mark."""
        self._backed_up = False
        self._look_for_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the link, after the frames that have already arrived were delivered."""
        self._gone = True
        reason = (
            "connection lost" if exc is None else f"connection lost: {printable(str(exc), 200)}"
        )
        if self._phase is _Phase.GREETING:
            kind = HandshakeError if isinstance(exc, ssl.SSLError) else DialError
            self._refuse(kind, f"{reason} during the handshake", tell=False)
        elif self._phase is _Phase.OPEN:
            if self.waiting:
                self._lost = reason
                return
            self._end(reason)
        self._forget()

    # Called by `TurnBudget`.

    def deliver(self) -> int | None:
        """Handle the next frame; never raises. See `Source.deliver`."""
        if self._phase is _Phase.CLOSED:
            return None
        try:
            frame = self._reader.take()
            if frame is None:
                return None
            return FRAME_COST + self._receive(*frame)
        except ProtocolError as error:
            self._fail(error)
        except Exception as error:
            self._pool.failed(self, error)
            if self._phase is _Phase.OPEN:
                self._part("internal error")
            elif self._phase is _Phase.GREETING:
                self._refuse(DialError, "internal error", tell=True, logged=True)
        return None

    def caught_up(self) -> None:
        """Read again, or end a lost link: all frames are delivered. See `Source.caught_up`."""
        if self._reading_paused:
            self._resume_reading()
        if self._lost is not None:
            if self._phase is _Phase.OPEN:
                self._end(self._lost)
            self._forget()

    # Frames.

    def _receive(self, kind: int, body: bytes) -> int:
        if kind == GOODBYE:
            self._receive_goodbye(decode_goodbye(body))
            return len(body)
        if self._phase is _Phase.GREETING:
            self._receive_greeting(kind, body)
            return len(body)
        if kind == DEFLATED:
            body = inflate(body)
        elif kind != PAYLOAD:
            raise ProtocolError(f"a frame of kind {kind} on an open link")
        self._pool.handler.frame_received(self, body)
        return len(body)

    def _receive_greeting(self, kind: int, body: bytes) -> None:
        handshake = self._handshake
        answer = handshake.receive(kind, body)
        # Each is None until the proof of that direction: frames after the proof have tags.
        self._mac, self._reader.mac = handshake.outgoing, handshake.incoming
        wire = self._wire
        if answer and wire is not None and not wire.is_closing():
            wire.write(answer)
        if handshake.peer is not None:
            self._open(handshake.peer)

    def _receive_goodbye(self, reason: str) -> None:
        if self._phase is _Phase.GREETING:
            kind = DialError if reason.startswith(_TOO_LATE) else HandshakeError
            self._refuse(kind, f"refused: {reason}", tell=False)
        else:
            self._drop_outbound()
            self._end(f"peer closed: {reason}")
        if self._wire is not None:
            self._wire.abort()

    # Phases.

    def _open(self, peer: NodeIdentity) -> None:
        if self._handshake.is_self:
            # The dialler is this node too; the proof has shown it that it dialled itself.
            self._end_greeting()
            self._linger()
            return
        self._end_greeting()
        self._phase = _Phase.OPEN
        self._reader.limit = FRAME_LIMIT
        self.version = self._handshake.version
        self.peer = with_seen_host(peer, self._seen_at() or "127.0.0.1")
        self._pool.opened(self)
        try:
            self._pool.handler.link_opened(self)
        finally:
            self._resolve(None)

    def _end_greeting(self) -> None:
        self._cancel_timer()
        self._phase = _Phase.CLOSED

    def _refuse(
        self,
        kind: type[HandshakeError | DialError],
        why: str,
        *,
        tell: bool,
        logged: bool = False,
    ) -> None:
        """End a handshake that has failed; on a dialled link, `dial` raises the error.

        Args:
            kind: The class of the error.
            why: The reason, for the error, the log and the peer.
            tell: Whether to send the peer a goodbye with the reason.
            logged: Whether the caller has logged the reason.
        """
        error = kind(f"{self.describe()}: {why}")
        self._end_greeting()
        if tell:
            self._queue(encode_goodbye(why))
            self._linger()
        # A connection that sends no bytes is a probe, of a load balancer or a sibling.
        if self.outcome is None and self._heard and not logged:
            # A sibling that starts and stops at once may leave during the handshake.
            expected = self._origin is None and issubclass(kind, DialError)
            self._pool.refused(str(error), expected=expected)
        self._resolve(error)

    def _fail(self, error: ProtocolError) -> None:
        """Close the link to a peer that broke the protocol."""
        if self._phase is _Phase.OPEN:
            self._pool.offended(self, str(error))
            self._part(str(error))
        elif isinstance(error, HandshakeError):
            self._refuse(type(error), str(error), tell=True)
        else:
            self._refuse(HandshakeError, f"does not speak the protocol: {error}", tell=True)

    def _time_out(self) -> None:
        seconds = self._pool.limits.handshake_timeout
        self._refuse(DialError, f"{_TOO_LATE} {seconds:g} s", tell=True)

    def _part(self, reason: str) -> None:
        """Close an open link in order."""
        self._queue(encode_goodbye(reason))
        self._end(reason)
        self._linger()

    def _end(self, reason: str) -> None:
        """Leave OPEN, so nothing more is sent. `link_closed` follows in a later turn."""
        self._phase = _Phase.CLOSED
        self._set_writable(False)
        self._loop.call_soon(self._pool.handler.link_closed, self, reason)

    def _linger(self) -> None:
        """Write the queued frames, then wait up to `close_grace` for the peer to hang up."""
        wire = self._wire
        if wire is None or self._gone:
            self._drop_outbound()
            return
        if not wire.is_closing():
            wire.write(b"".join(self._outbound))
            if self._reading_paused:
                self._resume_reading()
        self._drop_outbound()
        self._timer = ActiveTimer(self._pool.limits.close_grace, wire.abort, self._loop)
        self._look_for_goodbye()

    def _look_for_goodbye(self) -> None:
        """Abort a closed link once the peer's goodbye has arrived; drop all other frames."""
        try:
            while (frame := self._reader.take()) is not None:
                if frame[0] == GOODBYE and self._wire is not None:
                    self._wire.abort()
                    return
        except ProtocolError:
            # The stream is unreadable; the peer hanging up, or the timer, ends the link.
            self._reader.clear()

    def _forget(self) -> None:
        self._cancel_timer()
        self._drop_outbound()
        self._reader.clear()
        self._pool.gone(self)

    def _resolve(self, error: Exception | None) -> None:
        if self.outcome is None or self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)

    # The wire.

    def hang_up(self) -> None:
        """End the connection at once, without the event loop if that is closed."""
        if not self._loop.is_closed():
            self.abort("the node is closing")
            return
        sock = self._wire.get_extra_info("socket") if self._wire is not None else None
        if sock is not None:
            # The peer was faster, or the loop is uvloop's, which closes its sockets itself.
            with contextlib.suppress(OSError, TypeError):
                sock.shutdown(socket.SHUT_RDWR)

    def _queue(self, frame: bytes) -> None:
        """Queue a frame, with its tag on an authenticated link."""
        self._outbound.append(frame)
        self._queued += len(frame)
        if self._mac is not None:
            self._outbound.append(self._mac.tag(frame))
            self._queued += TAG_BYTES

    def _flush(self) -> None:
        wire = self._wire
        if self._phase is not _Phase.OPEN or wire is None:
            return
        if wire.is_closing():
            self._drop_outbound()
            return
        frames = self._outbound
        chunk = frames[0] if len(frames) == 1 else b"".join(frames)
        self._drop_outbound()
        wire.write(chunk)
        self._look_for_room()

    def _overflow(self) -> None:
        limit = self._pool.limits.send_limit
        reason = f"the peer reads too slowly: more than {limit} bytes wait to be sent"
        self._pool.offended(self, reason)
        self._drop_outbound()
        self._end(reason)
        if self._wire is not None:
            self._wire.abort()

    def _drop_outbound(self) -> None:
        self._outbound = []
        self._queued = 0

    def _look_for_room(self) -> None:
        """Become writable again once all frames are written and most of the buffer has drained."""
        if self._phase is _Phase.OPEN and not self._outbound and not self._backed_up:
            self._set_writable(True)

    def _set_writable(self, writable: bool) -> None:
        if writable is not self._writable:
            self._writable = writable
            self._pool.handler.link_writable(self, writable)

    def _pause_reading(self) -> None:
        if self._wire is not None and not self._wire.is_closing():
            self._wire.pause_reading()
            self._reading_paused = True

    def _resume_reading(self) -> None:
        self._reading_paused = False
        if self._wire is not None and not self._wire.is_closing():
            self._wire.resume_reading()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _seen_at(self) -> str | None:
        """The IP address of the peer, or None on a Unix socket."""
        name = self._wire.get_extra_info("peername") if self._wire is not None else None
        return plain_ip(name[0]) if isinstance(name, tuple) and name else None


def with_seen_host(peer: NodeIdentity, host: str) -> NodeIdentity:
    """The peer's identity, with the source address of its connection for every wildcard host."""
    addresses: list[str] = []
    for text in peer.addresses:
        try:
            address = parse(text, "address of a peer")
        except ConfigurationError:
            addresses.append(text)  # A form of a later version, or of a test.
            continue
        addresses.append(str(address.with_host(host)) if address.is_wildcard else text)
    # Both families on one port become the same address.
    unique = tuple(dict.fromkeys(addresses))
    return NodeIdentity(peer.cluster, peer.name, peer.incarnation, unique)


def plain_ip(host: str) -> str:
    """The IPv4 address of an IPv4-mapped IPv6 address, as a dual-stack listener reports peers.

    Any other text is returned unchanged.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _disable_delay(transport: asyncio.Transport) -> None:
    """Turn off Nagle's algorithm, which only delays frames that are already joined here."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
