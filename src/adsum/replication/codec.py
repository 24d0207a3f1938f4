"""Encoding and decoding of messages: compact JSON arrays that begin with the kind of message.

The array of a piece of a message of bytes is followed by a line feed and the bytes, as they are.
Metas are sent as they are stored, as text. Decoding trusts nothing: every field is checked, metas
included, and any input that is not exactly a message raises `ProtocolError`.
"""

from collections.abc import Callable
from operator import gt, itemgetter
from typing import Any, TypeVar

from adsum.errors import ProtocolError
from adsum.quoting import printable, quoted
from adsum.values.jsontext import dump, encode_object, load, quote
from adsum.values.limits import (
    MAX_ADDRESS,
    MAX_ADDRESSES,
    MAX_DATA,
    MAX_LINGER,
    MAX_META,
    MAX_NAME,
    MAX_NODE_NAME,
    MAX_NUMBER,
    MAX_PAYLOAD,
)
from adsum.values.names import checked_name
from adsum.values.plainjson import check_objects

from .entry import ID, KEY, META, PREVIOUS, TOPIC, VERSION, Change, Entry
from .interning import known, share
from .limits import PIECE
from .messages import (
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
from .state import Replica

M = TypeVar("M", bound=ProtocolMessage)

_INTEGERS = frozenset({int})
_version = itemgetter(VERSION)

SYNC, DELTA, HEARTBEAT, DIGEST, ASK, VOUCH, GOODBYE, PUBLISH, PULL, PIECE_OF_BYTES = range(1, 11)
#: The first bytes of each piece of a message of bytes, and of no other frame.
_PIECE_START = b"[%d," % PIECE_OF_BYTES


def encode(message: ProtocolMessage) -> bytes:
    """Encode a message as ASCII bytes; those of a piece follow its line of ASCII as they are."""
    if isinstance(message, Piece):
        return b"".join((_encode(message).encode("ascii"), b"\n", message.data))
    return _encode(message).encode("ascii")


def decode(data: bytes) -> ProtocolMessage:
    """Decode a message from the bytes that `encode` made.

    Raises:
        ProtocolError: The bytes are not exactly one message.
    """
    if data.startswith(_PIECE_START):
        return _decode_piece(data)
    fields = _decode_array(data)
    decoder = _DECODERS.get(fields[0]) if type(fields[0]) is int else None
    if decoder is None:
        raise ProtocolError(f"a frame is of no known kind: {quoted(fields[0])}")
    return _decode_fields(decoder, fields)


def _decode_piece(data: bytes) -> Piece:
    """Decode a line of ASCII and the bytes after it."""
    end = data.find(b"\n")
    if end < 0:
        raise ProtocolError("a piece frame is malformed: it has no line feed")
    fields = _decode_array(data[:end])
    return _decode_fields(_piece, [*fields, data[end + 1 :]])


def _decode_array(data: bytes) -> list[Any]:
    try:
        fields = load(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame is not JSON: {printable(str(error), 200)}") from None
    if not isinstance(fields, list) or not fields:
        raise ProtocolError("a frame is not a JSON array")
    return fields


def _decode_fields(decoder: Callable[..., M], fields: list[Any]) -> M:
    try:
        return decoder(*fields[1:])
    except (TypeError, ValueError, IndexError, RecursionError) as error:
        raise ProtocolError(
            f"a {decoder.__name__[1:]} frame is malformed: {printable(str(error), 200)}"
        ) from None


def _encode(message: ProtocolMessage) -> str:  # noqa: C901  # a case a kind
    match message:
        case Delta():
            return _encode_delta(message)
        case Heartbeat(counter, version, members, departed):
            tail = f",{departed}" if departed else ""
            return f"[{HEARTBEAT},{counter},{version},{members}{tail}]"
        case Publish(topic, event, payload):
            if not isinstance(payload, str):
                raise TypeError("a message of bytes is sent as pieces")
            return f"[{PUBLISH},{quote(topic)},{quote(event)},{payload}]"
        case Piece(number, topic, event, size, offset):
            names = f"{quote(topic)},{quote(event)}"
            return f"[{PIECE_OF_BYTES},{number},{names},{size},{offset}]"
        case Sync(replica, after, follow):
            return f"[{SYNC},{_encode_replica(replica)},{after},{int(follow)}]"
        case Digest(sightings, farewells, last):
            seen = [[*s.replica, s.counter, s.version, *s.addresses] for s in sightings]
            gone = [[*f.replica, f.counter, f.version, f.remaining, f.held] for f in farewells]
            return dump([DIGEST, int(last), seen, gone])
        case Ask(replica):
            return f"[{ASK},{_encode_replica(replica)}]"
        case Vouch(replica, counter):
            return f"[{VOUCH},{_encode_replica(replica)},{counter}]"
        case Goodbye(counter, version, linger):
            return f"[{GOODBYE},{counter},{version},{float(linger)!r}]"
        case Pull(replicas, everything):
            return dump([PULL, int(everything), *map(list, replicas)])


def _encode_replica(replica: Replica) -> str:
    return f"{quote(replica.name)},{replica.incarnation}"


def _encode_delta(delta: Delta) -> str:
    """Encode entries as columns: each field of all entries together, so it is checked at once."""
    entries = [change for change in delta.changes if len(change) > 2]
    removals = [change for change in delta.changes if len(change) == 2]
    head = f"[{DELTA},{_encode_replica(delta.replica)},{delta.after},{delta.upto}"
    columns = [
        [entry[VERSION] for entry in entries],
        [entry[VERSION] - entry[ID] for entry in entries],
        [entry[TOPIC] for entry in entries],
        [entry[KEY] for entry in entries],
        [entry[META] for entry in entries],
        [_encode_previous(entry) for entry in entries],
        [removal[VERSION] for removal in removals],
        [removal[ID] for removal in removals],
    ]
    return f"{head},{2 * delta.reset + delta.last},{dump(columns)[1:]}"


def _encode_previous(entry: Entry) -> int:
    """The distance in versions to the replaced entry; 0 if the entry replaced none."""
    previous = entry[PREVIOUS]
    return 0 if previous is None else entry[VERSION] - previous


def _sync(name: object, incarnation: object, after: object, follow: object) -> Sync:
    return Sync(_replica(name, incarnation), _number(after, "after"), _flag(follow))


def _delta(
    name: object,
    incarnation: object,
    after: object,
    upto: object,
    flags: object,
    versions: Any,
    ages: Any,
    topics: Any,
    keys: Any,
    metas: Any,
    steps: Any,
    removed: Any,
    ids: Any,
) -> Delta:
    replica = _replica(name, incarnation)
    start, end = _number(after, "after"), _number(upto, "upto")
    if type(flags) is not int or not 0 <= flags < 2 * MAX_NUMBER:
        raise ValueError("flags must be an integer from 0 to 2**64 - 1")
    if not type(versions) is type(ages) is type(steps) is type(removed) is type(ids) is list:
        raise TypeError("a column of numbers must be a list")
    if not type(topics) is type(keys) is type(metas) is list:
        raise TypeError("a column of texts must be a list")
    if not len(versions) == len(ages) == len(topics) == len(keys) == len(metas) == len(steps):
        raise ValueError("the columns of entries differ in length")
    if len(removed) != len(ids):
        raise ValueError("the columns of removals differ in length")
    others = ages + steps + ids
    if not _INTEGERS.issuperset(map(type, versions + removed + others)):
        raise TypeError("a column of numbers must be a list of integers")
    # Versions are checked below. Each other number is from 0 to the version of its row.
    if any(others) and (min(others) < 0 or any(map(gt, others, versions + versions + removed))):
        raise ValueError("an id, or the version that an update replaced, is out of range")
    changes: list[Change] = [
        *_entries(replica, versions, ages, topics, keys, metas, steps),
        *zip(removed, ids),  # noqa: B905  # equal lengths, by the check of columns
    ]
    changes.sort(key=_version)
    order = [start, *map(_version, changes)]
    if order != sorted(set(order)) or order[-1] > end:
        raise ValueError(f"versions are out of order or outside the interval ({start}, {end}]")
    return Delta(replica, start, end, tuple(changes), flags >> 1, flags % 2 == 1)


def _entries(
    replica: Replica, versions: Any, ages: Any, topics: Any, keys: Any, metas: Any, steps: Any
) -> list[Entry]:
    """Build entries from columns of equal lengths, whose numbers are checked."""
    check_objects(metas, "meta", MAX_META)
    name, incarnation = replica
    return [
        (
            version,
            version - age if age else version,  # one int object, not two, where they are equal
            known(topic) or share(checked_name(topic, "topic", MAX_NAME)),
            checked_name(key, "key", MAX_NAME),
            meta,
            version - step if step else None,
            name,
            incarnation,
        )
        for version, age, topic, key, meta, step in zip(  # noqa: B905  # likewise
            versions, ages, topics, keys, metas, steps
        )
    ]


#: A field that a frame leaves out.
_ABSENT = object()


def _heartbeat(
    counter: object, version: object, members: object, departed: object = _ABSENT
) -> Heartbeat:
    if departed == 0:
        raise ValueError("departed=0: must be left out")
    return Heartbeat(
        _number(counter, "counter"),
        _number(version, "version"),
        _number(members, "members"),
        0 if departed is _ABSENT else _number(departed, "departed"),
    )


def _digest(last: object, sightings: Any, farewells: Any) -> Digest:
    if not type(sightings) is type(farewells) is list:
        raise TypeError("a part of a digest must be a list")
    return Digest(
        tuple([_sighting(*fields) for fields in sightings]),
        tuple([_farewell(*fields) for fields in farewells]),
        _flag(last),
    )


def _sighting(
    name: object, incarnation: object, counter: object, version: object, *addresses: object
) -> Sighting:
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"{len(addresses)} addresses: must be at most {MAX_ADDRESSES}")
    return Sighting(
        _replica(name, incarnation),
        _number(counter, "counter"),
        _number(version, "version"),
        tuple([checked_name(address, "address", MAX_ADDRESS) for address in addresses]),
    )


def _farewell(
    name: object,
    incarnation: object,
    counter: object,
    version: object,
    remaining: object,
    held: object,
) -> Farewell:
    return Farewell(
        _replica(name, incarnation),
        _number(counter, "counter"),
        _number(version, "version"),
        _linger(remaining),
        _number(held, "held"),
    )


def _pull(everything: object, *replicas: Any) -> Pull:
    return Pull(tuple([_replica(*fields) for fields in replicas]), _flag(everything))


def _ask(name: object, incarnation: object) -> Ask:
    return Ask(_replica(name, incarnation))


def _vouch(name: object, incarnation: object, counter: object) -> Vouch:
    return Vouch(_replica(name, incarnation), _number(counter, "counter"))


def _goodbye(counter: object, version: object, linger: object) -> Goodbye:
    return Goodbye(_number(counter, "counter"), _number(version, "version"), _linger(linger))


def _linger(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MAX_LINGER:  # type: ignore[operator]  # a number by the check before it
        raise ValueError(f"linger must be 0 to {MAX_LINGER} seconds")
    return float(value)  # type: ignore[arg-type]  # likewise


def _publish(topic: object, event: object, payload: object) -> Publish:
    return Publish(
        checked_name(topic, "topic", MAX_NAME),
        checked_name(event, "event", MAX_NAME),
        encode_object(payload, "payload", MAX_PAYLOAD),
    )


def _piece(
    number: object, topic: object, event: object, size: object, offset: object, data: bytes
) -> Piece:
    size, offset = _number(size, "size"), _number(offset, "offset")
    if size > MAX_DATA:
        raise ValueError(f"size={size}: must be at most {MAX_DATA}")
    if offset % PIECE or offset > max(0, size - 1):
        raise ValueError(f"offset={offset}: must be a multiple of {PIECE} below the size {size}")
    if len(data) != min(PIECE, size - offset):
        raise ValueError(f"{len(data)} bytes at {offset} of {size}: must be all up to the next")
    return Piece(
        _number(number, "number"),
        checked_name(topic, "topic", MAX_NAME),
        checked_name(event, "event", MAX_NAME),
        size,
        offset,
        data,
    )


def _replica(name: object, incarnation: object) -> Replica:
    return Replica(checked_name(name, "name", MAX_NODE_NAME), _number(incarnation, "incarnation"))


def _number(value: object, field: str) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise ValueError(f"{field} must be an integer from 0 to 2**63 - 1")
    return value


def _flag(value: object) -> bool:
    if type(value) is not int or value not in (0, 1):
        raise ValueError("a flag must be 0 or 1")
    return value == 1


_DECODERS: dict[int, Callable[..., ProtocolMessage]] = {
    SYNC: _sync,
    DELTA: _delta,
    HEARTBEAT: _heartbeat,
    DIGEST: _digest,
    ASK: _ask,
    VOUCH: _vouch,
    GOODBYE: _goodbye,
    PUBLISH: _publish,
    PULL: _pull,
}
