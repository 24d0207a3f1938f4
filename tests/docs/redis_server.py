"""A real Redis on a free port of the loopback address, without persistence."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, eventually


class RedisServer:
    """A server that a test may stop and start again; `client` is connected to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.client = Redis(port=self.port, decode_responses=True)

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        options += ["--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        eventually(self._answers, "redis-server answers")

    def stop(self) -> None:
        """Stop it, if it runs. Its data are lost."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server ended"
        try:
            return bool(self.client.ping())
        except RedisConnectionError:
            return False


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A Redis that ends with the block; skips the test where it is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs the package redis-server")
    server = RedisServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.client.close()
        server.stop()
