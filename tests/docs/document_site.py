"""The two programs of docs/how-to/from-redis-dicts.md, served by two workers, and their clients."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .example_processes import EXAMPLES, WORKERS, Environment


class Editor:
    """A client that has a document open."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._seen: dict[str, list[str]] | None = None

    async def open(self) -> None:
        """Wait for the first list, which follows when the program has stored the connection."""
        async with asyncio.timeout(DEADLINE):
            await self._receive()

    async def set_mode(self, mode: str) -> None:
        await self._connection.send(mode)

    async def sees(self, users: dict[str, list[str]]) -> None:
        """Receive lists until one has exactly these users."""
        async with asyncio.timeout(DEADLINE):
            while self._seen != users:
                await self._receive()

    async def history_until(self, users: dict[str, list[str]]) -> list[dict[str, list[str]]]:
        """Receive lists until one has exactly these users; returns all of them."""
        found: list[dict[str, list[str]]] = []
        async with asyncio.timeout(DEADLINE):
            while not found or found[-1] != users:
                found.append(await self._receive())
        return found

    async def close(self, code: int = 1000) -> None:
        await self._connection.close(code)

    async def _receive(self) -> dict[str, list[str]]:
        users: dict[str, list[str]] = json.loads(await self._connection.recv())["users"]
        self._seen = users
        return users


class Worker:
    """One uvicorn with a port of its own, so that a client chooses its worker."""

    def __init__(self, program: str, environment: Environment, log: Path) -> None:
        self._port = free_port()
        options = ["--port", str(self._port), "--log-level", "warning"]
        self._command = [sys.executable, "-m", "uvicorn", f"{program}:app", *options]
        self._environment = environment
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("a") as output:
            self.process = subprocess.Popen(
                self._command,
                cwd=EXAMPLES,
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    def stop(self) -> None:
        """Ask it to stop, and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    @asynccontextmanager
    async def editor(self, document: str, user: str) -> AsyncIterator[Editor]:
        """A client that has a document open."""
        address = f"ws://127.0.0.1:{self._port}/documents/{document}/{user}"
        async with connect(address, proxy=None) as connection:
            yield Editor(connection)

    async def get(self, path: str) -> httpx2.Response | None:
        """The answer to a request; None if the worker does not run, or not yet."""
        async with httpx2.AsyncClient(trust_env=False) as web:
            try:
                return await web.get(f"http://127.0.0.1:{self._port}{path}")
            except httpx2.TransportError:
                return None

    async def gives(self, path: str, expected: Any) -> None:
        """Wait for an answer, which this process has given."""

        async def given() -> bool:
            answer = await self.get(path)
            if answer is None or not answer.is_success:
                return False
            worker, found = answer.json().values()
            return bool(worker == self.process.pid and found == expected)

        await until(given, f"{path}: {expected}")


class Site:
    """One of the programs on two workers."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers

    async def agrees(self, path: str, expected: Any) -> None:
        """Wait until all workers give an answer."""
        for worker in self.workers:
            await worker.gives(path, expected)

    @asynccontextmanager
    async def editors(self, document: str, *users: str) -> AsyncIterator[list[Editor]]:
        """A client on each worker that has a document open, one after the other."""
        async with AsyncExitStack() as stack:
            found: list[Editor] = []
            for worker, user in zip(self.workers, users, strict=True):
                found.append(await stack.enter_async_context(worker.editor(document, user)))
                await found[-1].open()
            yield found


@contextmanager
def served(program: str, environment: Environment, log: Path) -> Iterator[Site]:
    """A program under two uvicorns; their output goes to a file."""
    workers: list[Worker] = []
    try:
        for _ in range(WORKERS):
            workers.append(Worker(program, environment, log))
        yield Site(workers)
    finally:
        for worker in workers:
            worker.stop()
