"""A virtual link over a bus: one peer of a bus transport, until either end closes."""

from typing import Protocol

from adsum.transport.contract import NodeIdentity


class BusLinkOwner(Protocol):
    """The part of a bus transport that a link uses."""

    def send_over(self, link: "BusLink", payload: bytes) -> None:
        """Send a frame over a link; does nothing on a closed one."""

    def close_link(self, link: "BusLink", reason: str) -> None:
        """Close a link. Idempotent."""


class BusLink:
    """A `Link` over a bus.

    Args:
        owner: The transport that made it.
        number: The number by which the core knows the link.
        peer: The identity of the peer, which has proved it.
        dialled: The address that this end dialled; None if the other end did.
        version: The version of the wire protocol that both ends speak.

    Attributes:
        direct: False: the engine is between the two ends.
        number: See above.
        peer: See above.
        dialled: See above.
        gone: Whether it has closed because the engine reports that nobody has the address of the
            peer any more.
        version: See above.
        open: Whether frames may be sent and received; false from the first `close` on.
        room: Whether the window of the link has room, by the last output of the core.
        writable: The last value that the handler was notified of.
    """

    direct = False
    __slots__ = (
        "_owner",
        "dialled",
        "gone",
        "number",
        "open",
        "peer",
        "room",
        "version",
        "writable",
    )

    def __init__(
        self,
        owner: BusLinkOwner,
        number: int,
        peer: NodeIdentity,
        dialled: str | None,
        version: int,
    ) -> None:
        self._owner = owner
        self.number = number
        self.peer = peer
        self.dialled = dialled
        self.version = version
        self.gone = False
        self.open = self.room = self.writable = True

    def __repr__(self) -> str:
        return f"<bus link {'open' if self.open else 'closed'} {self.peer.name!r}>"

    def send(self, payload: bytes) -> None:
        """See `Link.send`."""
        self._owner.send_over(self, payload)

    def close(self, reason: str) -> None:
        """See `Link.close`."""
        self._owner.close_link(self, reason)
