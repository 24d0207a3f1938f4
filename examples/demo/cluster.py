"""The server processes of the demo: start them, send them signals, hear what they see."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from incidents import Incidents

SERVER = Path(__file__).with_name("server.py")
#: Seconds that a process may take to start, and to stop when asked to.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 4.0
#: What may be done to a server in which state.
ACTIONS = {
    "kill": ("running", "paused"),
    "pause": ("running",),
    "resume": ("paused",),
    "restart": ("running", "dead"),
}


class RefusedError(Exception):
    """The action makes no sense in the present state of the server."""


class StartError(Exception):
    """A server process ended, or took too long, before it served."""


class Server:
    """One server process after the other, under one name.

    Attributes:
        state: ``starting``, ``running``, ``paused``, ``stopping`` or ``dead``.
        reason: Why it is dead.
        down_after: After how many seconds of silence the others give it up.
    """

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.state = "dead"
        self.reason = ""
        self.down_after = 0.0
        self.ready = asyncio.Event()
        # Of the present process; valid from `start` until its end was seen by `exited`.
        self.process: asyncio.subprocess.Process | None = None
        self.exited: asyncio.Task[None] | None = None

    def signal(self, number: int) -> None:
        """Send a signal, if there still is a process."""
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(number)

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        pid = None if self.process is None else self.process.pid
        return {
            "name": self.name,
            "port": self.port,
            "state": self.state,
            "reason": self.reason,
            "pid": pid,
        }


class Cluster:
    """All servers, as a context manager: when it ends they have ended, too.

    Args:
        nodes: How many.
        first_port: The port of the first server, the others follow; 0 takes free ones.

    Attributes:
        changed: Set, and replaced by a new one, when something in `describe` changes.
    """

    def __init__(self, nodes: int, first_port: int = 0) -> None:
        self.name = f"demo-{os.getpid()}-{secrets.token_hex(4)}"
        self.incidents = Incidents()
        ports = range(first_port, first_port + nodes) if first_port else [0] * nodes
        self.servers = {f"n{i}": Server(f"n{i}", port) for i, port in enumerate(ports, 1)}
        self._directory = tempfile.TemporaryDirectory(prefix="adsum-demo-")
        self.changed = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*[self._start(server) for server in self.servers.values()])
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End every process: ask first, then insist."""
        self._closing = True
        await asyncio.gather(*[self._stop(server) for server in self.servers.values()])
        self._directory.cleanup()

    async def act(self, action: str, name: str) -> None:
        """Do one of `ACTIONS` to a server.

        Raises:
            RefusedError: It makes no sense now.
        """
        server = self.servers[name]
        if server.state not in ACTIONS[action]:
            raise RefusedError(f"cannot {action} {name}: it is {server.state}")
        if action == "restart":
            await self._restart(server)
        elif action == "kill":
            self._signal(server, "kill", signal.SIGKILL, "stopping")
        elif action == "pause":
            self._signal(server, "pause", signal.SIGSTOP, "paused")
        elif action == "resume":
            self._signal(server, "resume", signal.SIGCONT, "running")

    def describe(self) -> dict[str, Any]:
        """Everything that the page shows of the cluster, as JSON."""
        servers = self.servers.values()
        return {
            "cluster": self.name,
            "now": time.time(),
            "down_after": max(server.down_after for server in servers),
            "nodes": [server.describe() for server in servers],
            "incidents": [incident.describe() for incident in self.incidents.recent],
        }

    async def _restart(self, server: Server) -> None:
        if server.state == "running":
            self._signal(server, "stop", signal.SIGTERM, "stopping")
            await self._stop(server)
        await self._start(server)

    def _signal(self, server: Server, action: str, number: int, state: str) -> None:
        """Send a signal, and start the clocks of those who will notice."""
        server.state = state
        self._begin(action, server)
        server.signal(number)
        self._tell()

    def _begin(self, action: str, server: Server) -> None:
        awake = [other.name for other in self.servers.values() if other.state == "running"]
        self.incidents.begin(action, server.name, awake, time.monotonic(), time.time())

    async def _start(self, server: Server) -> None:
        """Start a process and wait until it serves."""
        if self._closing:
            raise RefusedError("the demo is ending")
        server.state = "starting"
        server.ready.clear()
        if server.down_after:  # not the very first time: there are others, who will notice
            self._begin("start", server)
        self._tell()
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ADSUM_")},
            "ADSUM_NAME": server.name,
            "ADSUM_CLUSTER": self.name,
            # The nodes find each other here, and it is taken away with the demo.
            "XDG_RUNTIME_DIR": self._directory.name,
        }
        server.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SERVER),
            str(server.port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            # Ctrl-C in the terminal is for the supervisor, which ends the servers in order.
            process_group=0,
        )
        server.exited = asyncio.create_task(self._attend(server, server.process))
        self._tell()
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait(
            {ready, server.exited}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        if not server.ready.is_set():
            await self._stop(server)
            raise StartError(f"{server.name} did not start: {server.reason}")

    async def _stop(self, server: Server) -> None:
        if server.exited is None:
            return
        for number in (signal.SIGTERM, signal.SIGCONT):
            server.signal(number)
        done, _ = await asyncio.wait({server.exited}, timeout=STOP_TIMEOUT)
        if not done:
            server.signal(signal.SIGKILL)
            await server.exited

    async def _attend(self, server: Server, process: asyncio.subprocess.Process) -> None:
        """Follow a process to its end."""
        assert process.stdout is not None
        async for line in process.stdout:
            with contextlib.suppress(ValueError):  # the last line of a killed process is cut off
                self._reported(server, json.loads(line))
        code = await process.wait()
        server.process = None
        server.state = "dead"
        server.reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.incidents.ended(server.name)
        self._tell()

    def _reported(self, server: Server, report: dict[str, Any]) -> None:
        if report.get("ready"):
            server.port, server.down_after = report["port"], report["down_after"]
            server.state = "running"
            server.ready.set()
            self.incidents.started(server.name, report["at"])
            self._tell()
        elif self.incidents.reported(
            server.name, report["at"], report["joined"], report["present"]
        ):
            self._tell()

    def _tell(self) -> None:
        """Wake everybody who waits for changes."""
        self.changed.set()
        self.changed = asyncio.Event()
