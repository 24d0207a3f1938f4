"""Somebody in a room of the demo: speaks Channels, version 2, as phoenix.js does."""

import itertools
import json
from collections import Counter
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.support.waiting import eventually

ROOM = "room:lobby"
#: As the page sends it when nothing is special.
META = {"name": "Ann", "device": "phone", "status": "here"}


class RoomClient:
    """One connection to one server, in the room, with what it was told.

    Args:
        port: Where the server serves.
        user: Who is there; without it one only looks on.
        origin: The page that the connection is made from, if any.
        meta: What differs from `META`.
    """

    def __init__(
        self, port: int, user: str | None = None, origin: str | None = None, **meta: str
    ) -> None:
        query = urlencode({"vsn": "2.0.0", **({"user": user} if user else {})})
        self._url = f"ws://127.0.0.1:{port}/socket/websocket?{query}"
        self._origin = Origin(origin) if origin else None
        self.meta = {**META, **meta}
        self._stack = ExitStack()
        self._refs = map(str, itertools.count(1))
        self._join_ref = ""
        self._replies: dict[str, dict[str, Any]] = {}
        self.node = ""
        self.diffs: list[dict[str, Any]] = []
        self.shouts: list[dict[str, Any]] = []
        self.members: dict[str, str] = {}
        #: How many of the server's last requests each server answered.
        self.answered: dict[str, int] = {}
        # Who is here: by key, then by ref. And how many devices at most, at any time.
        self._people: dict[str, dict[str, dict[str, Any]]] = {}
        self.most: Counter[str] = Counter()
        # Who was gone at some time.
        self.gone: set[str] = set()
        # How often each ref was said to join.
        self.announced: Counter[str] = Counter()

    def __enter__(self) -> Self:
        connection = connect(self._url, origin=self._origin, proxy=None)
        self._socket: ClientConnection = self._stack.enter_context(connection)
        self.node = self.join()["response"]["node"]
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    # What it says.

    def join(self) -> dict[str, Any]:
        """Join the room, and wait for the answer."""
        self._join_ref = next(self._refs)
        return self._ask(self._join_ref, "phx_join", self.meta)

    def forget(self) -> None:
        """Forget who was gone or twice there until now, as a visitor of an earlier time is."""
        self.gone.clear()
        self.most = Counter({key: len(metas) for key, metas in self._people.items()})

    def leave(self) -> None:
        """Leave the room; the connection stays."""
        self.ask("phx_leave", {})

    def update(self, **changes: str) -> dict[str, Any]:
        """Change what the others see."""
        self.meta |= changes
        return self.ask("update", self.meta)

    def ask(self, event: str, payload: Any) -> dict[str, Any]:
        """Send an event; returns the answer's status and response."""
        return self._ask(next(self._refs), event, payload)

    def send(self, data: str | bytes) -> None:
        """Send anything at all."""
        self._socket.send(data)

    def _ask(self, ref: str, event: str, payload: Any) -> dict[str, Any]:
        self.send(json.dumps([self._join_ref, ref, ROOM, event, payload]))
        eventually(lambda: self._is_answered(ref), f"an answer to {event}")
        return self._replies.pop(ref)

    def _is_answered(self, ref: str) -> bool:
        self._listen()
        return ref in self._replies

    # What it knows.

    def people(self) -> dict[str, list[dict[str, Any]]]:
        """Who is here, by key: each with the metas of all devices."""
        self._listen()
        return {key: [*metas.values()] for key, metas in self._people.items()}

    def sees(self, key: str, **fields: str) -> bool:
        """Whether somebody is here, with one device, with these fields in its meta."""
        metas = self.people().get(key, [])
        return len(metas) == 1 and fields.items() <= metas[0].items()

    def sees_devices(self, key: str, *devices: str) -> bool:
        """Whether somebody is here with these devices and no others."""
        return sorted(meta["device"] for meta in self.people().get(key, [])) == sorted(devices)

    def misses(self, key: str) -> bool:
        """Whether somebody is not here."""
        return key not in self.people()

    def has_missed(self, key: str) -> bool:
        """Whether somebody was gone at some time."""
        self._listen()
        return key in self.gone

    def knows(self, members: dict[str, str]) -> bool:
        """Whether the members of the cluster are these, by status."""
        self._listen()
        return self.members == members

    def is_answered_by(self, *servers: str) -> bool:
        """Whether the requests of the server are answered by exactly these, and none failed."""
        self._listen()
        return self.answered.keys() == {*servers}

    def heard(self, shout: dict[str, Any]) -> bool:
        """Whether somebody said this."""
        self._listen()
        return shout in self.shouts

    # What it is told.

    def _listen(self) -> None:
        """Take in what has come until now."""
        while True:
            try:
                _, ref, _, event, payload = json.loads(self._socket.recv(0))
            except TimeoutError:
                return
            if event == "phx_reply":
                self._replies[ref] = payload
            elif event == "presence_state":
                self._people = {}
                self._fold({"joins": payload, "leaves": {}})
            elif event == "presence_diff":
                self.diffs.append(payload)
                self._fold(payload)
            elif event == "members":
                self.members = {m["name"]: m["status"] for m in payload["members"]}
            elif event == "traffic":
                self.answered = payload["answered"]
            elif event == "shout":
                self.shouts.append(payload)

    def _fold(self, diff: dict[str, Any]) -> None:
        """As phoenix.js does: joins first, and metas are the same if their refs are."""
        for key, meta in flatten(diff["joins"]):
            self._people.setdefault(key, {})[meta["phx_ref"]] = meta
            self.announced[meta["phx_ref"]] += 1
        for key, meta in flatten(diff["leaves"]):
            self._people.get(key, {}).pop(meta["phx_ref"], None)
        self.gone |= {key for key, metas in self._people.items() if not metas}
        self._people = {key: metas for key, metas in self._people.items() if metas}
        for key, metas in self._people.items():
            self.most[key] = max(self.most[key], len(metas))


def flatten(entries: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each meta of a state, or of one half of a diff, with its key."""
    return [(key, meta) for key, entry in entries.items() for meta in entry["metas"]]
