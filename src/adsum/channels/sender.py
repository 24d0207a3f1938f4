"""`ChannelSender`: encodes the frames of one channel, and holds those pushed before it is open."""

from collections.abc import Mapping
from typing import Any, Protocol

from .wire.frames import Encoded, Frame, Ref, Serializer, Wire
from .wire.payloads import encode
from .wire.prepared import Prepared

EMPTY = "{}"
#: The closing event by reason. A client that was refused or has gone is sent none.
_CLOSING_EVENTS = {
    "crashed": "phx_error",
    "left": "phx_close",
    "stopped": "phx_close",
    "replaced": "phx_close",
}
_NO_BYTES = '{"reason":"this connection carries no binary payloads"}'


class FrameSink(Protocol):
    """The connection of a client, as a sender uses it."""

    serializer: Serializer

    def send(self, frame: Wire | Prepared) -> None:
        """Send a frame after all earlier ones."""

    def cannot_carry_bytes(self) -> None:
        """Log, once, that a binary payload cannot be sent over this version or transport."""


class ChannelSender:
    """Sends the frames of one channel to its client.

    Args:
        connection: The connection of the client.
        topic: The topic of the channel.
        join_ref: The reference of the join, carried by all frames to this channel alone.
    """

    __slots__ = ("_connection", "_early", "_join_ref", "_serializer", "_topic")

    def __init__(self, connection: FrameSink, topic: str, join_ref: Ref) -> None:
        self._connection = connection
        self._serializer = connection.serializer
        self._topic = topic
        self._join_ref = join_ref
        # Frames pushed before the reply to the join; None once that is sent.
        self._early: list[Wire] | None = []

    def carries(self, payload: Encoded) -> bool:
        """Whether this client can be sent the payload; logs once if it cannot."""
        fits = isinstance(payload, str) or self._serializer.binary
        if not fits:
            self._connection.cannot_carry_bytes()
        return fits

    def push(self, event: str, payload: Encoded) -> None:
        """Send an event to this channel alone."""
        if self.carries(payload):
            self._send(self._serializer.message(self._join_ref, None, self._topic, event, payload))

    def broadcast(self, event: str, payload: Encoded) -> None:
        """Send a broadcast whose payload was made for this client."""
        if self.carries(payload):
            self._send(self._serializer.broadcast(self._topic, event, payload))

    def reply(self, frame: Frame, status: str, response: Encoded) -> Wire:
        """Encode the reply to a frame of the client."""
        return self._serializer.reply(self._join_ref, frame.ref, self._topic, status, response)

    def answer(self, frame: Frame, status: str, answer: Mapping[str, Any] | bytes) -> Wire:
        """Encode the return value of a handler as the reply to a frame.

        Raises:
            TypeError: The answer is neither a JSON object nor bytes.
            ValueError: It is not finite, too deep or too large.
        """
        if isinstance(answer, bytes) and not self._serializer.binary:
            return self.reply(frame, "error", _NO_BYTES)
        return self.reply(frame, status, encode(answer, field="reply"))

    def begin(self, reply: Wire) -> None:
        """Send the reply to the join, then the frames that were pushed before it."""
        early, self._early = self._early or [], None
        self._connection.send(reply)
        for frame in early:
            self._connection.send(frame)

    def close(self, reason: str | None) -> None:
        """Send the event with which the channel ends, if the reason has one."""
        event = _CLOSING_EVENTS.get(reason or "")
        if event is None:
            return
        ref = self._join_ref
        self._connection.send(self._serializer.message(ref, ref, self._topic, event, EMPTY))

    def _send(self, frame: Wire) -> None:
        if self._early is None:
            self._connection.send(frame)
        else:
            self._early.append(frame)
