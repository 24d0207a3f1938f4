"""Two servers behind nginx, HAProxy and Caddy, as docs/deployment.md sets them up.

Clients reach any server with each request and connection. A restart of one server after the other
is nothing that they see an error of, and a client that goes while it polls is noticed. Clients go
on when a server is killed or frozen, and when the proxy reads its configuration again.
"""

import asyncio
import json
import random
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.compatibility import CellRecord, is_whole
from tests.support.waiting import DEADLINE, until

from .channel_client import ChannelClient, channel_client
from .example_clients import Poller, website
from .example_processes import Environment, program
from .proxies import BACK, FRONT, NAMES, Proxy, free_ports, proxy
from .readme_app import write_application

pytestmark = pytest.mark.processes
every_proxy = pytest.mark.parametrize("name", NAMES)

ROOM = "room:1"
#: Seconds after which clients of a frozen server give up; at least half of them, at random. The
#: proxy sends every other request there, and a client that polls needs two in a row that go
#: elsewhere, so it has time for many attempts.
PATIENCE = 1
#: Seconds without a message, and between two heartbeats of phoenix.js meanwhile.
IDLE, HEARTBEAT = 120, 30
#: Counts the attempts that a client gave up.
GAVE_UP = "gave up"


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
        # The process on each port, once it was started.
        self._processes: dict[int, Any] = {}

    async def start(self, number: int) -> None:
        port = str(self._ports[number])
        options = ["--port", port, "--timeout-graceful-shutdown", "15", "--log-level", "warning"]
        command = ["-m", "uvicorn", "app:app", *options]
        self._processes[number] = await self._stacks[number].enter_async_context(
            program(self._environment, *command, directory=self._directory)
        )
        async with website(self._ports[number], f"/rooms/{ROOM}"):
            pass

    async def stop(self, number: int) -> None:
        """Ask it to stop, and wait for its end."""
        await self._stacks[number].aclose()

    async def kill(self, number: int) -> None:
        """End it as a crash does."""
        self._processes[number].kill()
        await self._stacks[number].aclose()

    @contextmanager
    def frozen(self, number: int) -> Iterator[None]:
        """Freeze it during the block."""
        self._processes[number].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[number].send_signal(signal.SIGCONT)


@asynccontextmanager
async def site(
    name: str, environment: Environment, directory: Path
) -> AsyncIterator[tuple[int, Servers, Proxy]]:
    """The proxy's port, the servers behind it, and the proxy."""
    ports = free_ports()
    write_application(directory)
    servers = Servers(environment, directory, ports)
    async with AsyncExitStack() as stack:
        for number in range(len(BACK)):
            await servers.start(number)
            stack.push_async_callback(servers.stop, number)
        running = await stack.enter_async_context(proxy(name, directory, ports))
        async with website(ports[FRONT], f"/rooms/{ROOM}"):
            yield ports[FRONT], servers, running


async def upgrades(port: int, prefix: str) -> bool:
    """Whether ten WebSockets in a row are accepted below a prefix."""
    try:
        for _ in range(10):
            async with channel_client(port, {"user": "ann"}, prefix=prefix):
                pass
    except InvalidStatus:
        return False
    return True


def works(cells: CellRecord, running: Proxy, event: str) -> None:
    """Record that clients behind the proxy take an event as the page says."""
    cells.add("proxy", f"{running.name} {running.version()}", event, "ok")


@every_proxy
def test_proxy_carries_both_transports_and_disconnected_clients_leave(
    environment: Environment, directory: Path, name: str, compat_cells: CellRecord
) -> None:
    async def main() -> None:
        async with site(name, environment, directory) as (port, _, running):
            async with in_room(port) as (ann, poller):
                await poller.go_while_waiting()
                await ann.sees(ROOM, "ann")  # within 15 seconds; by itself a session lives for 30
            works(compat_cells, running, "both transports")
            await running.reload(prefixed=True)
            # The worker of nginx with the former configuration may still accept for a moment.
            await until(partial(upgrades, port, "/app"), "WebSockets pass with the prefix")
            async with website(port, f"/app/rooms/{ROOM}"), in_room(port, "/app"):
                pass
            works(compat_cells, running, "prefix")

    asyncio.run(main())


@asynccontextmanager
async def in_room(port: int, prefix: str = "") -> AsyncIterator[tuple[ChannelClient, Poller]]:
    """A client on a WebSocket and one that polls, in a room; both have received a message."""
    async with (
        channel_client(port, {"user": "ann"}, prefix=prefix) as ann,
        client(port, prefix=prefix) as web,
    ):
        await ann.join(ROOM)
        poller = Poller(web, {"user": "bob"})
        await poller.begin()
        await poller.send(["1", "1", ROOM, "phx_join", {}])
        await ann.sees(ROOM, "ann", "bob")
        await shout(ann, poller)
        yield ann, poller


async def shout(ann: ChannelClient, poller: Poller) -> None:
    """Send a message over a WebSocket, and receive it by polling."""
    await ann.push(ROOM, "shout", {"text": "hi"})
    assert await poller.expect("shout") == {"text": "hi"}


