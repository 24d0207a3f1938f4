"""The demo as a test sees it: a process, its HTTP answers, and visitors in its rooms."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

#: Seconds after which what must happen has not; far more than it takes, for busy machines.
PATIENCE = 20.0


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; returns it."""
    give_up_at = time.monotonic() + PATIENCE
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < give_up_at, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)


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
        self._pids = eventually(lambda: children(self._process.pid), "servers are started")

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/state", timeout=PATIENCE) as answer:
            state: dict[str, Any] = json.load(answer)
        self._pids |= {node["pid"] for node in state["nodes"] if node["pid"]}
        return state

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(n for n in self.state()["nodes"] if n["name"] == name)
        return found

    def act(self, action: str, name: str, **headers: str) -> int:
        """Press a button of the page; returns the status of the answer."""
        url = f"{self.url}/nodes/{name}/{action}"
        request = urllib.request.Request(url, method="POST", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
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

    def visit(self, name: str) -> "Visitor":
        return Visitor(self.node(name)["port"])

    def end(self, number: int = signal.SIGINT) -> int:
        """Send the supervisor a signal; returns its exit code."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=PATIENCE) as answer:
            return str(answer.read(), "utf-8")

    def leavings(self) -> list[str]:
        """What it left on the disk."""
        return os.listdir(self._directory.name)

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
        with self._process:
            if self._process.poll() is None:
                self._process.terminate()
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self._directory.cleanup()


def children(parent: int) -> set[int]:
    """The processes that a process started."""
    command = ["ps", "-A", "-o", "pid=", "-o", "ppid="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    pairs = [line.split() for line in lines if line]
    return {int(pid) for pid, parent_pid in pairs if int(parent_pid) == parent}


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie that nobody has waited for."""
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    status = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return bool(status) and not status.startswith("Z")


class Visitor:
    """A browser's WebSocket to one server, with what it was told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stack = ExitStack()
        self.diffs: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.members: dict[str, str] = {}
        # By key, then by ref.
        self._people: dict[str, dict[str, dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        connection = connect(f"ws://127.0.0.1:{self._port}/room", proxy=None)
        self._socket: ClientConnection = self._stack.enter_context(connection)
        assert json.loads(self._socket.recv(PATIENCE))["type"] == "hello"
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def people(self) -> dict[str, list[dict[str, Any]]]:
        """Who is here, by key: each with the metas of all its connections."""
        self.listen()
        return {key: [*metas.values()] for key, metas in self._people.items()}

    def sees(self, key: str, **fields: str) -> bool:
        """Whether somebody is here, once, with these fields in the meta."""
        metas = self.people().get(key, [])
        return len(metas) == 1 and fields.items() <= metas[0].items()

    def misses(self, key: str) -> bool:
        """Whether somebody is not here."""
        return key not in self.people()

    def knows(self, members: dict[str, str]) -> bool:
        """Whether the members of the cluster are these, by status."""
        self.listen()
        return self.members == members

    def take_error(self) -> str | None:
        """What the server had to say against what was sent."""
        self.listen()
        return self.errors.pop(0) if self.errors else None

    def say(self, do: str, **fields: str) -> None:
        self._socket.send(json.dumps({"do": do, **fields}))

    def send(self, data: str | bytes) -> None:
        """Send anything at all."""
        self._socket.send(data)

    def listen(self) -> None:
        """Take in what has come until now."""
        while True:
            try:
                message = json.loads(self._socket.recv(0))
            except TimeoutError:
                return
            if message["type"] == "diff":
                self.diffs.append(message)
                self._fold(message)
            elif message["type"] == "members":
                self.members = {m["name"]: m["status"] for m in message["members"]}
            else:
                self.errors.append(message["message"])

    def _fold(self, diff: dict[str, Any]) -> None:
        for key, meta in _flatten(diff["leaves"]):
            self._forget(key, meta["phx_ref"])
        for key, meta in _flatten(diff["updates"]):
            self._forget(key, meta["phx_ref_prev"])
            self._people.setdefault(key, {})[meta["phx_ref"]] = meta
        for key, meta in _flatten(diff["joins"]):
            self._people.setdefault(key, {})[meta["phx_ref"]] = meta

    def _forget(self, key: str, ref: str) -> None:
        del self._people[key][ref]
        if not self._people[key]:
            del self._people[key]


def _flatten(entries: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(key, meta) for key, entry in entries.items() for meta in entry["metas"]]
