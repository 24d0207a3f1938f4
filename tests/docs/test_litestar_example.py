"""The chat of docs/how-to/litestar.md under uvicorn, with clients at two workers."""

import asyncio
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.http_json import fetch_json
from tests.support.waiting import DEADLINE, until

from .worker_server import WorkerServer, kill, worker_server

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("litestar_channels:app") as running:
        yield running


async def texts(client: ClientConnection, count: int) -> list[str]:
    """The next texts that a client receives."""
    async with asyncio.timeout(DEADLINE):
        return [str(await client.recv()) for _ in range(count)]


def test_text_is_received_in_its_room_on_all_workers_and_in_no_other_one(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with (
            server.on_two_workers("/rooms/1/ann") as here,
            connect(server.url("/rooms/2/eve", "ws"), proxy=None) as elsewhere,
        ):
            for number, client in enumerate(here):
                await client.send(f"text {number}")
                for receiver in here:
                    assert await texts(receiver, 1) == [f"ann: text {number}"]
            await elsewhere.send("first")
            assert await texts(elsewhere, 1) == ["eve: first"]

    asyncio.run(main())


def test_burst_of_a_thousand_texts_loses_none_and_keeps_its_order(server: WorkerServer) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/3/ann") as clients:
            for number in range(1000):
                await clients[0].send(str(number))
            for client in clients:
                assert await texts(client, 1000) == [f"ann: {number}" for number in range(1000)]

    asyncio.run(main())


def test_announcement_over_http_reaches_the_clients_of_all_workers(server: WorkerServer) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/{number}/ann") as clients:
            await asyncio.to_thread(server.post, "/announcements", "lunch")
            for client in clients:
                assert await texts(client, 1) == ["lunch"]

    asyncio.run(main())


def test_killed_worker_leaves_no_user_and_the_others_go_on(server: WorkerServer) -> None:
    def users() -> int:
        return len(fetch_json(server.url("/rooms/4")) or ())

    async def main() -> None:
        async with server.on_two_workers("/rooms/4/user{number}") as (dying, living):
            await until(lambda: users() == 2, "both are listed")
            kill(await server.worker_of(dying))
            await until(lambda: users() == 1, "one is listed")
            await living.send("still here")
            assert (await texts(living, 1))[0].endswith(": still here")
            async with server.on_two_workers("/rooms/4/new") as clients:  # on its successor, too
                await clients[0].send("hello")
                for client in (living, *clients):
                    assert await texts(client, 1) == ["new: hello"]

    asyncio.run(main())


def test_name_that_is_too_long_is_refused(server: WorkerServer) -> None:
    async def main() -> None:
        with pytest.raises(InvalidStatus):
            async with connect(server.url(f"/rooms/{'x' * 101}/ann", "ws"), proxy=None):
                pass

    asyncio.run(main())
