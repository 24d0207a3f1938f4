"""One connection: frames in and out of one byte stream, whatever phase it is in.

A connection is an asyncio protocol, so it works over any `asyncio.Transport`: sockets, TLS, and the
in-memory wires of the tests. A phase receives its frames and decides what is sent::

    Greeting ──proved──▶ StreamLink ──close(), error, goodbye, connection lost──▶ none
        └──────────────────── error, timeout, connection lost ───────────────────┘

A connection whose phase this end has ended lingers: it has written the queued frames and its
goodbye, waits for the peer to hang up, and discards the bytes that still arrive. If the socket were
closed at once while it holds unread bytes, the kernel would reset the connection, and the goodbye
could be lost.
"""

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from adsum.activetime import ActiveTimer, Cancellable
from adsum.errors import ProtocolError
from adsum.quoting import printable
from adsum.transport.address import plain_ip
from adsum.transport.frame_mac import TAG_BYTES, FrameMac
from adsum.transport.framing import CLOSE, FrameReader, decode_close
from adsum.transport.limits import TransportLimits
from adsum.transport.phase import Phase
from adsum.transport.turns import FRAME_COST, TurnBudget


class ConnectionOwner(Protocol):
    """The part of a link pool that a connection uses."""

    limits: TransportLimits
    turns: TurnBudget

    def failed(self, connection: "StreamConnection", error: Exception) -> None:
        """Log that handling a frame raised an unexpected error."""

    def gone(self, connection: "StreamConnection") -> None:
        """Forget a connection that is gone. Idempotent."""


