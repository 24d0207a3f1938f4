"""The servers of one side, with a crowd of clients before them, for the length of a block."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import socketio_room
from benchmarks.crowd import Crowd
from benchmarks.processes import Worker, workers
from benchmarks.redis_presence import redis_server
from benchmarks.socketio_room import SocketIOServer
from benchmarks.web_servers import AdsumServer

ADSUM, SOCKETIO = "adsum", "python-socketio"
#: Clients that come and go on each server before anything is measured.
_WARM = 5


@dataclass(frozen=True, slots=True)
class Site:
    """Server processes, and the process of their clients."""

    side: str
    servers: list[Worker]
    ports: list[int]
    crowd: Worker
    redis_port: int = 0

    def enter(self, count: int, **how: Any) -> Any:
        """Let clients in; see `Crowd.enter`."""
        return self.crowd.call("enter", self.side, self.ports, count, **how)

    def cpu(self) -> float:
        """Seconds of CPU that the servers have used, all together."""
        return float(sum(server.call("cpu") for server in self.servers))

    def redis_cpu(self) -> float:
        """Seconds of CPU that Redis has used; 0 where there is none."""
        if not self.redis_port:
            return 0.0
        import redis

        with redis.Redis(port=self.redis_port) as client:
            used = client.info("cpu")
        return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])


def sides() -> list[str]:
    """Those that can be measured here; says why one cannot."""
    why_not = socketio_room.missing()
    if why_not:
        print(f"  {SOCKETIO}: skipped, {why_not}")
    return [ADSUM] if why_not else [ADSUM, SOCKETIO]


@contextmanager
def site(side: str, nodes: int, *, deflate: bool = False) -> Iterator[Site]:
    """So many fresh servers that know each other and have served a few clients already."""
    with ExitStack() as stack:
        start = partial(_start_adsum if side == ADSUM else _start_socketio, stack)
        (crowd,) = stack.enter_context(workers(Crowd, 1, uvloop=True))
        servers, ports, redis_port = start(nodes, deflate)
        made = Site(side, servers, ports, crowd, redis_port)
        made.enter(_WARM * nodes, at_once=1, per_room=_WARM * nodes, room="warm")
        crowd.call("leave")
        yield made


def _start_adsum(
    stack: ExitStack, nodes: int, deflate: bool
) -> tuple[list[Worker], list[int], int]:
    servers = stack.enter_context(workers(AdsumServer, nodes, uvloop=True))
    ports, peers = [], ""
    for server in servers:
        address, port = server.call("start", peers, deflate)
        peers = peers or address
        ports.append(port)
    for server in servers:
        server.call("settle", nodes)
    return servers, ports, 0


def _start_socketio(
    stack: ExitStack, nodes: int, deflate: bool
) -> tuple[list[Worker], list[int], int]:
    redis_port = stack.enter_context(redis_server())
    servers = stack.enter_context(workers(SocketIOServer, nodes, uvloop=True))
    return servers, [server.call("start", redis_port, deflate) for server in servers], redis_port
