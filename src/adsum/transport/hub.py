"""What all links of one transport share: identity, handler, limits, turns, and orderly closing."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator

from adsum.activetime import active_timeout
from adsum.errors import DialError
from adsum.forks import process
from adsum.sparselog import SparseLog
from adsum.transport.base import Identity, LinkHandler
from adsum.transport.handshake import VERSIONS, Handshake, encode_hello
from adsum.transport.limits import Limits
from adsum.transport.link import StreamLink
from adsum.transport.turns import TurnBudget
from adsum.transport.unproven import Unproven, network_of
from adsum.transport.users import foreign_user

logger = logging.getLogger("adsum.transport")


class LinkHub:
    """The part of a transport that does not know what its bytes travel over.

    Args:
        identity: Who the node is; may be replaced later, see `identity`.
        handler: Hears of links and frames.
        secret: The secret that all nodes of the cluster share, or None.
        limits: Bounds on memory and waiting.
        nonce: Makes random bytes for handshakes.
        versions: The lowest and highest wire protocol version to speak.

    Raises:
        ConfigurationError: The identity is not one that a peer would accept.
    """

    def __init__(
        self,
        identity: Identity,
        handler: LinkHandler,
        *,
        secret: bytes | None = None,
        limits: Limits | None = None,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
        versions: tuple[int, int] = VERSIONS,
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.turns = TurnBudget(self.limits.turn_budget)
        self._closing = False
        self._generation = process.generation
        self._secret = secret
        self._nonce = nonce
        self._versions = versions
        self.identity = identity
        # Every link whose connection may still exist, in whatever phase.
        self._links: set[StreamLink] = set()
        # Those of them that others opened and have not proved themselves on, over TCP and Unix.
        self._unproven_tcp = Unproven[StreamLink](self.limits.pending_handshakes)
        self._unproven_unix = Unproven[StreamLink](self.limits.pending_handshakes)
        # Those that were dialled and are not open, and how many are on their way to become one.
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
    def identity(self) -> Identity:
        """Who this node says it is in the handshakes that begin from now on.

        Set it again when listening has shown which addresses were bound. Links that are open keep
        what they were told.
        """
        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
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
        """Every link whose connection may still exist, in whatever phase."""
        return list(self._links)

    # What a concrete transport calls.

    def accept_link(
        self, origin: str | None = None, user: int | None = None, *, protected: bool = False
    ) -> StreamLink | None:
        """The link for an inbound connection, or None: close it at once.

        Where too many have not proved themselves, another one is dropped for it, see `Unproven`.

        Args:
            origin: The IP address that it comes from; None on a Unix socket.
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
        """End an unproven connection, for which a line was logged."""
        link.abort("too many handshakes are pending", logged=True)

    @contextlib.contextmanager
    def connecting(self, address: str) -> Iterator[None]:
        """Count a connection that is being made, until `dial_link` takes it over.

        Raises:
            DialError: Too many are being dialled already.
        """
        if self._connecting + len(self._dialled) >= self.limits.pending_dials:
            raise DialError(f"{address}: {self.limits.pending_dials} dials are under way already")
        self._connecting += 1
        try:
            yield
        finally:
            self._connecting -= 1

    def dial_link(self, address: str, *, protected: bool = False) -> StreamLink:
        """The link for a connection to `address`.

        Args:
            address: The address that is dialled.
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
        """Give up a dialled link when the block fails or is cancelled; yields its outcome."""
        outcome = link.outcome
        assert outcome is not None  # noqa: S101 - every dialled link has one
        try:
            yield outcome
        except BaseException:
            # Nobody is left to ask for the outcome, which would be complained about.
            outcome.cancel()
            link.shut("the attempt to dial was given up")
            raise

    async def close_links(self) -> None:
        """Close every link and wait, within the grace, until its connection is gone."""
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
        # One more turn, in which the handler hears of the links that ended in this one.
        await asyncio.sleep(0)

    # What links call.

    def begin_handshake(self, *, dialling: bool, protected: bool) -> Handshake:
        """A handshake in the name of the current identity."""
        return Handshake(
            self._identity,
            dialling=dialling,
            secret=self._secret,
            protected=protected,
            nonce=self._nonce,
            versions=self._versions,
        )

    def opened(self, link: StreamLink) -> None:
        """The peer has proved itself."""
        self._proved_or_gone(link)
        self._dialled.discard(link)

    def refused(self, why: str, *, expected: bool = False) -> None:
        """An inbound handshake failed; `expected` if that is no cause for a warning."""
        if self.closing:
            return
        if expected:
            logger.debug("an inbound connection was refused: %s", why)
        else:
            self._refusals.log(why)

    def offended(self, link: StreamLink, why: str) -> None:
        """The peer of an open link broke the protocol, or does not read."""
        self._offences.log(f"{link.describe()} closed: {why}")

    def failed(self, link: StreamLink, error: Exception) -> None:
        """A frame of an open link could not be handled."""
        self._failures.log(link.describe(), error=error)

    def troubled(self, what: str) -> None:
        """The operating system refused a request."""
        if not self.closing:
            self._troubles.log(what)

    def gone(self, link: StreamLink) -> None:
        """The connection does not exist any more."""
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
