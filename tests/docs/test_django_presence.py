"""The example of presence in Django: consumers on two workers, one of which is killed; a page."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .example_processes import Environment, program

pytestmark = pytest.mark.processes


@asynccontextmanager
async def worker(environment: Environment) -> AsyncIterator[tuple[int, int]]:
    """The example under uvicorn: its port and its process."""
    port = free_port()
    command = "-m", "uvicorn", "django_presence:application", "--port", str(port)
    async with program(environment, *command) as process:
        await until(lambda: page(port))
        yield port, process.pid


async def page(port: int) -> str | None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/rooms/1/")).text
        except httpx2.TransportError:
            return None


async def shows(connection: ClientConnection, *users: str) -> None:
    """Wait until the room has exactly these users for a client."""
    async with asyncio.timeout(DEADLINE):
        while json.loads(await connection.recv())["users"] != list(users):
            continue


def test_users_of_a_room_are_shown_by_consumers_and_pages_of_all_workers(
    environment: Environment,
) -> None:
    async def main() -> None:
        async with worker(environment) as (first, victim), worker(environment) as (second, _):
            ann = await connect(f"ws://127.0.0.1:{first}/rooms/1/?user=ann")
            await shows(ann, "ann")
            bob = await connect(f"ws://127.0.0.1:{second}/rooms/1/?user=<b>bob")
            await shows(bob, "<b>bob", "ann")
            await shows(ann, "<b>bob", "ann")
            await until(lambda: has_users(first, "2 here: &lt;b&gt;bob ann"))
            await until(lambda: has_users(second, "2 here: &lt;b&gt;bob ann"))
            os.kill(victim, signal.SIGKILL)
            await shows(bob, "<b>bob")
            await bob.close()
            await until(lambda: has_users(second, "0 here: "))

    asyncio.run(main())


async def has_users(port: int, text: str) -> bool:
    return text in (await page(port) or "")
