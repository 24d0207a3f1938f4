"""What clients say in a room, and what they read: Phoenix Channels, and Socket.IO.

Both say the same: enter with a key and a meta, learn who is there, then change one's meta. Both
read into `News`, and a text that several clients receive is parsed once for all of them, so that
the clients cost little beside the servers.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: How much text is remembered together with what it means, in bytes.
_REMEMBERED = 32 << 20
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class News:
    """What one message tells.

    Attributes:
        joins: The keys that are here.
        leaves: The keys that are not here any more.
        listed: Whether this is the list that each client gets when it enters.
        stamps: When the changes that are told were made, by key, in nanoseconds.
        answer: What the protocol wants to be answered; see `Dialect.answer`.
    """

    joins: frozenset[str] = _NOBODY
    leaves: frozenset[str] = _NOBODY
    listed: bool = False
    stamps: dict[str, int] | None = None
    answer: str = ""


_NOTHING = News()


class Dialect(ABC):
    """How a client of one side speaks."""

    path: str

    def __init__(self) -> None:
        self._known: dict[bytes, News] = {}
        self._size = 0

    def read(self, text: bytes) -> News:
        """What a message tells; the same texts are parsed once."""
        news = self._known.get(text)
        if news is None:
            if self._size > _REMEMBERED:
                self._known.clear()
                self._size = 0
            news = self._known[text] = self.parse(text)
            self._size += len(text)
        return news

    @abstractmethod
    def parse(self, text: bytes) -> News:
        """What a message tells."""

    @abstractmethod
    def hello(self, room: str, key: str, meta: dict[str, Any]) -> str:
        """What to send when the connection is open; empty if the server speaks first."""

    @abstractmethod
    def answer(self, what: str, room: str, key: str, meta: dict[str, Any]) -> str:
        """What to send because a message asked for it."""

    @abstractmethod
    def change(self, room: str, meta: dict[str, Any]) -> str:
        """A message that changes one's meta."""


class Phoenix(Dialect):
    """Version 2 of the serializer; every client joins with the ref "1"."""

    path = "/socket/websocket?vsn=2.0.0"

    def hello(self, room: str, key: str, meta: dict[str, Any]) -> str:
        payload = {"key": key, "meta": meta}
        return json.dumps(["1", "1", f"room:{room}", "phx_join", payload])

    def answer(self, what: str, room: str, key: str, meta: dict[str, Any]) -> str:
        raise AssertionError(what)  # nothing in this protocol asks for an answer

    def change(self, room: str, meta: dict[str, Any]) -> str:
        return json.dumps(["1", "2", f"room:{room}", "change", meta])

    def parse(self, text: bytes) -> News:
        _, _, _, event, payload = json.loads(text)
        if event == "presence_diff":
            return _diff(payload["joins"], payload["leaves"])
        if event == "presence_state":
            return News(joins=frozenset(payload), listed=True)
        if event == "phx_reply" and payload["status"] == "ok":
            return _NOTHING
        raise ValueError(f"not expected from the server: {text[:200]!r}")


def _diff(joins: dict[str, Any], leaves: dict[str, Any]) -> News:
    stamps = {
        key: value["at"]
        for key, entry in joins.items()
        for value in entry["metas"]
        if "at" in value
    }
    gone = frozenset(leaves) - joins.keys()  # who is on both sides has changed, and stays
    return News(frozenset(joins), gone, stamps=stamps or None)


class SocketIO(Dialect):
    """Engine.IO 4 and Socket.IO 5, by WebSocket alone; the list is the answer to the joining."""

    path = "/socket.io/?EIO=4&transport=websocket"

    def hello(self, room: str, key: str, meta: dict[str, Any]) -> str:
        return ""

    def answer(self, what: str, room: str, key: str, meta: dict[str, Any]) -> str:
        if what == "join":
            return "420" + json.dumps(["join", {"room": room, "key": key, "meta": meta}])
        return what

    def change(self, room: str, meta: dict[str, Any]) -> str:
        return "42" + json.dumps(["change", meta])

    def parse(self, text: bytes) -> News:
        if text.startswith(b"42"):
            event, payload = json.loads(text[2:])
            return _EVENTS[event](payload)
        if text.startswith(b"430"):
            return News(joins=frozenset(json.loads(text[3:])[0]), listed=True)
        for start, answer in ((b"0", "40"), (b"40", "join"), (b"2", "3")):
            if text.startswith(start):
                return News(answer=answer)
        raise ValueError(f"not expected from the server: {text[:200]!r}")


_EVENTS: dict[str, Callable[[dict[str, Any]], News]] = {
    "user_joined": lambda user: News(joins=frozenset((user["key"],))),
    "user_left": lambda user: News(leaves=frozenset((user["key"],))),
    "user_changed": lambda user: News(stamps={user["key"]: user["meta"]["at"]}),
}
