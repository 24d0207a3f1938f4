"""Rooms of a Socket.IO chat and their users, on several workers, without Redis.

    pip install '..[socketio]' fastapi 'uvicorn[standard]'
    export ADSUM_CLUSTER=shop                   # in each terminal: one cluster
    uvicorn socketio_app:app --workers 4

A client, after `npm install socket.io-client`; start some, and they reach different workers. Each
line that you type is sent to the room. A client that has connected again enters it again:

    node -e 'const { io } = require("socket.io-client");
    const socket = io("http://127.0.0.1:8000",
        { transports: ["websocket"], auth: { user: "ann" } });
    socket.on("said", (text, user) => console.log(user, text));
    socket.on("connect", () =>
        socket.emit("enter", "tea", (users) => console.log(users)));
    process.stdin.on("data", (text) => socket.emit("say", "tea", `${text}`.trim()));'

The users of a room, from any worker, and a message of a process that has no clients:

    curl http://127.0.0.1:8000/rooms/tea
    python socketio_app.py tea 'The kettle boils.'
"""

import asyncio
import sys
from typing import Any

import socketio
from fastapi import FastAPI

import adsum
from adsum.integrations.socketio import AsyncAdsumManager

#: Characters in the name of a user or a room, and in a text.
MAX_NAME, MAX_TEXT = 100, 500

node = adsum.Node()
presence = adsum.Presence(node)
server = socketio.AsyncServer(
    async_mode="asgi",
    client_manager=AsyncAdsumManager(node),
    # Long polling takes several requests, which reach different workers.
    transports=["websocket"],
)
web = FastAPI()
#: The node runs from before the server accepts clients until after they have left.
app = node.wrap_app(socketio.ASGIApp(server, web))


def is_name(value: object) -> bool:
    """Whether a value of a client can be the name of a user or a room."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


@server.event
async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    """Accept a client. Check a token here; this believes any name."""
    user = auth.get("user") if isinstance(auth, dict) else None
    if not is_name(user):
        raise socketio.exceptions.ConnectionRefusedError(
            f"auth.user: must be a text of 1 to {MAX_NAME} characters"
        )
    await server.save_session(sid, user)


@server.event
async def enter(sid: str, room: object) -> list[str]:
    """Enter a room, and receive its users, whichever workers they are connected to."""
    if not is_name(room) or room in server.rooms(sid):
        return []
    await server.enter_room(sid, room)
    presence.track(f"room:{room}", await server.get_session(sid), owner=sid)
    return list(presence.list(f"room:{room}"))


@server.event
async def say(sid: str, room: object, text: object) -> None:
    """Send a text to all others in a room of the client, on every worker."""
    if room in server.rooms(sid) and isinstance(text, str):
        user = await server.get_session(sid)
        await server.emit("said", (text[:MAX_TEXT], user), room=room, skip_sid=sid)


@server.event
async def disconnect(sid: str, reason: str) -> None:
    """End the presences of a client, for whatever reason it has left."""
    presence.untrack_all(sid)


@web.get("/rooms/{room}")
async def users(room: str) -> list[str]:
    """The users of a room."""
    return list(presence.list(f"room:{room}"))


async def announce(room: str, text: str) -> None:
    """Send a text to a room from a process that has no clients."""
    async with node:
        manager = AsyncAdsumManager(node, write_only=True)
        await manager.emit("said", (text, "announcement"), room=room)


if __name__ == "__main__":
    asyncio.run(announce(*sys.argv[1:]))