class StreamConnection(asyncio.Protocol):
    """One stream connection. Made by a `LinkPool` only.

    Args:
        owner: The transport that owns it.
        dialled: The address that this end dialled; None on an inbound connection.
        origin: The source IP address of an inbound connection, if it has one.

    Attributes:
        phase: The present phase; None once it has ended.
        peer: The name of the peer; empty until it is proved.
        wire: The asyncio transport; None before the connection is made, and kept when it is lost.
        received_any: Whether the peer has sent any bytes.
        reader: Splits the received bytes into frames.
        mac: Makes the tags of the frames sent after the proof; None on a link without tags.
        queued: Bytes queued in this loop turn, plus those in the write buffer of the wire when the
            first of them was queued.
    """

    def __init__(
        self, owner: ConnectionOwner, *, dialled: str | None = None, origin: str | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.dialled = dialled
        self.origin = origin
        self.phase: Phase | None = None
        self.peer = ""
        self.wire: asyncio.Transport | None = None
        self.received_any = False
        self.reader = FrameReader()
        self.mac: FrameMac | None = None
        self.waiting = False
        self._owner = owner
        self._gone = False
        # Frames of this loop turn, with their tags; `_flush` joins them into one write.
        self._outbound: list[bytes] = []
        self.queued = 0
        # Whether the write buffer of the wire is above a quarter of the high-water mark.
        self._backed_up = False
        self._reading_paused = False
        # The reason of a lost connection, set while received frames are still to be delivered.
        self._lost: str | None = None
        # Limits the time of lingering.
        self._timer: Cancellable | None = None

    def __repr__(self) -> str:
        name = self.phase.name if self.phase is not None else "closed"
        return f"<connection {name} {self.describe()}>"

    def describe(self) -> str:
        """The peer for a log line: its address, and its name once that is proved."""
        where = printable(self.dialled or self.origin or "a process of this host", 320)
        return f"{self.peer!r} ({where})" if self.peer else where

    def source_ip(self) -> str | None:
        """The IP address of the peer, or None on a Unix socket."""
        name = self.wire.get_extra_info("peername") if self.wire is not None else None
        return plain_ip(name[0]) if isinstance(name, tuple) and name else None

    # Called by the transport.

    def shut(self, reason: str) -> None:
        """Close an open link in order or abort a handshake; a closed connection is left alone."""
        if self.phase is not None:
            self.phase.shut(reason)

    def abort(self, reason: str, *, logged: bool = False) -> None:
        """Drop the connection, unsent frames included; `logged` if the caller has logged why."""
        self.drop_outbound()
        if self.phase is not None:
            self.phase.aborted(reason, logged=logged)
        if self.wire is None:
            self._forget()
        else:
            self.wire.abort()
            # uvloop calls no `connection_lost` if making the connection was cancelled.
            self.loop.call_soon(self._forget)

    def hang_up(self) -> None:
        """End the connection at once, without the event loop if that is closed."""
        if not self.loop.is_closed():
            self.abort("the node is closing")
            return
        sock = self.wire.get_extra_info("socket") if self.wire is not None else None
        if sock is not None:
            # The peer was faster, or the loop is uvloop's, which closes its sockets itself.
            with contextlib.suppress(OSError, TypeError):
                sock.shutdown(socket.SHUT_RDWR)

    # Called by phases.

    def hand_over(self, phase: Phase) -> None:
        """Enter the next phase."""
        self.phase = phase
        phase.begin()

    def write(self, data: bytes) -> None:
        """Write bytes at once, unless the connection is closing."""
        if data and self.wire is not None and not self.wire.is_closing():
            self.wire.write(data)

    def post(self, frame: bytes) -> int:
        """Queue a frame for the write at the end of this loop turn; returns the bytes queued."""
        if not self._outbound:
            self.loop.call_soon(self._flush)
            self.queued = self.wire.get_write_buffer_size() if self.wire is not None else 0
        self.queue(frame)
        return self.queued

    def queue(self, frame: bytes) -> None:
        """Queue a frame, with its tag on an authenticated link."""
        self._outbound.append(frame)
        self.queued += len(frame)
        if self.mac is not None:
            self._outbound.append(self.mac.tag(frame))
            self.queued += TAG_BYTES

    def drop_outbound(self) -> None:
        """Drop the frames that are not written yet."""
        self._outbound = []
        self.queued = 0

    def abort_wire(self) -> None:
        """Drop the wire; its loss is reported in a later turn."""
        if self.wire is not None:
            self.wire.abort()

    def linger(self) -> None:
        """Write the queued frames, then wait up to `close_grace` for the peer to hang up."""
        wire = self.wire
        if wire is None or self._gone:
            self.drop_outbound()
            return
        if not wire.is_closing():
            wire.write(b"".join(self._outbound))
            if self._reading_paused:
                self._resume_reading()
        self.drop_outbound()
        self._timer = ActiveTimer(self._owner.limits.close_grace, wire.abort, self.loop)
        self._read_goodbye()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the first phase, or drop the connection if that has ended meanwhile."""
        # A cast, because the transports of other event loops need not be subclasses.
        wire = self.wire = cast(asyncio.Transport, transport)
        if self.phase is None:
            wire.abort()
            return
        # The high-water mark is checked in `send`; the wire reports when most of it has drained.
        low_water = self._owner.limits.send_high_water // 4
        wire.set_write_buffer_limits(low_water, low_water)
        _disable_delay(wire)
        self.phase.begin()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; deliver complete frames as far as the budget of this turn allows."""
        self.received_any = True
        self.reader.feed(data)
        if self.phase is None:
            self._read_goodbye()
            return
        self._owner.turns.offer(self)
        if (
            self.waiting
            and not self._reading_paused
            and len(self.reader) > self._owner.limits.receive_backlog
        ):
            self._pause_reading()

    def eof_received(self) -> bool:
        """The peer hung up: abort, because the unsent bytes will not be read."""
        self.abort_wire()
        return False

    def pause_writing(self) -> None:
        """The write buffer of the wire is above a quarter of the high-water mark."""
        self._backed_up = True

    def resume_writing(self) -> None:
        """The write buffer of the wire has drained to a quarter of the high-water mark."""
        self._backed_up = False
        self._report_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the phase, after the frames that have already arrived were delivered."""
        self._gone = True
        reason = (
            "connection lost" if exc is None else f"connection lost: {printable(str(exc), 200)}"
        )
        if self.phase is not None:
            if self.phase.delivers_all and self.waiting:
                self._lost = reason
                return
            self.phase.lost(reason, exc)
        self._forget()

    # Called by `TurnBudget`.

    def deliver(self) -> int | None:
        """Handle the next frame; never raises. See `TurnSource.deliver`."""
        if self.phase is None:
            return None
        try:
            frame = self.reader.take()
            if frame is None:
                return None
            return FRAME_COST + self._receive(self.phase, *frame)
        except ProtocolError as error:
            if self.phase is not None:
                self.phase.peer_broke_protocol(error)
        except Exception as error:
            self._owner.failed(self, error)
            if self.phase is not None:
                self.phase.crashed()
        return None

    def caught_up(self) -> None:
        """Read again, or end a lost link: all frames are delivered. See `TurnSource.caught_up`."""
        if self._reading_paused:
            self._resume_reading()
        if self._lost is not None:
            if self.phase is not None:
                self.phase.lost(self._lost, None)
            self._forget()

    def _receive(self, phase: Phase, kind: int, body: bytes) -> int:
        if kind != CLOSE:
            return phase.receive(kind, body)
        phase.peer_left(decode_close(body))
        self.abort_wire()
        return len(body)

    def _flush(self) -> None:
        wire = self.wire
        if self.phase is None or wire is None:
            return
        if wire.is_closing():
            self.drop_outbound()
            return
        frames = self._outbound
        chunk = frames[0] if len(frames) == 1 else b"".join(frames)
        self.drop_outbound()
        wire.write(chunk)
        self._report_room()

    def _report_room(self) -> None:
        if self.phase is not None and not self._outbound and not self._backed_up:
            self.phase.has_room()

    def _read_goodbye(self) -> None:
        """Abort once the goodbye of the peer has arrived after the end; drop all other frames."""
        try:
            while (frame := self.reader.take()) is not None:
                if frame[0] == CLOSE and self.wire is not None:
                    self.wire.abort()
                    return
        except ProtocolError:
            # The stream is unreadable; the peer hanging up, or the timer, ends the connection.
            self.reader.clear()

    def _pause_reading(self) -> None:
        if self.wire is not None and not self.wire.is_closing():
            self.wire.pause_reading()
            self._reading_paused = True

    def _resume_reading(self) -> None:
        self._reading_paused = False
        if self.wire is not None and not self.wire.is_closing():
            self.wire.resume_reading()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.drop_outbound()
        self.reader.clear()
        self._owner.gone(self)


def _disable_delay(transport: asyncio.Transport) -> None:
    """Turn off Nagle's algorithm, which only delays frames that are already joined here."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
