"""Frames of the Phoenix Channels protocol, versions 1 and 2: decoding and encoding.

Pure. A frame is valid if the original server accepts it: version 1 is read from binary messages as
from text, and elements of an array after the fifth are ignored.

Outgoing payloads are already encoded, as JSON text, which is spliced into the frame, or as bytes.
So a payload sent to many clients is encoded once. Version 1 has objects. Version 2 has arrays and,
for bytes, a binary form in which each length takes one byte.
"""

from typing import Any, NamedTuple, Protocol

from adsum.errors import ProtocolError, UsageError
from adsum.quoting import quoted
from adsum.values.jsontext import load, quote
from adsum.values.limits import MAX_NAME, MAX_NUMBER
from adsum.values.names import checked_name, is_name, is_unicode

#: Reference of a request, echoed unchanged in the reply.
Ref = str | int | None
#: An encoded payload: JSON text, or bytes.
Encoded = str | bytes
#: An encoded frame, as an ASGI server or a long-poll response carries it.
Wire = str | bytes

#: Characters that a ref may have; the binary form has no room for more either.
MAX_REF = 255
_PUSH, _REPLY, _BROADCAST = 0, 1, 2
_new_frame = tuple.__new__
#: Events of presences. Clients trust these to come from the server, as those that begin with
#: ``phx_``.
_OF_PRESENCES = frozenset({"presence_state", "presence_diff", "presence_count"})


class Frame(NamedTuple):
    """A decoded frame from a client.

    Attributes:
        join_ref: Reference of the join of the channel that the frame is for.
        ref: Reference of the request.
        topic: The topic.
        event: The event.
        payload: A JSON value, or bytes.
    """

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Any


class BinaryFrames:
    """The binary frames of version 2, as phoenix.js has them; subclass it for other clients.

    Some clients speak the protocol with binary frames of their own. A subclass decodes these, and
    encodes broadcasts of bytes for them; pass an instance to `Socket`. All frames that are text are
    the same for every client, presences among them.

    Example:
        >>> from adsum.channels import BinaryFrames, Frame
        >>> class Numbered(BinaryFrames):
        ...     def decode(self, data):
        ...         if data[0] != 9:
        ...             return super().decode(data)
        ...         return Frame(None, None, f"room:{data[1]}", "bytes", data[2:])
        ...
        ...     def broadcast(self, topic, event, payload):
        ...         return bytes([9, int(topic.removeprefix("room:"))]) + payload
    """

    def decode(self, data: bytes) -> Frame:
        """Decode a binary message of a client, which can be any bytes.

        The connection is closed with 1011 if a ValueError or a LookupError is raised, as by
        `bytes.decode`, `json.loads` and an index beyond the end, or if a name is too long. The
        payload may be any value; only the handler of the event sees it.

        Raises:
            ProtocolError: It is not a frame; gives the reason, not the payload.
        """
        return _decode_binary(data)

    def broadcast(self, topic: str, event: str, payload: bytes) -> bytes:
        """Encode a broadcast of bytes, once for all clients of a node.

        The names have at most 255 bytes each. The payload is that of `Channel.broadcast` or
        `Socket.broadcast`, perhaps on another node. If an error is raised, it is logged, and these
        clients are not sent the broadcast.
        """
        return _binary(_BROADCAST, (topic, event), payload)


class Serializer(Protocol):
    """One version of the protocol.

    Attributes:
        binary: Whether payloads may be bytes.
    """

    binary: bool

    def decode(self, data: Wire) -> Frame:
        """Decode a frame from a client.

        Raises:
            ProtocolError: It is not a frame of this version; gives the reason, not the payload.
        """

    def message(self, join_ref: Ref, ref: Ref, topic: str, event: str, payload: Encoded) -> Wire:
        """Encode a message to one channel of a client; the binary form has no `ref`.

        Raises:
            UsageError: This version cannot carry the payload or the names.
        """

    def reply(self, join_ref: Ref, ref: Ref, topic: str, status: str, response: Encoded) -> Wire:
        """Encode the reply to a request; `status` is a word of the server, ``ok`` or ``error``."""

    def broadcast(self, topic: str, event: str, payload: Encoded) -> Wire:
        """Encode a message to every client on a topic."""


