"""The application that is attacked, as a README would write it: it checks nothing.

Every 50 ms it broadcasts a numbered tick to the room of the honest clients.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import adsum
from adsum.channels import Channel, Socket, on

#: Seconds between two ticks.
TICK = 0.05

node = adsum.Node()
presence = adsum.Presence(node)
rooms: set[str] = set()


class Room(Channel, topic="room:{room}"):
    """Tracks any key and meta that a client gives; a join without `user` crashes."""

    async def join(self, payload: Any) -> None:
        rooms.add(self.topic)
        self.track(payload["user"], payload.get("meta", {}))

    @on("echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @on("shout")
    async def shout(self, payload: Any) -> None:
        await self.broadcast("shout", payload)


sockets = Socket(presence, [Room])


async def tick() -> None:
    """Broadcast a numbered event until cancelled."""
    number = 0
    while True:
        await sockets.broadcast("room:calm", "tick", {"node": node.name, "number": number})
        number += 1
        await asyncio.sleep(TICK)


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    async with node:
        ticking = asyncio.create_task(tick())
        yield
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking


async def members(request: Request) -> JSONResponse:
    return JSONResponse({member.name: member.status for member in node.members()})


async def present(request: Request) -> JSONResponse:
    """The keys in every room that this node has ever served."""
    return JSONResponse(sorted(key for topic in rooms for key in presence.list(topic)))


app = Starlette(
    routes=[Route("/members", members), Route("/present", present), Mount("/socket", sockets)],
    lifespan=lifespan,
)
