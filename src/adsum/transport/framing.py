"""Framing: encodes messages as frames and splits a byte stream into them. No I/O.

A frame is a 4-byte big-endian length, then that many bytes: one byte for the kind, and the body.
Payloads of at least `COMPRESSION_THRESHOLD` bytes are compressed when that makes them smaller. For
large ones that is tried only if a sample of them shrinks: it takes longest where it gains nothing.
The length and the inflated size of a body are checked before memory is allocated for them, so a
peer can make this end hold at most the bytes it sent plus one `FRAME_LIMIT`.

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
CLOSE: Final = 5

#: Bytes of the largest payload, uncompressed.
FRAME_LIMIT: Final = 256 * 1024
#: Bytes of the largest frame body before the peer has proved that it is a member.
GREETING_LIMIT: Final = 8 * 1024
#: Bytes of the smallest payload to compress; for smaller ones the time outweighs the bytes saved
#: (see docs).
COMPRESSION_THRESHOLD: Final = 1024
#: Bytes from the middle of a payload that are compressed as a sample, if the payload is at least
#: four times as large. It is sent as it is unless the sample shrinks by a sixteenth.
SAMPLE: Final = 4 * 1024
#: Bytes of the longest reason in a goodbye.
REASON_LIMIT: Final = 512

_KINDS: Final = frozenset({HELLO, PROOF, PAYLOAD, DEFLATED, CLOSE})
_LENGTH: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IB")


def encode_frame(kind: int, body: bytes) -> bytes:
    """Encode one frame for the wire."""
    return _HEADER.pack(len(body) + 1, kind) + body


def encode_close(reason: str) -> bytes:
    """Encode a goodbye with the reason why the link ends; a long reason is cut."""
    return encode_frame(CLOSE, reason.encode("utf-8", "replace")[:REASON_LIMIT])


def decode_close(body: bytes) -> str:
    """Decode the reason of a goodbye into one printable line that is safe to log."""
    text = body[:REASON_LIMIT].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text)


def payload_of(kind: int, body: bytes) -> bytes:
    """The payload of a frame on an open link, as `encode_payload` made it.

    Raises:
        ProtocolError: It is damaged, grows beyond `FRAME_LIMIT`, or is of another kind.
    """
    if kind == DEFLATED:
        return inflate(body)
    if kind != PAYLOAD:
        raise ProtocolError(f"a frame of kind {kind} on an open link")
    return body


def inflate(body: bytes) -> bytes:
    """Decompress the payload of a DEFLATED frame, never more than `FRAME_LIMIT` + 1 bytes of it.

    Raises:
        ProtocolError: It is damaged, truncated, has trailing bytes, or grows beyond `FRAME_LIMIT`.
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
    """A payload for many links that caches its frame, so that it is compressed once.

    Compression is by far the most expensive step of a broadcast, and links under backpressure
    receive the payload later than the others.
    """

    #: The encoded frame; None until the first link has encoded it.
    frame: bytes | None = None


def encode_payload(payload: bytes) -> bytes:
    """Encode a payload as a frame, compressed if that makes it smaller.

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
    if size >= COMPRESSION_THRESHOLD and _shrinks(payload):
        deflated = zlib.compress(payload, 1)
        if len(deflated) < size:
            return encode_frame(DEFLATED, deflated)
    return encode_frame(PAYLOAD, payload)


def _shrinks(payload: bytes) -> bool:
    """Whether to compress a payload: false for a large one whose middle hardly shrinks."""
    if len(payload) < 4 * SAMPLE:
        return True
    sample = memoryview(payload)[len(payload) // 2 :][:SAMPLE]
    return len(zlib.compress(sample, 1)) < SAMPLE * 15 // 16


class FrameReader:
    """Splits chunks of any size into frames; frames not yet taken are buffered as raw bytes.

    Frames are taken one at a time, so buffered frames cost exactly their size on the wire. The
    reader knows the size of the next frame as soon as its header is complete, and reads the buffer
    again only when the whole frame has arrived: the work is linear in the bytes received, however
    they are chunked.

    Attributes:
        limit: Bytes of the largest accepted body; raise it when the peer is trusted. It applies to
            all frames taken afterwards, including those already received.
        mac: Checks the tags of the peer; None if its frames have none. Set it between two frames:
            it applies to all frames taken afterwards, including those already received.
    """

    def __init__(self, limit: int = GREETING_LIMIT) -> None:
        self.limit = limit
        self.mac: FrameMac | None = None
        self._buffer = bytearray()
        # Bytes of the next frame with length field and tag; 0 while its length is not known.
        self._needed = 0

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def ready(self) -> bool:
        """Whether `take` may return a frame or raise; False means that it needs more bytes."""
        return len(self._buffer) >= (self._needed or _LENGTH.size)

    def feed(self, chunk: bytes) -> None:
        """Append received bytes."""
        self._buffer += chunk

    def clear(self) -> None:
        """Drop all buffered bytes."""
        self._buffer = bytearray()
        self._needed = 0

    def take(self) -> tuple[int, bytes] | None:
        """Take the next frame as (kind, body); None until it is complete.

        Raises:
            ProtocolError: Its length is zero or above the limit, its tag is wrong, or its kind is
                unknown. The rest of the stream is unreadable.
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
                    "a frame with a wrong tag: it was altered, repeated, moved or added in transit"
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
            raise ProtocolError(f"a frame of {length} bytes: must be at most {self.limit + 1}")
        return _LENGTH.size + int(length) + (TAG_BYTES if self.mac is not None else 0)
