"""Frames: how messages are cut out of a stream of bytes. No I/O.

A frame is a 4-byte big-endian length, then that many bytes: one byte for the kind, and the body.
Payloads above `COMPRESSION_THRESHOLD` are compressed when that makes them smaller. Both the length
and what a body inflates to are bounded before any memory is spent on them, so the most that a peer
can make this end hold is what it sent plus one `FRAME_LIMIT`.

On an authenticated link a tag follows each frame, see `adsum.transport.frame_mac`.
"""

import struct
import zlib
from typing import Final

from adsum.errors import ProtocolError
from adsum.transport.frame_mac import TAG_BYTES, FrameMac

HELLO: Final = 1
PROOF: Final = 2
PAYLOAD: Final = 3
DEFLATED: Final = 4
GOODBYE: Final = 5

#: The largest payload, uncompressed.
FRAME_LIMIT: Final = 256 * 1024
#: The largest body of a frame before the peer has proved that it belongs here.
GREETING_LIMIT: Final = 8 * 1024
#: Below this a lone message costs more time to compress than its bytes are worth (see docs).
COMPRESSION_THRESHOLD: Final = 1024
#: The longest reason that a goodbye carries, in bytes.
REASON_LIMIT: Final = 512

_KINDS: Final = frozenset({HELLO, PROOF, PAYLOAD, DEFLATED, GOODBYE})
_LENGTH: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IB")


def encode_frame(kind: int, body: bytes) -> bytes:
    """One frame as it goes on the wire."""
    return _HEADER.pack(len(body) + 1, kind) + body


def encode_goodbye(reason: str) -> bytes:
    """The frame that tells a peer why the link ends; a long reason is cut."""
    return encode_frame(GOODBYE, reason.encode("utf-8", "replace")[:REASON_LIMIT])


def decode_goodbye(body: bytes) -> str:
    """The reason in a goodbye, made safe to log: whatever a peer sent, it is one printable line."""
    text = body[:REASON_LIMIT].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text)


def inflate(body: bytes) -> bytes:
    """The payload of a DEFLATED frame.

    Raises:
        ProtocolError: It is damaged, has bytes to spare, or grows beyond `FRAME_LIMIT`. No more
            than that is ever decompressed.
    """
    inflater = zlib.decompressobj()
    try:
        payload = inflater.decompress(body, FRAME_LIMIT + 1)
    except zlib.error as error:
        raise ProtocolError(f"a compressed frame is damaged: {error}") from None
    if len(payload) > FRAME_LIMIT:
        raise ProtocolError(f"a compressed frame grows beyond {FRAME_LIMIT} bytes")
    if not inflater.eof or inflater.unused_data:
        raise ProtocolError("a compressed frame is truncated or has trailing bytes")
    return payload


class Payload(bytes):
    """A payload for many links: it keeps its frame, so that it is compressed once.

    Compression is by far the most expensive step of a broadcast, and links without room are sent
    it later than the others.
    """

    #: Its frame, once it was encoded.
    frame: bytes | None = None


def encode_payload(payload: bytes) -> bytes:
    """The frame that carries a payload.

    Raises:
        ValueError: The payload is larger than `FRAME_LIMIT`.
    """
    if not isinstance(payload, Payload):
        return _encode_payload(payload)
    if payload.frame is None:
        payload.frame = _encode_payload(payload)
    return payload.frame


def _encode_payload(payload: bytes) -> bytes:
    size = len(payload)
    if size > FRAME_LIMIT:
        raise ValueError(f"a payload of {size} bytes is above the frame limit of {FRAME_LIMIT}")
    if size >= COMPRESSION_THRESHOLD:
        deflated = zlib.compress(payload, 1)
        if len(deflated) < size:
            return encode_frame(DEFLATED, deflated)
    return encode_frame(PAYLOAD, payload)


class FrameReader:
    """Cuts frames out of chunks of any size; what is not asked for stays as raw bytes.

    Frames are taken one at a time, so bytes that wait for their turn cost exactly their size. The
    reader knows how long the next frame is as soon as its header is in and touches the buffer again
    only when that much is there: the work is linear in the bytes received, however they were cut.

    Attributes:
        limit: The largest body accepted; raise it when the peer is trusted. It applies to frames
            taken from then on, also to those already received.
        mac: Checks the tags of the peer, or None if its frames have none. Set it between two
            frames: it applies to those taken from then on, also to those already received.
    """

    def __init__(self, limit: int = GREETING_LIMIT) -> None:
        self.limit = limit
        self.mac: FrameMac | None = None
        self._buffer = bytearray()
        # Size of the next whole frame with length field and tag; 0 while its length is not known.
        self._needed = 0

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def ready(self) -> bool:
        """Whether `take` may have something to say; False means that it needs more bytes."""
        return len(self._buffer) >= (self._needed or _LENGTH.size)

    def feed(self, chunk: bytes) -> None:
        """Add bytes as they came from the wire."""
        self._buffer += chunk

    def clear(self) -> None:
        """Drop everything that was not taken."""
        self._buffer = bytearray()
        self._needed = 0

    def take(self) -> tuple[int, bytes] | None:
        """The next frame as (kind, body), or None until it is whole.

        Raises:
            ProtocolError: Its length is zero or above the limit, its tag is wrong, or its kind is
                unknown. The stream makes no sense from here on.
        """
        buffer = self._buffer
        if not self._needed:
            if len(buffer) < _LENGTH.size:
                return None
            self._needed = self._read_length()
        needed = self._needed
        if len(buffer) < needed:
            return None
        end = needed if self.mac is None else needed - TAG_BYTES
        with memoryview(buffer) as view:
            if self.mac is not None and not self.mac.accepts(view[:end], view[end:needed]):
                raise ProtocolError(
                    "a frame with a wrong tag: it was altered, repeated, moved or added on its way"
                )
            kind = view[_LENGTH.size]
            if kind not in _KINDS:
                raise ProtocolError(f"a frame of the unknown kind {kind}")
            body = bytes(view[_HEADER.size : end])
        del buffer[:needed]  # Moves the start of the buffer, not its bytes.
        self._needed = 0
        return kind, body

    def _read_length(self) -> int:
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not length:
            raise ProtocolError("a frame without a kind")
        if length > self.limit + 1:
            raise ProtocolError(f"a frame of {length} bytes, at most {self.limit + 1} are accepted")
        return _LENGTH.size + int(length) + (TAG_BYTES if self.mac is not None else 0)
