"""Every error that adsum raises, as one tree.

::

    AdsumError
    ├── UsageError                 you misused the API
    │   ├── ConfigurationError     a setting or an argument is wrong (also a ValueError)
    │   ├── AlreadyTrackedError    the same owner tracks the same key on the same topic twice
    │   ├── NotTrackedError        the presence to update has already ended
    │   └── WrongThreadError       called outside the thread of the node's event loop
    ├── NodeNotRunningError            the node is not running
    ├── NoInstanceError            no instance of a service accepts requests
    ├── RefusedError               a channel refuses a client's request; raised by applications
    ├── ProtocolError              a peer broke the protocol; its link is closed
    │   └── HandshakeError         a peer and this node cannot form a link
    └── TransportError             bytes could not be moved
        ├── CarrierError           the engine that carries the links cannot be used
        ├── ListenError            an address cannot be listened on
        └── DialError              a peer cannot be reached
            └── DialRefusedError   nothing listens at that address

Meta, messages, topics and keys of a wrong type or value raise the built-in `TypeError` and
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

    The text names the field (the variable, if the value came from the environment), the value and
    the accepted values.
    """


class AlreadyTrackedError(UsageError):
    """The same owner tracks the same key on the same topic twice."""


class NotTrackedError(UsageError):
    """The presence to update has already ended."""


class WrongThreadError(UsageError, RuntimeError):
    """A node or one of its objects was called outside the thread of the node's event loop.

    The text names the calls to use from another thread: `asyncio.run_coroutine_threadsafe` and
    `loop.call_soon_threadsafe`.
    """


class NodeNotRunningError(AdsumError):
    """The node is not running: not started yet, stopped, or left to the parent of this process."""


class NoInstanceError(AdsumError):
    """No instance of a service accepts requests, or none besides the excluded ones.

    Args:
        text: The message.
        name: The service.
        tag: The tag that the instance must have, or None.
        listed: The number of listed instances of the service.
    """

    def __init__(self, text: str, name: str, tag: str | None, listed: int) -> None:
        super().__init__(text)
        #: The name of the service.
        self.name = name
        #: The tag that the instance must have, or None.
        self.tag = tag
        #: The number of listed instances of the service, of any tag.
        self.listed = listed

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.name, self.tag, self.listed)


class RefusedError(AdsumError):
    """Raised by an application to refuse a connection, a join or a request of a client.

    Args:
        reason: A text, sent to the client as ``{"reason": reason}``, or the whole response.

    Raises:
        TypeError: The reason is neither a text nor a mapping.
    """

    def __init__(self, reason: str | Mapping[str, Any] = "refused") -> None:
        if not isinstance(reason, str | Mapping):
            raise TypeError(f"reason={reason!r:.100}: must be a text, or a dict for the client")
        super().__init__(reason)
        #: The response that the client receives.
        self.response: dict[str, Any] = (
            {"reason": reason} if isinstance(reason, str) else dict(reason)
        )


class ProtocolError(AdsumError):
    """A peer broke the protocol. Its link is closed; no other link is affected."""


class HandshakeError(ProtocolError):
    """A peer and this node cannot form a link: another cluster, version, secret or user."""


class TransportError(AdsumError):
    """Bytes could not be moved."""


class CarrierError(TransportError):
    """The engine that carries the links cannot be used.

    No server is reachable, it refuses the credentials, or a subject is not permitted. The text has
    the URL without credentials, the reason and a remedy.
    """


class ListenError(TransportError):
    """An address cannot be listened on."""


class DialError(TransportError):
    """A peer cannot be reached."""


class DialRefusedError(DialError):
    """Nothing listens at the address, for example because its process has ended."""
