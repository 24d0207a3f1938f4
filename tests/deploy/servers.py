"""The program of the README under real servers, which a test starts, asks to stop, starts again."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.environment import clean_environment
from tests.support.http_json import fetch_json
from tests.support.markdown_pages import ROOT, blocks
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE

#: Added to the program: lets clients observe a room, as the example for FastAPI does.
_OBSERVE = """
import asyncio


@app.websocket("/observe/{room}")
async def observe(websocket: WebSocket, room: str):
    await websocket.accept()
    sender = asyncio.create_task(send_diffs(websocket, room))
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        sender.cancel()


async def send_diffs(websocket, room):
    with presence.watch(room) as diffs:
        async for diff in diffs:
            await websocket.send_json([diff.joins, diff.leaves, diff.updates])
"""
#: The commands that serve it; each ends within seconds, whatever its clients do.
COMMANDS = {
    "uvicorn": "uvicorn app:app --port {port} --timeout-graceful-shutdown 3",
    "uvicorn, 2 workers": "uvicorn app:app --port {port} --workers 2",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --graceful-timeout 1",
    "hypercorn, no workers": (
        "hypercorn app:app --bind 127.0.0.1:{port} --graceful-timeout 1 --workers 0"
    ),
}


def write_program(directory: Path) -> None:
    """Write the program of the README, and what lets clients observe it, as `app.py`."""
    program = next(block for block in blocks(ROOT / "README.md") if block.info == "python")
    (directory / "app.py").write_text(program.text + _OBSERVE)


class Server:
    """One server, in one process after the other.

    Args:
        directory: Where `app.py` is.
        environment: Settings of its node, as ``ADSUM_*``.
        command: A key of `COMMANDS`.
    """

    def __init__(
        self, directory: Path, environment: Mapping[str, str], command: str = "uvicorn"
    ) -> None:
        self.port = free_port()
        self._directory = directory
        self._environment = {**clean_environment(), **environment}
        self._command = COMMANDS[command].format(port=self.port).split()
        self._log = directory / f"{self.port}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._command,
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(DEADLINE):
            while await self.get("rooms/1") is None:
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.02)

    async def terminate(self) -> None:
        """Ask it to stop, as a deployment does, and wait for its end."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(DEADLINE):
            await self._process.wait()

    async def kill(self) -> None:
        """End it, with all its workers, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def get(self, path: str) -> Any:
        """The answer to a request; None if there is none."""
        return await asyncio.to_thread(fetch_json, f"http://127.0.0.1:{self.port}/{path}")
