"""`FramesCode`: runs the `BinaryFrames` of an application, and logs its crashes.

Clients choose the bytes that are decoded, and all clients of a topic are served in one pass, so an
exception of the application must end neither. It becomes an error that decoding and encoding have
anyway: the connection is closed, or its client is not sent the broadcast.
"""

from adsum.errors import ProtocolError, UsageError
from adsum.quoting import described
from adsum.sparselog import SparseLogger

from .wire.frames import BinaryFrames, Frame, checked_frame


class FramesCode(BinaryFrames):
    """Calls the `BinaryFrames` of an application.

    Args:
        frames: The object of the application.
        log: The log of the socket.
    """

    def __init__(self, frames: BinaryFrames, log: SparseLogger) -> None:
        self._application = frames
        self._log = log

    def decode(self, data: bytes) -> Frame:
        """See `BinaryFrames`.

        Raises:
            ProtocolError: The application has refused the message, or has crashed.
        """
        try:
            return checked_frame(self._application.decode(data))
        except ProtocolError:
            raise
        except (ValueError, LookupError, RecursionError) as error:
            # Only the kind of the error: its text may quote the client.
            raise ProtocolError(f"{type(error).__name__} in a binary message") from None
        except Exception as error:
            self._log.crashed("a binary message could not be decoded", error=error)
            raise ProtocolError("the decoder has crashed") from None

    def broadcast(self, topic: str, event: str, payload: bytes) -> bytes:
        """See `BinaryFrames`.

        Raises:
            UsageError: The application has crashed.
        """
        try:
            frame: object = self._application.broadcast(topic, event, payload)
            if isinstance(frame, bytes):
                return frame
            raise TypeError(f"broadcast returned {described(frame)}: must be bytes")
        except Exception as error:
            self._log.crashed("a broadcast of bytes could not be encoded", error=error)
            raise UsageError("the encoder has crashed") from None
