"""`BusCore`: the virtual links of one node over an unreliable bus, without any I/O."""

from collections.abc import Callable, Collection

from adsum.transport.contract import NodeIdentity

from .busevents import BusEvent


class BusCore:
    """The virtual links of one node.

    Args:
        identity: The identity of the node; may be replaced before `connected` is called.
        secret: The shared secret of the cluster.
        random_bytes: Makes random bytes, like `secrets.token_bytes`.
        site: Identifies the directory in which siblings find each other; nodes that announce the
            same one are not dialled over the bus. Empty if this node has none.

    Attributes:
        identity: The identity that this node sends in handshakes.
        address: The address of this node on the bus, for `identity.addresses`: ``bus:<life>``.
        subjects: The subjects to subscribe to.
        wake_at: When to call `tick`, in monotonic seconds.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        secret: bytes,
        random_bytes: Callable[[int], bytes],
        site: bytes = b"",
    ) -> None:
        self.identity = identity
        self.address = ""
        self.subjects: tuple[str, ...] = ()
        self.wake_at = float("inf")

    def connected(self, now: float) -> None:
        """The bus is reached, at first or again, and all subjects are subscribed to."""

    def disconnected(self, now: float) -> None:
        """The bus is lost: nothing is sent until `connected`; all links are held."""

    def received(self, data: bytes, now: float) -> None:
        """Handle a message of the bus; a message that is not of a member is dropped."""

    def refused(self, probe: object, now: float) -> None:
        """The engine says that nobody received the emission with this probe."""

    def tick(self, now: float) -> None:
        """Act on all deadlines that have passed."""

    def dial(self, address: str, now: float) -> None:
        """Begin to open a link; `DialDone` follows."""

    def send(self, links: Collection[int], payload: bytes, now: float) -> None:
        """Send a frame over these links: one publish if they are at least half of all links."""

    def close(self, link: int, reason: str, now: float) -> None:
        """Close a link and send the peer the reason; `Closed` follows. Idempotent."""

    def give_up(self, now: float) -> None:
        """Close all links without a word: the bus has been away for too long."""

    def take_events(self) -> list[BusEvent]:
        """The events since the last call, in order."""
        return []
