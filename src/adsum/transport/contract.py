"""The contract between a node and a transport: identities, links and their events.

A transport connects, accepts, sends opaque frames to one peer, and reports when a link opens and
closes. It never interprets payloads. `adsum.transport.sockets` (TCP, TLS and Unix sockets)
implements it, and so does `tests/support/memory_transport.py`, without a kernel.
`tests/transport/test_conformance.py` holds the conformance suite that every transport must pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The identity of a node, exchanged and authenticated when a link opens.

    Attributes:
        cluster: Only nodes of the same cluster form links.
        name: The node's name, unique among the live nodes of the cluster.
        incarnation: Distinguishes two runs of nodes with one name.
        addresses: The addresses at which the node accepts links, most preferred first.
    """

    cluster: str
    name: str
    incarnation: int
    addresses: tuple[str, ...]


class Link(Protocol):
    """An authenticated, ordered, two-way stream of frames to one peer."""

    #: The identity of the peer.
    peer: NodeIdentity
    #: The address that this end dialled, or None if the other end did.
    dialled: str | None

    @property
    def direct(self) -> bool:
        """Whether it is a connection of its own, and not a virtual link over a carrier.

        Of several links to one node, a direct one is kept.
        """

    def send(self, payload: bytes) -> None:
        """Queue one frame; never blocks. All frames of one loop turn leave in one write.

        If the queue passes the high-water mark, the handler's `link_writable` is called before
        this returns. Does nothing on a closed link.

        Raises:
            ValueError: The payload is above the frame limit.
        """

    def close(self, reason: str) -> None:
        """Send the queued frames and a goodbye with the reason, then close. Idempotent.

        The handler's `link_closed` follows in a later turn of the event loop.
        """


class LinkHandler(Protocol):
    """Receives the events of a transport. Its methods are called in the event loop.

    They are never called from inside a call of a link, except ``link_writable(link, False)``.
    """

    def link_opened(self, link: Link) -> None:
        """The handshake with `link.peer` is complete; frames may be sent."""

    def frame_received(self, link: Link, payload: bytes) -> None:
        """A complete frame has arrived; raising ProtocolError closes the link with one log line."""

    def link_writable(self, link: Link, writable: bool) -> None:
        """The queue of the link passed its high-water mark (False), or has drained again (True).

        False takes effect at once: it comes from inside the `send` that passes the mark, or the
        end of the link. So the queue holds at most the mark and one frame, if the handler stops
        sending.
        """

    def link_closed(self, link: Link, reason: str) -> None:
        """The link is closed, by either end. Called exactly once for every opened link."""


class HoldHandler(LinkHandler, Protocol):
    """Receives the events of a transport over a carrier, which may be away for a while."""

    def links_held(self, links: Iterable[Link], held: bool) -> None:
        """From now on the silence of these links means nothing (True), or counts again (False).

        The transport bounds the time. A held link may close. Links that have closed are ignored.
        """


class Transport(Protocol):
    """Listens, dials, and reports every link to its `LinkHandler`."""

    async def listen(self, address: str) -> str:
        """Accept links at `address`; returns the address bound (port 0 takes any free one).

        Raises:
            ListenError: The address cannot be listened on; names the reason and a remedy.
        """

    def send(self, links: Iterable[Link], payload: bytes) -> None:
        """Queue one frame on each of these links, with `Link.send`; it is encoded once for all.

        Raises:
            ValueError: The payload is above the frame limit.
        """

    async def dial(self, address: str) -> None:
        """Open a link to the node at `address`; `link_opened` is called before this returns.

        Raises:
            DialRefusedError: Nothing listens there.
            DialError: The peer could not be reached in time.
            HandshakeError: The peer was reached, but it and this node cannot form a link.
        """

    async def close(self) -> None:
        """Stop listening and close every link. Idempotent."""

    def abandon(self) -> None:
        """Close everything without waiting and without goodbyes, as a killed process does."""
