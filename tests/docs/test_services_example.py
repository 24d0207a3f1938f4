"""The program of docs/how-to/services.md: servers that end in each way, and a client."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.waiting import DEADLINE

from .example_processes import Environment, program

pytestmark = pytest.mark.processes


class Client:
    """The client, with the answers that it has printed."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.failed = list[str]()

    async def answers(self, count: int) -> set[str]:
        """The servers that give the next answers."""
        found = set[str]()
        for _ in range(count):
            line = await line_of(self.process)
            if line.startswith("hello ann, from "):
                found.add(line.rpartition(" ")[2])
            else:
                self.failed.append(line)
        return found

    async def answers_come_from(self, names: set[str]) -> None:
        """Wait until all of these answer, and no others."""
        async with asyncio.timeout(DEADLINE):
            while await self.answers(2 * len(names)) != names:
                pass


async def line_of(process: Any) -> str:
    line: bytes = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
    assert line, "the program has ended"
    return line.decode().strip()


async def start_server(stack: AsyncExitStack, environment: Environment) -> tuple[str, Any]:
    """Start a server; returns its name, and the process."""
    process = await stack.enter_async_context(program(environment, "services.py", "serve"))
    name, _, _ = (await line_of(process)).partition(" serves")
    return name, process


def test_no_request_fails_when_servers_end_or_are_suspended(environment: Environment) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            servers = dict([await start_server(stack, environment) for _ in range(3)])
            process = await stack.enter_async_context(program(environment, "services.py", "ask"))
            client, (first, second, third) = Client(process), servers
            await client.answers_come_from({first, second, third})
            servers[first].terminate()
            await client.answers_come_from({second, third})
            os.kill(servers[second].pid, signal.SIGSTOP)
            try:
                await client.answers_come_from({third})
            finally:
                os.kill(servers[second].pid, signal.SIGCONT)
            await client.answers_come_from({second, third})
            servers[third].kill()
            await client.answers_come_from({second})
            name, _ = await start_server(stack, environment)
            await client.answers_come_from({second, name})
            assert client.failed == []

    asyncio.run(main())
