"""The room that a Python team writes today: python-socketio, and a list of users in Redis.

Written as its documentation and the usual answers have it, without waste: who is in a room is a
hash; joining costs one round trip to Redis, which enters the hash and reads it; the list comes as
the acknowledgement of the joining, and the others get an event for each join, change and leave.
python-socketio encodes such an event once for all clients of a process.
"""

import json
from typing import Any

from benchmarks import redis_presence
from benchmarks.web_servers import WebServer

#: Connections to Redis that one process may open to tell the others of its events.
_CONNECTIONS = 1_000


def missing() -> str:
    """What is not installed here; empty if all is there."""
    try:
        import socketio  # noqa: F401  # only to see whether it is there
    except ImportError:
        return "the Python package python-socketio is not installed"
    return redis_presence.missing()


class SocketIOServer(WebServer):
    """One process of several that share a Redis."""

    async def start(self, redis_port: int, deflate: bool) -> int:
        """Start; returns the port for the browsers."""
        import socketio
        from redis.asyncio import BlockingConnectionPool, Redis

        url = f"redis://127.0.0.1:{redis_port}"
        # More at a time than redis-py allows by default would be refused, and told to nobody.
        manager = socketio.AsyncRedisManager(url, redis_options={"max_connections": _CONNECTIONS})
        server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
        pool = BlockingConnectionPool.from_url(url, decode_responses=True, timeout=None)
        room = _Room(server, Redis(connection_pool=pool))
        for event in ("join", "change", "disconnect"):
            server.on(event, getattr(room, event))
        return await self.serve(socketio.ASGIApp(server), deflate)


class _Room:
    def __init__(self, server: Any, redis: Any) -> None:
        self._server, self._redis = server, redis

    async def join(self, sid: str, user: dict[str, Any]) -> dict[str, Any]:
        """Enter; the answer is who is there, oneself included."""
        room, key, meta = user["room"], user["key"], user["meta"]
        await self._server.save_session(sid, user)
        # Before the list is read, so that no join falls between the list and the events.
        await self._server.enter_room(sid, room)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(f"users:{room}", key, json.dumps(meta))
            pipe.hgetall(f"users:{room}")
            _, held = await pipe.execute()
        joined = {"key": key, "meta": meta}
        await self._server.emit("user_joined", joined, room=room, skip_sid=sid)
        return {other: json.loads(text) for other, text in held.items()}

    async def change(self, sid: str, meta: dict[str, Any]) -> None:
        """Replace one's meta."""
        user = await self._server.get_session(sid)
        await self._redis.hset(f"users:{user['room']}", user["key"], json.dumps(meta))
        changed = {"key": user["key"], "meta": meta}
        await self._server.emit("user_changed", changed, room=user["room"])

    async def disconnect(self, sid: str, reason: str) -> None:
        """Leave."""
        user = await self._server.get_session(sid)
        if "room" in user:
            await self._redis.hdel(f"users:{user['room']}", user["key"])
            await self._server.emit("user_left", {"key": user["key"]}, room=user["room"])
