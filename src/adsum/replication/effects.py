"""What an engine asks of the world, in the order in which it is to be done."""

from dataclasses import dataclass
from enum import Enum

from .messages import Message, Publish


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


Effect = Send | Dial | Close | Deliver | Notice
