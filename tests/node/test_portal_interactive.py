"""Portals in an interactive interpreter at a terminal, and in the cells of a Jupyter kernel."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import adsum
from tests.support.environment import clean_environment
from tests.support.waiting import DEADLINE, eventually

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.processes

START = "import adsum; portal = adsum.Portal()"


@pytest.fixture
def portal(cluster_name: str) -> Iterator[adsum.Portal]:
    """A member of the same cluster, which shows a presence until its node says goodbye."""
    patient = adsum.Node(cluster=cluster_name, down_after=600.0, link_grace=600.0)
    with adsum.Portal(patient) as portal:
        yield portal


class Terminal:
    """An interactive interpreter at a terminal of its own."""

    def __init__(self, cluster: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-q", "-i"],
            env={**clean_environment(), "ADSUM_CLUSTER": cluster, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = ""

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def shows(self, text: str) -> str:
        """Read on until a text appears; returns the output up to there."""
        while text not in self._shown:
            self._shown += os.read(self._ours, 4096).decode()
        before, _, self._shown = self._shown.partition(text)
        return before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_interpreter_uses_a_portal_and_says_goodbye(
    portal: adsum.Portal, cluster_name: str
) -> None:
    messages = portal.subscribe("room", timeout=DEADLINE)
    terminal = Terminal(cluster_name)
    try:
        terminal.type(START)
        terminal.type("portal.track('room', 'typist')")
        terminal.shows("<PortalTracked <Tracked 'typist' on 'room'")
        eventually(lambda: list(portal.list("room")) == ["typist"], "the typist is listed")
        terminal.type("portal.publish('room', {'said': 'hi'})")
        assert next(messages).payload == {"said": "hi"}
        terminal.type("print('wai' + 'ting'); list(portal.watch('hall'))")
        terminal.shows("waiting")
        terminal.process.send_signal(signal.SIGINT)
        terminal.shows("KeyboardInterrupt")
        portal.track("room", "ann")
        terminal.type("while portal.count('room') < 2: pass\n")
        terminal.type("print('pre' + 'sent:', *sorted(portal.list('room')))")
        terminal.shows("present: ann typist")
        terminal.shows(">>> ")  # before it, the terminal would take an end of file for a NUL
        terminal.type("\x04")
        eventually(lambda: list(portal.list("room")) == ["ann"], "the typist has left")
        assert terminal.process.wait(DEADLINE) == 0
    finally:
        terminal.close()


class Notebook:
    """A Jupyter kernel, and its client."""

    def __init__(self, manager: "KernelManager") -> None:
        self._client = manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=DEADLINE)

    def run(self, cell: str) -> str:
        """Run a cell, and return the text of its value."""
        value = ""

        def look(message: dict[str, Any]) -> None:
            nonlocal value
            if message["msg_type"] == "execute_result":
                value = message["content"]["data"]["text/plain"]

        reply = self._client.execute_interactive(cell, timeout=DEADLINE, output_hook=look)
        assert reply["content"]["status"] == "ok", reply["content"]
        return value

    def end(self) -> None:
        """Ask the kernel to shut down, as Jupyter does."""
        self._client.shutdown()

    def close(self) -> None:
        self._client.stop_channels()


@contextmanager
def notebook(cluster: str, folder: Path) -> Iterator[Notebook]:
    # Here, because the tests of other interpreters collect this file, and install no kernel.
    from jupyter_client.manager import KernelManager

    manager = KernelManager(connection_file=str(folder / "kernel.json"))
    home = {"IPYTHONDIR": str(folder), "HOME": str(folder)}
    manager.start_kernel(env={**clean_environment(), **home, "ADSUM_CLUSTER": cluster})
    try:
        one = Notebook(manager)
        yield one
        one.close()
    finally:
        manager.shutdown_kernel(now=True)


def test_cells_of_a_notebook_use_a_portal_while_their_event_loop_runs(
    portal: adsum.Portal, cluster_name: str, tmp_path: Path
) -> None:
    portal.track("room", "ann")
    messages = portal.subscribe("room", timeout=DEADLINE)
    with notebook(cluster_name, tmp_path) as cells:
        cells.run(START + "; import asyncio; asyncio.get_running_loop()")
        cells.run("handle = portal.track('room', 'cell')")
        assert cells.run("sorted(portal.list('room'))") == "['ann', 'cell']"
        cells.run("presence = adsum.Presence(portal.node)")
        assert cells.run("await portal.acall(presence.count, 'room')") == "2"
        cells.run("portal.publish('room', {'from': 'a cell'})")
        assert next(messages).payload == {"from": "a cell"}
        cells.end()
        eventually(lambda: list(portal.list("room")) == ["ann"], "the kernel has said goodbye")
