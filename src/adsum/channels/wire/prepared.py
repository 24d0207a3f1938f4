"""`Prepared`: an outgoing frame for many clients, encoded once for each way to carry it. Pure."""

from .frames import Wire
from .wsframes import compressed_message, plain_message


class Prepared:
    """A frame that many clients are sent; the bytes for a WebSocket are made once for all of them.

    Attributes:
        wire: The frame, as an ASGI server or a long-poll response carries it.
    """

    __slots__ = ("_compressed", "message", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        #: The WebSocket frame with its header, once a carrier that writes to transports has made
        #: it; uncompressed.
        self.message: bytes | None = None
        # The same for clients with permessage-deflate, by window bits.
        self._compressed: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.wire)

    def plain(self) -> bytes:
        """The WebSocket frame, uncompressed."""
        message = self.message
        if message is None:
            message = self.message = plain_message(self.wire)
        return message

    def compressed(self, bits: int) -> bytes:
        """The WebSocket frame for clients with permessage-deflate and this size of window."""
        message = self._compressed.get(bits)
        if message is None:
            message = self._compressed[bits] = compressed_message(self.wire, bits)
        return message


class PreparedSeries(Prepared):
    """Frames that many clients are sent, one behind the other, as one piece.

    It is written to transports only. Where it must be queued, each of its frames is.

    Attributes:
        frames: The frames, in order.
    """

    __slots__ = ("_size", "frames")

    def __init__(self, frames: list[Prepared]) -> None:
        super().__init__("")
        self.frames = frames
        self._size = sum([len(frame) for frame in frames])

    def __len__(self) -> int:
        return self._size

    def plain(self) -> bytes:
        """The WebSocket frames, uncompressed."""
        if self.message is None:
            self.message = b"".join([frame.plain() for frame in self.frames])
        return self.message

    def compressed(self, bits: int) -> bytes:
        """The WebSocket frames for clients with permessage-deflate and this size of window."""
        message = self._compressed.get(bits)
        if message is None:
            message = b"".join([frame.compressed(bits) for frame in self.frames])
            self._compressed[bits] = message
        return message


def wire_of(frame: Wire | Prepared) -> Wire:
    """A frame as an ASGI server or a long-poll response carries it."""
    return frame.wire if isinstance(frame, Prepared) else frame
