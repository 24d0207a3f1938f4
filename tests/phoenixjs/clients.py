"""Clients that are phoenix.js itself, unmodified, here in a Node.js process that takes orders."""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any, Protocol

from adsum.cli import phoenixjs
from tests.support.phoenixjs_library import phoenix_directory
from tests.support.waiting import DEADLINE

DRIVER = Path(__file__).with_name("driver.mjs")
#: Characters in one answer, which has the whole state of all clients.
_MAX_LINE = 64 * 1024 * 1024


class Clients(Protocol):
    """Any number of phoenix.js clients, wherever they run."""

    async def start(self) -> None:
        """Be ready for clients."""

    async def stop(self) -> None:
        """End them all."""

    async def ask(self, command: str, **how: Any) -> Any:
        """Tell a client to do something, see `clients.mjs`, and wait for the answer."""

    async def look(self) -> dict[str, Any]:
        """What every client shows, and what it has announced since the last look."""


class NodeClients:
    """All in one process of Node.js."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        library = phoenix_directory() / "phoenix.mjs"
        self._process = await asyncio.create_subprocess_exec(
            phoenixjs.node_path(),
            DRIVER,
            library,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE,
        )
        ready = self._waiting[0] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process))
        async with asyncio.timeout(DEADLINE):
            await ready

    async def stop(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def ask(self, command: str, **how: Any) -> Any:
        """See `Clients`."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": command, **how}).encode() + b"\n")
        async with asyncio.timeout(DEADLINE):
            return await future

    async def look(self) -> dict[str, Any]:
        """See `Clients`."""
        looks: dict[str, Any] = await self.ask("look")
        return looks

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"])
            if future.done():
                continue
            if "error" in answer:
                future.set_exception(AssertionError(answer["error"]))
            else:
                future.set_result(answer["value"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the Node.js process has ended"))
