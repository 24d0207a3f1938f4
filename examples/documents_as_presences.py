"""Documents that users have open, as presences: in any number of workers, without a server.

    pip install starlette 'uvicorn[standard]'
    uvicorn documents_as_presences:app --workers 4

The same program with Redis is documents_in_redis.py; docs/how-to/from-redis-dicts.md compares
the two. A client opens a document by a WebSocket to /documents/{document}/{user}. It receives
the users at once and after each change, and sends its mode as a text. A reload does not show.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import adsum

#: Seconds for which a user stays listed after the connection was lost.
LINGER = float(os.environ.get("LINGER", "15"))
#: Close codes of a client that closes its WebSocket; a tab that is closed or reloaded sends 1001.
LEFT = (1000, 1005)

node = adsum.Node()
presence = adsum.Presence(node)


class Name(StringConvertor):
    """A document or a user in a URL; others are not found."""

    regex = "[^/]{1,100}"


register_url_convertor("name", Name())


def opened(topic: str) -> dict[str, Any]:
    """The users that have a document open, with the mode of each connection."""
    present = presence.list(topic).items()
    users = {user: [meta["mode"] for meta in entry["metas"]] for user, entry in present}
    return {"worker": os.getpid(), "users": users}


async def push_changes(websocket: WebSocket, topic: str) -> None:
    """Send the users of a document at once, and after each change."""
    with presence.watch(topic) as diffs:
        async for _ in diffs:
            await websocket.send_json(opened(topic))


async def documents(request: Request) -> JSONResponse:
    """The documents that are open now."""
    names = [topic.removeprefix("document:") for topic in presence.topics("document:")]
    return JSONResponse({"worker": os.getpid(), "documents": names})


async def users(request: Request) -> JSONResponse:
    """The users that are connected, each with the number of its connections."""
    counts = {user: len(entry["metas"]) for user, entry in presence.list("users").items()}
    return JSONResponse({"worker": os.getpid(), "users": counts})


async def document(request: Request) -> JSONResponse:
    """The users that have a document open."""
    return JSONResponse(opened(f"document:{request.path_params['document']}"))


async def modes(websocket: WebSocket) -> AsyncIterator[str]:
    """The texts of a client until it leaves; raises if its connection was lost."""
    try:
        while True:
            yield await websocket.receive_text()
    except WebSocketDisconnect as end:
        if end.code not in LEFT:
            raise


async def edit(websocket: WebSocket) -> None:
    """Keep a document open as long as the connection lives; a text sets the mode."""
    topic, user = f"document:{websocket.path_params['document']}", websocket.path_params["user"]
    await websocket.accept()
    with (
        suppress(WebSocketDisconnect),  # around the presences, which break by it
        presence.track("users", user, linger=LINGER),
        presence.track(topic, user, {"mode": "reading"}, linger=LINGER) as use,
    ):
        pushing = asyncio.create_task(push_changes(websocket, topic))
        try:
            async for mode in modes(websocket):
                use.update({"mode": mode[:20]})
        finally:
            pushing.cancel()


app = Starlette(
    routes=[
        Route("/documents", documents),
        Route("/documents/{document:name}", document),
        Route("/users", users),
        WebSocketRoute("/documents/{document:name}/{user:name}", edit),
    ],
    lifespan=node.lifespan,
)
