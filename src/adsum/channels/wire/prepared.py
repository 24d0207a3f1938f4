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
        """The bytes for a client without compression, made once."""
        message = self.message
        if message is None:
            message = self.message = self._make_plain()
        return message

    def compressed(self, bits: int) -> bytes:
        """The bytes for clients with permessage-deflate and this size of window, made once."""
        message = self._compressed.get(bits)
        if message is None:
            message = self._compressed[bits] = self._make_compressed(bits)
        return message

    def _make_plain(self) -> bytes:
        return plain_message(self.wire)

    def _make_compressed(self, bits: int) -> bytes:
        return compressed_message(self.wire, bits)


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

    def _make_plain(self) -> bytes:
        return b"".join([frame.plain() for frame in self.frames])

    def _make_compressed(self, bits: int) -> bytes:
        return b"".join([frame.compressed(bits) for frame in self.frames])


def wire_of(frame: Wire | Prepared) -> Wire:
    """A frame as an ASGI server or a long-poll response carries it."""
    return frame.wire if isinstance(frame, Prepared) else frame
