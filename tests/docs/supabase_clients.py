"""Processes with clients of Supabase Realtime, of three kinds, that take orders."""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jwt

from adsum.cli import phoenixjs
from tests.support.environment import clean_environment
from tests.support.order_process import OrderProcess
from tests.support.socket_owner import owner_of, ports_at
from tests.support.waiting import until

from .supabase_packages import COMPAT, NEW, OLD, pypi_realtime, realtime_js
from .worker_server import WorkerServer

API_KEY = "k" * 40
JWT_SECRET = "s" * 40
#: The kinds of clients: realtime-js as it is now and as it was, and the package of PyPI.
KINDS = ("new", "old", "pypi")
_HERE = Path(__file__).parent
#: Runs clients of a library in Node.js; its arguments are the library and the commands.
_DRIVER = _HERE / "supabase_driver.mjs"
_numbers = itertools.count(1)


def token(user: str = "ann", seconds: float = 3600, **claims: Any) -> str:
    """An access token, as Supabase Auth signs it."""
    expires_at = int(time.time() + seconds)
    given = {"sub": user, "aud": "authenticated", "exp": expires_at, **claims}
    return jwt.encode(given, JWT_SECRET, "HS256")


def pushed(words: list[str], encoding: int, payload: bytes, metadata: bytes = b"") -> bytes:
    """A broadcast as realtime-js sends it: of join ref, ref, topic and event."""
    encoded = [*(word.encode() for word in words), metadata]
    header = bytes([3, *(len(each) for each in encoded), encoding])
    return header + b"".join(encoded) + payload


def process_of(kind: str) -> OrderProcess:
    """The process of a kind of clients, or of a version of realtime-js; not started."""
    if kind == "pypi":
        path = os.pathsep.join([str(pypi_realtime()), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, str(_HERE / "supabase_pypi_clients.py")]
        return OrderProcess(lambda: command, {**clean_environment(), "PYTHONPATH": path})
    library = realtime_js({"new": "latest" if COMPAT else NEW, "old": OLD}.get(kind, kind))
    commands = [phoenixjs.node_path(), _DRIVER, library, _HERE / "supabase_clients.mjs"]
    return OrderProcess(lambda: commands)


class RealtimeClient:
    """One client of any kind.

    Attributes:
        kind: One of `KINDS`, or a version of realtime-js.
    """

    def __init__(self, kind: str, process: OrderProcess, server: WorkerServer) -> None:
        self.kind = kind
        self._process = process
        self._server = server
        self._name = ""

    async def connect(self, access_token: str | None = None, apikey: str = API_KEY) -> None:
        """Connect, or connect again as another client."""
        if self._name:
            await self.ask("close")
        self._name = f"client{next(_numbers)}"
        url = self._server.url("/realtime/v1", "ws")
        await self.ask("connect", url=url, apikey=apikey, token=access_token)
        if apikey == API_KEY:
            await until(partial(self.ask, "connected"), f"{self.kind} is connected")

    async def ask(self, order: str, **how: Any) -> Any:
        """Carry out an order, see `supabase_clients.mjs`."""
        return await self._process.ask(order, client=self._name, **how)

    async def sees(self, topic: str, what: str, expected: Any) -> None:
        """Wait until it has seen exactly this, see `look` in `supabase_clients.mjs`."""
        seen: dict[str, Any] = {}

        async def right() -> bool:
            nonlocal seen
            seen = await self.ask("look", topic=topic)
            return bool(seen[what] == expected)

        try:
            await until(right, f"{self.kind} sees {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {expected}, saw {seen}") from None


@asynccontextmanager
async def one_client(kind: str, server: WorkerServer) -> AsyncIterator[RealtimeClient]:
    """A client that is not connected."""
    process = await asyncio.to_thread(process_of, kind)  # it may install the library
    await process.start()
    try:
        yield RealtimeClient(kind, process, server)
    finally:
        await process.stop()


@asynccontextmanager
async def connected(
    server: WorkerServer, kinds: Sequence[str] = KINDS, access_token: str | None = None
) -> AsyncIterator[list[RealtimeClient]]:
    """Connected clients of some kinds, one of each by default, not all at one worker."""
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(one_client(kind, server)) for kind in kinds]
        clients = await asyncio.gather(*opening)
        *others, last = [client.connect(access_token) for client in clients]
        await asyncio.gather(*others)
        workers = await workers_of(server.port, len(others))
        with stopped(workers.pop()):
            await last
        yield clients


@contextmanager
def stopped(worker: int) -> Iterator[None]:
    """Stop a worker for a moment, so that another one accepts."""
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


async def workers_of(port: int, count: int) -> set[int]:
    """The workers that serve clients at a port, once there are so many clients."""
    await until(lambda: len(ports_at(port)) == count, f"there are {count} connections")
    return {int(await until(partial(owner_of, port, each))) for each in ports_at(port)}
