"""The engine that carries the links of the demo's servers: one process of NATS or Redis.

It is started for the demo alone, on a free port of the loopback address, and stores nothing.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

#: By the name of a carrier, the program, which is also the name of its package in Debian.
PROGRAMS = {"nats": "nats-server", "redis": "redis-server"}
#: Where servers of Debian are, which is not on the path of every user.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
#: Seconds that the engine may take to start.
START_TIMEOUT = 10.0


class EngineError(Exception):
    """The engine is not installed, or does not start."""


class Engine:
    """One engine process after the other, on one port.

    Args:
        carrier: ``nats`` or ``redis``.
        directory: The working directory of the process.

    Attributes:
        state: ``starting``, ``running`` or ``dead``.
        changed: Called when the state changes; set by the owner.

    Raises:
        EngineError: The program is not installed.
    """

    def __init__(self, carrier: str, directory: str) -> None:
        self.carrier = carrier
        self.program = PROGRAMS[carrier]
        command = shutil.which(self.program, path=SEARCH)
        if command is None:
            raise EngineError(
                f"{self.program} is not installed; on Debian: apt install {self.program}"
            )
        self.state = "dead"
        self.changed: Callable[[], None] = lambda: None
        self._secret = secrets.token_urlsafe()
        self._port = free_port()
        self._command = [sys.executable, __file__, command, *self._arguments(directory)]
        self._directory = directory
        # Of the present process; valid from `start` until `_ended`.
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None

    def settings(self) -> dict[str, str]:
        """What a server has to be told, as environment variables."""
        return {
            "ADSUM_SIBLINGS": "0",
            "ADSUM_CARRIER": f"{self.carrier}://127.0.0.1:{self._port}",
            "ADSUM_SECRET": self._secret,
        }

    async def start(self) -> None:
        """Start a process and wait until it accepts connections.

        Raises:
            EngineError: It does not.
        """
        self._change("starting")
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self._directory,
            process_group=0,  # Ctrl-C in the terminal is for the supervisor
        )
        self._ending = asyncio.create_task(self._attend(self._process))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                while self.state == "starting" and not await self._accepts():  # noqa: ASYNC110  # no event
                    await asyncio.sleep(0.02)
                if self.state == "starting":
                    self._change("running")
                    return
        await self.kill()
        raise EngineError(f"{self.program} did not start")

    async def kill(self) -> None:
        """End the process with SIGKILL, if there is one."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self._ending is not None:
            await self._ending

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        pid = self._process.pid if self._process is not None else None
        return {"program": self.program, "state": self.state, "pid": pid}

    def _arguments(self, directory: str) -> list[str]:
        port = str(self._port)
        if self.carrier == "nats":
            return ["--addr", "127.0.0.1", "--port", port]
        return ["--bind", "127.0.0.1", "--port", port, "--dir", directory, "--save", ""]

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        """Follow a process to its end."""
        await process.wait()
        self._process = None
        self._change("dead")

    def _change(self, state: str) -> None:
        self.state = state
        self.changed()


def free_port() -> int:
    """A port of the loopback address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def become(command: list[str]) -> None:
    """Replace this process by the engine, which the kernel ends with the supervisor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.execv(command[0], command)


if __name__ == "__main__":
    become(sys.argv[1:])
