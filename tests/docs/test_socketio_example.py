"""The chat of docs/how-to/socketio.md: rooms, users, announcements; clients at two workers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.support.environment import clean_environment
from tests.support.waiting import DEADLINE

from .example_processes import EXAMPLES
from .fresh_environment import fresh_environment
from .worker_server import WorkerServer, worker_server

pytestmark = pytest.mark.processes

#: The address of a WebSocket of Socket.IO, in its version 5.
SOCKET = "/socket.io/?EIO=4&transport=websocket&n={number}"


class ChatClient:
    """A client of Socket.IO, from the texts of its protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def connect(self, user: str) -> str:
        """Connect as a user; returns the answer of the server."""
        await self._receive("0{")
        await self._connection.send("40" + json.dumps({"user": user}))
        return await self._receive("4")

    async def call(self, *event: str) -> Any:
        """Send an event, and return its acknowledgement; messages in between are dropped."""
        await self._connection.send("421" + json.dumps(event))
        return json.loads(await self._receive("431"))

    async def said(self) -> list[str]:
        """The next message to the rooms of the client."""
        name, *values = json.loads(await self._receive("42"))
        assert name == "said"
        return list(values)

    async def _receive(self, start: str) -> str:
        async with asyncio.timeout(DEADLINE):
            while not (text := str(await self._connection.recv())).startswith(start):
                pass
        return text.removeprefix(start)


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """The cluster of the server, and of the process beside it."""
    with fresh_environment() as fresh:
        yield {name: value for name, value in fresh.items() if name.startswith("ADSUM_")}


@pytest.fixture(scope="module")
def server(variables: dict[str, str]) -> Iterator[WorkerServer]:
    with worker_server("socketio_app:app", **variables) as running:
        yield running


@asynccontextmanager
async def ann_and_bob(server: WorkerServer) -> AsyncIterator[list[ChatClient]]:
    """Two clients at different workers."""
    async with server.on_two_workers(SOCKET) as connections:
        found = [ChatClient(connection) for connection in connections]
        for client, user in zip(found, ("ann", "bob"), strict=True):
            assert (await client.connect(user)).startswith('0{"sid":')
        yield found


async def listed(server: WorkerServer, *users: str) -> None:
    """Wait until each worker lists exactly these users in the room."""
    await server.each_worker_answers("/rooms/tea", [*users])


def test_room_spans_the_workers(server: WorkerServer) -> None:
    async def main() -> None:
        async with ann_and_bob(server) as [ann, bob]:
            assert await ann.call("enter", "tea") == [["ann"]]
            await listed(server, "ann")
            assert await bob.call("say", "tea", "not from outside") == []
            assert await bob.call("enter", "tea") == [["ann", "bob"]]
            await listed(server, "ann", "bob")
            await bob.call("say", "tea", "milk?")
            assert await ann.said() == ["milk?", "bob"]
        await listed(server)

    asyncio.run(main())


def test_process_without_clients_announces(server: WorkerServer, variables: dict[str, str]) -> None:
    async def main() -> None:
        async with ann_and_bob(server) as clients:
            for client in clients:
                await client.call("enter", "tea")
            await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "socketio_app.py", "tea", "It boils."],
                cwd=EXAMPLES,
                env=clean_environment() | variables,
                check=True,
                timeout=DEADLINE,
            )
            for client in clients:
                assert await client.said() == ["It boils.", "announcement"]

    asyncio.run(main())


def test_client_without_a_usable_name_is_refused(server: WorkerServer) -> None:
    async def main() -> None:
        async with server.on_two_workers(SOCKET) as [connection, _]:
            refusal = await ChatClient(connection).connect("x" * 101)
            assert refusal == ('4{"message":"auth.user: must be a text of 1 to 100 characters"}')

    asyncio.run(main())
