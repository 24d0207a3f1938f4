"""Effects: the instructions of an engine to its driver, in the order of their execution."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from .limits import MESSAGE_COST, PIECE
from .links import PeerLink
from .messages import Piece, ProtocolMessage, Publish

#: Seconds between two notices of one kind of trouble that goes on.
NOTICE_INTERVAL = 60.0


@dataclass(slots=True, eq=False)
class Sending:
    """The delivery of a published message, until it was sent to or missed by each of its members.

    A message of bytes is sent as pieces, a JSON object as one frame.

    Attributes:
        message: The message.
        until: When its publisher stops waiting, in active time.
        number: Its number among the messages of bytes of this node.
        carried: The number of members that it reaches on the subject of its topic.
        apart: The names of the members that are sent it over links instead.
        waiting: The number of members that it is queued for.
        missed: The number of members to which it could not be sent.
        encoded: The encoded frames, each after its first send, by index; belongs to the driver.
    """

    message: Publish
    until: float
    number: int = 0
    carried: int = 0
    apart: frozenset[str] = frozenset()
    waiting: int = 0
    missed: int = 0
    encoded: dict[int, object] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """The number of frames in which it is sent."""
        payload = self.message.payload
        return 1 if isinstance(payload, str) else max(1, -(-len(payload) // PIECE))

    @property
    def size(self) -> int:
        """Its share of the bound of a queue: its payload, its names, and a fixed cost."""
        return len(self.message.payload) + self._head

    def cost(self, index: int) -> int:
        """The share of one of its frames in the budget of a turn of the event loop."""
        payload = self.message.payload
        whole = isinstance(payload, str)
        return self._head + (len(payload) if whole else min(PIECE, len(payload) - index * PIECE))

    @property
    def _head(self) -> int:
        return len(self.message.topic) + len(self.message.event) + MESSAGE_COST

    def frame(self, index: int) -> Publish | Piece:
        """One of its frames; the bytes of a piece are not copied."""
        topic, event, payload = self.message.topic, self.message.event, self.message.payload
        if isinstance(payload, str):
            return self.message
        offset = index * PIECE
        data = memoryview(payload)[offset : offset + PIECE]
        return Piece(self.number, topic, event, len(payload), offset, data)


class Severity(Enum):
    """The log level of a notice."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message over each of these links; it needs encoding only once.

    Attributes:
        links: The ids of the links.
        message: The message.
        sending: Holds the encoded message for reuse, if sends over more links may follow.
        index: The position of the message among the frames of `sending`.
    """

    links: tuple[int, ...]
    message: ProtocolMessage
    sending: Sending | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class PublishOnTopic:
    """Publish one frame of a message on the subject of its topic, on the carrier.

    Only an engine whose driver has called `set_topics` has this effect.

    Attributes:
        sending: The message.
        index: The position of the frame among those of `sending`.
        reused: Whether the frame is sent over links as well, so that it is encoded once.
    """

    sending: Sending
    index: int
    reused: bool


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial an address to open a link to the node that listens there.

    The driver reports the result to the engine, as by `link_up` or `dial_failed`.
    """

    address: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close a link and send the peer the reason; the engine has already forgotten the link."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """Deliver a message that another member published to the subscribers on this node."""

    sender: str
    message: Publish


@dataclass(frozen=True, slots=True)
class Released:
    """The publisher of a message may continue: it was sent or missed everywhere, or time is up."""

    sending: Sending


@dataclass(frozen=True, slots=True)
class Notice:
    """Log a message for the operator."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    """This node has joined: it lists every presence that the nodes it had to find list."""


Effect = Send | PublishOnTopic | Dial | Close | Deliver | Released | Notice | Joined


class EffectQueue:
    """The queue of effects that the driver has not taken yet."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        # When the last notice of each kind was logged, to limit their rate.
        self._noticed: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._effects)

    def put(self, effect: Effect) -> None:
        """Queue an effect."""
        self._effects.append(effect)

    def send(
        self,
        links: Iterable[PeerLink],
        message: ProtocolMessage,
        sending: Sending | None = None,
        index: int = 0,
    ) -> None:
        """Queue a message for links, even if their peers do not read.

        Heartbeats and requests are few and small. Senders of large messages check first whether a
        link is writable. So the data that waits for a peer that does not read is bounded.
        """
        ids = tuple([link.id for link in links])
        if ids:
            self._effects.append(Send(ids, message, sending, index))

    def notice(self, severity: Severity, text: str) -> None:
        """Log a message for the operator."""
        self._effects.append(Notice(severity, text))

    def notice_once(self, severity: Severity, kind: str, text: str, now: float) -> None:
        """Log a message unless one of its kind was logged within `NOTICE_INTERVAL`."""
        if now - self._noticed.get(kind, -NOTICE_INTERVAL) >= NOTICE_INTERVAL:
            self._noticed[kind] = now
            self.notice(severity, text)

    def take(self) -> list[Effect]:
        """Remove and return the queued effects, in order."""
        effects, self._effects = self._effects, []
        return effects
