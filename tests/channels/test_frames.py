"""Frames of both versions, from text and bytes and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.wire.frames import MAX_REF, V1, V2, V2_TEXT, Frame, serializer_for
from adsum.errors import ProtocolError, UsageError
from adsum.values.jsontext import dump
from adsum.values.limits import MAX_NAME
from tests.support.effort import examples

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
refs = st.none() | st.integers(-(2**62), 2**62) | names
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)  # fmt: skip
#: Names as the binary form has room for them, and refs as it can carry them.
short = names.filter(lambda name: len(name.encode()) <= 255)
binary_refs = st.none() | short


@examples(100)
@given(refs, refs, names, names, values)
def test_v2_frame_round_trips(
    join_ref: Any, ref: Any, topic: str, event: str, payload: Any
) -> None:
    array = [join_ref, ref, topic, event, payload]
    for text in json.dumps(array), json.dumps(array, ensure_ascii=False, indent=1):
        assert V2.decode(text) == Frame(join_ref, ref, topic, event, payload)


@examples(100)
@given(refs, refs, names, names, values)
def test_v1_frame_round_trips(
    join_ref: Any, ref: Any, topic: str, event: str, payload: Any
) -> None:
    value = {"topic": topic, "event": event, "payload": payload, "ref": ref}
    assert V1.decode(json.dumps({**value, "join_ref": join_ref, "more": 1})) == Frame(
        join_ref, ref, topic, event, payload
    )
    assert V1.decode(json.dumps(value)) == Frame(None, ref, topic, event, payload)


@examples(50)
@given(refs, names, names, values)
def test_v1_frame_is_decoded_from_bytes_and_text_alike(
    ref: Any, topic: str, event: str, payload: Any
) -> None:
    value = {"topic": topic, "event": event, "payload": payload, "ref": ref}
    for text in json.dumps(value), json.dumps(value, ensure_ascii=False):
        assert V1.decode(text.encode()) == V1.decode(text)


@examples(50)
@given(refs, names, names, values, st.lists(values, min_size=1, max_size=5))
def test_elements_after_the_fifth_are_ignored(
    ref: Any, topic: str, event: str, payload: Any, more: list[Any]
) -> None:
    array = [None, ref, topic, event, payload]
    for serializer in V2, V2_TEXT:
        assert serializer.decode(json.dumps(array + more)) == serializer.decode(json.dumps(array))


def test_v1_join_without_join_ref_uses_its_ref() -> None:
    text = '{"topic":"t","event":"phx_join","payload":{},"ref":"3"}'
    assert V1.decode(text) == Frame("3", "3", "t", "phx_join", {})


@examples(100)
@given(refs, refs, names, names, st.dictionaries(st.text(), values))
def test_v2_frame_of_the_server_is_a_compact_ascii_array(
    join_ref: Any, ref: Any, topic: str, event: str, payload: Any
) -> None:
    body = dump(payload)
    compact = dump([join_ref, ref, topic, event, payload])
    assert V2.message(join_ref, ref, topic, event, body) == compact
    assert V2.broadcast(topic, event, body) == dump([None, None, topic, event, payload])
    response = {"status": "ok", "response": payload}
    reply = V2.reply(join_ref, ref, topic, "ok", body)
    assert reply == dump([join_ref, ref, topic, "phx_reply", response])
    assert compact.isascii()


@examples(100)
@given(refs, refs, names, names, st.dictionaries(st.text(), values))
def test_v1_frame_of_the_server_is_an_object_without_join_ref(
    join_ref: Any, ref: Any, topic: str, event: str, payload: Any
) -> None:
    body = dump(payload)
    value = {"topic": topic, "event": event, "payload": payload, "ref": ref}
    assert V1.message(join_ref, ref, topic, event, body) == dump(value)
    assert V1.broadcast(topic, event, body) == dump({**value, "ref": None})
    reply = {**value, "event": "phx_reply", "payload": {"status": "ok", "response": payload}}
    assert V1.reply(join_ref, ref, topic, "ok", body) == dump(reply)


def test_binary_frames_match_the_documented_example() -> None:
    push = bytes.fromhex("00 02 02 0a 03") + b"3035room:lobbybin\x01\x02\x03\xff"
    assert V2.decode(push) == Frame("30", "35", "room:lobby", "bin", b"\x01\x02\x03\xff")
    reply = bytes.fromhex("01 02 02 0a 02") + b"3035room:lobbyok\x01\x02\x03\xff"
    assert V2.reply("30", "35", "room:lobby", "ok", b"\x01\x02\x03\xff") == reply
    message = bytes.fromhex("00 02 0a 03") + b"30room:lobbybin\x01"
    assert V2.message("30", None, "room:lobby", "bin", b"\x01") == message
    broadcast = bytes.fromhex("02 0a 03") + b"room:lobbybin\x01"
    assert V2.broadcast("room:lobby", "bin", b"\x01") == broadcast


def words(frame: bytes, count: int) -> tuple[list[str], bytes]:
    """The strings of a binary frame, and what follows."""
    found, at = [], 1 + count
    for length in frame[1:at]:
        found.append(frame[at : at + length].decode())
        at += length
    return found, frame[at:]


@examples(100)
@given(binary_refs, binary_refs, short, short, st.binary())
def test_binary_frames_carry_their_names_and_any_bytes(
    join_ref: Any, ref: Any, topic: str, event: str, payload: bytes
) -> None:
    strings = [(join_ref or ""), (ref or ""), topic, event]
    encoded = [one.encode() for one in strings]
    push = bytes([0, *map(len, encoded)]) + b"".join(encoded) + payload
    assert V2.decode(push) == Frame(join_ref, ref, topic, event, payload)
    reply = V2.reply(join_ref, ref, topic, event, payload)
    assert isinstance(reply, bytes)
    assert (reply[0], words(reply, 4)) == (1, (strings, payload))
    message = V2.message(join_ref, ref, topic, event, payload)
    assert isinstance(message, bytes)
    assert (message[0], words(message, 3)) == (0, ([join_ref or "", topic, event], payload))
    broadcast = V2.broadcast(topic, event, payload)
    assert isinstance(broadcast, bytes)
    assert (broadcast[0], words(broadcast, 2)) == (2, ([topic, event], payload))


@examples(200)
@given(st.text() | st.binary() | values.map(json.dumps) | st.lists(values).map(json.dumps))
def test_any_text_decodes_or_raises_protocol_error(data: str | bytes) -> None:
    for serializer in V1, V2, V2_TEXT:
        try:
            frame = serializer.decode(data)
        except ProtocolError as error:
            assert len(str(error)) <= 120  # noqa: PT017  # not every text is none
        else:
            assert frame.topic
            assert frame.event


@examples(100)
@given(st.binary(max_size=30))
def test_any_bytes_after_zero_decode_as_push_or_raise_protocol_error(data: bytes) -> None:
    try:
        frame = V2.decode(b"\x00" + data)
    except ProtocolError:
        return
    assert isinstance(frame.payload, bytes)


def test_names_and_refs_beyond_the_length_limit_are_rejected() -> None:
    assert V2.decode(dump(["r" * MAX_REF, None, "t" * MAX_NAME, "e" * MAX_NAME, 1])).payload == 1
    for frame in (
        ["r" * (MAX_REF + 1), None, "t", "e", 1],
        [None, "r" * (MAX_REF + 1), "t", "e", 1],
        [None, None, "t" * (MAX_NAME + 1), "e", 1],
        [None, None, "t", "e" * (MAX_NAME + 1), 1],
        [2**63, None, "t", "e", 1],
        [None, -(2**63), "t", "e", 1],
    ):
        with pytest.raises(ProtocolError):
            V2.decode(dump(frame))


def test_frame_that_a_version_cannot_carry_raises_value_error() -> None:
    with pytest.raises(UsageError):
        V1.message(None, None, "t", "e", b"")
    with pytest.raises(UsageError):
        V1.broadcast("t", "e", b"")
    with pytest.raises(UsageError):
        V1.reply(None, None, "t", "ok", b"")
    with pytest.raises(UsageError):
        V2.broadcast("t" * 256, "e", b"")
    with pytest.raises(UsageError):
        V2.message("1", None, "t", "é" * 128, b"")
    assert len(V2.broadcast("t" * 255, "é" * 127, b"")) == 3 + 255 + 254


@pytest.mark.parametrize(
    ("version", "serializer"),
    [
        (None, V1),
        ("1.0.0", V1),
        ("1.0.9", V1),
        ("2.0.0", V2),
        ("2.0.12", V2),
        ("3.0.0", None),
        ("2.1.0", None),
        ("2.0", None),
        ("2.0.0.0", None),
        ("2.0.x", None),
        ("", None),
        ("two", None),
        ("02.0.0", None),
    ],
)
def test_serializer_is_chosen_by_major_and_minor_version(version: str, serializer: object) -> None:
    assert serializer_for(version) is serializer
