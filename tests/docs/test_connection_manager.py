"""The ConnectionManager of docs/how-to/connection-manager.md, with clients at two workers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.http_json import fetch_json
from tests.support.waiting import until

from .worker_server import WorkerServer, kill, receive, worker_server

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("connection_manager:app") as running:
        yield running


@asynccontextmanager
async def visitor(server: WorkerServer, path: str) -> AsyncIterator[ClientConnection]:
    """A client in a room, who has received the list of its users."""
    async with connect(server.url(path, "ws"), proxy=None) as client:
        user = path.rpartition("/")[2]
        await receive(client, lambda message: user in message.get("users", ()))
        yield client


def test_broadcast_reaches_a_room_on_all_workers_and_no_other_room(server: WorkerServer) -> None:
    async def main() -> None:
        async with (
            server.on_two_workers("/rooms/lobby/ann{number}") as here,
            visitor(server, "/rooms/cellar/eve") as elsewhere,
        ):
            await here[0].send("hello")
            for client in here:
                text = await receive(client, lambda message: "text" in message)
                assert text["text"].endswith(": hello")
            await elsewhere.send("first")
            text = await receive(elsewhere, lambda message: "text" in message)
            assert text == {"text": "eve: first"}

    asyncio.run(main())


def test_announcement_reaches_everybody(server: WorkerServer) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/{number}/ann") as clients:
            for client in clients:
                await receive(client, lambda message: "ann" in message.get("users", ()))
            await asyncio.to_thread(server.post, "/announcements", "lunch")
            for client in clients:
                assert await receive(client, lambda message: message == {"text": "lunch"})

    asyncio.run(main())


def test_message_to_a_user_reaches_all_connections_of_that_user_alone(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with (
            server.on_two_workers("/rooms/{number}/bob") as tabs,
            visitor(server, "/rooms/1/ann") as ann,
        ):
            for tab in tabs:
                await receive(tab, lambda message: "bob" in message.get("users", ()))
            await ann.send("@bob psst")
            for tab in tabs:
                await receive(tab, lambda message: message == {"text": "ann, to you: psst"})
            await ann.send("@ann note")
            text = await receive(ann, lambda message: "text" in message)
            assert text == {"text": "ann, to you: note"}

    asyncio.run(main())


def test_users_are_listed_until_their_last_connection_has_ended(server: WorkerServer) -> None:
    def users(query: str = "?room=attic") -> list[str]:
        return list(fetch_json(server.url(f"/users{query}")) or [])

    async def main() -> None:
        async with visitor(server, "/rooms/attic/ann"):
            async with visitor(server, "/rooms/attic/ann"), visitor(server, "/rooms/attic/bob"):
                await until(lambda: users() == ["ann", "bob"], "the room lists both")
                await until(lambda: {"ann", "bob"} <= {*users("")}, "everybody has both")
            await until(lambda: users() == ["ann"], "bob has left")
        await until(lambda: users() == [], "ann has left")

    asyncio.run(main())


def test_user_whose_tab_is_reloaded_does_not_leave(server: WorkerServer) -> None:
    async def main() -> None:
        async with visitor(server, "/rooms/porch/ann") as ann:
            for _ in range(4):  # the new connection reaches any worker
                async with visitor(server, "/rooms/porch/bob") as bob:
                    await bob.close(1001)
            async with visitor(server, "/rooms/porch/eve"):
                await receive(ann, lambda message: "bob" in message.get("users", ()))
                seen = [await receive(ann, lambda message: "users" in message)]
                while "eve" not in seen[-1]["users"]:
                    seen.append(await receive(ann, lambda message: "users" in message))
            assert all("bob" in message["users"] for message in seen), seen

    asyncio.run(main())


def test_slow_connection_delays_no_other(server: WorkerServer) -> None:
    async def main() -> None:
        unread: dict[str, Any] = {"max_queue": 1, "compression": None, "close_timeout": 0}
        slow = connect(server.url("/rooms/stairs/eve", "ws"), proxy=None, **unread)
        async with slow, visitor(server, "/rooms/stairs/ann") as ann:
            for number in range(100):  # 10 MB, more than the buffers of a connection take
                text = str(number).ljust(100_000, ".")
                await ann.send(text)
                message = await receive(ann, lambda message: "text" in message)
                assert message == {"text": f"ann: {text}"}

    asyncio.run(main())


def test_killed_worker_leaves_no_ghost(server: WorkerServer) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/hall/ann{number}") as (dying, other):
            both = await receive(other, lambda message: len(message.get("users", ())) >= 2)
            kill(await server.worker_of(dying))
            await dying.wait_closed()
            alone = await receive(other, lambda message: len(message.get("users", ())) == 1)
            assert alone["users"][0] in both["users"]
            await other.send("anybody here?")
            await receive(other, lambda message: "anybody here?" in message.get("text", ""))

    asyncio.run(main())