class Version1:
    """Version 1: ``{"topic", "event", "payload", "ref", "join_ref"}``; no payloads of bytes.

    A client may send these objects as text or as bytes.
    """

    binary = False

    def decode(self, data: Wire) -> Frame:
        """See `Serializer`."""
        value = _parse(data if isinstance(data, str) else _text_of(data))
        if not isinstance(value, dict):
            raise ProtocolError("not an object")
        try:
            fields = value["topic"], value["event"], value["payload"]
        except KeyError as error:
            raise ProtocolError(f"{error.args[0]} is missing") from None
        join_ref, ref = value.get("join_ref"), value.get("ref")
        if join_ref is None and fields[1] == "phx_join":
            join_ref = ref  # the earliest clients sent no join_ref
        return _checked(join_ref, ref, *fields)

    def message(self, join_ref: Ref, ref: Ref, topic: str, event: str, payload: Encoded) -> Wire:
        """See `Serializer`."""
        body = _text_only(payload)
        return (
            f'{{"topic":{quote(topic)},"event":{quote(event)},"payload":{body},"ref":{_ref(ref)}}}'
        )

    def reply(self, join_ref: Ref, ref: Ref, topic: str, status: str, response: Encoded) -> Wire:
        """See `Serializer`."""
        body = f'{{"status":"{status}","response":{_text_only(response)}}}'
        return self.message(join_ref, ref, topic, "phx_reply", body)

    def broadcast(self, topic: str, event: str, payload: Encoded) -> Wire:
        """See `Serializer`."""
        return self.message(None, None, topic, event, payload)


class Version2:
    """Version 2: ``[join_ref, ref, topic, event, payload]``, and binary frames for bytes.

    Args:
        frames: Decodes binary messages, and encodes broadcasts of bytes.
        binary: Whether clients can be sent bytes.
    """

    def __init__(self, frames: BinaryFrames | None = None, *, binary: bool = True) -> None:
        self._frames = frames or BinaryFrames()
        self.binary = binary

    def decode(self, data: Wire) -> Frame:
        """See `Serializer`."""
        if isinstance(data, bytes):
            return self._frames.decode(data)
        value = _parse(data)
        if not isinstance(value, list) or len(value) < 5:
            raise ProtocolError("not an array of five elements or more")
        join_ref, ref, topic, event, payload = value if len(value) == 5 else value[:5]
        return _checked(join_ref, ref, topic, event, payload)

    def message(self, join_ref: Ref, ref: Ref, topic: str, event: str, payload: Encoded) -> Wire:
        """See `Serializer`."""
        if isinstance(payload, bytes):
            return _binary(_PUSH, (_ref_text(join_ref), topic, event), payload)
        return f"[{_ref(join_ref)},{_ref(ref)},{quote(topic)},{quote(event)},{payload}]"

    def reply(self, join_ref: Ref, ref: Ref, topic: str, status: str, response: Encoded) -> Wire:
        """See `Serializer`."""
        if isinstance(response, bytes):
            return _binary(_REPLY, (_ref_text(join_ref), _ref_text(ref), topic, status), response)
        return (
            f'[{_ref(join_ref)},{_ref(ref)},{quote(topic)},"phx_reply",'
            f'{{"status":"{status}","response":{response}}}]'
        )

    def broadcast(self, topic: str, event: str, payload: Encoded) -> Wire:
        """See `Serializer`."""
        if isinstance(payload, bytes):
            return self._frames.broadcast(topic, event, payload)
        return self.message(None, None, topic, event, payload)


V1 = Version1()
V2 = Version2()
#: For clients that poll: they may send bytes but cannot be sent any.
V2_TEXT = Version2(binary=False)


def serializer_for(version: str | None, version2: Serializer = V2) -> Serializer | None:
    """The serializer for the ``vsn`` parameter of a client; None if the version is unknown.

    Clients without the parameter speak version 1. The patch number makes no difference.

    Args:
        version: The parameter.
        version2: The serializer for version 2.
    """
    if version is None:
        return V1
    numbers = version.split(".")
    if len(numbers) != 3 or not numbers[2].isdecimal():
        return None
    versions: dict[str, Serializer] = {"1.0": V1, "2.0": version2}
    return versions.get(f"{numbers[0]}.{numbers[1]}")


