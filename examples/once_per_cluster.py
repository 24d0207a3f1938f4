"""Handled once per cluster: an event of a client, and the leave of a client whose server died.

    pip install fastapi 'uvicorn[standard]'
    uvicorn once_per_cluster:app --workers 4

    python -m websockets ws://127.0.0.1:8000/rooms/1/ann    # stays until Ctrl-D; send a text
    python -m websockets ws://127.0.0.1:8000/rooms/1/bob    # in another terminal

The server prints one line for each text, and one line when the last visitor of a room has left,
whether by Ctrl-D or because `kill -9` ended the worker.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, WebSocket
from pydantic import StringConstraints

import adsum

node = adsum.Node()
presence = adsum.Presence(node)
#: A room or a user; FastAPI refuses others with HTTP 403.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def is_acting() -> bool:
    """Whether this node acts for the cluster, as far as it knows."""
    up = [member.name for member in node.members() if member.status in ("self", "up")]
    return node.name == min(up)


async def call_staff(room: str, text: str) -> None:
    """Act on an event of a client; yours sends a mail."""
    print(f"{node.name}: staff is called to {room}: {text[:100]!r}", flush=True)


async def close(room: str) -> None:
    """Act on an empty room; yours is `UPDATE rooms SET closed = true`, which may run twice."""
    print(f"{node.name}: {room} is closed", flush=True)


async def close_empty_rooms(diffs: adsum.TopicsWatch) -> None:
    """Close each room whose last visitor has left; a task of every node."""
    async for diff in diffs:
        if diff.departed and not presence.count(diff.topic) and is_acting():
            await close(diff.topic)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the task while the node runs; at the end it finishes the room that it has begun."""
    with presence.watch_topics("room:") as diffs:
        closing = asyncio.create_task(close_empty_rooms(diffs))
        yield
    await closing


app = FastAPI(lifespan=node.wrap_lifespan(lifespan))


@app.websocket("/rooms/{room}/{user}")
async def enter(websocket: WebSocket, room: Name, user: Name) -> None:
    """Be in a room while the connection lives; a text calls the staff."""
    await websocket.accept()
    with presence.track(f"room:{room}", user):
        async for text in websocket.iter_text():
            await call_staff(f"room:{room}", text)
