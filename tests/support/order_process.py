"""A process that takes orders: clients of a library, in Node.js or in another Python."""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .waiting import DEADLINE

#: Characters in one answer, which has the whole state of all clients.
_MAX_LINE = 64 * 1024 * 1024


class OrderProcess:
    """A process that reads orders and writes answers, one a line, as JSON.

    An order has an `id`, its name in `do`, and its arguments. An answer has the `id`, and a `value`
    or an `error`. The first one has the id 0: the process is ready.

    Args:
        command: Returns the command that runs it.
        environment: Its environment, if not that of the tests.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str | Path]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._make_command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._make_command(),
            env=self._environment,
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
        """Give an order, and wait for the answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": command, **how}).encode() + b"\n")
        async with asyncio.timeout(DEADLINE):
            return await future

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
                future.set_exception(ConnectionError("the process of the clients has ended"))
