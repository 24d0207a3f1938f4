"""FastAPI's ConnectionManager on several workers: rooms, users, and messages, without Redis.

    pip install fastapi 'uvicorn[standard]'
    uvicorn connection_manager:app --workers 4 --ws-max-size 131072

    python -m websockets ws://127.0.0.1:8000/rooms/1/ann    # in one terminal
    python -m websockets ws://127.0.0.1:8000/rooms/1/bob    # in another one
    curl 'http://127.0.0.1:8000/users?room=1'
    curl http://127.0.0.1:8000/announcements -H 'content-type: application/json' -d '"lunch"'

A text such as `hello` goes to the room, and `@bob hello` to Bob. Ctrl-D leaves. A tab that is
reloaded does not: its user stays listed meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Body, FastAPI, WebSocket, WebSocketDisconnect
from pydantic import StringConstraints

import adsum

EVERYBODY = "everybody"
#: Seconds for which a user stays listed after a connection was lost, as by a reload.
LINGER = 15
#: Close codes of a client that closes its WebSocket; a tab that is closed or reloaded sends 1001.
LEFT = (1000, 1005)
#: Characters of a room or a user, and of a text. Any text of this length fits into a message.
MAX_NAME, MAX_TEXT = 100, 10_000
#: A room or a user; FastAPI refuses others, a WebSocket with HTTP 403.
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]


class ConnectionManager:
    """The connections of all workers: lists their users, and sends them messages."""

    def __init__(self, node: adsum.Node) -> None:
        self._presence = adsum.Presence(node)
        self._pubsub = adsum.PubSub(node)
        # The connections of this worker, each with the tasks that send to it.
        self._open: dict[WebSocket, list[asyncio.Task[None]]] = {}

    async def connect(self, websocket: WebSocket, user: str, room: str) -> None:
        """Accept a connection, forward messages to it, and list its user."""
        await websocket.accept()
        messages = self._pubsub.subscribe(EVERYBODY)
        for topic in (f"room:{room}", f"user:{user}"):
            messages.add(topic)
        # Subscribe first: a user who is listed receives messages.
        for topic in (EVERYBODY, f"room:{room}"):
            self._presence.track(topic, user, owner=websocket, linger=LINGER)
        sending = forward(websocket, messages), self._send_users(websocket, room)
        tasks = [asyncio.create_task(run(websocket, each)) for each in sending]
        self._open[websocket] = tasks

    def leave(self, websocket: WebSocket) -> None:
        """End the presences of a client that closed its connection on purpose."""
        self._presence.untrack_all(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Forget a connection. Its user leaves after LINGER, unless another connection has it."""
        for task in self._open.pop(websocket, ()):
            task.cancel()
        self._presence.lost(websocket)

    async def send_to_user(self, text: str, user: str) -> None:
        """Send a text to all connections of a user."""
        await self._pubsub.publish(f"user:{user}", {"text": text})

    async def broadcast(self, text: str, room: str | None = None) -> None:
        """Send a text to everybody, or to everybody in a room."""
        await self._pubsub.publish(topic_of(room), {"text": text})

    def users(self, room: str | None = None) -> list[str]:
        """Everybody, or everybody in a room, sorted; answered from memory."""
        return list(self._presence.list(topic_of(room)))

    async def _send_users(self, websocket: WebSocket, room: str) -> None:
        """Send the users of a room, now and after each change, also after a crash of a worker."""
        async for _ in self._presence.watch(topic_of(room)):
            await send(websocket, {"users": self.users(room)})


def topic_of(room: str | None) -> str:
    """The topic of a room, or that of everybody."""
    return EVERYBODY if room is None else f"room:{room}"


async def forward(websocket: WebSocket, messages: adsum.Subscription) -> None:
    """Send messages to one connection; a slow one delays no other."""
    async for message in messages:
        await send(websocket, message.payload)


async def send(websocket: WebSocket, payload: Mapping[str, Any] | bytes) -> None:
    """Send JSON or bytes to one connection."""
    with suppress(WebSocketDisconnect, RuntimeError):  # the connection has ended
        if isinstance(payload, bytes):
            await websocket.send_bytes(payload)
        else:
            await websocket.send_json(dict(payload))


async def run(websocket: WebSocket, sending: Awaitable[None]) -> None:
    """Run a task of a connection. An error is logged and closes it, so the client reconnects."""
    try:
        await sending
    except Exception:
        logging.exception("a connection is closed, because it cannot be sent to")
        await websocket.close(1011)


node = adsum.Node()
manager = ConnectionManager(node)
app = FastAPI(lifespan=node.lifespan)


@app.websocket("/rooms/{room}/{user}")
async def chat(websocket: WebSocket, room: Name, user: Name) -> None:
    """Send each text to the room, or to one user if it begins with `@name`."""
    try:
        await manager.connect(websocket, user, room)
        while True:
            text = await websocket.receive_text()
            name, _, private = text[1:].partition(" ") if text.startswith("@") else ("", "", "")
            if len(text) > MAX_TEXT or len(name) > MAX_NAME:
                await send(websocket, {"refused": f"{text[:20]}... is too long"})
            elif name:
                await manager.send_to_user(f"{user}, to you: {private}", name)
            else:
                await manager.broadcast(f"{user}: {text}", room)
    except WebSocketDisconnect as end:
        if end.code in LEFT:
            manager.leave(websocket)
    finally:
        manager.disconnect(websocket)


@app.get("/users")
async def users(room: Name | None = None) -> list[str]:
    """The users, whichever worker they are connected to."""
    return manager.users(room)


@app.post("/announcements", status_code=204)
async def announce(text: Annotated[str, Body(max_length=MAX_TEXT)]) -> None:
    """Send a text to everybody."""
    await manager.broadcast(text)
