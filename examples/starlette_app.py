"""The same for Starlette, with a lifespan of its own, and a message to everybody in the room.

    pip install starlette 'uvicorn[standard]'
    uvicorn starlette_app:app --workers 4

Then `curl http://127.0.0.1:8000/workers` names all four, whichever of them answers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import adsum

node = adsum.Node()
presence = adsum.Presence(node)
pubsub = adsum.PubSub(node)


class Name(StringConvertor):
    """A room or a user in a URL; others are not found."""

    regex = "[^/]{1,100}"


register_url_convertor("name", Name())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """What this application opens and closes itself. The node runs around it."""
    # A presence for the worker itself, which ends when this task does: at shutdown.
    with presence.track("workers", node.name):
        yield


async def workers(request: Request) -> JSONResponse:
    """The workers that serve this application, on every host."""
    return JSONResponse({"me": node.name, "workers": list(presence.list("workers"))})


async def say(request: Request) -> JSONResponse:
    """Say something to everybody in a room, whichever worker they are connected to."""
    text = (await request.body()).decode(errors="replace")[:1000]
    missed = await pubsub.publish(f"room:{request.path_params['room']}", {"text": text})
    return JSONResponse({"workers_missed": missed})


async def enter(websocket: WebSocket) -> None:
    """Be in a room for as long as the connection lives, and hear what is said in it."""
    room, user = websocket.path_params["room"], websocket.path_params["user"]
    await websocket.accept()
    with presence.track(f"room:{room}", user):
        tasks = [
            asyncio.create_task(tell_who(websocket, f"room:{room}")),
            asyncio.create_task(tell_what(websocket, f"room:{room}")),
        ]
        try:
            async for _ in websocket.iter_text():
                pass
        finally:
            for task in tasks:
                task.cancel()


async def tell_who(websocket: WebSocket, topic: str) -> None:
    """Send what changes: the first diff has everybody who is there already."""
    with presence.watch(topic) as diffs:
        async for diff in diffs:
            await websocket.send_json({"joins": diff.joins, "leaves": diff.leaves})


async def tell_what(websocket: WebSocket, topic: str) -> None:
    """Send what is said."""
    with pubsub.subscribe(topic) as messages:
        async for message in messages:
            await websocket.send_json({"said": message.payload["text"], "via": message.sender})


app = Starlette(
    routes=[
        Route("/workers", workers),
        Route("/rooms/{room:name}", say, methods=["POST"]),
        WebSocketRoute("/rooms/{room:name}/{user:name}", enter),
    ],
    lifespan=node.wrap_lifespan(lifespan),
)
