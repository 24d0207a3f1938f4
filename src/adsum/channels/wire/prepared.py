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
