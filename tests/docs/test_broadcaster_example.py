"""The chat of docs/how-to/broadcaster.md under uvicorn, with clients at two workers."""

import asyncio
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.waiting import DEADLINE

from .worker_server import WorkerServer, kill, worker_server

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("broadcaster_chat:app") as running:
        yield running


def test_burst_of_a_thousand_texts_reaches_a_room_on_all_workers_in_order(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with (
            server.on_two_workers("/rooms/1") as clients,
            connect(server.url("/rooms/2", "ws"), proxy=None) as elsewhere,
            asyncio.timeout(DEADLINE),
        ):
            for number in range(1000):
                await clients[0].send(str(number))
            for client in clients:
                received = [await client.recv() for _ in range(1000)]
                assert received == [str(number) for number in range(1000)]
            await elsewhere.send("first")
            assert await elsewhere.recv() == "first"

    asyncio.run(main())


def test_clients_of_a_worker_and_of_the_successor_of_a_killed_one_receive_texts(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/3") as (dying, living), asyncio.timeout(DEADLINE):
            kill(await server.worker_of(dying))
            await dying.wait_closed()
            async with server.on_two_workers("/rooms/3") as clients:
                await living.send("hello")
                assert [await one.recv() for one in (living, *clients)] == ["hello"] * 3

    asyncio.run(main())


def test_name_of_a_room_that_is_too_long_is_refused(server: WorkerServer) -> None:
    async def main() -> None:
        with pytest.raises(InvalidStatus):
            async with connect(server.url(f"/rooms/{'x' * 101}", "ws"), proxy=None):
                pass

    asyncio.run(main())
