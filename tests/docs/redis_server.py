"""A real Redis on a free port of the loopback address, without persistence, and its client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from tests.support.bus_servers import RedisServer as RedisProcess
from tests.support.bus_servers import running


class RedisServer(RedisProcess):
    """A server that a test may stop and start again; `client` is connected to it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.client = Redis(port=self.port, decode_responses=True)


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A Redis that ends with the block; skips the test where it is not installed."""
    server = RedisServer(directory)
    try:
        with running(server):
            yield server
    finally:
        server.client.close()
