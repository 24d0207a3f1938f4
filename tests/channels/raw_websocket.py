"""A WebSocket client that sends any bytes, valid or not, and reads the answers frame by frame."""

import asyncio
import base64
import hashlib
import socket as sockets
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from tests.support.waiting import DEADLINE

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
#: The bits of a frame that extensions may use.
RSV1, RSV2, RSV3 = 4, 2, 1
_MASK = bytes([0x37, 0xFA, 0x21, 0x3D])
#: The end of each compressed message, which is not sent.
_EMPTY_BLOCK = b"\x00\x00\xff\xff"
_KEY = base64.b64encode(bytes(range(16))).decode()
#: The answer to `_KEY`, as RFC 6455 computes it.
ACCEPT = base64.b64encode(
    hashlib.sha1(f"{_KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
).decode()


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One frame; clients mask it.

    Attributes:
        opcode: Four bits.
        payload: The payload, as it is on the wire before masking.
        fin: Whether the message ends with it.
        rsv: The reserved bits, three of them.
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    def encode(self, *, mask: bytes | None = _MASK, length_bytes: int | None = None) -> bytes:
        """The bytes that a client sends.

        Args:
            mask: Four bytes, or None for a frame that is not masked.
            length_bytes: Bytes of the extended length, 0, 2 or 8; by default the fewest.
        """
        size = len(self.payload)
        if length_bytes is None:
            length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
        short = {0: size, 2: 126, 8: 127}[length_bytes]
        head = bytes([self.fin << 7 | self.rsv << 4 | self.opcode, (mask is not None) << 7 | short])
        head += size.to_bytes(length_bytes, "big") if length_bytes else b""
        return head + (self.payload if mask is None else mask + masked(self.payload, mask))


def masked(payload: bytes, mask: bytes) -> bytes:
    """A payload combined with a repeated mask."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def close_payload(code: int, reason: str | bytes = b"") -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2, "big") + (reason.encode() if isinstance(reason, str) else reason)


def fragments(opcode: int, payload: bytes, *cuts: int, rsv: int = 0) -> list[RawFrame]:
    """A message cut into fragments, at these positions.

    Args:
        opcode: `TEXT` or `BINARY`.
        payload: The payload of the message.
        cuts: Where fragments begin, in order; equal positions make empty fragments.
        rsv: The reserved bits of the first fragment.
    """
    edges = [0, *cuts, len(payload)]
    return [
        RawFrame(
            CONT if number else opcode,
            payload[start:end],
            number == len(cuts),
            0 if number else rsv,
        )
        for number, (start, end) in enumerate(pairwise(edges))
    ]


class Deflate:
    """The client's side of permessage-deflate.

    Args:
        window: Bits of both windows, at most.
        resets: Whether each message is compressed on its own, both ways.
    """

    def __init__(self, window: int = 12, *, resets: bool) -> None:
        self._window = window
        self._resets = resets
        self._encoder = zlib.compressobj(wbits=-(9 if resets else window))
        self._decoder = zlib.decompressobj(wbits=-window)

    def compress(self, frame: RawFrame) -> RawFrame:
        """A message, compressed."""
        if self._resets:
            self._encoder = zlib.compressobj(wbits=-9)
        data = self._encoder.compress(frame.payload) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        return RawFrame(frame.opcode, data.removesuffix(_EMPTY_BLOCK), rsv=RSV1)

    def decompress(self, frame: RawFrame) -> RawFrame:
        """A message as it was before the server compressed it."""
        if self._resets:
            self._decoder = zlib.decompressobj(wbits=-self._window)
        return RawFrame(frame.opcode, self._decoder.decompress(frame.payload + _EMPTY_BLOCK))


class RawWebSocket:
    """One TCP connection to a server on this host."""

    def __init__(self) -> None:
        self._socket = sockets.socket(proto=sockets.IPPROTO_TCP)
        self._socket.setblocking(False)
        self._received = bytearray()

    async def connect(self, port: int, *, buffers: int | None = None) -> Self:
        """Connect, without a handshake.

        Args:
            port: The port of the server.
            buffers: Bytes that the kernel holds for the client each way, if not as many as always.
        """
        self._socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        if buffers is not None:
            for option in (sockets.SO_RCVBUF, sockets.SO_SNDBUF):
                self._socket.setsockopt(sockets.SOL_SOCKET, option, buffers)
        await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", port))
        return self

    async def handshake(
        self,
        path: str,
        changes: Mapping[str, str | None] | None = None,
        *,
        line: str = "GET {path} HTTP/1.1",
        more: str = "",
    ) -> tuple[int, dict[str, str]]:
        """Send the request of a handshake; returns the status and the headers of the answer.

        Args:
            path: The path and the query.
            changes: Headers that differ from those of a valid request; None leaves one out.
            line: The request line.
            more: Further header lines.
        """
        headers = {
            "Host": "127.0.0.1",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": _KEY,
            "Sec-WebSocket-Version": "13",
            **(changes or {}),
        }
        lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
        await self.send(f"{line.format(path=path)}\r\n{''.join(lines)}{more}\r\n".encode())
        while b"\r\n\r\n" not in self._received:
            assert await self._receive(), self._received
        head, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        self._received = bytearray(rest)
        status, *fields = head.decode().split("\r\n")
        named = (field.split(": ", 1) for field in fields)
        return int(status.split()[1]), {name.lower(): value for name, value in named}

    async def send(self, *pieces: bytes) -> None:
        """Send bytes, until the server has closed; it may read pieces one by one."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            for piece in pieces:
                await loop.sock_sendall(self._socket, piece)
                if len(pieces) > 1:
                    await asyncio.sleep(0)

    async def read(self) -> RawFrame:
        """The next frame of the server, which does not mask.

        Raises:
            EOFError: The server has closed the connection.
        """
        first, second = await self._exactly(2)
        assert second < 128, "masked by the server"
        size = second
        if second > 125:
            size = int.from_bytes(await self._exactly(2 if second == 126 else 8), "big")
            assert size > (125 if second == 126 else 65535), "not the shortest length"
        payload = await self._exactly(size)
        return RawFrame(first & 15, payload, first > 127, first >> 4 & 7)

    async def read_rest(self) -> bytes:
        """All bytes until the end of the connection."""
        while await self._receive():
            pass
        rest, self._received = bytes(self._received), bytearray()
        return rest

    def close(self) -> None:
        """Close the connection without a handshake."""
        self._socket.close()

    def half_close(self) -> None:
        """Send the end of the stream, and read on."""
        self._socket.shutdown(sockets.SHUT_WR)

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            if not await self._receive():
                raise EOFError(bytes(self._received))
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    async def _receive(self) -> bool:
        """Receive some bytes; False at the end of the connection."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            try:
                data = await loop.sock_recv(self._socket, 65536)
            except ConnectionResetError:  # a server that does not read all bytes resets
                return False
        self._received += data
        return bool(data)
