"""Every error that adsum raises, as one tree.

::

    AdsumError
    ├── UsageError                 you misused the API
    │   ├── ConfigurationError     a setting or an argument is wrong (also a ValueError)
    │   ├── AlreadyTrackedError    the same owner tracks the same key on the same topic twice
    │   ├── NotTrackedError        the presence to update has already ended
    │   └── WrongThreadError       called outside the thread of the node's event loop
    ├── NodeClosedError            the node is not running
    ├── RefusedError               a channel refuses what a client asks for; raised by applications
    ├── ProtocolError              a peer broke the protocol; its link is closed
    │   └── HandshakeError         a peer and this node cannot form a link
    └── TransportError             bytes could not be moved
        ├── ListenError            an address cannot be listened on
        └── DialError              a peer cannot be reached
            └── DialRefusedError   nothing listens at that address

Meta, messages, topics and keys that are not what they must be raise the built-in `TypeError` and
`ValueError`, naming the offending path and value.
"""

from collections.abc import Mapping
from typing import Any


class AdsumError(Exception):
    """The root of every error that adsum raises."""


class UsageError(AdsumError):
    """You misused the API."""


class ConfigurationError(UsageError, ValueError):
    """A setting or an argument is wrong or contradicts another.

    Names the field (the variable, if the value came from the environment), the value and what is
    accepted.
    """


class AlreadyTrackedError(UsageError):
    """The same owner tracks the same key on the same topic twice."""


class NotTrackedError(UsageError):
    """The presence to update has already ended."""


class WrongThreadError(UsageError, RuntimeError):
    """A node and all that hangs on it may be called only in the thread of its event loop.

    The text has the calls to make from a thread instead: `asyncio.run_coroutine_threadsafe` and
    `loop.call_soon_threadsafe`.
    """


class NodeClosedError(AdsumError):
    """The node is not running: not started yet, stopped, or left to the parent of this process."""


class RefusedError(AdsumError):
    """An application refuses a connection, a join or a request of a client, which is told why.

    Args:
        reason: A text, which the client gets as ``{"reason": reason}``, or the whole response.

    Raises:
        TypeError: The reason is something else.
    """

    def __init__(self, reason: str | Mapping[str, Any] = "refused") -> None:
        if not isinstance(reason, str | Mapping):
            raise TypeError(f"reason={reason!r:.100}: must be a text, or a dict for the client")
        super().__init__(reason)
        #: What the client is told.
        self.response = {"reason": reason} if isinstance(reason, str) else dict(reason)


class ProtocolError(AdsumError):
    """A peer broke the protocol. Its link is closed; nothing else is harmed."""


class HandshakeError(ProtocolError):
    """A peer and this node cannot form a link: another cluster, version, secret or user."""


class TransportError(AdsumError):
    """Bytes could not be moved."""


class ListenError(TransportError):
    """An address cannot be listened on."""


class DialError(TransportError):
    """A peer cannot be reached."""


class DialRefusedError(DialError):
    """Nothing listens at the address: the process that did is gone."""
