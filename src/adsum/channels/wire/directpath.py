"""The ASGI extension by which a server hands a WebSocket to an application: both of its sides.

``docs/direct-connections.md`` describes it for the authors of servers and applications.
"""

from typing import Final, Protocol

from .frames import Wire
from .prepared import Prepared

#: Name of the extension in the scope.
EXTENSION: Final = "adsum.direct"


class Receiver(Protocol):
    """The application's side of a direct connection.

    All methods are called in the event loop. An exception ends the connection with code 1011.
    """

    def received(self, data: Wire) -> None:
        """Called with each message of the client, in order, while reading is not paused."""

    def writable(self) -> None:
        """Called when the transport has room again after `DirectPath.write` was refused."""

    def ended(self, code: int, reason: str) -> None:
        """Called once, when the connection has ended or a close was sent; no call follows."""


class DirectPath(Protocol):
    """The server's side of a direct connection.

    Attributes:
        has_room: Whether `write` accepts a message: the connection is open, and its transport's
            buffer is below the high-water mark.
    """

    has_room: bool

    def write(self, frame: Wire | Prepared) -> bool:
        """Write a message; False, with nothing written, if there is no room or it has ended.

        Raises:
            UnicodeEncodeError: The text has no UTF-8 form.
        """

    def pause_reading(self) -> None:
        """Read and deliver nothing more, not even what has arrived. Idempotent."""

    def resume_reading(self) -> None:
        """Read again, or for the first time; may deliver messages before it returns. Idempotent."""

    def close(self, code: int, reason: str) -> None:
        """Send a close after all that was written, and end. Idempotent.

        The receiver's `ended` is called with the same code before this returns.
        """

    def abort(self) -> None:
        """Close the socket at once, and drop all that was not sent. Idempotent.

        The receiver's `ended` is called with code 1006 before this returns.
        """
