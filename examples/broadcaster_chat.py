"""broadcaster on several workers: a chat room for each path, without Redis.

    pip install '..[broadcaster]' starlette 'uvicorn[standard]'
    uvicorn broadcaster_chat:app --workers 4 --ws-max-size 131072

    python -m websockets ws://127.0.0.1:8000/rooms/1    # in two terminals

A text that is sent in one is received in both.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import adsum
from adsum.integrations.broadcaster import AdsumBroadcastBackend

#: Characters in the name of a room.
MAX_ROOM = 100

node = adsum.Node()
broadcast = Broadcast(backend=AdsumBroadcastBackend(node))


async def chat(websocket: WebSocket) -> None:
    """Send each text of a client to its room, and the texts of the room to the client."""
    room = websocket.path_params["room"]
    if len(room) > MAX_ROOM:
        await websocket.close(1008)  # before it is accepted: refused with HTTP 403
        return
    async with broadcast.subscribe(room) as texts:
        await websocket.accept()
        sending = asyncio.create_task(send(texts, websocket))
        try:
            async for text in websocket.iter_text():
                await broadcast.publish(room, text)
        finally:
            sending.cancel()


async def send(texts: Any, websocket: WebSocket) -> None:
    """Send the texts of a room to a client."""
    async for event in texts:
        try:
            await websocket.send_text(event.message)
        except (WebSocketDisconnect, RuntimeError):
            return  # the connection has ended


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Connect, which starts the node; and stop it at the end."""
    async with broadcast:
        yield


app = Starlette(routes=[WebSocketRoute("/rooms/{room}", chat)], lifespan=lifespan)
