"""Two servers behind nginx and behind HAProxy, as docs/deployment.md sets them up.

Clients reach any server with each request and connection. A restart of one server after the other
is nothing that they see an error of, and a client that goes while it polls is noticed.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.waiting import DEADLINE, until

from .channel_client import channel_client
from .example_clients import Poller, website
from .example_processes import Environment, program
from .proxies import BACK, FRONT, free_ports, proxy
from .readme_app import write_application

pytestmark = [pytest.mark.processes, pytest.mark.parametrize("name", ["nginx", "haproxy"])]

ROOM = "room:1"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place for the files of a proxy that runs as nobody."""
    with tempfile.TemporaryDirectory(prefix="proxy-", dir="/tmp") as path:
        yield Path(path)


class Servers:
    """The application of the README, under uvicorn on each of the ports behind the proxy."""

    def __init__(self, environment: Environment, directory: Path, ports: dict[int, int]) -> None:
        self._environment = environment
        self._directory = directory
        self._ports = [ports[port] for port in BACK]
        self._stacks = [AsyncExitStack() for _ in BACK]

    async def start(self, number: int) -> None:
        port = str(self._ports[number])
        options = ["--port", port, "--timeout-graceful-shutdown", "15", "--log-level", "warning"]
        command = ["-m", "uvicorn", "app:app", *options]
        await self._stacks[number].enter_async_context(
            program(self._environment, *command, directory=self._directory)
        )
        async with website(self._ports[number], f"/rooms/{ROOM}"):
            pass

    async def stop(self, number: int) -> None:
        """Ask it to stop, and wait for its end."""
        await self._stacks[number].aclose()


@asynccontextmanager
async def site(
    name: str, environment: Environment, directory: Path
) -> AsyncIterator[tuple[int, Servers]]:
    """The proxy's port, and the servers behind it."""
    ports = free_ports()
    write_application(directory)
    servers = Servers(environment, directory, ports)
    async with AsyncExitStack() as stack:
        for number in range(len(BACK)):
            await servers.start(number)
            stack.push_async_callback(servers.stop, number)
        await stack.enter_async_context(proxy(name, directory, ports))
        async with website(ports[FRONT], f"/rooms/{ROOM}"):
            yield ports[FRONT], servers


def test_proxy_carries_both_transports_and_disconnected_clients_leave(
    environment: Environment, directory: Path, name: str
) -> None:
    async def main() -> None:
        async with (
            site(name, environment, directory) as (port, _),
            channel_client(port, {"user": "ann"}) as ann,
            client(port) as web,
        ):
            await ann.join(ROOM)
            poller = Poller(web, {"user": "bob"})
            await poller.begin()
            await poller.send(["1", "1", ROOM, "phx_join", {}])
            await ann.sees(ROOM, "ann", "bob")
            await ann.push(ROOM, "shout", {"text": "hi"})
            assert await poller.expect("shout") == {"text": "hi"}
            await poller.go_while_waiting()
            await ann.sees(ROOM, "ann")  # within 15 seconds; by itself a session lives for 30

    asyncio.run(main())


def test_restart_of_one_server_after_the_other_is_no_error_for_clients(
    environment: Environment, directory: Path, name: str
) -> None:
    async def main() -> None:
        seen = Counter[str]()
        async with (
            site(name, environment, directory) as (port, servers),
            client(port) as web,
            busy(stay(port, seen), poll(web, seen), visit(port, seen)),
        ):
            await more(seen)
            for number in range(len(BACK)):
                await servers.stop(number)
                await more(seen)
                await servers.start(number)
            await more(seen)
        # What was sent to a server at its very end may have been read or not, so no proxy sends a
        # POST again; phoenix.js connects again then, as `poll` does.
        assert seen.keys() - {"POST 502"} == {"join", "GET 200", "POST 200"}

    asyncio.run(main())


async def more(seen: Counter[str]) -> None:
    """Wait until every client has got on."""
    before = seen.copy()

    async def got_on() -> bool:
        return all(seen[one] > before[one] for one in ("join", "GET 200", "POST 200"))

    await until(got_on)


@asynccontextmanager
async def busy(*clients: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let clients be busy until the end of the block, which fails if one of them fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in clients]
        yield
        for task in tasks:
            task.cancel()


async def stay(port: int, seen: Counter[str]) -> None:
    """Join over a WebSocket, and again whenever the server ends it, and now and then besides."""
    while True:
        try:
            async with channel_client(port, {"user": "ann"}) as ann:
                await ann.join(ROOM)
                seen["join"] += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        async for _ in ann.connection:
                            pass
        except InvalidStatus as refusal:
            seen[f"upgrade {refusal.response.status_code}"] += 1
        except ConnectionClosed:
            pass  # during the join


async def poll(web: httpx2.AsyncClient, seen: Counter[str]) -> None:
    """Poll for what was said oneself a moment before, in a new session whenever one is lost."""
    params = {"user": "bob", "vsn": "2.0.0"}
    while True:
        found = await web.get("/socket/longpoll", params=params)
        seen[f"GET {found.status_code}"] += 1
        event = "phx_join" if found.json()["status"] == 410 else "shout"
        frame = json.dumps(["1", "1", ROOM, event, {}])
        params["token"] = found.json()["token"] or ""
        said = await web.post("/socket/longpoll", params=params, content=frame)
        seen[f"POST {said.status_code}"] += 1
        if not said.is_success or said.json()["status"] != 200:
            params["token"] = ""


async def visit(port: int, seen: Counter[str]) -> None:
    """Ask for the page, each time over a connection of one's own."""
    async with client(port, httpx2.Limits(max_keepalive_connections=0)) as web:
        while True:
            seen[f"GET {(await web.get('/')).status_code}"] += 1


def client(port: int, limits: httpx2.Limits | None = None) -> httpx2.AsyncClient:
    """A client whose requests share connections, as those of a browser do, unless limited."""
    url = f"http://127.0.0.1:{port}"
    limits = limits or httpx2.Limits()
    return httpx2.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=DEADLINE)