@pytest.mark.skipif(not is_whole(), reason="takes minutes: `make compat` runs it")
@pytest.mark.timeout(4 * IDLE)
@every_proxy
def test_clients_of_an_idle_room_stay_connected_for_two_minutes(
    environment: Environment, directory: Path, name: str, compat_cells: CellRecord
) -> None:
    async def main() -> None:
        async with (
            site(name, environment, directory) as (port, _, running),
            in_room(port) as (ann, poller),
        ):
            polling = asyncio.create_task(poller.expect("shout", within=2 * IDLE))
            for _ in range(IDLE // HEARTBEAT):
                await asyncio.sleep(HEARTBEAT)
                await ann.push("phoenix", "heartbeat", {})
            await ann.push(ROOM, "shout", {"text": "hi"})
            assert await polling == {"text": "hi"}
            assert sorted(ann.present[ROOM]) == ["ann", "bob"]
            left = [
                frame for frame in ann.frames if frame[3] == "presence_diff" and frame[4]["leaves"]
            ]
            assert left == []
            works(compat_cells, running, "two idle minutes")

    asyncio.run(main())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES if is_whole() else ["caddy"])
def test_clients_go_on_after_a_kill_while_a_server_is_frozen_and_after_a_reload(
    environment: Environment, directory: Path, name: str, compat_cells: CellRecord
) -> None:
    async def main() -> None:
        seen = Counter[str]()
        async with (
            site(name, environment, directory) as (port, servers, running),
            client(port) as web,
            busy(stay(port, seen, PATIENCE), poll(web, seen, PATIENCE)),
        ):
            await more(seen)
            await servers.kill(0)
            await more(seen)
            await servers.start(0)
            await more(seen)
            # A request that was sent to a killed server may have been executed.
            seen_errors = seen.keys() - {"join", "GET 200", "POST 200"}
            assert seen_errors <= {"POST 502", "POST closed", "GET closed", "upgrade 502", GAVE_UP}
            works(compat_cells, running, "server killed")
            with servers.frozen(1):
                await more(seen)
            await more(seen)
            works(compat_cells, running, "server frozen")
            await running.reload()
            await more(seen)
            works(compat_cells, running, "reload")

    asyncio.run(main())


@pytest.mark.parametrize("name", NAMES if is_whole() else ["nginx", "haproxy"])
def test_restart_of_one_server_after_the_other_is_no_error_for_clients(
    environment: Environment, directory: Path, name: str, compat_cells: CellRecord
) -> None:
    async def main() -> None:
        seen = Counter[str]()
        async with (
            site(name, environment, directory) as (port, servers, running),
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
        # POST again: HAProxy closes the connection of the client, if it has used that of the server
        # before. phoenix.js connects again then, as `poll` does.
        unread = {"POST 502", "POST closed"}
        assert seen.keys() - unread == {"join", "GET 200", "POST 200"}
        works(compat_cells, running, "rolling restart")

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


def soon(patience: float) -> asyncio.Timeout:
    """Give up after a random time of at most so many seconds."""
    return asyncio.timeout(random.uniform(patience / 2, patience))


async def stay(port: int, seen: Counter[str], patience: float = DEADLINE) -> None:
    """Join over a WebSocket, and again whenever the server ends it, and now and then besides."""
    while True:
        try:
            async with (
                soon(patience) as limit,
                channel_client(port, {"user": "ann"}, close_timeout=1) as ann,
            ):
                await ann.join(ROOM)
                limit.reschedule(None)
                seen["join"] += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        async for _ in ann.connection:
                            pass
        except TimeoutError:
            seen[GAVE_UP] += 1
        except InvalidStatus as refusal:
            seen[f"upgrade {refusal.response.status_code}"] += 1
        except ConnectionClosed:
            pass  # during the join


async def poll(web: httpx2.AsyncClient, seen: Counter[str], patience: float = DEADLINE) -> None:
    """Poll for what was said oneself a moment before, in a new session whenever one is lost."""
    params = {"user": "bob", "vsn": "2.0.0"}
    while True:
        try:
            async with soon(patience):
                await poll_once(web, seen, params)
        except TimeoutError:
            seen[GAVE_UP] += 1
            params["token"] = ""
        except httpx2.TransportError as error:
            seen[f"{error.request.method} closed"] += 1
            params["token"] = ""


async def poll_once(web: httpx2.AsyncClient, seen: Counter[str], params: dict[str, str]) -> None:
    """Poll, and say something; the session is in the parameters."""
    found = await web.get("/socket/longpoll", params=params)
    seen[f"GET {found.status_code}"] += 1
    if not found.is_success:
        return
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


def client(
    port: int,
    limits: httpx2.Limits | None = None,
    *,
    prefix: str = "",
) -> httpx2.AsyncClient:
    """A client whose requests share connections, as those of a browser do, unless limited."""
    url = f"http://127.0.0.1:{port}{prefix}"
    limits = limits or httpx2.Limits()
    return httpx2.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=DEADLINE)
