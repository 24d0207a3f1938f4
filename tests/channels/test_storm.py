"""Two thousand clients enter one room: what it costs each of them is bounded, not two thousand."""

import asyncio
import json
from collections import Counter
from functools import cache
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Socket
from tests.support.waiting import until

from .leak_check import run

pytestmark = pytest.mark.processes

CLIENTS = 2000
#: Frames that a client may get, the reply and the state included.
MOST = CLIENTS // 10
JOIN = {"type": "websocket.receive", "text": '["1","1","room:1","phx_join",{}]'}


class Room(Channel, topic="room:{room}"):
    async def join(self, payload: Any) -> None:
        self.track(self.client.params["user"])


class Client:
    """Counts its frames, and how often each ref came and went."""

    def __init__(self) -> None:
        self.frames = 0
        self.known: Counter[str] = Counter()
        self.to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def from_server(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self.frames += 1
            self.known.update(refs_of(message["text"]))


@cache
def refs_of(text: str) -> tuple[str, ...]:
    """Who comes by a frame; parsed once, however many get it. Nobody leaves here."""
    event, payload = json.loads(text)[3:]
    if event == "phx_reply":
        return ()
    entries = payload if event == "presence_state" else payload["joins"]
    return tuple(meta["phx_ref"] for entry in entries.values() for meta in entry["metas"])


def scope(number: int) -> dict[str, Any]:
    query = f"vsn=2.0.0&user={number}".encode()
    return {"type": "websocket", "path": "/websocket", "query_string": query, "headers": []}


def test_join_storm_of_2000_clients_costs_each_bounded_frames() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        socket = Socket(adsum.Presence(node), [Room])
        clients = [Client() for _ in range(CLIENTS)]
        async with node, asyncio.TaskGroup() as tasks:
            for number, client in enumerate(clients):
                client.to_server.put_nowait({"type": "websocket.connect"})
                client.to_server.put_nowait(JOIN)
                serving = socket(scope(number), client.to_server.get, client.from_server)
                tasks.create_task(serving)
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await until(lambda: all(len(client.known) == CLIENTS for client in clients))
            for client in clients:
                client.to_server.put_nowait({"type": "websocket.disconnect"})
        assert max(client.frames for client in clients) <= MOST
        assert all(set(client.known.values()) == {1} for client in clients), "each ref once"

    run(main())
