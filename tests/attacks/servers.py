"""Two real servers of one cluster: the one that is attacked, and its sibling."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.environment import clean_environment
from tests.support.http_json import fetch_json
from tests.support.ports import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
APP = "tests.attacks.app:app"
SECRET = "a secret of the attacked cluster"
#: The commands that serve the application: over direct connections, and over ASGI messages.
COMMANDS = {
    "uvicorn": (
        "uvicorn {app} --port {port} --no-access-log --log-level warning"
        " --ws adsum.channels.uvicorn:WebSocketProtocol"
    ),
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:{port} --workers 0 --log-level warning",
}


class Server:
    """One server process with one node; leaving the block kills it.

    Attributes:
        name: The name of its node.
        port: Its port for clients.
        listen: The address of its node's TCP listener.
    """

    def __init__(self, kind: str, name: str, settings: dict[str, str], log: Path) -> None:
        self.name = name
        self.port = free_port()
        self.listen = f"127.0.0.1:{free_port()}"
        self._log_file = log
        self._log_read = 0
        command = COMMANDS[kind].format(app=APP, port=self.port).split()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={
                    **clean_environment(),
                    **settings,
                    "ADSUM_NAME": name,
                    "ADSUM_LISTEN": self.listen,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def members(self) -> Any:
        """The status of each member by name; None if the server does not answer."""
        return fetch_json(f"http://127.0.0.1:{self.port}/members")

    def present(self) -> Any:
        """The keys that are present in the rooms that it has served."""
        return fetch_json(f"http://127.0.0.1:{self.port}/present")

    def memory(self) -> int:
        """The resident memory of the process, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def files(self) -> int:
        """How many files and sockets the process has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def log(self) -> str:
        """What it has logged since this was called last; the line breaks as they are."""
        with self._log_file.open("rb") as file:
            file.seek(self._log_read)
            new = file.read()
        self._log_read += len(new)
        return new.decode(errors="backslashreplace")


@dataclass(frozen=True)
class Cluster:
    """The attacked server and its sibling.

    Attributes:
        name: That of the cluster.
        directory: The runtime directory of the nodes.
    """

    name: str
    directory: Path
    target: Server
    sibling: Server

    @property
    def servers(self) -> tuple[Server, Server]:
        return self.target, self.sibling

    def is_whole(self) -> bool:
        """Whether each node lists the other as up, and no third one as alive."""
        for asked in self.servers:
            members = asked.members() or {}
            alive = {name: status for name, status in members.items() if status != "left"}
            if alive != {one.name: "self" if one is asked else "up" for one in self.servers}:
                return False
        return True


@contextmanager
def cluster(kind: str, name: str, directory: Path) -> Iterator[Cluster]:
    """Start both servers, and wait until their nodes are linked."""
    settings = {
        "ADSUM_CLUSTER": name,
        "ADSUM_SECRET": SECRET,
        "ADSUM_RUNTIME_DIR": str(directory),
    }
    with ExitStack() as stack:
        servers = []
        for name_of_node in ("target", "sibling"):
            log = directory / f"{name_of_node}.log"
            server = Server(kind, name_of_node, settings, log)
            stack.callback(server.kill)
            servers.append(server)
        made = Cluster(name, directory, *servers)
        eventually(made.is_whole, "both nodes are up")
        yield made
