"""The outputs of `BusCore`, in the order in which its driver carries them out."""

from dataclasses import dataclass

from adsum.transport.contract import NodeIdentity


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish a message on the bus.

    Attributes:
        subject: The subject.
        data: The message.
        probe: If not None, the engine is asked whether anybody receives it; where nobody else
            does, `BusCore.refused` follows with this object.
    """

    subject: str
    data: bytes
    probe: object | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A virtual link has opened.

    Attributes:
        link: The number of the link, chosen by the core.
        peer: The identity of the peer, which has proved it.
        dialled: The address that this end dialled; None if the other end did.
        version: The version of the wire protocol that both ends speak.
    """

    link: int
    peer: NodeIdentity
    dialled: str | None
    version: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """A frame has arrived over a link, in order."""

    link: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame has arrived on the subject of a topic, from the peer of this link."""

    link: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Follow:
    """Subscribe to one more subject, now and after each return to the bus."""

    subject: str


@dataclass(frozen=True, slots=True)
class Unfollow:
    """End the subscription to a subject."""

    subject: str


@dataclass(frozen=True, slots=True)
class BusChanged:
    """The bus is reached (True) or lost: messages on topics can be published, or not."""

    connected: bool


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """Too many bytes are in flight on a link (False), or there is room again."""

    link: int
    writable: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """A link has closed, by either end. Once for every link that opened.

    Attributes:
        link: The link.
        reason: The reason, printable.
        gone: Whether the engine reports that nobody has the address of the peer any more.
    """

    link: int
    reason: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class DialDone:
    """A dial has ended.

    Attributes:
        address: The dialled address.
        error: None if a link has opened; else a `DialRefusedError`, `DialError`, `HandshakeError`
            or `SelfDialError`.
    """

    address: str
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Announced:
    """A node without a link to this one has announced its address: dial it.

    Attributes:
        address: Its address.
        sibling: Whether it announces the site of this node, so the two find each other directly.
    """

    address: str
    sibling: bool


@dataclass(frozen=True, slots=True)
class Alone:
    """The engine reports that nobody received the announcement: no other node is there."""


@dataclass(frozen=True, slots=True)
class HoldChanged:
    """The silence of the peers of these links means nothing (True), or counts again.

    While the bus is away, and until a peer has returned to it, its member is not suspected.
    """

    links: tuple[int, ...]
    held: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """A log line for the operator; `key` groups repetitions."""

    text: str
    key: str


BusEvent = (
    Emit
    | Opened
    | Arrived
    | Heard
    | Follow
    | Unfollow
    | BusChanged
    | RoomChanged
    | Closed
    | DialDone
    | Announced
    | Alone
    | HoldChanged
    | Trouble
)
