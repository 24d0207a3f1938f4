"""What an engine asks of the world, in the order in which it is to be done."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from .links import Link
from .messages import Message, Publish

#: A notice of a trouble that goes on is repeated after this many seconds.
NOTICE_INTERVAL = 60.0


class Severity(Enum):
    """How loudly a notice is to be told."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message over each of these links; it needs encoding only once."""

    links: tuple[int, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a link to whoever listens at an address; report `link_up` or `dial_failed`."""

    address: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close a link and tell the peer why; the engine has forgotten it already."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand a message that a member published to the subscribers on this node."""

    sender: str
    message: Publish


@dataclass(frozen=True, slots=True)
class Notice:
    """Tell the operator."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    """This node has joined: it lists all that the nodes it had to find list."""


Effect = Send | Dial | Close | Deliver | Notice | Joined


class Outbox:
    """Effects on their way out."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        # When a notice of each kind was given last, so that none is repeated again and again.
        self._noticed: dict[str, float] = {}

    def put(self, effect: Effect) -> None:
        """Ask for something to be done."""
        self._effects.append(effect)

    def send(self, links: Iterable[Link], message: Message) -> None:
        """Send a message over links, those that are not read included.

        Heartbeats and questions are few and small. What is large asks before whether a link is
        writable, so what waits there is bounded.
        """
        ids = tuple([link.id for link in links])
        if ids:
            self._effects.append(Send(ids, message))

    def notice(self, severity: Severity, text: str) -> None:
        """Tell the operator."""
        self._effects.append(Notice(severity, text))

    def notice_once(self, severity: Severity, kind: str, text: str, now: float) -> None:
        """Tell the operator, but of each kind of trouble not again and again."""
        if now - self._noticed.get(kind, -NOTICE_INTERVAL) >= NOTICE_INTERVAL:
            self._noticed[kind] = now
            self.notice(severity, text)

    def take(self) -> list[Effect]:
        """What to do since the last call."""
        effects, self._effects = self._effects, []
        return effects
