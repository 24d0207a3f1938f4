"""A worker of a Socket.IO application whose clients command it: `uvicorn socketio_site:app`."""

import json
from typing import Any

import socketio

import adsum
from adsum.integrations.socketio import AsyncAdsumManager

node = adsum.Node()
server = socketio.AsyncServer(
    async_mode="asgi",
    client_manager=AsyncAdsumManager(node),
    max_http_buffer_size=4 * 1024 * 1024,
)


@server.event
async def enter(sid: str, room: str, other: str | None = None) -> None:
    """Move a client into a room: the caller, or any other one."""
    await server.enter_room(other or sid, room)


@server.event
async def leave(sid: str, room: str, other: str | None = None) -> None:
    await server.leave_room(other or sid, room)


@server.event
async def close(sid: str, room: str) -> None:
    await server.close_room(room)


@server.event
async def kick(sid: str, other: str) -> None:
    await server.disconnect(other)


@server.event
async def disconnect(sid: str, reason: str) -> None:
    """Send the end of a client to all others."""
    await server.emit("gone", sid)


@server.event
async def shout(sid: str, room: str | None, value: Any) -> None:
    """Send to all clients of a room but the caller, or to all of them."""
    await server.emit("said", value, room=room, skip_sid=sid)


@server.event
async def count(sid: str, room: str, first: int, end: int, pause: float) -> None:
    """Send numbers to all clients of a room."""
    for number in range(first, end):
        await server.emit("counted", number, room=room)
        if pause:
            await server.sleep(pause)


@server.event
async def begin_count(sid: str, *arguments: Any) -> None:
    """As `count`, without waiting for its end."""
    server.start_background_task(count, sid, *arguments)


@server.event
async def ask(sid: str, other: str, value: Any) -> Any:
    """Ask a client, and return its answer."""
    return list(await server.call("question", value, to=other, timeout=20))


async def http(scope: Any, receive: Any, send: Any) -> None:
    """Ask the client that is the path, and answer with the first value of its answer."""
    answer, _ = await server.call("question", "http", to=scope["path"][1:], timeout=20)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = node.wrap_app(socketio.ASGIApp(server, http))
