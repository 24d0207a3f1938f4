"""Last seen: the users of a room, and for those who have left, the time at which they left.

    pip install fastapi 'uvicorn[standard]'
    uvicorn last_seen:app --workers 4

Join `room:1` with phoenix.js, with `params: {user: "ann"}`, at http://127.0.0.1:8000/socket. Then
`curl http://127.0.0.1:8000/rooms/room:1` shows ann with `null`, which means present. After she has
left, or `kill -9` has ended her worker, it shows the time.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Annotated, Any

from fastapi import FastAPI, Path

import adsum
from adsum.channels import Channel, Reason, RefusedError, Socket

DATABASE = os.environ.get("LAST_SEEN_DATABASE", "last_seen.db")  # yours is on a server

node = adsum.Node()
presence = adsum.Presence(node)


def query(statement: str, *values: Any) -> list[Any]:
    """Run one statement on the table; it blocks, so call it in a thread."""
    with closing(sqlite3.connect(DATABASE, timeout=10)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS seen (topic, user, at, PRIMARY KEY (topic, user))"
        )
        return database.execute(statement, values).fetchall()


async def write_last_seen(topic: str, user: str) -> None:
    """Write the present time; of two writers the later time wins."""
    statement = """INSERT INTO seen VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET at = max(at, excluded.at)"""
    await asyncio.to_thread(query, statement, topic, user, time.time())


class Room(Channel, topic="room:{room}"):
    """A room: its own node writes when a user joins and when the channel ends."""

    async def join(self, payload: dict[str, Any]) -> None:
        """Write, because all nodes may end at once, and then list the user."""
        self.user = self.client.params.get("user", "")
        if not 0 < len(self.user) <= 100:
            raise RefusedError("user: must have 1 to 100 characters")
        await write_last_seen(self.topic, self.user)
        self.track(self.user)

    async def terminate(self, reason: Reason) -> None:
        """Write, also when the connection broke or the server stops; may take 5 seconds."""
        await write_last_seen(self.topic, self.user)


async def write_for_the_dead(diffs: adsum.TopicsWatch) -> None:
    """Write for users whose last connection has gone; a task of every node."""
    async for diff in diffs:
        if diff.departed and is_acting():
            for user in diff.departed:
                await write_last_seen(diff.topic, user)


def is_acting() -> bool:
    """Whether this node writes for those that have died, as far as it knows."""
    up = [member.name for member in node.members() if member.status in ("self", "up")]
    return node.name == min(up)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the task while the node runs; at the end it writes what it has begun."""
    with presence.watch_topics("room:") as diffs:
        writer = asyncio.create_task(write_for_the_dead(diffs))
        yield
    await writer


app = FastAPI(lifespan=node.wrap_lifespan(lifespan))
socket = Socket(presence, [Room])
app.mount("/socket", socket)


@app.get("/rooms/{topic}")
async def users(
    topic: Annotated[str, Path(pattern="^room:", max_length=100)],
) -> dict[str, float | None]:
    """All users of a room: null for those who are present, else the time of the last leave."""
    rows = await asyncio.to_thread(query, "SELECT user, at FROM seen WHERE topic = ?", topic)
    return dict(rows) | dict.fromkeys(presence.list(topic))
