"""Documents that users have open, kept in Redis: sessions, connections, and heartbeats.

    pip install starlette redis 'uvicorn[standard]'
    redis-server &
    uvicorn documents_in_redis:app --workers 4

The same program without Redis is documents_as_presences.py; docs/how-to/from-redis-dicts.md
compares the two. A client opens a document by a WebSocket to /documents/{document}/{user}. It
receives the users at once and after each change, and sends its mode as a text.
"""

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

#: Seconds between two heartbeats of a connection.
HEARTBEAT = float(os.environ.get("HEARTBEAT", "10"))
#: Seconds without a heartbeat after which a connection counts as dead.
STALE_AFTER = float(os.environ.get("STALE_AFTER", "30"))
#: Seconds between two clean-ups of a worker.
CLEAN_UP_EVERY = float(os.environ.get("CLEAN_UP_EVERY", "10"))
#: Seconds after which the lock of a clean-up is free again if its worker died.
LOCK_TIMEOUT = 60

redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1"), decode_responses=True)


class RedisDict:
    """A dict of JSON values that all workers share: a hash in Redis."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def get(self, key: str, default: Any) -> Any:
        text = await redis.hget(self._name, key)
        return default if text is None else json.loads(text)

    async def set(self, key: str, value: Any) -> None:
        """Store a value; an empty one removes the key."""
        if value:
            await redis.hset(self._name, key, json.dumps(value))
        else:
            await redis.hdel(self._name, key)

    async def items(self) -> dict[str, Any]:
        texts = await redis.hgetall(self._name)
        return {str(key): json.loads(text) for key, text in texts.items()}


sessions = RedisDict("sessions")  # session -> {"user": ..., "mode": ...}
connections = RedisDict("connections")  # user -> [session, ...]
in_use = RedisDict("in_use")  # document -> {session: time of its last heartbeat}
#: The sockets of this worker, by document.
sockets: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def begin(session: str, user: str, document: str) -> None:
    """Add a connection to all three dicts."""
    await connections.set(user, [*await connections.get(user, []), session])
    await sessions.set(session, {"user": user, "mode": "reading"})
    await beat(session, document)


async def beat(session: str, document: str) -> None:
    """Store that a connection has a document open now."""
    times = await in_use.get(document, {})
    await in_use.set(document, {**times, session: time.time()})


async def end(session: str, document: str) -> None:
    """Remove a connection from all three dicts."""
    user = (await sessions.get(session, {})).get("user", "")
    others = [other for other in await connections.get(user, []) if other != session]
    await connections.set(user, others)
    await sessions.set(session, None)
    times = await in_use.get(document, {})
    times.pop(session, None)
    await in_use.set(document, times)


async def opened(document: str) -> dict[str, Any]:
    """The users that have a document open, with the mode of each connection."""
    users: dict[str, list[str]] = {}
    for session in await in_use.get(document, {}):
        if found := await sessions.get(session, None):
            users.setdefault(found["user"], []).append(found["mode"])
    return {"worker": os.getpid(), "users": users}


async def announce(document: str) -> None:
    """Let all workers send the users of a document again."""
    await redis.publish("changes", document)


async def push_changes(changes: PubSub) -> None:
    """Send the users of a document to the sockets of this worker, after each change."""
    while True:
        with contextlib.suppress(RedisError):
            await changes.subscribe("changes")
            async for message in changes.listen():
                if message["type"] == "message" and sockets[message["data"]]:
                    answer = await opened(message["data"])
                    sending = [each.send_json(answer) for each in sockets[message["data"]]]
                    await asyncio.gather(*sending, return_exceptions=True)
        await asyncio.sleep(1)  # Redis is down


async def keep_beating(session: str, document: str) -> None:
    """Repeat the heartbeat of a connection as long as it lives."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        with contextlib.suppress(RedisError):  # the next one may succeed
            await beat(session, document)


async def clean_up() -> None:
    """Remove the connections of workers that died."""
    oldest = time.time() - STALE_AFTER
    for document, times in (await in_use.items()).items():
        stale = [session for session, at in times.items() if at < oldest]
        for session in stale:
            await end(session, document)
        if stale:
            await announce(document)


async def keep_clean() -> None:
    """Clean up again and again, one worker at a time."""
    while True:
        await asyncio.sleep(CLEAN_UP_EVERY)
        with contextlib.suppress(RedisError):  # another worker has the lock
            async with redis.lock("clean-up", timeout=LOCK_TIMEOUT, blocking=False):
                await clean_up()


async def documents(request: Request) -> JSONResponse:
    """The documents that are open now."""
    return JSONResponse({"worker": os.getpid(), "documents": sorted(await in_use.items())})


async def users(request: Request) -> JSONResponse:
    """The users that are connected, each with the number of its connections."""
    counts = {user: len(each) for user, each in (await connections.items()).items()}
    return JSONResponse({"worker": os.getpid(), "users": counts})


async def document(request: Request) -> JSONResponse:
    """The users that have a document open."""
    return JSONResponse(await opened(request.path_params["document"]))


async def edit(websocket: WebSocket) -> None:
    """Keep a document open as long as the connection lives; a text sets the mode."""
    document, user = websocket.path_params["document"], websocket.path_params["user"]
    session = uuid.uuid4().hex
    await websocket.accept()
    await begin(session, user, document)
    beating = asyncio.create_task(keep_beating(session, document))
    sockets[document].add(websocket)
    try:
        await announce(document)
        async for mode in websocket.iter_text():
            await sessions.set(session, {"user": user, "mode": mode[:20]})
            await announce(document)
    finally:
        beating.cancel()
        sockets[document].discard(websocket)
        await end(session, document)
        await announce(document)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Subscribe to the changes of all workers, and clean up beside serving."""
    async with redis, redis.pubsub() as changes:
        await changes.subscribe("changes")
        tasks = [asyncio.create_task(push_changes(changes)), asyncio.create_task(keep_clean())]
        yield
        for task in tasks:
            task.cancel()


app = Starlette(
    routes=[
        Route("/documents", documents),
        Route("/documents/{document}", document),
        Route("/users", users),
        WebSocketRoute("/documents/{document}/{user}", edit),
    ],
    lifespan=lifespan,
)
