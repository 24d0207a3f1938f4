"""Frames survive any chunking; what is no frame is refused before it costs memory."""

import itertools
import random
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.errors import ProtocolError
from adsum.transport.framing import (
    CLOSE,
    COMPRESSION_THRESHOLD,
    DEFLATED,
    FRAME_LIMIT,
    GREETING_LIMIT,
    HELLO,
    PAYLOAD,
    PROOF,
    REASON_LIMIT,
    FrameReader,
    Payload,
    decode_close,
    encode_close,
    encode_frame,
    encode_payload,
    inflate,
)

KINDS = st.sampled_from([HELLO, PROOF, PAYLOAD, DEFLATED, CLOSE])
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=300)), max_size=20)


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(stream) + 1) for position in at), len(stream)]
    return [stream[one:other] for one, other in itertools.pairwise(edges)]


def drain(reader: FrameReader) -> list[tuple[int, bytes]]:
    frames = []
    while (frame := reader.take()) is not None:
        frames.append(frame)
    return frames


@given(FRAMES, st.lists(st.integers(min_value=0)), st.booleans())
def test_frames_round_trip_in_any_chunks(
    frames: list[tuple[int, bytes]], at: list[int], at_once: bool
) -> None:
    reader = FrameReader()
    taken = []
    for chunk in cut(b"".join(encode_frame(*frame) for frame in frames), at):
        reader.feed(chunk)
        if not at_once:
            taken += drain(reader)
    taken += drain(reader)

    assert taken == frames
    assert len(reader) == 0
    assert not reader.ready


@given(FRAMES, st.integers(min_value=1, max_value=200))
def test_truncated_stream_yields_only_whole_frames(
    frames: list[tuple[int, bytes]], missing: int
) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    reader = FrameReader()
    reader.feed(stream[:-missing])

    taken = drain(reader)

    assert taken == frames[: len(taken)]
    assert not frames or len(taken) < len(frames)


@given(st.binary())
def test_garbage_stream_yields_frames_or_a_protocol_error(garbage: bytes) -> None:
    reader = FrameReader()
    reader.feed(garbage)
    try:
        drain(reader)
    except ProtocolError:
        return


def test_frame_length_is_checked_as_soon_as_it_is_read() -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">I", GREETING_LIMIT + 2))

    with pytest.raises(ProtocolError, match=str(GREETING_LIMIT + 2)):
        reader.take()


def test_frame_limit_can_rise_while_a_frame_is_pending() -> None:
    frame = (PAYLOAD, bytes(FRAME_LIMIT))
    reader = FrameReader()
    reader.feed(encode_frame(*frame))
    reader.limit = FRAME_LIMIT

    assert reader.take() == frame


def test_frame_without_a_kind_is_refused() -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">I", 0))

    assert reader.ready
    with pytest.raises(ProtocolError, match="without a kind"):
        reader.take()


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_unknown_kind_is_refused(kind: int) -> None:
    reader = FrameReader()
    reader.feed(encode_frame(kind, b""))

    with pytest.raises(ProtocolError, match=f"unknown kind {kind}"):
        reader.take()


def test_reading_cost_is_linear_in_the_bytes() -> None:
    """Copying the rest of the buffer for each byte, or for each frame, would take many seconds."""
    reader = FrameReader(FRAME_LIMIT)
    large = encode_frame(PAYLOAD, bytes(FRAME_LIMIT))
    began = time.process_time()

    for start in range(len(large)):
        reader.feed(large[start : start + 1])
        reader.take()
    reader.feed(encode_frame(PAYLOAD, b"x") * 200_000)
    assert len(drain(reader)) == 200_000

    assert time.process_time() - began < 3


@given(st.binary(max_size=5_000))
def test_payload_round_trips_through_compression(payload: bytes) -> None:
    reader = FrameReader()
    reader.feed(encode_payload(payload))
    frame = reader.take()

    assert frame is not None
    kind, body = frame
    assert (inflate(body) if kind == DEFLATED else body) == payload


def test_payload_is_compressed_only_if_it_shrinks() -> None:
    noise = random.Random(0).randbytes(10_000)

    assert encode_payload(bytes(COMPRESSION_THRESHOLD - 1))[4] == PAYLOAD
    assert encode_payload(bytes(COMPRESSION_THRESHOLD))[4] == DEFLATED
    assert encode_payload(noise)[4] == PAYLOAD


def test_large_payload_is_compressed_only_if_a_sample_from_its_middle_shrinks() -> None:
    noise = random.Random(0).randbytes(64 * 1024)
    half = bytes(48 * 1024) + noise[: 16 * 1024]
    assert encode_payload(half)[4] == DEFLATED
    assert len(encode_payload(half)) < 17 * 1024
    wrapped = bytes(24 * 1024) + noise[: 16 * 1024] + bytes(24 * 1024)  # it would shrink
    assert encode_payload(wrapped)[4] == PAYLOAD
    assert encode_payload(noise)[4] == PAYLOAD


def test_payload_sent_to_many_is_encoded_once() -> None:
    payload, other = Payload(bytes(10_000)), Payload(bytes(20_000))
    frame = encode_payload(payload)
    encode_payload(other)

    assert frame == encode_payload(bytes(10_000))
    assert encode_payload(payload) is frame


def test_payload_above_the_limit_is_refused() -> None:
    encode_payload(bytes(FRAME_LIMIT))
    with pytest.raises(ValueError, match=f"{FRAME_LIMIT + 1} bytes"):
        encode_payload(bytes(FRAME_LIMIT + 1))


def test_decompression_bomb_is_refused_without_inflating() -> None:
    bomb = zlib.compress(bytes(100 * FRAME_LIMIT))
    assert len(bomb) < 2 * FRAME_LIMIT

    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="grows beyond"):
            inflate(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * FRAME_LIMIT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not zlib at all",
        zlib.compress(b"payload")[:-1],
        zlib.compress(b"payload") + b"more",
        zlib.compress(bytes(FRAME_LIMIT + 1)),
    ],
    ids=["empty", "garbage", "truncated", "trailing", "one too many"],
)
def test_damaged_compressed_frame_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="compressed frame"):
        inflate(body)


def test_exactly_the_limit_inflates() -> None:
    assert inflate(zlib.compress(bytes(FRAME_LIMIT))) == bytes(FRAME_LIMIT)


@given(st.text())
def test_any_goodbye_reason_becomes_one_printable_line(reason: str) -> None:
    frame = encode_close(reason)
    told = decode_close(frame[5:])

    assert frame[4] == CLOSE
    assert len(frame) <= 5 + REASON_LIMIT
    assert told.isprintable()


def test_plain_goodbye_reason_is_sent_unchanged() -> None:
    assert decode_close(encode_close("zu spät")[5:]) == "zu spät"
