"""`Prepared`: an outgoing frame for many clients, encoded once for each way to carry it. Pure."""

from .frames import Wire


class Prepared:
    """A frame that many clients are sent; the bytes for a WebSocket are made once for all of them.

    Attributes:
        wire: The frame, as an ASGI server or a long-poll response carries it.
    """

    __slots__ = ("message", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        #: The WebSocket frame with its header, once a carrier that writes to transports has made
        #: it; uncompressed.
        self.message: bytes | None = None

    def __len__(self) -> int:
        return len(self.wire)


def wire_of(frame: Wire | Prepared) -> Wire:
    """A frame as an ASGI server or a long-poll response carries it."""
    return frame.wire if isinstance(frame, Prepared) else frame
