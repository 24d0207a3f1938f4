"""Messages survive the wire unaltered, and whatever else comes is refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.errors import ProtocolError
from adsum.replication.codec import MAX_LINGER, decode, encode
from adsum.replication.jsontext import encode_object
from adsum.replication.limits import MAX_META, MAX_NUMBER
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Heartbeat,
    Leave,
    Message,
    Publish,
    Sighting,
    Sync,
    Vouch,
)
from adsum.replication.state import Change, Entry, Removal, Replica

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
            changes.append(Removal(id, version))
        else:
            meta = encode_object(draw(json_object), "meta", MAX_META)
            previous = draw(st.none() | number)
            changes.append(Entry(owner, id, version, draw(text), draw(text), meta, previous))
    after, upto = (versions[0] - 1, versions[-1]) if versions else (3, 3)
    return Delta(owner, after, upto, tuple(changes), draw(st.booleans()), draw(st.booleans()))


messages: st.SearchStrategy[Message] = st.one_of(
    deltas(),
    st.builds(Sync, replica, number, st.booleans()),
    st.builds(Heartbeat, number, number),
    st.builds(
        Digest,
        st.lists(
            st.builds(Sighting, replica, number, number, st.lists(text, max_size=3).map(tuple)),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(Ask, replica),
    st.builds(Vouch, replica, number),
    st.builds(Leave, st.floats(0, MAX_LINGER)),
    st.builds(
        Publish, text, text, json_object.map(lambda value: encode_object(value, "payload", 10**6))
    ),
)


def comparable(message: Message) -> object:
    """Entries are compared by identity elsewhere; here by what they say."""
    if not isinstance(message, Delta):
        return message
    changes = [
        (c.replica, c.id, c.version, c.topic, c.key, c.meta, c.previous)
        if isinstance(c, Entry)
        else c
        for c in message.changes
    ]
    return (message.replica, message.after, message.upto, changes, message.reset, message.last)


@given(messages)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert comparable(decode(encode(message))) == comparable(message)


@given(messages)
def test_the_wire_is_ascii_json(message: Message) -> None:
    assert isinstance(json.loads(encode(message)), list)


@given(st.binary(max_size=60))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@given(messages, st.data())
def test_a_damaged_frame_is_a_message_or_refused_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        decode(bytes(frame))


@given(st.lists(json_value, max_size=8))
def test_any_json_array_is_a_message_or_refused_and_nothing_else(fields: list[object]) -> None:
    with suppress(ProtocolError):
        decode(json.dumps(fields).encode())


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
        b'[2,"n",1,0,1,[[1,1,"t","k",[]]],1]',
        b'[2,"n",1,0,1,[[1,1,"t","k"]],1]',
        b'[2,"n",1,0,1,[[1,2,"t","k",{}]],1]',
        b'[2,"n",1,0,1,[[2,1,"t","k",{}]],1]',
        b'[2,"n",1,1,1,[[1,1,"t","k",{}]],1]',
        b'[2,"n",1,0,2,[[2,2,"t","k",{}],[1,1,"t","k",{}]],1]',
        b'[2,"n",1,5,2,[],1]',
        b'[2,"n",1,0,1,[],4]',
        b'[2,"n",1,0,1,{},1]',
        b'[2,"",1,0,1,[],1]',
        b'[2,"n",1,0,1,[[]],1]',
        b'[2,"n",1,0,1,[5],1]',
        b"[" * 100_000,
        b"[2," + b"[" * 100_000,
        b"[3,1," + b"1" * 10_000 + b"]",
    ],
    ids=lambda frame: frame[:40].decode(),
)
def test_what_is_not_exactly_a_message_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


def test_a_lone_join_is_small() -> None:
    owner = Replica("host-12345-ab12", 1_800_000_000_000 << 20)
    entry = Entry(owner, 1000, 1000, "room:1", "user:12345", '{"device":"phone"}', None)
    assert len(encode(Delta(owner, 999, 1000, (entry,)))) < 250
