"""The ConnectionManager of docs/how-to/connection-manager.md, with clients at two workers."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from adsum.testing import MakeCluster
from tests.support.http_json import fetch_json
from tests.support.waiting import DEADLINE, until

from .cluster_programs import ClusterPrograms
from .worker_server import WorkerServer, kill, receive, worker_server

processes = pytest.mark.processes


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


@processes
def test_broadcast_reaches_a_room_on_all_workers_and_no_other_room(server: WorkerServer) -> None:
    async def main() -> None:
        async with (
            server.on_two_workers("/rooms/lobby/ann{number}") as here,
            visitor(server, "/rooms/cellar/eve") as elsewhere,
        ):
            for client in here:  # who is listed receives messages
                await receive(client, lambda message: len(message.get("users", ())) > 0)
            await here[0].send("hello")
            for client in here:
                text = await receive(client, lambda message: "text" in message)
                assert text["text"].endswith(": hello")
            await elsewhere.send("first")
            text = await receive(elsewhere, lambda message: "text" in message)
            assert text == {"text": "eve: first"}

    asyncio.run(main())


@processes
def test_announcement_reaches_everybody(server: WorkerServer) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/{number}/ann") as clients:
            for client in clients:
                await receive(client, lambda message: "ann" in message.get("users", ()))
            await asyncio.to_thread(server.post, "/announcements", "lunch")
            for client in clients:
                assert await receive(client, lambda message: message == {"text": "lunch"})

    asyncio.run(main())


@processes
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


@processes
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


@processes
def test_user_whose_tab_is_reloaded_does_not_leave(server: WorkerServer) -> None:
    async def main() -> None:
        async with visitor(server, "/rooms/porch/ann") as ann:
            for _ in range(4):  # the new connection reaches any worker
                async with visitor(server, "/rooms/porch/bob") as bob:
                    await bob.close(1001)
            async with visitor(server, "/rooms/porch/eve"):
                # One list may have both: a client that is slow receives fewer lists.
                seen = [await receive(ann, lambda message: "bob" in message.get("users", ()))]
                while "eve" not in seen[-1]["users"]:
                    seen.append(await receive(ann, lambda message: "users" in message))
            assert all("bob" in message["users"] for message in seen), seen

    asyncio.run(main())


@processes
def test_slow_connection_delays_no_other(server: WorkerServer) -> None:
    async def main() -> None:
        unread: dict[str, Any] = {"max_queue": 1, "compression": None, "close_timeout": 0}
        slow = connect(server.url("/rooms/stairs/eve", "ws"), proxy=None, **unread)
        async with slow, visitor(server, "/rooms/stairs/ann") as ann:
            for number in range(1000):  # 10 MB, more than the buffers of a connection take
                text = str(number).ljust(9_000, ".")
                await ann.send(text)
                message = await receive(ann, lambda message: "text" in message)
                assert message == {"text": f"ann: {text}"}

    asyncio.run(main())


@processes
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


@processes
@pytest.mark.parametrize("path", [f"/rooms/{'x' * 1100}/ann", f"/rooms/1/{'x' * 1100}"])
def test_name_that_is_too_long_is_refused_at_the_upgrade(server: WorkerServer, path: str) -> None:
    async def main() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url(path, "ws"), proxy=None)
        assert refused.value.response.status_code == 403

    asyncio.run(main())


@processes
@pytest.mark.parametrize("text", ["x" * 300_000, f"@{'x' * 1100} hello"])
def test_text_that_is_too_long_is_refused_and_the_connection_lives(
    server: WorkerServer, text: str
) -> None:
    async def main() -> None:
        async with visitor(server, "/rooms/shed/ann") as ann:
            await ann.send(text)
            refused = await receive(ann, lambda message: "refused" in message)
            assert refused == {"refused": f"{text[:20]}... is too long"}
            await ann.send("\0" * 10_000)  # the longest text, as JSON
            text_sent = await receive(ann, lambda message: "text" in message)
            assert text_sent["text"].endswith("\0")

    asyncio.run(main())


@processes
def test_requests_beyond_the_limits_are_answered_with_422(server: WorkerServer) -> None:
    with httpx2.Client(trust_env=False, base_url=server.url(""), timeout=DEADLINE) as web:
        for room in ("", "x" * 1100):
            assert web.get("/users", params={"room": room}).status_code == 422
        assert web.post("/announcements", json="x" * 300_000).status_code == 422


class Client:
    """A client of the application in this process, as an ASGI server serves one."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.received.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": "/rooms/1/ann", "headers": []}
        self.websocket = WebSocket(scope, self.received.get, self.send)
        #: Whether the server fails to send texts.
        self.broken = False

    async def send(self, message: Any) -> None:
        if self.broken and message.get("text"):
            raise ValueError("cannot send")
        self.sent.put_nowait(message)

    async def next(self, field: str) -> Any:
        """The value of a field of the next message of the server that has it."""
        async with asyncio.timeout(DEADLINE):
            while (found := (await self.sent.get()).get(field)) is None:
                pass
        return found

    def leave(self) -> None:
        self.received.put_nowait({"type": "websocket.disconnect", "code": 1001})


def test_bytes_are_forwarded_as_bytes(cluster: MakeCluster) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "connection_manager.py")
        (program,) = await running.start(1)
        ann = Client()
        serving = asyncio.create_task(program.chat(ann.websocket, "1", "ann"))
        assert json.loads(await ann.next("text")) == {"users": ["ann"]}
        await program.adsum.PubSub(program.node).publish("room:1", b"\x89PNG")
        assert await ann.next("bytes") == b"\x89PNG"
        await program.manager.broadcast("hello", "1")
        assert json.loads(await ann.next("text")) == {"text": "hello"}
        ann.leave()
        await serving
        await running.stop([program])

    asyncio.run(main())


def test_error_of_a_task_is_logged_and_closes_the_connection(
    cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "connection_manager.py")
        (program,) = await running.start(1)
        ann = Client()
        serving = asyncio.create_task(program.chat(ann.websocket, "1", "ann"))
        await ann.next("text")
        ann.broken = True
        with caplog.at_level(logging.ERROR):
            await program.manager.broadcast("hello", "1")
            assert await ann.next("code") == 1011
        assert "ValueError: cannot send" in caplog.text
        ann.leave()
        await serving
        await running.stop([program])

    asyncio.run(main())
