"""A WebSocket client that costs little: no masks that mean anything, no coroutine for a frame."""

import asyncio
import zlib
from abc import abstractmethod
from typing import cast

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
#: Says that the payload is compressed; only data frames have it.
_COMPRESSED = 0x40
#: With these four bytes a compressed message ends that the sender left out (RFC 7692).
_TAIL = b"\x00\x00\xff\xff"
_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class WebSocket(asyncio.Protocol):
    """One connection: does the upgrade, counts what comes in, and hands on each message.

    Messages must be short to send (below 64 KiB), and must not come in fragments; no server here
    sends any.

    Attributes:
        frames: Frames received.
        received: Bytes received after the upgrade, headers of frames included.
    """

    def __init__(self, path: str, compressed: bool = False) -> None:
        self._request = upgrade(path, compressed)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._open = False
        # Set once the server has agreed to compress.
        self._inflate: zlib._Decompress | None = None
        self.frames = 0
        self.received = 0

    @abstractmethod
    def opened(self) -> None:
        """The upgrade is done."""

    @abstractmethod
    def message(self, payload: bytes) -> None:
        """One whole message has come."""

    @abstractmethod
    def lost(self, why: str) -> None:
        """The connection has ended, or the upgrade was refused."""

    def send(self, text: str) -> None:
        """Send one text message."""
        if self._transport is not None:
            self._transport.write(frame(TEXT, text.encode()))

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # that of uvloop does not inherit
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self.lost(f"the connection ended: {exc!r}")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        if not self._open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._upgraded(head)
        self._rest = self._take_frames(data)

    def _upgraded(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101"):
            self.lost(f"no upgrade: {head[:40]!r}")
            self.close()
            return
        self._open = True
        if b"permessage-deflate" in head:
            self._inflate = zlib.decompressobj(-15)
        self.opened()

    def _take_frames(self, data: bytes) -> bytes:
        """Handle every whole frame; returns the beginning of the next."""
        position, size = 0, len(data)
        while size - position >= 2:
            head, length = data[position], data[position + 1]
            start = position + 2
            if length >= 126:
                width = 2 if length == 126 else 8
                if size - start < width:
                    break
                length = int.from_bytes(data[start : start + width], "big")
                start += width
            end = start + length
            if end > size:
                break
            self.frames += 1
            self.received += end - position
            self._frame(head, data[start:end])
            position = end
        return data[position:]

    def _frame(self, head: int, payload: bytes) -> None:
        if head in (TEXT, BINARY):
            self.message(payload)
        elif head == PING and self._transport is not None:
            self._transport.write(frame(PONG, payload))
        elif head == CLOSE:
            self.lost(f"the server closed: {payload!r}")
            self.close()
        elif head & _COMPRESSED and self._inflate is not None:
            self.message(self._inflate.decompress(payload + _TAIL))


def upgrade(path: str, compressed: bool = False) -> bytes:
    """The request with which a client begins; `compressed` offers permessage-deflate."""
    return _UPGRADE.format(path=path, more=_OFFER if compressed else "").encode()


def frame(head: int, payload: bytes) -> bytes:
    """A frame as clients send it; a mask of zeros leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        return bytes((head, 0x80 | size, 0, 0, 0, 0)) + payload
    return bytes((head, 0xFE)) + size.to_bytes(2, "big") + bytes(4) + payload
