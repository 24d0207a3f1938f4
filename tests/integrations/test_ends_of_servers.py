"""Three HTTP servers that end in each way, and a client under a steady load of requests."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import adsum
from tests.support.waiting import until
from tests.support.worker_processes import Process, python

from .clients import Client, HttpxClient
from .load import CONCURRENCY, Load

pytestmark = pytest.mark.processes

SERVER = Path(__file__).with_name("http_server.py")


class Servers:
    """Processes that serve one service; ended by `end`."""

    def __init__(self, cluster: str, log: Path) -> None:
        self.cluster = cluster
        self.log = log
        self.all: list[Process] = []

    def start(self) -> Process:
        process = Process(python(SERVER, self.cluster, str(self.log)))
        self.all.append(process)
        return process

    async def terminate(self, process: Process) -> None:
        process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.process.wait, 30) in (0, -signal.SIGTERM)

    def end(self) -> None:
        for process in self.all:
            process.end()


@pytest.fixture
def servers(cluster_name: str, tmp_path: Path) -> Iterator[Servers]:
    """Three servers."""
    found = Servers(cluster_name, tmp_path / "posts")
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda _: found.start(), range(3)))
        yield found
    finally:
        found.end()


@asynccontextmanager
async def client_of(servers: Servers, kind: type[Client]) -> AsyncIterator[Client]:
    """A client in a node of its own, once it has found all servers."""
    node = adsum.Node(cluster=servers.cluster)
    services = adsum.Services(node, rest=0.2)
    async with node, kind(services) as client:
        await services.wait_for("users", len(servers.all), timeout=30)
        yield client


def test_sigterm_of_one_of_three_servers_fails_no_request(
    servers: Servers, client_type: type[Client]
) -> None:
    async def work() -> None:
        ended, *others = servers.all
        async with client_of(servers, client_type) as client, Load(client) as load:
            assert len(set(await load.more(100))) == 3
            await servers.terminate(ended)
            await load.more(900)
            assert set(load.answers[-100:]) == {other.name for other in others}
        assert load.failures == []

    asyncio.run(work())


def test_killed_server_fails_no_idempotent_request(
    servers: Servers, client_type: type[Client]
) -> None:
    async def work() -> None:
        ended, *others = servers.all
        async with client_of(servers, client_type) as client, Load(client) as load:
            assert len(set(await load.more(100))) == 3
            ended.signal(signal.SIGKILL)
            await load.served_by(*(other.name for other in others))
            await load.more(300)
        assert load.failures == []

    asyncio.run(work())


def test_killed_server_fails_at_most_the_posts_in_flight_and_none_is_executed_twice(
    servers: Servers, client_type: type[Client]
) -> None:
    async def work() -> None:
        ended, *others = servers.all
        async with client_of(servers, client_type) as client, Load(client, "POST") as load:
            assert len(set(await load.more(100))) == 3
            ended.signal(signal.SIGKILL)
            await load.served_by(*(other.name for other in others))
        assert len(load.failures) <= CONCURRENCY
        executed = servers.log.read_text().split()
        assert len(executed) == len(set(executed))
        assert len(executed) >= len(load.answers)

    asyncio.run(work())


def test_suspended_server_gets_no_requests_until_it_resumes(
    servers: Servers, client_type: type[Client]
) -> None:
    async def work() -> None:
        paused, *others = servers.all
        async with client_of(servers, client_type) as client, Load(client) as load:
            assert len(set(await load.more(100))) == 3
            paused.signal(signal.SIGSTOP)
            await load.served_by(*(other.name for other in others))
            await load.all_moved()
            paused.signal(signal.SIGCONT)
            await load.served_by(*(server.name for server in servers.all))
        assert len(load.failures) <= (0 if client_type is HttpxClient else CONCURRENCY)

    asyncio.run(work())


def test_rolling_deploy_of_all_servers_fails_no_request(
    servers: Servers, client_type: type[Client]
) -> None:
    async def work() -> None:
        async with client_of(servers, client_type) as client, Load(client) as load:
            before = list(servers.all)
            for old in before:
                new = await asyncio.to_thread(servers.start)
                await servers.terminate(old)
                await load.more(100)
                await until(lambda new=new: new.name in load.answers, "it answers")  # type: ignore[misc]  # bound now
            await load.served_by(*(new.name for new in servers.all[3:]))
        assert load.failures == []

    asyncio.run(work())
