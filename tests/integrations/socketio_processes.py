"""Workers of a Socket.IO application, each a server at a port of its own, and clients of npm."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from adsum.cli import phoenixjs
from tests.support.environment import RUNTIME_DIR, clean_environment
from tests.support.ports import free_port, listens
from tests.support.waiting import DEADLINE, eventually
from tests.support.worker_processes import Process

CLIENT = "socket.io-client@4.8.4"
HERE = Path(__file__).parent


def install_client(folder: Path) -> Path:
    """Install socket.io-client into a folder; skips the test where it cannot be had."""
    try:
        node = phoenixjs.node_path()
    except phoenixjs.InstallError as error:
        pytest.skip(f"Node.js is missing: {error}")
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    command = [str(node), str(npm), "install", "--prefix", str(folder), *flags, CLIENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {CLIENT}: {done.stderr.strip()[-300:]}")
    return folder


class SocketIOClients(Process):
    """Any number of clients in one process of Node.js, see `socketio_clients.mjs`."""

    def __init__(self, folder: Path) -> None:
        program = HERE / "socketio_clients.mjs"
        super().__init__([str(phoenixjs.node_path()), str(program), str(folder)])

    def open(self, *ports: int) -> list[str]:
        """Connect a client to each port; they are named 0, 1 and so on. Returns their ids."""
        return [self.ask("open", number, port) for number, port in enumerate(ports)]

    def said(self, client: int, event: str = "said") -> list[Any]:
        """The values that a client has received with an event, in order."""
        return [value for name, value in self.ask("received", client) if name == event]

    def receives(self, client: int, values: list[Any], event: str = "said") -> None:
        """Wait until a client has received these values with an event, and no others."""
        eventually(lambda: self.said(client, event) == values, f"{client} receives {values!r:.80}")


class SocketIOWorkers:
    """Servers of one cluster; leaving the block kills each that still runs."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="sio-")  # sockets need a short path
        self._folder = Path(self._temporary.name)
        #: The environment of each process of the cluster.
        self.environment = clean_environment() | {
            "ADSUM_CLUSTER": f"sio-{secrets.token_hex(4)}",
            RUNTIME_DIR: str(self._folder),
        }
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, count: int, *command: str) -> list[int]:
        """Start servers, and return their ports once they accept clients.

        Args:
            count: The number of servers.
            command: Arguments of Python, with ``{port}``.
        """
        ports = [free_port() for _ in range(count)]
        for port in ports:
            with (self._folder / f"{port}.log").open("w") as log:
                self._processes[port] = subprocess.Popen(
                    [sys.executable, *(each.format(port=port) for each in command)],
                    cwd=HERE,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        for port in ports:
            eventually(partial(self._accepts, port), "the server accepts clients")
        return ports

    def _accepts(self, port: int) -> bool:
        process = self._processes[port]
        assert process.poll() is None, self.log(port)
        return listens(process.pid, port)

    def log(self, port: int) -> str:
        """All that a server has printed."""
        return (self._folder / f"{port}.log").read_text()

    def kill(self, port: int) -> None:
        """End a server as a crash does."""
        process = self._processes[port]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE)

    def stop(self, port: int) -> None:
        """Ask a server to stop, and wait for its end."""
        self._processes[port].terminate()
        self._processes[port].wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for port in self._processes:
            self.kill(port)
        self._temporary.cleanup()
