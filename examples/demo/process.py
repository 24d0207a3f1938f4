"""One server process of the demo: start it, send it signals, follow what it reports to its end."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")
#: Seconds that a process may take to start, and to stop when asked to.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 4.0


class StartError(Exception):
    """A server process ended, or took too long, before it served."""


class Server:
    """One server process after the other, under one name.

    Args:
        name: The name of its node, too.
        port: Where it serves; 0 takes a free one.
        environment: What it is told, beyond the environment of this process.
        reported: Called with each of its reports; see `server.py`.
        ended: Called when a process has ended, however that came.

    Attributes:
        state: ``starting``, ``running``, ``paused``, ``stopping`` or ``dead``.
        reason: Why it is dead.
        down_after: After how many seconds of silence the others give it up; 0 until it ran once.
    """

    def __init__(
        self,
        name: str,
        port: int,
        environment: Mapping[str, str],
        reported: Callable[["Server", dict[str, Any]], None],
        ended: Callable[["Server"], None],
    ) -> None:
        self.name = name
        self.port = port
        self.state = "dead"
        self.reason = ""
        self.down_after = 0.0
        self._environment = environment
        self._reported = reported
        self._ended = ended
        self._ready = asyncio.Event()
        # Of the present process; valid from `start` until its end was seen by `_exited`.
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The number of the present process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start a process and wait until it serves.

        Raises:
            StartError: It does not.
        """
        self.state = "starting"
        self._ready.clear()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ADSUM_")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SERVER),
            str(self.port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**inherited, "ADSUM_NAME": self.name, **self._environment},
            # Ctrl-C in the terminal is for the supervisor, which ends the servers in order.
            process_group=0,
        )
        self._exited = asyncio.create_task(self._attend(self._process))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait(
            {ready, self._exited}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        if not self._ready.is_set():
            await self.stop()
            raise StartError(f"{self.name} did not start: {self.reason}")

    async def stop(self) -> None:
        """Ask it to end, and insist if it does not."""
        if self._exited is None:
            return
        for number in (signal.SIGTERM, signal.SIGCONT):
            self.signal(number)
        done, _ = await asyncio.wait({self._exited}, timeout=STOP_TIMEOUT)
        if not done:
            self.signal(signal.SIGKILL)
            await self._exited

    def signal(self, number: int) -> None:
        """Send a signal, if there still is a process."""
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                self._process.send_signal(number)

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "port": self.port,
            "state": self.state,
            "reason": self.reason,
            "pid": self.pid,
        }

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        """Follow a process to its end."""
        assert process.stdout is not None
        async for line in process.stdout:
            with contextlib.suppress(ValueError):  # the last line of a killed process is cut off
                self._take(json.loads(line))
        code = await process.wait()
        self._process = None
        self.state = "dead"
        self.reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._ended(self)

    def _take(self, report: dict[str, Any]) -> None:
        if report.get("ready"):
            self.port, self.down_after = report["port"], report["down_after"]
            self.state = "running"
            self._ready.set()
        self._reported(self, report)
