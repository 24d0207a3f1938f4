"""The messages of a chat client: Phoenix Channels, Socket.IO, and JSON for Django Channels.

A client of each dialect does the same: it enters a room, sends texts that the server returns
(`echo`), and texts that the server sends to the whole room (`shout`). The payloads are the same.
"""

import json
from dataclasses import dataclass

#: The text of each message.
_TEXT = "The quick brown fox jumps over the lazy dog, and over."
#: Before the stamp of a shout, with the quotation mark that opens the JSON string.
_MARK = b'"@'
#: Digits of a stamp, so that all shouts have the same size.
_DIGITS = 20
_ECHO = {"text": _TEXT}


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """How the clients of one contender speak; `{room}` stands for the name of a room.

    Attributes:
        path: Where to connect.
        entering: Texts to send after the upgrade, in order, each with the beginning of the
            message that answers it. An empty text waits for a message only.
        echo: A text that the server returns.
        shout: A text that the server sends to the room; `{stamp}` stands for the stamp.
        answers: Messages of the server that must be answered, by the text, each with the answer.
    """

    path: str
    entering: tuple[tuple[str, bytes], ...]
    echo: str
    shout: str
    answers: dict[bytes, bytes]


def stamp(nanoseconds: int) -> str:
    """A time as it travels in a shout."""
    return f"@{nanoseconds:0{_DIGITS}d}"


def stamp_of(text: bytes) -> int | None:
    """The time in the text of a shout; None if the text is no shout."""
    start = text.find(_MARK) + len(_MARK)
    return int(text[start : start + _DIGITS]) if start >= len(_MARK) else None


def _fill(message: object) -> str:
    """A message as JSON, with the name of the room and the stamp to be filled in."""
    return json.dumps(message, separators=(",", ":"))


_SHOUT = {"text": _TEXT, "at": "{stamp}"}

PHOENIX = ChatDialect(
    path="/socket/websocket?vsn=2.0.0",
    entering=((_fill(["1", "1", "chat:{room}", "phx_join", {}]), b'["1","1",'),),
    echo=_fill(["1", "2", "chat:{room}", "echo", _ECHO]),
    shout=_fill(["1", "3", "chat:{room}", "shout", _SHOUT]),
    answers={},
)
SOCKETIO = ChatDialect(
    path="/socket.io/?EIO=4&transport=websocket",
    entering=(("", b"0"), ("40", b"40"), ("420" + _fill(["join", "{room}"]), b"430")),
    echo="421" + _fill(["echo", _ECHO]),
    shout="42" + _fill(["shout", ["{room}", _SHOUT]]),
    answers={b"2": b"3"},
)
DJANGO = ChatDialect(
    path="/chat/{room}",
    entering=(),
    echo=_fill({"event": "echo", "payload": _ECHO}),
    shout=_fill({"event": "shout", "payload": _SHOUT}),
    answers={},
)
DIALECTS = {"phoenix": PHOENIX, "socketio": SOCKETIO, "django": DJANGO}