def is_reserved(event: str) -> bool:
    """Whether an event is reserved for the server, as ``phx_reply`` and ``presence_diff``."""
    return event.startswith("phx_") or event in _OF_PRESENCES


def checked_event(event: object) -> str:
    """Validate the name of an event that an application sends; returns it.

    Without this check, an application that forwards an event name from a client would let that
    client close the channels of all others, or overwrite their presence lists.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty, too long or reserved.
    """
    name = checked_name(event, "event", MAX_NAME)
    if is_reserved(name):
        raise ValueError(
            f"event={quoted(name)}: must not begin with 'phx_' or be an event of presences "
            f"({', '.join(sorted(_OF_PRESENCES))}), which clients accept from the server alone"
        )
    return name


def _parse(text: str) -> Any:
    try:
        return load(text)
    except RecursionError:
        raise ProtocolError("nested too deeply") from None
    except ValueError as error:
        # The message of a JSON error contains a position, and nothing of the text.
        raise ProtocolError(f"not JSON: {error}"[:100]) from None


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("not UTF-8") from None


def checked_frame(frame: Frame) -> Frame:
    """Validate a frame whose fields may have any type, except for its payload; returns it.

    Raises:
        ProtocolError: A field is wrong.
    """
    return _checked(*frame)


def _checked(join_ref: object, ref: object, topic: object, event: object, payload: Any) -> Frame:
    """Make a frame of fields of any type; the conditions here accept nearly all without a call."""
    if not (type(topic) is str and topic.isascii() and 0 < len(topic) <= MAX_NAME):
        topic = _as_name(topic, "topic")
    if not (type(event) is str and event.isascii() and 0 < len(event) <= MAX_NAME):
        event = _as_name(event, "event")
    if not (type(join_ref) is str and join_ref.isascii() and len(join_ref) <= MAX_REF):
        join_ref = _as_ref(join_ref, "join_ref")
    if not (type(ref) is str and ref.isascii() and len(ref) <= MAX_REF):
        ref = _as_ref(ref, "ref")
    # As `Frame(...)`, whose own function in Python costs as much as two of the checks.
    return _new_frame(Frame, (join_ref, ref, topic, event, payload))


def _as_name(value: object, field: str) -> str:
    if not is_name(value, MAX_NAME):
        raise ProtocolError(f"{field} is not a text of 1 to {MAX_NAME} characters")
    return value


def _as_ref(value: object, field: str) -> Ref:
    if value is None:
        return None
    if type(value) is str and len(value) <= MAX_REF and (value.isascii() or is_unicode(value)):
        return value
    if type(value) is int and abs(value) < MAX_NUMBER:
        return value
    raise ProtocolError(f"{field} must be null, a number or a short text")


def _decode_binary(data: bytes) -> Frame:
    if len(data) < 5 or data[0] != _PUSH:
        raise ProtocolError("not a binary push")
    words, at = [], 5
    for length in data[1:5]:
        words.append(data[at : at + length])
        at += length
    if at > len(data):
        raise ProtocolError("a truncated binary push")
    try:
        join_ref, ref, topic, event = (word.decode() for word in words)
    except UnicodeDecodeError:
        raise ProtocolError("a name in a binary push is not UTF-8") from None
    return _checked(join_ref or None, ref or None, topic, event, data[at:])


def _binary(kind: int, words: tuple[str, ...], payload: bytes) -> bytes:
    encoded = [word.encode() for word in words]
    if any(len(word) > 255 for word in encoded):
        raise UsageError("names in a binary frame must have at most 255 bytes")
    return bytes([kind, *(len(word) for word in encoded)]) + b"".join(encoded) + payload


def _text_only(payload: Encoded) -> str:
    if isinstance(payload, bytes):
        raise UsageError("version 1 of the protocol has no binary payloads")
    return payload


def _ref(ref: Ref) -> str:
    if type(ref) is str:
        return quote(ref)
    return "null" if ref is None else str(ref)


def _ref_text(ref: Ref) -> str:
    return "" if ref is None else str(ref)
