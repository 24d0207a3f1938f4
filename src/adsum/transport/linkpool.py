"""The pool of one transport's connections: identity, options, fair turns, orderly closing."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator

from adsum.activetime import active_timeout
from adsum.errors import DialError
from adsum.forks import process
from adsum.quoting import printable
from adsum.sparselog import SparseLog
from adsum.transport.contract import Link, LinkHandler, NodeIdentity
from adsum.transport.framing import Payload
from adsum.transport.greeting import Greeting
from adsum.transport.handshake import Handshake, encode_hello
from adsum.transport.options import TransportOptions
from adsum.transport.streamconnection import StreamConnection
from adsum.transport.turns import TurnBudget
from adsum.transport.unproven import Unproven, network_of
from adsum.transport.users import foreign_user
from adsum.values.limits import MAX_NODE_NAME

logger = logging.getLogger("adsum.transport")


class LinkPool:
    """The part of a transport that is independent of sockets; the base of every transport.

    Args:
        identity: The identity of the node; may be replaced later, see `identity`.
        handler: Receives the events of links.
        options: The options that all links share.

    Raises:
        ConfigurationError: No peer would accept the identity.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        handler: LinkHandler,
        options: TransportOptions,
    ) -> None:
        self.handler = handler
        self.options = options
        self.limits = options.limits
        self.turns = TurnBudget(self.limits.turn_budget)
        self._closing = False
        self._generation = process.generation
        self.identity = identity
        # All connections, in any phase, until they are gone.
        self._connections: set[StreamConnection] = set()
        # Inbound connections whose peer has not proved itself, over TCP and over Unix sockets.
        self._unproven_tcp = Unproven[StreamConnection](self.limits.pending_handshakes)
        self._unproven_unix = Unproven[StreamConnection](self.limits.pending_handshakes)
        # Dialled connections without an open link yet, and the number of those being made.
        self._dialled: set[StreamConnection] = set()
        self._connecting = 0
        # Lines begin with this node: a process may run nodes of several clusters.
        self._refusals = SparseLog(logger, "%s: an inbound connection was refused: %s")
        self._offences = SparseLog(logger, "%s: link to %s")
        self._failures = SparseLog(
            logger, "%s: link to %s closed: its frame could not be handled", logging.ERROR
        )
        self._troubles = SparseLog(logger, "%s: %s")
        # Set while `_connections` is empty; made by the first wait for it.
        self._emptied: asyncio.Event | None = None

    @property
    def identity(self) -> NodeIdentity:
        """The identity that this node sends in new handshakes.

        Set it again when listening has shown which addresses were bound. Peers of links that are
        open keep the identity that they received.
        """
        return self._identity

    @identity.setter
    def identity(self, identity: NodeIdentity) -> None:
        encode_hello(identity, self.options.versions, bytes(32), True)
        self._identity = identity

    @property
    def _own(self) -> str:
        """This node in a log line, by name and incarnation, as in the lines of `adsum.node`."""
        identity = self._identity
        return f"{printable(identity.name, MAX_NODE_NAME)}@{identity.incarnation:x}"

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the process that the transport belongs to."""
        return self._generation != process.generation

    @property
    def closing(self) -> bool:
        """Whether no more links may form: the transport is closed or inherited."""
        return self._closing or self.inherited

    def connections(self) -> list[StreamConnection]:
        """All connections, in any phase, until they are gone."""
        return list(self._connections)

    def send(self, links: Iterable[Link], payload: bytes) -> None:
        """Queue one frame on each of these links. See `Transport.send`."""
        shared = payload if isinstance(payload, Payload) else Payload(payload)
        for link in links:
            link.send(shared)

    # Called by a concrete transport.

    def accept_connection(
        self, origin: str | None = None, user: int | None = None, *, protected: bool = False
    ) -> StreamConnection | None:
        """Make the protocol of an inbound connection; None means to close it at once.

        If too many connections are unproven, another one is dropped in its place, see `Unproven`.

        Args:
            origin: The source IP address; None on a Unix socket.
            user: The user id of the peer on a Unix socket, if the platform reports it.
            protected: Whether its frames need no tags, see `Handshake`.
        """
        if self.closing:
            return None
        refusal = foreign_user(user, self.options.secret) if origin is None else ""
        connection = StreamConnection(self, origin=origin)
        self._greet(connection, protected=protected, refusal=refusal)
        if refusal:
            self.refused(f"{connection.describe()}: {refusal}")
        if origin is None:
            victim = self._unproven_unix.add(connection, user)
        else:
            victim = self._unproven_tcp.add(connection, network_of(origin))
        if victim is not None:
            most = self.limits.pending_handshakes
            self.refused(f"{victim.describe()}: more than {most} handshakes are pending")
            self.drop(victim)
        return None if victim is connection else connection

    def drop(self, connection: StreamConnection) -> None:
        """Abort an unproven connection; the caller has logged the reason."""
        connection.abort("too many handshakes are pending", logged=True)

    @contextlib.contextmanager
    def connecting(self, address: str) -> Iterator[None]:
        """Count a connection that is being made, until `begin_dial` counts it.

        Raises:
            DialError: `TransportLimits.pending_dials` connections are being dialled already.
        """
        if self._connecting + len(self._dialled) >= self.limits.pending_dials:
            raise DialError(f"{address}: {self.limits.pending_dials} dials are under way already")
        self._connecting += 1
        try:
            yield
        finally:
            self._connecting -= 1

    def begin_dial(self, address: str, *, protected: bool = False) -> Greeting:
        """Make the protocol of an outbound connection to `address`, in its first phase.

        Args:
            address: The dialled address.
            protected: Whether its frames need no tags, see `Handshake`.

        Raises:
            DialError: The transport is closed.
        """
        if self.closing:
            raise DialError(f"{address}: the transport is closed")
        connection = StreamConnection(self, dialled=address)
        greeting = self._greet(connection, protected=protected)
        self._dialled.add(connection)
        return greeting

    @contextlib.contextmanager
    def attempt(self, greeting: Greeting) -> Iterator["asyncio.Future[None]"]:
        """Abort a dialled connection when the block fails or is cancelled; yields its outcome."""
        outcome = greeting.outcome
        assert outcome is not None  # noqa: S101 - every dialled connection has one
        try:
            yield outcome
        except BaseException:
            # Nobody awaits the outcome any more; asyncio would log its error as never retrieved.
            outcome.cancel()
            greeting.connection.shut("the dial was abandoned")
            raise

    async def close_connections(self) -> None:
        """Close every link and wait until all connections are gone, within the grace period."""
        self._closing = True
        for connection in self.connections():
            connection.shut("the node is closing")
        try:
            async with active_timeout(self.limits.close_grace + 0.5):
                await self._wait_until_empty()
        except TimeoutError:
            count = len(self._connections)
            logger.warning("%s: %d connections did not close in time", self._own, count)
        finally:
            for connection in self.connections():
                connection.abort("the node is closing")
            for log in (self._refusals, self._offences, self._failures, self._troubles):
                log.flush()
        # One more turn, in which the handler's `link_closed` is called for the last links.
        await asyncio.sleep(0)

    # Called by connections, greetings and links.

    def opened(self, connection: StreamConnection) -> None:
        """Record that the peer of a connection has proved itself."""
        self._forget_unproven(connection)
        self._dialled.discard(connection)

    def refused(self, why: str, *, expected: bool = False) -> None:
        """Log that an inbound handshake failed; at debug level if that is `expected`."""
        if self.closing:
            return
        if expected:
            logger.debug("%s: an inbound connection was refused: %s", self._own, why)
        else:
            self._refusals.log(self._own, why)

    def offended(self, connection: StreamConnection, why: str) -> None:
        """Log that the peer of an open link broke the protocol or does not read."""
        self._offences.log(self._own, f"{connection.describe()} closed: {why}")

    def failed(self, connection: StreamConnection, error: Exception) -> None:
        """Log that handling a frame raised an unexpected error."""
        self._failures.log(self._own, connection.describe(), error=error)

    def troubled(self, trouble: str) -> None:
        """Log that the operating system refused a request."""
        if not self.closing:
            self._troubles.log(self._own, trouble)

    def gone(self, connection: StreamConnection) -> None:
        """Forget a connection that is gone. Idempotent."""
        self._forget_unproven(connection)
        self._dialled.discard(connection)
        self._connections.discard(connection)
        if not self._connections and self._emptied is not None:
            self._emptied.set()

    def _greet(
        self, connection: StreamConnection, *, protected: bool, refusal: str = ""
    ) -> Greeting:
        """Hold a connection, and let it begin with a handshake of the present identity."""
        handshake = Handshake(
            self._identity,
            dialling=connection.dialled is not None,
            secret=self.options.secret,
            protected=protected,
            nonce=self.options.nonce,
            versions=self.options.versions,
        )
        self._connections.add(connection)
        return Greeting(connection, self, handshake, refusal=refusal)

    def _forget_unproven(self, connection: StreamConnection) -> None:
        self._unproven_tcp.discard(connection)
        self._unproven_unix.discard(connection)

    async def _wait_until_empty(self) -> None:
        while self._connections:
            self._emptied = asyncio.Event()
            await self._emptied.wait()
