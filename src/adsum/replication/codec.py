"""Messages as bytes: compact JSON arrays, whose first element names the kind.

Encoding joins texts that are already JSON. Decoding trusts nothing: every field is checked, metas
are encoded anew, and whatever is not exactly a message raises `ProtocolError`.
"""

from collections.abc import Callable
from sys import intern
from typing import Any

from adsum.errors import ProtocolError

from .jsontext import checked_name, dump, encode_object, load, quote
from .limits import (
    MAX_ADDRESS,
    MAX_ADDRESSES,
    MAX_META,
    MAX_NAME,
    MAX_NODE_NAME,
    MAX_NUMBER,
    MAX_PAYLOAD,
)
from .messages import Ask, Delta, Digest, Heartbeat, Leave, Message, Publish, Sighting, Sync, Vouch
from .state import Change, Entry, Removal, Replica

#: A goodbye may ask for its presences to be shown for this many more seconds.
MAX_LINGER = 3600.0

SYNC, DELTA, HEARTBEAT, DIGEST, ASK, VOUCH, LEAVE, PUBLISH = range(1, 9)


def encode(message: Message) -> bytes:
    """A message as ASCII bytes."""
    return _encode(message).encode("ascii")


def decode(data: bytes) -> Message:
    """The message that `encode` made these bytes of.

    Raises:
        ProtocolError: They are anything else.
    """
    try:
        fields = load(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame is not JSON: {_brief(error)}") from None
    if not isinstance(fields, list) or not fields:
        raise ProtocolError("a frame is not a JSON array")
    decoder = _DECODERS.get(fields[0]) if type(fields[0]) is int else None
    if decoder is None:
        raise ProtocolError(f"a frame is of no known kind: {_brief(fields[0])}")
    try:
        return decoder(*fields[1:])
    except (TypeError, ValueError, IndexError, RecursionError) as error:
        raise ProtocolError(
            f"a {decoder.__name__[1:]} frame is malformed: {_brief(error)}"
        ) from None


def _encode(message: Message) -> str:
    match message:
        case Delta(replica, after, upto, changes, reset, last):
            body = ",".join([_encode_change(change) for change in changes])
            flags = 2 * reset + last
            return f"[{DELTA},{_encode_replica(replica)},{after},{upto},[{body}],{flags}]"
        case Heartbeat(counter, version):
            return f"[{HEARTBEAT},{counter},{version}]"
        case Publish(topic, event, payload):
            return f"[{PUBLISH},{quote(topic)},{quote(event)},{payload}]"
        case Sync(replica, after, follow):
            return f"[{SYNC},{_encode_replica(replica)},{after},{int(follow)}]"
        case Digest(sightings):
            return dump(
                [DIGEST, *([*s.replica, s.counter, s.version, *s.addresses] for s in sightings)]
            )
        case Ask(replica):
            return f"[{ASK},{_encode_replica(replica)}]"
        case Vouch(replica, counter):
            return f"[{VOUCH},{_encode_replica(replica)},{counter}]"
        case Leave(linger):
            return f"[{LEAVE},{float(linger)!r}]"


def _encode_replica(replica: Replica) -> str:
    return f"{quote(replica.name)},{replica.incarnation}"


def _encode_change(change: Change) -> str:
    if isinstance(change, Removal):
        return f"[{change.version},{change.id}]"
    text = f"[{change.version},{change.id},{quote(change.topic)},{quote(change.key)},{change.meta}"
    return f"{text}]" if change.previous is None else f"{text},{change.previous}]"


def _sync(name: object, incarnation: object, after: object, follow: object) -> Sync:
    return Sync(_replica(name, incarnation), _number(after, "after"), _flag(follow))


def _delta(
    name: object, incarnation: object, after: object, upto: object, changes: object, flags: object
) -> Delta:
    replica = _replica(name, incarnation)
    start, end = _number(after, "after"), _number(upto, "upto")
    if not isinstance(changes, list) or type(flags) is not int or not 0 <= flags <= 3:
        raise ValueError("changes or flags are of the wrong type")
    decoded = tuple([_change(replica, change) for change in changes])
    version = start
    for change in decoded:
        if not change.id <= change.version or not version < change.version <= end:
            raise ValueError(f"version {change.version} is out of order or outside its interval")
        version = change.version
    if end < start:
        raise ValueError(f"the interval ({start}, {end}] is reversed")
    return Delta(replica, start, end, decoded, reset=flags >= 2, last=flags % 2 == 1)


def _change(replica: Replica, fields: list[Any]) -> Change:
    count = len(fields)
    version, id = _number(fields[0], "version"), _number(fields[1], "id")
    if count == 2:
        return Removal(id, version)
    if count not in (5, 6):
        raise ValueError(f"a change has {count} fields")
    topic = intern(checked_name(fields[2], "topic", MAX_NAME))
    key = checked_name(fields[3], "key", MAX_NAME)
    meta = encode_object(fields[4], "meta", MAX_META)
    previous = _number(fields[5], "previous") if count == 6 else None
    if id == version:
        id = version  # one int object instead of two, for each of a hundred thousand entries
    return Entry(replica, id, version, topic, key, meta, previous)


def _heartbeat(counter: object, version: object) -> Heartbeat:
    return Heartbeat(_number(counter, "counter"), _number(version, "version"))


def _digest(*sightings: Any) -> Digest:
    return Digest(tuple([_sighting(*fields) for fields in sightings]))


def _sighting(
    name: object, incarnation: object, counter: object, version: object, *addresses: object
) -> Sighting:
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"{len(addresses)} addresses; at most {MAX_ADDRESSES} are accepted")
    return Sighting(
        _replica(name, incarnation),
        _number(counter, "counter"),
        _number(version, "version"),
        tuple([checked_name(address, "address", MAX_ADDRESS) for address in addresses]),
    )


def _ask(name: object, incarnation: object) -> Ask:
    return Ask(_replica(name, incarnation))


def _vouch(name: object, incarnation: object, counter: object) -> Vouch:
    return Vouch(_replica(name, incarnation), _number(counter, "counter"))


def _leave(linger: object) -> Leave:
    if type(linger) not in (int, float) or not 0 <= linger <= MAX_LINGER:  # type: ignore[operator]  # a number by the check before it
        raise ValueError(f"linger must be 0 to {MAX_LINGER} seconds")
    return Leave(float(linger))  # type: ignore[arg-type]  # likewise


def _publish(topic: object, event: object, payload: object) -> Publish:
    return Publish(
        checked_name(topic, "topic", MAX_NAME),
        checked_name(event, "event", MAX_NAME),
        encode_object(payload, "payload", MAX_PAYLOAD),
    )


def _replica(name: object, incarnation: object) -> Replica:
    return Replica(checked_name(name, "name", MAX_NODE_NAME), _number(incarnation, "incarnation"))


def _number(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise ValueError(f"{what} must be an integer from 0 to 2**63 - 1")
    return value


def _flag(value: object) -> bool:
    if type(value) is not int or value not in (0, 1):
        raise ValueError("a flag must be 0 or 1")
    return value == 1


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:120] + "..."


_DECODERS: dict[int, Callable[..., Message]] = {
    SYNC: _sync,
    DELTA: _delta,
    HEARTBEAT: _heartbeat,
    DIGEST: _digest,
    ASK: _ask,
    VOUCH: _vouch,
    LEAVE: _leave,
    PUBLISH: _publish,
}
