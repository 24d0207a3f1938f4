"""The chat of python-socketio that is measured: `uvicorn benchmarks.socketio_chat:app`.

Several workers reach each other's clients through Redis, as its documentation has it; one worker
alone does without. `socketio_over_adsum` is the same chat over adsum.
"""

import os
from typing import Any

import socketio

from benchmarks.contenders import REDIS


def chat(manager: Any) -> Any:
    """The application with a client manager; None: the one for a single worker."""
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)

    async def join(sid: str, room: str) -> dict[str, Any]:
        """Enter a room."""
        await server.enter_room(sid, room)
        return {}

    async def echo(sid: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The answer travels as the acknowledgement of the event."""
        return payload

    async def shout(sid: str, message: list[Any]) -> None:
        """Send to all clients of a room, the sender included."""
        room, payload = message
        await server.emit("shout", payload, room=room)

    for handler in (join, echo, shout):
        server.on(handler.__name__, handler)
    return socketio.ASGIApp(server)


_url = os.environ.get(REDIS)
app = chat(socketio.AsyncRedisManager(_url) if _url else None)
