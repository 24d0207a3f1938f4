"""The program of docs/how-to/service-clients.md: servers that end, and each of its clients."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.markdown_pages import ROOT, blocks
from tests.support.waiting import DEADLINE

from .example_processes import Environment, program

PROGRAM = "service_clients.py"


def test_page_has_the_program() -> None:
    block = next(blocks(ROOT / "docs/how-to/service-clients.md"))
    assert block.text.strip() == (ROOT / "examples" / PROGRAM).read_text().strip()


async def line_of(process: Any) -> str:
    line: bytes = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
    assert line, "the program has ended"
    return line.decode().strip()


async def answers_come_from(process: Any, *names: str) -> None:
    """Wait until all of these answer, and no others; no request may fail."""
    found = set[str]()
    async with asyncio.timeout(DEADLINE):
        while found != set(names):
            lines = [await line_of(process) for _ in range(2 * len(names))]
            assert all(line.startswith("hello ann, from ") for line in lines), lines
            found = {line.rpartition(" ")[2] for line in lines}


@pytest.mark.processes
@pytest.mark.parametrize("client", ["httpx", "aiohttp", "threads"])
def test_no_request_fails_when_servers_end(environment: Environment, client: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            servers = {}
            for _ in range(3):
                server = await stack.enter_async_context(program(environment, PROGRAM, "serve"))
                servers[(await line_of(server)).partition(" serves")[0]] = server
            process = await stack.enter_async_context(program(environment, PROGRAM, client))
            first, second, third = servers
            await answers_come_from(process, first, second, third)
            servers[first].terminate()
            await answers_come_from(process, second, third)
            servers[second].kill()
            await answers_come_from(process, third)

    asyncio.run(main())
