"""The messages of the bus and their encoding, each authenticated by the secret. No I/O.

A message begins with magic, version, kind and the *life* of its sender: random bytes that one run
of a node has made at its start, and that are its address. It ends with a tag, a keyed hash of all
that precedes. The key is derived from the secret and the name of the cluster, and all members have
it: on a bus, a tag proves that a member made the message, not which member. It covers sender,
receiver, link and number, so a message that is moved or altered has no valid tag, and one that is
repeated has a number that was received before. Lives and keys of links are random, so no message
of a former life or link is valid for a present one.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from adsum.errors import ProtocolError

LIFE_BYTES: Final = 8
KEY_BYTES: Final = 8
SITE_BYTES: Final = 16
QUESTION_BYTES: Final = 8
#: Stands for a question that is not asked, and for an answer that is not given.
NOTHING: Final = bytes(QUESTION_BYTES)
TAG_BYTES: Final = 16
#: Bytes of the longest reason in a `Shut`.
REASON_LIMIT: Final = 512

_MAGIC: Final = 0xAD
_VERSION: Final = 1
_HEAD: Final = struct.Struct(f">BBB{LIFE_BYTES}s")
_PAIR: Final = struct.Struct(f">{LIFE_BYTES}s{KEY_BYTES}s")
_NUMBERS: Final = struct.Struct(">QQ")
_ANNOUNCE: Final = struct.Struct(f">{QUESTION_BYTES}sQ")
_CAST: Final = struct.Struct(">QHH")
_NEED: Final = struct.Struct(f">{KEY_BYTES}sQ")
_REPORT: Final = struct.Struct(f">QQQQ?{QUESTION_BYTES}s{QUESTION_BYTES}s")
_BULLETIN: Final = struct.Struct(">HQH")
_KEY_LABEL: Final = b"adsum key for messages of a bus\0"


class Position(NamedTuple):
    """A place in the stream of one direction of a link: how many of its messages come before."""

    single: int
    cast: int


@dataclass(frozen=True, slots=True)
class Announce:
    """To all: the sender is there; nodes without a link to it may dial it.

    Attributes:
        site: See `BusCore`; zeros if it has none.
        question: Random bytes, for a node that has just returned to the bus: a report over each
            link with it answers them. Else `NOTHING`.
        issued: The number of its last bulletin.
    """

    site: bytes
    question: bytes
    issued: int


@dataclass(frozen=True, slots=True)
class Lost:
    """To all: the engine has refused a probe of this life; each node with a link probes it."""

    life: bytes


@dataclass(frozen=True, slots=True)
class Greet:
    """To one: frames of the handshake of a link."""

    target: bytes
    key: bytes
    frames: bytes


@dataclass(frozen=True, slots=True)
class Shut:
    """To one: the sender has closed a link, or there is no such link."""

    target: bytes
    key: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Single:
    """To one: a frame for one link.

    Attributes:
        target: The life of the receiver.
        key: The key of the link.
        number: Its number among the singles of this direction, from 1.
        after: The number of the cast that precedes it.
        body: The frame; in the first single, which begins the direction, the number of the last
            bulletin of the sender.
    """

    target: bytes
    key: bytes
    number: int
    after: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Cast:
    """To all: a frame for every link of the sender but a few.

    Attributes:
        number: Its number among the casts of its sender.
        needs: The singles that precede it: key of the link and number; links without a single
            since the cast before are left out.
        excluded: The keys of the links that it is not for.
        body: The frame.
    """

    number: int
    needs: tuple[tuple[bytes, int], ...]
    excluded: tuple[bytes, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """To one: how far both directions of a link are.

    An answer proves that its sender has the link since the question, which nobody knew before. So
    a recorded one proves nothing.

    Attributes:
        target: The life of the receiver.
        key: The key of the link.
        received: Up to where the sender has received the receiver's messages.
        sent: Up to where the sender has sent its own.
        resend: Whether it lacks messages beyond `received`, and asks for them.
        question: Random bytes that a report has to answer, or `NOTHING`.
        answer: The question that this report answers, or `NOTHING`.
    """

    target: bytes
    key: bytes
    received: Position
    sent: Position
    resend: bool
    question: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """To one: nothing; only the engine's refusal matters."""


@dataclass(frozen=True, slots=True)
class Bulletin:
    """To the subscribers of a topic subject: a published message, or a piece of one.

    Attributes:
        slot: The number of the subject, see `topicslots`.
        number: Its number among the bulletins of its sender, on all subjects.
        excluded: The lives that are sent it in another way.
        body: The frame.
    """

    slot: int
    number: int
    excluded: tuple[bytes, ...]
    body: bytes


BusMessage = Announce | Lost | Greet | Shut | Single | Cast | Report | Probe | Bulletin
_KINDS: Final = (Announce, Lost, Greet, Shut, Single, Cast, Report, Probe, Bulletin)
_KIND_BYTES: Final = {kind: bytes([at]) for at, kind in enumerate(_KINDS)}


def sender_of(data: bytes) -> bytes:
    """The life that a message claims as its sender, before any check; shorter if it is short."""
    return data[_HEAD.size - LIFE_BYTES : _HEAD.size]


