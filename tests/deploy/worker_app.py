"""An application whose workers report the workers that they list; one node per process.

Each is present on ``workers``, under the name of its node, with its process and its list. So any of
them can answer for all. Tests copy this file into a folder of their own.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

import adsum
from adsum.channels import Channel, Socket

WORKERS = "workers"
node = adsum.Node()
presence = adsum.Presence(node)
#: Reports the list. A server without a lifespan starts it with the first request.
reporter: asyncio.Task[None] | None = None


class Room(Channel, topic="room:{room}"):
    async def join(self, payload: Any) -> None:
        self.track(self.client.params["user"])


async def report() -> None:
    own, listed = presence.track(WORKERS, node.name, {"pid": os.getpid()}), [""]
    with presence.watch(WORKERS) as diffs:
        async for _ in diffs:
            if listed != (listed := sorted(presence.list(WORKERS))):
                own.update({"pid": os.getpid(), "listed": listed})


def start_reporter() -> asyncio.Task[None]:
    global reporter
    reporter = reporter or asyncio.create_task(report())
    return reporter


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    async with node:
        task = start_reporter()
        yield
        task.cancel()


async def workers(request: Request) -> JSONResponse:
    start_reporter()
    metas = {name: entry["metas"][0] for name, entry in presence.list(WORKERS).items()}
    return JSONResponse({"cluster": node.cluster, "workers": metas})


async def extensions(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(sorted(websocket.scope.get("extensions") or {}))
    await websocket.close()


app = Starlette(
    routes=[
        Route("/workers", workers),
        WebSocketRoute("/extensions", extensions),
        Mount("/socket", Socket(presence, [Room])),
    ],
    lifespan=lifespan,
)
#: For a server without a lifespan.
application = node.wrap_app(app)
