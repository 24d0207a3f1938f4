"""The presence that a Python team writes today: a Redis hash per room, expiry, and pub/sub."""

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.waiting import block_until

#: Seconds after which a room that nobody touches is forgotten, as a crashed server must be.
_EXPIRY = 60


def missing() -> str:
    """What is not installed here; empty if all is there."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed"
    try:
        import redis.asyncio  # noqa: F401  # only to see whether it is there
    except ImportError:
        return "the Python package redis is not installed"
    return ""


def description() -> str:
    """Which client this is, for the report; empty if there is none."""
    if missing():
        return ""
    import redis

    parser = "hiredis" if redis.utils.HIREDIS_AVAILABLE else "the pure Python parser"
    return f"redis-py {redis.__version__} with {parser}"


@contextmanager
def redis_server() -> Iterator[int]:
    """A Redis of our own on a free port of the loopback, gone when the block ends."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            block_until(lambda: _answers(port, server), pause=0.02, patience=10)
            yield port
        finally:
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int, server: "subprocess.Popen[bytes]") -> bool:
    """Whether the server accepts commands.

    Raises:
        RuntimeError: Its process has ended.
    """
    if server.poll() is not None:
        raise RuntimeError("redis-server did not start")
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 1) as connection,
    ):
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


class RedisPresence:
    """Presence on Redis: who is in a room is a hash; each change goes out by pub/sub.

    One round trip a change: the commands travel as one transaction.
    """

    def __init__(self, port: int) -> None:
        from redis.asyncio import Redis

        self._redis: Redis = Redis(host="127.0.0.1", port=port, decode_responses=True)

    async def join(self, room: str, key: str, meta: dict[str, Any]) -> None:
        """Enter a room, or replace one's meta there."""
        text = json.dumps(meta)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(f"presence:{room}", key, text)
            pipe.expire(f"presence:{room}", _EXPIRY)
            pipe.publish(f"changes:{room}", json.dumps({"joins": {key: meta}}))
            await pipe.execute()

    async def leave(self, room: str, key: str) -> None:
        """Leave a room."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(f"presence:{room}", key)
            pipe.publish(f"changes:{room}", json.dumps({"leaves": [key]}))
            await pipe.execute()

    async def list(self, room: str) -> dict[str, Any]:
        """Everybody in a room."""
        held = await self._redis.hgetall(f"presence:{room}")
        return {str(key): json.loads(text) for key, text in held.items()}

    async def fill(self, room: str, entries: dict[str, dict[str, Any]]) -> None:
        """Many joins at once, unannounced, to prepare a measurement."""
        texts: dict[Any, Any] = {key: json.dumps(meta) for key, meta in entries.items()}
        await self._redis.hset(f"presence:{room}", mapping=texts)

    async def watch(self, room: str) -> AsyncIterator[dict[str, Any]]:
        """The changes of a room; the first is an empty one, once the subscription is there."""
        async with self._redis.pubsub() as channel:
            await channel.subscribe(f"changes:{room}")
            async for message in channel.listen():
                yield json.loads(message["data"]) if message["type"] == "message" else {}

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
