"""Clients of channels that are present in a room, and connect again whenever they lose it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

ROOM = "room:1"
#: Seconds until a visitor connects again.
PAUSE = 0.2


@asynccontextmanager
async def visitors(ports: Sequence[int], count: int) -> AsyncIterator[list[str]]:
    """So many visitors, distributed over the ports; gives the users."""
    users = [f"user-{number}" for number in range(count)]
    tasks = [
        asyncio.create_task(visit(ports[number % len(ports)], user))
        for number, user in enumerate(users)
    ]
    try:
        yield users
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def visit(port: int, user: str) -> None:
    url = f"ws://127.0.0.1:{port}/socket/websocket?vsn=2.0.0&user={user}"
    while True:
        try:
            async with connect(url, proxy=None, close_timeout=1) as connection:
                await connection.send(json.dumps(["1", "1", ROOM, "phx_join", {}]))
                async for _ in connection:
                    pass
        except (OSError, WebSocketException):
            pass
        await asyncio.sleep(PAUSE)


async def extensions(port: int) -> list[str]:
    """The extensions that a server offers to a WebSocket."""
    async with connect(f"ws://127.0.0.1:{port}/extensions", proxy=None) as connection:
        names: list[str] = json.loads(await connection.recv())
        return names
