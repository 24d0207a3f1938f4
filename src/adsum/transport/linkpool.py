"""The pool of one transport's links: identity, handler, limits, fair turns, orderly closing."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator

from adsum.activetime import active_timeout
from adsum.errors import DialError
from adsum.forks import process
from adsum.sparselog import SparseLog
from adsum.transport.base import LinkHandler, NodeIdentity
from adsum.transport.handshake import VERSIONS, Handshake, encode_hello
from adsum.transport.limits import TransportLimits
from adsum.transport.link import StreamLink
from adsum.transport.turns import TurnBudget
from adsum.transport.unproven import Unproven, network_of
from adsum.transport.users import foreign_user

logger = logging.getLogger("adsum.transport")


class LinkPool:
    """The part of a transport that is independent of sockets; the base of every transport.

    Args:
        identity: The identity of the node; may be replaced later, see `identity`.
        handler: Receives the events of links.
        secret: The secret that all nodes of the cluster share, or None.
        limits: Bounds on memory and waiting.
        nonce: Makes random bytes for handshakes.
        versions: The lowest and highest wire protocol version to speak.

    Raises:
        ConfigurationError: No peer would accept the identity.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        handler: LinkHandler,
        *,
        secret: bytes | None = None,
        limits: TransportLimits | None = None,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
        versions: tuple[int, int] = VERSIONS,
    ) -> None:
        self.handler = handler
        self.limits = limits or TransportLimits()
        self.turns = TurnBudget(self.limits.turn_budget)
        self._closing = False
        self._generation = process.generation
        self._secret = secret
        self._nonce = nonce
        self._versions = versions
        self.identity = identity
        # All links, in any phase, until their connection is gone.
        self._links: set[StreamLink] = set()
        # Inbound links whose peer has not proved itself, over TCP and over Unix sockets.
        self._unproven_tcp = Unproven[StreamLink](self.limits.pending_handshakes)
        self._unproven_unix = Unproven[StreamLink](self.limits.pending_handshakes)
        # Dialled links that are not open yet, and the number of connections being made for more.
        self._dialled: set[StreamLink] = set()
        self._connecting = 0
        self._refusals = SparseLog(logger, "an inbound connection was refused: %s")
        self._offences = SparseLog(logger, "link to %s")
        self._failures = SparseLog(
            logger, "link to %s closed: its frame could not be handled", logging.ERROR
        )
        self._troubles = SparseLog(logger, "%s")
        # Set while `_links` is empty; made by the first wait for it.
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
        encode_hello(identity, self._versions, bytes(32), True)
        self._identity = identity

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the process that the transport belongs to."""
        return self._generation != process.generation

    @property
    def closing(self) -> bool:
        """Whether no more links may form: the transport is closed or inherited."""
        return self._closing or self.inherited

    def links(self) -> list[StreamLink]:
        """All links, in any phase, until their connection is gone."""
        return list(self._links)

    # Called by a concrete transport.

    def accept_link(
        self, origin: str | None = None, user: int | None = None, *, protected: bool = False
    ) -> StreamLink | None:
        """Make the link for an inbound connection; None means to close the connection at once.

        If too many connections are unproven, another one is dropped in its place, see `Unproven`.

        Args:
            origin: The source IP address; None on a Unix socket.
            user: The user id of the peer on a Unix socket, if the platform reports it.
            protected: Whether its frames need no tags, see `Handshake`.
        """
        if self.closing:
            return None
        refusal = foreign_user(user, self._secret) if origin is None else ""
        link = StreamLink(self, origin=origin, refusal=refusal, protected=protected)
        self._links.add(link)
        if refusal:
            self.refused(f"{link.describe()}: {refusal}")
        if origin is None:
            victim = self._unproven_unix.add(link, user)
        else:
            victim = self._unproven_tcp.add(link, network_of(origin))
        if victim is not None:
            most = self.limits.pending_handshakes
            self.refused(f"{victim.describe()}: more than {most} handshakes are pending")
            self.drop(victim)
        return None if victim is link else link

    def drop(self, link: StreamLink) -> None:
        """Abort an unproven connection; the caller has logged the reason."""
        link.abort("too many handshakes are pending", logged=True)

    @contextlib.contextmanager
    def connecting(self, address: str) -> Iterator[None]:
        """Count a connection that is being made, until `dial_link` counts its link.

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

    def dial_link(self, address: str, *, protected: bool = False) -> StreamLink:
        """Make the link for an outbound connection to `address`.

        Args:
            address: The dialled address.
            protected: Whether its frames need no tags, see `Handshake`.

        Raises:
            DialError: The transport is closed.
        """
        if self.closing:
            raise DialError(f"{address}: the transport is closed")
        link = StreamLink(self, dialled=address, protected=protected)
        self._links.add(link)
        self._dialled.add(link)
        return link

    @contextlib.contextmanager
    def attempt(self, link: StreamLink) -> Iterator["asyncio.Future[None]"]:
        """Abort a dialled link when the block fails or is cancelled; yields its outcome."""
        outcome = link.outcome
        assert outcome is not None  # noqa: S101 - every dialled link has one
        try:
            yield outcome
        except BaseException:
            # Nobody awaits the outcome any more; asyncio would log its error as never retrieved.
            outcome.cancel()
            link.shut("the attempt to dial was given up")
            raise

    async def close_links(self) -> None:
        """Close every link and wait until its connection is gone, within the grace period."""
        self._closing = True
        for link in self.links():
            link.shut("the node is closing")
        try:
            async with active_timeout(self.limits.close_grace + 0.5):
                await self._all_gone()
        except TimeoutError:
            logger.warning("%d connections did not close in time", len(self._links))
        finally:
            for link in self.links():
                link.abort("the node is closing")
            for log in (self._refusals, self._offences, self._failures, self._troubles):
                log.flush()
        # One more turn, in which the handler's `link_closed` is called for the last links.
        await asyncio.sleep(0)

    # Called by links.

    def begin_handshake(self, *, dialling: bool, protected: bool) -> Handshake:
        """Make a handshake with the current identity."""
        return Handshake(
            self._identity,
            dialling=dialling,
            secret=self._secret,
            protected=protected,
            nonce=self._nonce,
            versions=self._versions,
        )

    def opened(self, link: StreamLink) -> None:
        """Record that the peer of a link has proved itself."""
        self._proved_or_gone(link)
        self._dialled.discard(link)

    def refused(self, why: str, *, expected: bool = False) -> None:
        """Log that an inbound handshake failed; at debug level if that is `expected`."""
        if self.closing:
            return
        if expected:
            logger.debug("an inbound connection was refused: %s", why)
        else:
            self._refusals.log(why)

    def offended(self, link: StreamLink, why: str) -> None:
        """Log that the peer of an open link broke the protocol or does not read."""
        self._offences.log(f"{link.describe()} closed: {why}")

    def failed(self, link: StreamLink, error: Exception) -> None:
        """Log that handling a frame raised an unexpected error."""
        self._failures.log(link.describe(), error=error)

    def troubled(self, what: str) -> None:
        """Log that the operating system refused a request."""
        if not self.closing:
            self._troubles.log(what)

    def gone(self, link: StreamLink) -> None:
        """Forget a link whose connection is gone. Idempotent."""
        self._proved_or_gone(link)
        self._dialled.discard(link)
        self._links.discard(link)
        if not self._links and self._emptied is not None:
            self._emptied.set()

    def _proved_or_gone(self, link: StreamLink) -> None:
        self._unproven_tcp.discard(link)
        self._unproven_unix.discard(link)

    async def _all_gone(self) -> None:
        while self._links:
            self._emptied = asyncio.Event()
            await self._emptied.wait()
