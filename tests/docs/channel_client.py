"""A client of channels that sends raw frames and keeps the presences it received."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

from tests.support.waiting import DEADLINE


class ChannelClient:
    """One connection. Every joined topic is named by itself in `join_ref`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        #: Keys and the metas under them, by topic, as states and diffs said.
        self.present: dict[str, dict[str, dict[str, Any]]] = {}
        #: What it was sent, and nobody has asked for yet.
        self.frames: list[list[Any]] = []
        self._ref = 0

    async def ask(self, topic: str, event: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Send an event; the payload of the reply, with its status."""
        self._ref += 1
        ref = str(self._ref)
        await self.connection.send(json.dumps([topic, ref, topic, event, payload]))
        reply = await self._take(lambda frame: frame[1] == ref and frame[3] == "phx_reply")
        return dict(reply[4])

    async def push(self, topic: str, event: str, payload: dict[str, Any]) -> None:
        """Send an event that has no reply."""
        await self.connection.send(json.dumps([topic, None, topic, event, payload]))

    async def join(self, topic: str) -> dict[str, Any]:
        """Join a topic; the response."""
        reply = await self.ask(topic, "phx_join", {})
        assert reply["status"] == "ok", reply
        return dict(reply["response"])

    async def expect(self, topic: str, event: str) -> dict[str, Any]:
        """The payload of the next such event."""
        frame = await self._take(lambda frame: frame[2:4] == [topic, event])
        return dict(frame[4])

    async def sees(self, topic: str, *keys: str) -> None:
        """Wait until it was told that exactly these keys are on a topic."""
        async with asyncio.timeout(DEADLINE):
            while sorted(self.present.get(topic, {"?": {}})) != sorted(keys):
                await self._receive()

    async def shows(self, topic: str, key: str, *metas: dict[str, Any]) -> None:
        """Wait until it was told that these are the metas of a key, refs aside."""
        async with asyncio.timeout(DEADLINE):
            while self._metas(topic, key) != list(metas):
                await self._receive()

    def _metas(self, topic: str, key: str) -> list[dict[str, Any]]:
        metas = self.present.get(topic, {}).get(key, {}).values()
        return [{k: v for k, v in meta.items() if not k.startswith("phx_")} for meta in metas]

    async def _take(self, right: Callable[[list[Any]], bool]) -> list[Any]:
        """The first frame of a kind that was not taken yet."""
        async with asyncio.timeout(DEADLINE):
            while not any(right(frame) for frame in self.frames):
                await self._receive()
        found = next(frame for frame in self.frames if right(frame))
        self.frames.remove(found)
        return found

    async def _receive(self) -> None:
        frame = json.loads(await self.connection.recv())
        self.frames.append(frame)
        self._fold(*frame[2:])

    def _fold(self, topic: str, event: str, payload: dict[str, Any]) -> None:
        if event == "presence_state":
            self.present[topic] = {}
            self._add(topic, payload)
        elif event == "presence_diff":
            self._add(topic, payload["joins"])
            for key, entry in payload["leaves"].items():
                for meta in entry["metas"]:
                    del self.present[topic][key][meta["phx_ref"]]
                if not self.present[topic][key]:
                    del self.present[topic][key]

    def _add(self, topic: str, entries: dict[str, Any]) -> None:
        for key, entry in entries.items():
            for meta in entry["metas"]:
                self.present[topic].setdefault(key, {})[meta["phx_ref"]] = meta


@asynccontextmanager
async def channel_client(
    port: int,
    params: dict[str, str] | None = None,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    prefix: str = "",
    **options: Any,
) -> AsyncIterator[ChannelClient]:
    """A connection to the socket of an example, at `/socket` below a prefix.

    Other options are those of `connect`. By default it reads any number of frames ahead; a client
    that stops at a bound does not notice the end of its connection.
    """
    query = urlencode({"vsn": "2.0.0", **(params or {})})
    given = dict(headers or {})
    if token is not None:
        given["x-phoenix-authtoken"] = token
    url = f"ws://127.0.0.1:{port}{prefix}/socket/websocket?{query}"
    options = {"max_queue": None, **options}
    async with connect(url, additional_headers=given, proxy=None, **options) as connection:
        yield ChannelClient(connection)
