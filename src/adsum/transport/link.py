"""An established link: frames to and from a peer that has proved itself, until either end closes.

The handler of the transport receives the frames, and is informed when the queue of the link passes
its high-water mark. A link whose queue grows beyond the limit nevertheless is closed.
"""

import asyncio
from typing import Protocol

from adsum.errors import ProtocolError
from adsum.transport.contract import LinkHandler, NodeIdentity
from adsum.transport.framing import (
    FRAME_LIMIT,
    encode_close,
    encode_payload,
    payload_of,
)
from adsum.transport.limits import TransportLimits
from adsum.transport.streamconnection import StreamConnection


class LinkOwner(Protocol):
    """The part of a link pool that a link uses."""

    handler: LinkHandler
    limits: TransportLimits

    def offended(self, connection: StreamConnection, why: str) -> None:
        """Log that the peer of an open link broke the protocol or does not read."""


class StreamLink:
    """A `Link` over one stream connection; the `Phase` of the connection that follows its greeting.

    Args:
        connection: The connection, whose peer has proved itself.
        owner: The transport that owns it.
        peer: The identity of the peer.
        version: The version of the wire protocol that both ends speak.

    Attributes:
        peer: The identity of the peer. Wildcard hosts in its addresses are replaced by the source
            address of its connection.
        dialled: The address that this end dialled, or None.
        version: The version of the wire protocol that both ends speak.
        connection: The connection.
    """

    name = "open"
    delivers_all = True
    #: See `Link`.
    direct = True

    def __init__(
        self, connection: StreamConnection, owner: LinkOwner, peer: NodeIdentity, version: int
    ) -> None:
        self.peer = peer
        self.dialled = connection.dialled
        self.version = version
        self.connection = connection
        self._owner = owner
        # The last value passed to the handler's `link_writable`.
        self._writable = True

    def __repr__(self) -> str:
        return f"<link {'open' if self._open else 'closed'} {self.connection.describe()}>"

    @property
    def wire(self) -> asyncio.Transport | None:
        """The asyncio transport of the connection."""
        return self.connection.wire

    @property
    def _open(self) -> bool:
        return self.connection.phase is self

    # Called by the node.

    def send(self, payload: bytes) -> None:
        """See `Link.send`."""
        frame = encode_payload(payload)
        connection = self.connection
        if connection.phase is not self:
            return
        queued = connection.post(frame)
        if queued > self._owner.limits.send_limit:
            self._overflow()
        elif queued > self._owner.limits.send_high_water:
            self._set_writable(False)

    def close(self, reason: str) -> None:
        """See `Link.close`."""
        if self._open:
            self._writable = False  # without a call: the handler itself closes it
            self._close_in_order(reason)

    # Called by the connection.

    def begin(self) -> None:
        """Open: the peer is trusted with frames of the full size, and the handler is informed."""
        self.connection.peer = self.peer.name
        self.connection.reader.limit = FRAME_LIMIT
        self._owner.handler.link_opened(self)

    def receive(self, kind: int, body: bytes) -> int:
        """Pass a payload to the handler."""
        payload = payload_of(kind, body)
        self._owner.handler.frame_received(self, payload)
        return len(payload)

    def has_room(self) -> None:
        """Become writable again."""
        self._set_writable(True)

    def shut(self, reason: str) -> None:
        """Close in order."""
        self.close(reason)

    def peer_left(self, reason: str) -> None:
        """End a link that the peer has closed."""
        self.connection.drop_outbound()
        self._end(f"peer closed: {reason}")

    def peer_broke_protocol(self, error: ProtocolError) -> None:
        """Close the link to a peer that broke the protocol."""
        self._owner.offended(self.connection, str(error))
        self._close_in_order(str(error))

    def crashed(self) -> None:
        """Close a link whose frame could not be handled."""
        self._close_in_order("internal error")

    def lost(self, reason: str, error: Exception | None) -> None:
        """End a link whose connection is lost."""
        self._end(reason)

    def aborted(self, reason: str, *, logged: bool) -> None:
        """End a link whose connection this end drops."""
        self._end(reason)

    # Ends.

    def _overflow(self) -> None:
        limit = self._owner.limits.send_limit
        reason = f"the peer reads too slowly: more than {limit} bytes wait to be sent"
        self._owner.offended(self.connection, reason)
        self.connection.drop_outbound()
        self._end(reason)
        self.connection.abort_wire()

    def _close_in_order(self, reason: str) -> None:
        """Close an open link in order."""
        self.connection.queue(encode_close(reason))
        self._end(reason)
        self.connection.linger()

    def _end(self, reason: str) -> None:
        """End the phase, so nothing more is sent. `link_closed` follows in a later turn."""
        self.connection.phase = None
        # First, so that it follows although the handler raises in the next line.
        self.connection.loop.call_soon(self._owner.handler.link_closed, self, reason)
        self._set_writable(False)

    def _set_writable(self, writable: bool) -> None:
        if writable is not self._writable:
            self._writable = writable
            self._owner.handler.link_writable(self, writable)
