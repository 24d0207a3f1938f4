"""The contract between a node and what moves its bytes.

A transport connects, accepts, sends opaque frames to one peer, and tells when a link opens and
closes. It never interprets what it carries. `adsum.transport.sockets` (TCP, TLS and Unix sockets)
and `adsum.transport.memory` (tests) fulfil it; `tests/transport/test_conformance.py` says what
fulfilling means.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node says it is, exchanged and authenticated when a link opens.

    Attributes:
        cluster: Only nodes of the same cluster form links.
        name: The node's name, unique among the live nodes of the cluster.
        incarnation: Tells two lives of one name apart.
        addresses: Where the node accepts links, most preferred first.
    """

    cluster: str
    name: str
    incarnation: int
    addresses: tuple[str, ...]


class Link(Protocol):
    """An authenticated, ordered, two-way stream of frames to one peer."""

    peer: Identity
    #: The address that this end dialled, or None if the other end did.
    dialled: str | None

    def send(self, payload: bytes) -> None:
        """Queue one frame; never blocks. All frames of one loop turn leave in one write.

        If the queue passes the high-water mark, the handler's `link_writable` is called before
        this returns. On a closed link this does nothing. A payload above the frame limit raises
        ValueError.
        """

    def close(self, reason: str) -> None:
        """Send what is queued, tell the peer why, and close. Idempotent.

        The handler's `link_closed` follows in a later turn of the event loop.
        """


class LinkHandler(Protocol):
    """Events of a transport. Called in the event loop.

    Never called from inside a call of a link, except ``link_writable(link, False)``.
    """

    def link_opened(self, link: Link) -> None:
        """The handshake with `link.peer` is complete; frames may be sent."""

    def frame_received(self, link: Link, payload: bytes) -> None:
        """One whole frame; raising ProtocolError closes the link with one log line."""

    def link_writable(self, link: Link, writable: bool) -> None:
        """The queue of the link passed its high-water mark (False), or has drained again (True).

        False takes effect at once: it comes from inside the `send` that passes the mark, or the
        end of the link. So at most the mark and one frame wait, if the handler heeds it.
        """

    def link_closed(self, link: Link, reason: str) -> None:
        """The link is gone, whoever ended it. Called exactly once for every opened link."""


class Transport(Protocol):
    """Listens, dials, and hands every link to its `LinkHandler`."""

    async def listen(self, address: str) -> str:
        """Accept links at `address`; returns the address bound (port 0 takes any free one).

        Raises:
            ListenError: The address cannot be listened on; says why and what to do.
        """

    async def dial(self, address: str) -> None:
        """Open a link to whoever listens at `address`; `link_opened` is called before this returns.

        Raises:
            DialRefusedError: Nothing listens there.
            DialError: The peer could not be reached in time.
            HandshakeError: The peer was reached, but it and this node cannot form a link.
        """

    async def close(self) -> None:
        """Stop listening and close every link. Idempotent."""
