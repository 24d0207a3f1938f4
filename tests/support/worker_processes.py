"""Processes with one node each, driven by a test: started, given commands, killed, cleaned up."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adsum.transport.discovery import SiblingDirectory

from .environment import RUNTIME_DIR, clean_environment
from .waiting import DEADLINE

WORKER = Path(__file__).with_name("worker.py")


def python(script: Path, *arguments: str) -> list[str]:
    """The command that runs a script as all processes of the tests run."""
    return [sys.executable, "-W", "error", str(script), *arguments]


def sibling_sockets(cluster: str) -> list[str]:
    """The addresses of the nodes of a cluster of processes, dead ones included."""
    return SiblingDirectory(cluster, os.environ.get(RUNTIME_DIR)).find()


class Process:
    """A process that says what it is called, and then answers each line with a line.

    Args:
        command: What runs.
        log: Where its standard error goes, if not to that of the test.
    """

    def __init__(self, command: Sequence[str], log: Path | None = None) -> None:
        with ExitStack() as stack:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")) if log else None,
                text=True,
                env=clean_environment(),
            )
        self._answers: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.name = self._answers.get(timeout=DEADLINE)
        except BaseException:
            self.end()
            raise

    def tell(self, *command: Any) -> None:
        """Tell the process to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def ask(self, *command: Any) -> Any:
        """Tell the process to do something, and wait for its answer."""
        self.tell(*command)
        return self._answers.get(timeout=DEADLINE)

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; returns when."""
        now = time.monotonic()
        self.process.send_signal(number)
        return now

    def end(self) -> None:
        """Kill the process, whatever state it is in."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def hears(self, kind: str, at: float, value: Any) -> None:
        """Take in a line of the process, in the thread that reads."""
        self._answers.put(value)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.hears(*json.loads(line))


class Worker(Process):
    """One process with one node.

    Args:
        prefix: A command that runs the process in other surroundings, as `nsenter`.
        log: Where its standard error goes, if not to that of the test.
        settings: Those of the node.
    """

    def __init__(
        self, *, prefix: Sequence[str] = (), log: Path | None = None, **settings: Any
    ) -> None:
        self.diffs: list[tuple[float, list[list[str]]]] = []
        super().__init__([*prefix, *python(WORKER, json.dumps(settings))], log)

    def lists(self, *keys: str) -> bool:
        """Whether exactly these keys are in the room, as the process sees it."""
        return bool(self.ask("list", "room") == list(keys))

    def is_linked_to(self, *names: str) -> bool:
        """Whether the process has links to exactly these nodes."""
        return bool(self.ask("linked") == sorted(names))

    def updated(self, key: str) -> bool:
        """Whether the last thing that the process saw is an update of a key, and nothing else."""
        return bool(self.diffs and self.diffs[-1][1] == [[], [key], []])

    def joined_after(self, key: str, moment: float) -> bool:
        """Whether the process saw a key join after a moment."""
        return (self.joined(key) or 0.0) > moment

    def left(self, key: str) -> float | None:
        """When the process last saw a key leave, if it did."""
        times = [at for at, (_, _, leaves) in self.diffs if key in leaves]
        return times[-1] if times else None

    def joined(self, key: str) -> float | None:
        """When the process last saw a key join, if it did."""
        times = [at for at, (joins, _, _) in self.diffs if key in joins]
        return times[-1] if times else None

    def hears(self, kind: str, at: float, value: Any) -> None:
        """Keep diffs apart from answers."""
        if kind == "diff":
            self.diffs.append((at, value))
        else:
            super().hears(kind, at, value)


class Workers:
    """A cluster of processes; leaving the block ends them all."""

    def __init__(self) -> None:
        self.all: list[Worker] = []

    def start(self, **settings: Any) -> Worker:
        worker = Worker(**settings)
        self.all.append(worker)
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with ExitStack() as stack:
            for worker in self.all:
                stack.callback(worker.end)
