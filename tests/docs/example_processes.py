"""Programs of the documentation, as processes of their own."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.markdown_pages import ROOT
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE

EXAMPLES = ROOT / "examples"
WORKERS = 2
Environment = dict[str, str]


@asynccontextmanager
async def program(
    environment: Environment, *command: str, directory: Path = EXAMPLES
) -> AsyncIterator[Any]:
    """A Python program, one of the examples if it is not said where it is; ended with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        try:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.communicate(), DEADLINE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def serving(
    environment: Environment, *command: str, directory: Path = EXAMPLES
) -> AsyncIterator[Any]:
    """A server that has nothing to complain of until it ends."""
    async with program(environment, *command, directory=directory) as process:
        yield process
        process.terminate()
        output = (await asyncio.wait_for(process.stdout.read(), DEADLINE)).decode()
        assert "Traceback" not in output, output


@asynccontextmanager
async def server(environment: Environment, app: str, *options: str) -> AsyncIterator[int]:
    """An application under uvicorn with several workers, at a port."""
    port = free_port()
    usual = ["--port", str(port), "--workers", str(WORKERS), "--log-level", "warning"]
    async with serving(environment, "-m", "uvicorn", app, *usual, *options):
        yield port
