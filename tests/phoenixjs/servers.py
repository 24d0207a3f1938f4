"""Server processes of a test, each with one node: started, killed, asked what they list."""

import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.environment import clean_environment
from tests.support.http_json import fetch_json
from tests.support.waiting import DEADLINE

APP = Path(__file__).with_name("app.py")


class Server:
    """One process, or one after the other under one name.

    Args:
        log: Where its standard error goes; `complaints` reads it.
        environment: Settings of its node, as ``ADSUM_*``.
        options: See `app.Options`.
    """

    def __init__(
        self, log: Path, environment: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.port = 0
        self.name = ""
        self._log = log
        self._environment = dict(environment or {})
        self._options = options
        self._lines_read = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.alive else None

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        await self._launch([sys.executable, "-W", "error", str(APP)])
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = await self._process.stdout.readline()
        assert line, f"a server did not start:\n{self._log.read_text()}"
        ready = json.loads(line)
        self.name, self.port = ready["name"], ready["port"]

    async def start_workers(self, count: int, port: int) -> None:
        """Start uvicorn with so many workers on a port; they serve when they answer."""
        run = [sys.executable, "-m", "uvicorn", "--app-dir", str(APP.parent), "app:app"]
        flags = ["--workers", str(count), "--port", str(port), "--log-level", "warning"]
        self.port = port
        await self._launch([*run, *flags, "--timeout-graceful-shutdown", "3"])

    async def kill(self) -> None:
        """End it as a crash of the machine would."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """End it as a deployment does."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(DEADLINE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise

    async def get(self, path: str) -> Any:
        """What it answers; None if it does not."""
        return await asyncio.to_thread(fetch_json, f"http://127.0.0.1:{self.port}/{path}")

    async def post(self, path: str) -> Any:
        return await asyncio.to_thread(fetch_json, f"http://127.0.0.1:{self.port}/{path}", b"")

    async def presences(self, topic: str) -> Any:
        return await self.get(f"presences/{topic}")

    def complaints(self) -> list[str]:
        """What it has written into its log since the last time this was asked.

        Clients that are well-behaved give it no reason to.
        """
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        new, self._lines_read = lines[self._lines_read :], len(lines)
        return new

    async def _launch(self, command: Sequence[str]) -> None:
        with self._log.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={
                    **clean_environment(),
                    **self._environment,
                    "PHOENIXJS_OPTIONS": json.dumps(self._options),
                },
            )
