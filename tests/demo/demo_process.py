"""The demo as a test sees it: a process, its HTTP answers, and its server processes."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import DEADLINE, eventually

from .room_client import RoomClient


class Demo:
    """`adsum demo`, running; leaving the block ends it, whatever has happened."""

    def __init__(self, *arguments: str) -> None:
        # Short, for there will be Unix sockets in it.
        self._directory = tempfile.TemporaryDirectory(prefix="ad-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adsum.cli", "demo", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": self._directory.name},
        )
        self._pids: set[int] = set()
        self.url = ""

    def wait_until_open(self) -> Self:
        """Read what it prints, up to the address."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := re.search(r"http://\S+", line):
                self.url = match[0]
                self.state()
                return self
        raise AssertionError("the demo ended before it printed an address")

    def wait_until_starting(self) -> None:
        """Until there are server processes, none of which serves yet."""
        self._pids = eventually(lambda: child_pids(self._process.pid), "servers are started")

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/state", timeout=DEADLINE) as answer:
            state: dict[str, Any] = json.load(answer)
        self._pids |= {node["pid"] for node in state["nodes"] if node["pid"]}
        return state

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(n for n in self.state()["nodes"] if n["name"] == name)
        return found

    def act(self, action: str, name: str, **headers: str) -> int:
        """Press a button of the page; returns the status of the answer."""
        return self.post(f"nodes/{name}/{action}", **headers)

    def post(self, path: str, **headers: str) -> int:
        """Ask for something to be done; returns the status of the answer."""
        request = urllib.request.Request(f"{self.url}/{path}", method="POST", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def last(self, action: str, name: str) -> dict[str, Any]:
        """The last incident of a kind."""
        incidents = [
            incident
            for incident in self.state()["incidents"]
            if (incident["action"], incident["node"]) == (action, name)
        ]
        found: dict[str, Any] = incidents[-1]
        return found

    def measured(self, action: str, name: str) -> dict[str, float]:
        """How many milliseconds each of the others took to notice, once all have."""
        eventually(lambda: not self.last(action, name)["waiting"], f"all notice {action} {name}")
        noticed: dict[str, float] = self.last(action, name)["noticed"]
        return noticed

    def visit(self, node: str, user: str | None = None, **how: str) -> RoomClient:
        """Somebody in the room of a server; see `RoomClient`."""
        return RoomClient(self.node(node)["port"], user, **how)

    def end(self, number: int = signal.SIGINT) -> int:
        """Send the supervisor a signal; returns its exit code."""
        self._process.send_signal(number)
        return self._process.wait(DEADLINE)

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=DEADLINE) as answer:
            return str(answer.read(), "utf-8")

    def leavings(self) -> list[str]:
        """What it left on the disk."""
        return os.listdir(self._directory.name)

    def note(self, pid: int) -> None:
        """Count a further process among those that must end."""
        self._pids.add(pid)

    def alive(self) -> set[int]:
        """The server processes seen so far that are still there."""
        return {pid for pid in self._pids if is_alive(pid)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._directory:
            with self._process:
                if self._process.poll() is None:
                    self._process.terminate()
            for pid in self.alive():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def child_pids(parent: int) -> set[int]:
    """The processes that a process started, as the kernel lists them."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return {pid for pid in pids if (found := _state_and_parent(pid)) and found[1] == parent}


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie, for which nobody has waited, does not."""
    found = _state_and_parent(pid)
    return found is not None and found[0] not in ("Z", "X")


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in parentheses, and the name may contain any character.
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)
