"""Frames of the WebSocket protocol (RFC 6455, RFC 7692) that a server sends. Pure.

A message is one frame: header and payload, unmasked. With permessage-deflate it is compressed
independently of all other messages, so its bytes are the same for every client with a window of at
least that size, and no connection needs a compressor of its own. RFC 7692 permits both this and
messages that are not compressed at all, whatever context was negotiated: a stream that refers to
nothing before it can be read with any context.
"""

import zlib
from typing import Any, Final

from .frames import Wire

#: Bytes from which a payload is compressed; below, compression costs more than it saves.
COMPRESSED: Final = 512
#: First bytes of a frame: FIN and the opcode; RSV1 in a compressed one.
TEXT: Final = 0x81
BINARY: Final = 0x82
_RSV1 = 0x40
#: The end of a flushed stream, which RFC 7692 leaves out.
_TAIL = b"\x00\x00\xff\xff"
_TEXT_HEADERS = [bytes((TEXT, size)) for size in range(126)]

# One compressor for each size of window, shared by all connections of the process: it is reset
# after each message.
_compressors: dict[int, Any] = {}


def plain_message(wire: Wire) -> bytes:
    """A message in one frame, uncompressed.

    Raises:
        UnicodeEncodeError: The text has no UTF-8 form.
    """
    if isinstance(wire, str):
        payload = wire.encode()
        size = len(payload)
        if size < 126:
            return _TEXT_HEADERS[size] + payload
        return _header(TEXT, size) + payload
    return _header(BINARY, len(wire)) + wire


def compressed_message(wire: Wire, bits: int) -> bytes:
    """A message in one frame; compressed if its payload is large enough.

    Args:
        wire: The message.
        bits: Window bits for which it is compressed, 9 to 15.

    Raises:
        UnicodeEncodeError: The text has no UTF-8 form.
    """
    if len(wire) < COMPRESSED:
        return plain_message(wire)
    first, payload = (TEXT, wire.encode()) if isinstance(wire, str) else (BINARY, wire)
    compressor = _compressors.get(bits)
    if compressor is None:
        compressor = zlib.compressobj(wbits=-bits, memLevel=5)
        _compressors[bits] = compressor
    # A full flush makes the compressor forget all that it has read.
    data = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
    data = data.removesuffix(_TAIL)
    return _header(first | _RSV1, len(data)) + data


def _header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")
