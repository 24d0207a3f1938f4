"""Messages survive the wire unaltered, and whatever else comes is refused."""

import gc
import json
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.errors import ProtocolError
from adsum.replication.codec import DELTA, DIGEST, HEARTBEAT, decode, encode
from adsum.replication.engine import Engine
from adsum.replication.entry import Change
from adsum.replication.limits import PIECE
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Farewell,
    Goodbye,
    Heartbeat,
    Piece,
    ProtocolMessage,
    Publish,
    Pull,
    Sighting,
    Sync,
    Vouch,
)
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.values.jsontext import check_object, encode_object
from adsum.values.limits import (
    MAX_ADDRESSES,
    MAX_DATA,
    MAX_LINGER,
    MAX_META,
    MAX_NAME,
    MAX_NODE_NAME,
    MAX_NUMBER,
)
from adsum.values.names import is_name
from tests.support.effort import examples

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
number = st.integers(0, MAX_NUMBER - 1)
scalar = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
json_value = st.recursive(
    scalar | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
json_object = st.dictionaries(st.text(max_size=8), json_value, max_size=4)
replica = st.builds(Replica, text, number)


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    owner = draw(replica)
    versions = sorted(draw(st.sets(st.integers(2, 10**6), max_size=5)))
    changes: list[Change] = []
    for version in versions:
        id = draw(st.integers(0, version))
        if draw(st.booleans()):
            changes.append((version, id))
        else:
            meta = encode_object(draw(json_object), "meta", MAX_META)
            previous = draw(st.none() | st.integers(0, version - 1))
            changes.append((version, id, draw(text), draw(text), meta, previous, *owner))
    after, upto = (versions[0] - 1, versions[-1]) if versions else (3, 3)
    return Delta(owner, after, upto, tuple(changes), draw(st.booleans()), draw(st.booleans()))


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    size = draw(st.integers(0, 100) | st.sampled_from([PIECE, PIECE + 1, 3 * PIECE, MAX_DATA]))
    offset = PIECE * draw(st.integers(0, max(0, (size - 1) // PIECE)))
    data = draw(st.binary(max_size=40)) or b"\n"
    length = min(PIECE, size - offset)
    whole = (data * (length // len(data) + 1))[:length]
    return Piece(draw(number), draw(text), draw(text), size, offset, whole)


messages: st.SearchStrategy[ProtocolMessage] = st.one_of(
    deltas(),
    st.builds(Sync, replica, number, st.booleans()),
    st.builds(Heartbeat, number, number, number, number),
    st.builds(
        Digest,
        st.lists(
            st.builds(Sighting, replica, number, number, st.lists(text, max_size=3).map(tuple)),
            max_size=3,
        ).map(tuple),
        st.lists(
            st.builds(Farewell, replica, number, number, st.floats(0, MAX_LINGER), number),
            max_size=3,
        ).map(tuple),
        st.booleans(),
    ),
    st.builds(Pull, st.lists(replica, max_size=3).map(tuple), st.booleans()),
    st.builds(Ask, replica),
    st.builds(Vouch, replica, number),
    st.builds(Goodbye, number, number, st.floats(0, MAX_LINGER)),
    st.builds(
        Publish, text, text, json_object.map(lambda value: encode_object(value, "payload", 10**6))
    ),
)


@given(messages | pieces())
def test_message_round_trips_through_the_codec(message: ProtocolMessage) -> None:
    assert decode(encode(message)) == message


@given(messages)
def test_encoded_message_is_ascii_json(message: ProtocolMessage) -> None:
    assert isinstance(json.loads(encode(message)), list)


@given(pieces())
def test_encoded_piece_is_a_line_of_ascii_json_and_the_bytes_as_they_are(piece: Piece) -> None:
    line, _, data = encode(piece).partition(b"\n")
    fields = [piece.number, piece.topic, piece.event, piece.size, piece.offset]
    assert json.loads(line.decode("ascii")) == [10, *fields]
    assert data == piece.data


def test_message_of_bytes_is_encoded_as_pieces_alone() -> None:
    with pytest.raises(TypeError, match="as pieces"):
        encode(Publish("t", "e", b"data"))


@given(st.binary(max_size=60))
def test_garbage_frame_is_rejected(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def check_decoding(frame: bytes) -> None:
    """It is refused, or it is a message, which survives the wire as any other does."""
    with suppress(ProtocolError):
        message = decode(frame)
        try:
            again = decode(encode(message))
        except ProtocolError as error:
            raise AssertionError(f"{message} was accepted, and is no message") from error
        assert again == message
        if isinstance(message, Piece):
            (was, data), (now, same) = (one.split(b"\n", 1) for one in (frame, encode(message)))
            assert (json.loads(was), data) == (json.loads(now), same)
        elif in_order(fields := json.loads(frame.decode())):
            assert json.loads(encode(message)) == fields


def in_order(fields: list[Any]) -> bool:
    """Whether changes stand as they are sent; they are taken in any order."""
    return fields[0] != DELTA or all(column == sorted(column) for column in (fields[6], fields[12]))


@given(messages | pieces(), st.data())
def test_corrupted_frame_decodes_or_raises_protocol_error(
    message: ProtocolMessage, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    check_decoding(bytes(frame))


@given(st.binary(max_size=60))
def test_any_bytes_after_the_start_of_a_piece_decode_or_raise_protocol_error(data: bytes) -> None:
    check_decoding(b"[10," + data)


@given(st.lists(st.deferred(lambda: stray), max_size=6), st.binary(max_size=20))
def test_any_fields_of_a_piece_decode_or_raise_protocol_error(
    fields: list[object], data: bytes
) -> None:
    check_decoding(json.dumps([10, *fields]).encode() + b"\n" + data)


#: What stands in frames or nearly does, so that what is put in place of something often fits.
stray: st.SearchStrategy[object] = json_value | st.sampled_from(
    [0, 1, 2, -1, 1.0, True, None, "", "{}", [], {}, 2**63 - 1, 2**63]
)


def altered(message: ProtocolMessage, data: st.DataObject, times: int) -> list[Any]:
    """The fields of a message after so many values were replaced, added or removed."""
    fields: list[Any] = json.loads(encode(message))
    for _ in range(times):
        lists = [fields, *(field for field in fields if isinstance(field, list) and field)]
        place = data.draw(st.sampled_from(lists))
        start = data.draw(st.integers(0, len(place) - 1))
        stop = start + data.draw(st.sampled_from([1, 1, 1, 0]))
        place[start:stop] = data.draw(st.lists(stray, min_size=1, max_size=1) | st.just([]))
        if not fields:
            break
    return fields


@examples(100)
@given(deltas() | messages, st.data())
def test_frame_with_replaced_values_decodes_or_raises_protocol_error(
    message: ProtocolMessage, data: st.DataObject
) -> None:
    fields = altered(message, data, data.draw(st.integers(1, 3)))
    check_decoding(json.dumps(fields).encode())


def number_below(value: object, bound: int) -> bool:
    return type(value) is int and 0 <= value < bound


def plainly_decoded(fields: list[Any]) -> Delta | None:
    """A delta, each field of each change checked by itself; None if it is to be refused."""
    try:
        return one_by_one(*fields[1:])
    except (AssertionError, TypeError, ValueError, RecursionError):
        return None


def one_by_one(
    name: Any, incarnation: Any, after: Any, upto: Any, flags: Any, *columns: Any
) -> Delta:
    assert is_name(name, MAX_NODE_NAME)
    assert number_below(flags, 2 * MAX_NUMBER)
    assert all(number_below(value, MAX_NUMBER) for value in (incarnation, after, upto))
    assert len(columns) == 8
    assert all(type(column) is list for column in columns)
    changes: list[Change] = []
    for version, age, topic, key, meta, step in zip(*columns[:6], strict=True):
        assert number_below(version, MAX_NUMBER)
        assert number_below(age, version + 1)
        assert number_below(step, version + 1)
        assert is_name(topic, MAX_NAME)
        assert is_name(key, MAX_NAME)
        check_object(meta, "meta", MAX_META)
        previous = version - step if step else None
        changes.append((version, version - age, topic, key, meta, previous, name, incarnation))
    for version, id in zip(*columns[6:], strict=True):
        assert number_below(version, MAX_NUMBER)
        assert number_below(id, version + 1)
        changes.append((version, id))
    changes.sort(key=lambda change: change[0])
    order = [after, *(change[0] for change in changes)]
    assert all(earlier < later for earlier, later in pairwise(order))
    assert order[-1] <= upto
    return Delta(Replica(name, incarnation), after, upto, tuple(changes), flags >> 1, flags % 2)


@examples(400)
@given(deltas(), st.data())
def test_altered_delta_is_accepted_exactly_if_each_of_its_fields_is_valid(
    message: Delta, data: st.DataObject
) -> None:
    fields = altered(message, data, data.draw(st.integers(0, 2)))
    if not fields or fields[0] != DELTA or type(fields[0]) is not int:
        return
    expected = plainly_decoded(fields)
    if expected is None:
        with pytest.raises(ProtocolError):
            decode(json.dumps(fields).encode())
    else:
        assert decode(json.dumps(fields).encode()) == expected


@given(st.lists(json_value, max_size=8))
def test_any_json_array_decodes_or_raises_protocol_error(fields: list[object]) -> None:
    check_decoding(json.dumps(fields).encode())


def delta(**altered: object) -> bytes:
    """A delta frame of one entry, with some of its fields altered."""
    fields: dict[str, object] = {
        "kind": 2,
        "name": "n",
        "incarnation": 1,
        "after": 0,
        "upto": 1,
        "flags": 1,
        "versions": [1],
        "ages": [0],
        "topics": ["t"],
        "keys": ["k"],
        "metas": ["{}"],
        "steps": [0],
        "removed": [],
        "ids": [],
    }
    assert altered.keys() <= fields.keys()
    return json.dumps(list({**fields, **altered}.values())).encode()


def test_unaltered_delta_frame_is_accepted() -> None:
    message = decode(delta())
    assert isinstance(message, Delta)
    assert message.changes == ((1, 1, "t", "k", "{}", None, "n", 1),)


@pytest.mark.parametrize(
    "frame",
    [
        b"[3,1]",
        b"[3,1,-1]",
        b"[3,1,1.0]",
        b"[3,1,true]",
        b"[3,1,9223372036854775808]",
        b"[99]",
        b"[true,1,1]",
        b'["3",1,1]',
        b"{}",
        b"null",
        b"[]",
        b"[7,NaN]",
        b"[7,Infinity]",
        b"[7,1e999]",
        b"[7,-1]",
        b"[7,9e9]",
        b'[8,"t","e",[]]',
        b'[8,"t","e",{"a":NaN}]',
        b'[8,"t","e",{"a":1e999}]',
        b'[8,"","e",{}]',
        b'[8,"t",5,{}]',
        b'[8,"\\ud800","e",{}]',
        delta(metas=["[]"]),
        delta(metas=["{}", "{}"]),
        delta(metas=[{}]),
        delta(metas=["{} "]),
        delta(metas=["{ }"]),
        delta(metas=[" {}"]),
        delta(metas=["{},{}"]),
        delta(metas=['{"a":NaN}']),
        delta(metas=['{"a":1e999}']),
        delta(metas=['{"a":' * 40 + "1" + "}" * 40]),
        delta(metas=['{"a":"\u00e9"}']),
        delta(metas=['{"a":"' + "x" * MAX_META + '"}']),
        delta(versions=[2]),
        delta(versions=[0]),
        delta(versions=[True]),
        delta(versions=[1.0]),
        delta(versions=["1"]),
        delta(versions=1),
        delta(versions=None),
        delta(versions=[2**63], upto=2**63 - 1),
        delta(ages=[2]),
        delta(ages=[-1]),
        delta(steps=[5]),
        delta(steps=[-1]),
        delta(ages=[1.0]),
        delta(versions=[2, 1], ages=[0, 2], topics=["t"] * 2, keys=["k"] * 2, metas=["{}"] * 2),
        delta(removed=[2], ids=[-1], upto=2),
        delta(removed=[2], ids=[3], upto=3),
        delta(removed=[2], ids=[True], upto=2),
        delta(keys=[]),
        delta(steps=[]),
        delta(metas=['{"a":1}\n{"b":2}']),
        delta(metas=['{"a":1,"b":', "2}"] * 2),
        delta(topics=[""]),
        delta(topics=[5]),
        delta(topics="t"[:0]),
        delta(topics="t"),
        delta(keys="k"),
        delta(keys={"k": 0}),
        delta(keys=["x" * 1025]),
        delta(keys=["\ud800"]),
        delta(removed=[1], ids=[1]),
        delta(removed=[1], ids=[]),
        delta(removed=[1], ids=[2]),
        delta(versions=[1, 1], ages=[0, 0], topics=["t"] * 2, keys=["k"] * 2, metas=["{}"] * 2),
        delta(after=5, upto=2),
        delta(after=1),
        delta(flags=2**64),
        delta(flags=True),
        delta(name=""),
        delta(name=None),
        delta(incarnation=-1),
        b'[2,"n",1,0,1]',
        b'[2,"n",1,0,1,1,[],[],[],[],[],[],[],[],[]]',
        b"[" * 100_000,
        b"[2," + b"[" * 100_000,
        b"[3,1," + b"1" * 10_000 + b"]",
    ],
    ids=lambda frame: frame[:60].decode(),
)
def test_malformed_message_is_rejected(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


def piece(fields: str, length: int) -> bytes:
    return f"[10,{fields}]\n".encode() + bytes(length)


@pytest.mark.parametrize(
    "frame",
    [
        piece('1,"t","e",3,0', 3),
        piece('1,"t","e",0,0', 0),
        piece(f'1,"t","e",{PIECE},0', PIECE),
        piece(f'1,"t","e",{PIECE + 1},{PIECE}', 1),
        piece(f'1,"t","e",{MAX_DATA},{MAX_DATA - PIECE}', PIECE),
    ],
    ids=lambda frame: frame[:40].decode().strip("\0"),
)
def test_piece_at_a_bound_is_accepted(frame: bytes) -> None:
    assert encode(decode(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        piece('1,"t","e",3,0', 2),
        piece('1,"t","e",3,0', 4),
        piece('1,"t","e",3,0', 0),
        piece('1,"t","e",0,0', 1),
        piece('1,"t","e",3,3', 0),
        piece('1,"t","e",3,1', 2),
        piece('1,"t","e",3,-1', 3),
        piece('1,"t","e",-1,0', 0),
        piece('1,"t","e",3.0,0', 3),
        piece('1,"t","e",true,0', 1),
        piece('-1,"t","e",3,0', 3),
        piece('null,"t","e",3,0', 3),
        piece('1,"","e",3,0', 3),
        piece('1,"t",5,3,0', 3),
        piece('1,"t","e",3', 3),
        piece('1,"t","e",3,0,0', 3),
        piece(f'1,"t","e",{2 * PIECE},0', PIECE - 1),
        piece(f'1,"t","e",{2 * PIECE},0', PIECE + 1),
        piece(f'1,"t","e",{2 * PIECE},{PIECE // 2}', PIECE),
        piece(f'1,"t","e",{2 * PIECE},{2 * PIECE}', 0),
        piece(f'1,"t","e",{MAX_DATA + 1},0', PIECE),
        piece(f'1,"t","e",{2**63},0', PIECE),
        b'[10,1,"t","e",0,0]',
        b"[10,\n",
        b"[10,",
        b"[10," + b"[" * 100_000 + b"\n",
        b' [10,1,"t","e",0,0]\n',
        b'[10 ,1,"t","e",0,0]\n',
        b"[10]",
    ],
    ids=lambda frame: f"{frame[:40].decode().strip(chr(0))} {len(frame)}",
)
def test_malformed_piece_is_rejected(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


def test_addresses_of_a_sighting_are_bounded() -> None:
    def frame(addresses: int) -> bytes:
        seen = ["n", 1, 1, 1, *(f"127.0.0.1:{1 + port}" for port in range(addresses))]
        return json.dumps([DIGEST, 0, [seen], []]).encode()

    message = decode(frame(MAX_ADDRESSES))
    assert isinstance(message, Digest)
    assert len(message.sightings[0].addresses) == MAX_ADDRESSES
    with pytest.raises(ProtocolError, match=f"at most {MAX_ADDRESSES}"):
        decode(frame(MAX_ADDRESSES + 1))


def test_delta_of_one_join_is_small() -> None:
    owner = Replica("host-12345-ab12", 1_800_000_000_000 << 20)
    entry = (1000, 1000, "room:1", "user:12345", '{"device":"phone"}', None, *owner)
    assert len(encode(Delta(owner, 999, 1000, (entry,)))) < 250


def test_garbage_collector_untracks_entries() -> None:
    engine = Engine(Replica("n", 1), Timing(), Random(1), now=0.0)
    own = engine.track("room", "ann", '{"device":"phone"}')
    received = decode(encode(Delta(Replica("m", 1), 0, 1, ((1, 1, "t", "k", "{}", None, "m", 1),))))
    assert isinstance(received, Delta)
    gc.collect()
    assert not gc.is_tracked(own)
    assert not gc.is_tracked(received.changes[0])


@pytest.mark.parametrize("departed", ["null", "0", "-1", "true", '"x"'])
def test_heartbeat_with_an_invalid_fingerprint_is_rejected(departed: str) -> None:
    with pytest.raises(ProtocolError):
        decode(f"[{HEARTBEAT},0,0,0,{departed}]".encode())