def claims(data: bytes, kind: type[BusMessage]) -> bool:
    """Whether a message claims to be of a kind, before any check."""
    return data[2:3] == _KIND_BYTES[kind]


class BusCodec:
    """Encodes and decodes the messages of one cluster.

    Args:
        secret: The shared secret.
        cluster: The name of the cluster.
    """

    def __init__(self, secret: bytes, cluster: str) -> None:
        key = hmac.digest(secret, _KEY_LABEL + cluster.encode(), "sha256")
        self._keyed = hashlib.blake2b(key=key, digest_size=TAG_BYTES)

    def encode(self, sender: bytes, message: BusMessage) -> bytes:
        """Encode a message of a sender."""
        kind = _KINDS.index(type(message))
        data = _HEAD.pack(_MAGIC, _VERSION, kind, sender) + _encode(message)
        return data + self._tag(data)

    def decode(self, data: bytes) -> tuple[bytes, BusMessage]:
        """Check and decode a message; returns the life of its sender, and the message.

        Raises:
            ProtocolError: It is of another protocol or version, its tag is wrong, or it is
                malformed.
        """
        if len(data) < _HEAD.size + TAG_BYTES or data[0] != _MAGIC:
            raise ProtocolError("a message of another protocol")
        if data[1] != _VERSION:
            raise ProtocolError(f"a message of version {data[1]}: this node speaks {_VERSION}")
        end = len(data) - TAG_BYTES
        with memoryview(data) as view:
            if not hmac.compare_digest(self._tag(view[:end]), view[end:]):
                raise ProtocolError("a wrong tag: the secrets differ, or the message was forged")
        _, _, kind, sender = _HEAD.unpack_from(data)
        try:
            return sender, _decode(kind, data[_HEAD.size : end])
        except (struct.error, IndexError, UnicodeDecodeError):
            raise ProtocolError("a malformed message") from None

    def _tag(self, data: bytes | memoryview) -> bytes:
        mac = self._keyed.copy()
        mac.update(data)
        return mac.digest()


def _encode(message: BusMessage) -> bytes:
    match message:
        case Announce(site, question, issued):
            return site + _ANNOUNCE.pack(question, issued)
        case Lost(life):
            return life
        case Greet(target, key, frames):
            return _PAIR.pack(target, key) + frames
        case Shut(target, key, reason):
            return _PAIR.pack(target, key) + reason.encode("utf-8", "replace")[:REASON_LIMIT]
        case Single(target, key, number, after, body):
            return _PAIR.pack(target, key) + _NUMBERS.pack(number, after) + body
        case Cast(number, needs, excluded, body):
            head = _CAST.pack(number, len(needs), len(excluded))
            return b"".join([head, *(_NEED.pack(*need) for need in needs), *excluded, body])
        case Report(target, key, received, sent, resend, question, answer):
            rest = _REPORT.pack(*received, *sent, resend, question, answer)
            return _PAIR.pack(target, key) + rest
        case Probe():
            return b""
        case Bulletin(slot, number, excluded, body):
            return b"".join([_BULLETIN.pack(slot, number, len(excluded)), *excluded, body])


def _decode(kind: int, data: bytes) -> BusMessage:
    """Decode the part after the head; raises errors of `struct`, or IndexError, if it is short."""
    made = _KINDS[kind]
    if made is Announce:
        return Announce(data[:SITE_BYTES], *_ANNOUNCE.unpack(data[SITE_BYTES:]))
    if made is Lost:
        return Lost(data)
    if made is Probe:
        return Probe()
    if made is Cast:
        return _decode_cast(data)
    if made is Bulletin:
        return _decode_bulletin(data)
    target, key = _PAIR.unpack_from(data)
    rest = data[_PAIR.size :]
    if made is Greet:
        return Greet(target, key, rest)
    if made is Shut:
        return Shut(target, key, rest[:REASON_LIMIT].decode("utf-8", "replace"))
    if made is Single:
        number, after = _NUMBERS.unpack_from(rest)
        return Single(target, key, number, after, rest[_NUMBERS.size :])
    single, cast, sent_single, sent_cast, resend, question, answer = _REPORT.unpack(rest)
    received, sent = Position(single, cast), Position(sent_single, sent_cast)
    return Report(target, key, received, sent, resend, question, answer)


def _decode_cast(data: bytes) -> Cast:
    number, needs, excluded = _CAST.unpack_from(data)
    at = _CAST.size + needs * _NEED.size
    end = at + excluded * KEY_BYTES
    if end > len(data):
        raise IndexError
    return Cast(
        number,
        tuple(_NEED.unpack_from(data, _CAST.size + i * _NEED.size) for i in range(needs)),
        tuple(data[i : i + KEY_BYTES] for i in range(at, end, KEY_BYTES)),
        data[end:],
    )


def _decode_bulletin(data: bytes) -> Bulletin:
    slot, number, excluded = _BULLETIN.unpack_from(data)
    start = _BULLETIN.size
    end = start + excluded * LIFE_BYTES
    if end > len(data):
        raise IndexError
    lives = tuple(data[i : i + LIFE_BYTES] for i in range(start, end, LIFE_BYTES))
    return Bulletin(slot, number, lives, data[end:])
