"""The first phase of a connection: the handshake, within its time, to an open link or a refusal."""

import asyncio
import ssl
from typing import Protocol

from adsum.activetime import ActiveTimer, Cancellable
from adsum.errors import ConfigurationError, DialError, HandshakeError, ProtocolError
from adsum.transport.address import parse
from adsum.transport.contract import NodeIdentity
from adsum.transport.framing import encode_close
from adsum.transport.handshake import Handshake
from adsum.transport.link import LinkOwner, StreamLink
from adsum.transport.streamconnection import StreamConnection

#: Start of the one goodbye reason that does not reject the peer: it may dial again.
_TOO_LATE = "no handshake within"


class GreetingOwner(LinkOwner, Protocol):
    """The part of a link pool that a greeting uses."""

    def opened(self, connection: StreamConnection) -> None:
        """Record that the peer of a connection has proved itself."""

    def refused(self, why: str, *, expected: bool = False) -> None:
        """Log that an inbound handshake failed; at debug level if that is `expected`."""


class Greeting:
    """The handshake phase of one connection; a `Phase`.

    Args:
        connection: The connection; this becomes its phase.
        owner: The transport that owns it.
        handshake: This end of the handshake.
        refusal: The reason to refuse the peer, sent to it at once; or empty.

    Attributes:
        outcome: On a dialled connection, a future that is done when the link is open or has failed.
    """

    name = "greeting"
    delivers_all = False

    def __init__(
        self,
        connection: StreamConnection,
        owner: GreetingOwner,
        handshake: Handshake,
        *,
        refusal: str = "",
    ) -> None:
        self.connection = connection
        self.outcome: asyncio.Future[None] | None = None
        if connection.dialled is not None:
            self.outcome = connection.loop.create_future()
        self._owner = owner
        self._handshake = handshake
        self._refusal = refusal
        self._timer: Cancellable | None = None
        connection.phase = self

    # Called by the connection.

    def begin(self) -> None:
        """Start the handshake, or refuse the peer."""
        if self._refusal:
            self._refuse(HandshakeError, self._refusal, inform=True, logged=True)
            return
        seconds = self._owner.limits.handshake_timeout
        self._timer = ActiveTimer(seconds, self._time_out, self.connection.loop)
        self.connection.write(self._handshake.start())

    def receive(self, kind: int, body: bytes) -> int:
        """Handle a frame of the handshake."""
        handshake, connection = self._handshake, self.connection
        answer = handshake.receive(kind, body)
        # Each is None until the proof of that direction: frames after the proof have tags.
        connection.mac, connection.reader.mac = handshake.outgoing, handshake.incoming
        connection.write(answer)
        if handshake.peer is not None:
            self._open(handshake.peer)
        return len(body)

    def has_room(self) -> None:
        """Nothing waits for room in this phase."""

    def shut(self, reason: str) -> None:
        """Abort: there is no link yet that could be closed in order."""
        self.connection.abort(reason)

    def peer_left(self, reason: str) -> None:
        """The peer refused this end, or took too long itself."""
        kind = DialError if reason.startswith(_TOO_LATE) else HandshakeError
        self._refuse(kind, f"refused: {reason}", inform=False)

    def peer_broke_protocol(self, error: ProtocolError) -> None:
        """Refuse a peer that speaks another protocol, or that proves to be another node."""
        if isinstance(error, HandshakeError):
            self._refuse(type(error), str(error), inform=True)
        else:
            self._refuse(HandshakeError, f"does not speak the protocol: {error}", inform=True)

    def crashed(self) -> None:
        """End a handshake that raised an unexpected error."""
        self._refuse(DialError, "internal error", inform=True, logged=True)

    def lost(self, reason: str, error: Exception | None) -> None:
        """End a handshake whose connection is lost."""
        kind = HandshakeError if isinstance(error, ssl.SSLError) else DialError
        self._refuse(kind, f"{reason} during the handshake", inform=False)

    def aborted(self, reason: str, *, logged: bool) -> None:
        """End a handshake that this end gave up."""
        self._refuse(DialError, reason, inform=False, logged=logged)

    # Ends.

    def _open(self, peer: NodeIdentity) -> None:
        connection = self.connection
        self._end()
        if self._handshake.is_self:
            # The dialler is this node too; the proof has shown it that it dialled itself.
            connection.linger()
            return
        peer = with_source_host(peer, connection.source_ip() or "127.0.0.1")
        link = StreamLink(connection, self._owner, peer, self._handshake.version)
        self._owner.opened(connection)
        try:
            connection.hand_over(link)
        finally:
            self._resolve(None)

    def _refuse(
        self,
        kind: type[HandshakeError | DialError],
        why: str,
        *,
        inform: bool,
        logged: bool = False,
    ) -> None:
        """End a handshake that has failed; on a dialled connection, `dial` raises the error.

        Args:
            kind: The class of the error.
            why: The reason, for the error, the log and the peer.
            inform: Whether to send the peer a goodbye with the reason.
            logged: Whether the caller has logged the reason.
        """
        connection = self.connection
        error = kind(f"{connection.describe()}: {why}")
        self._end()
        if inform:
            connection.queue(encode_close(why))
            connection.linger()
        # A connection that sends no bytes is a probe, of a load balancer or a sibling.
        if self.outcome is None and connection.received_any and not logged:
            # A sibling that starts and stops at once may leave during the handshake.
            expected = connection.origin is None and issubclass(kind, DialError)
            self._owner.refused(str(error), expected=expected)
        self._resolve(error)

    def _time_out(self) -> None:
        seconds = self._owner.limits.handshake_timeout
        self._refuse(DialError, f"{_TOO_LATE} {seconds:g} s", inform=True)

    def _end(self) -> None:
        self.connection.phase = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _resolve(self, error: Exception | None) -> None:
        if self.outcome is None or self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)


def with_source_host(peer: NodeIdentity, host: str) -> NodeIdentity:
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
