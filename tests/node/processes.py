"""Worker processes as a test sees them: started, told what to do, killed, and always cleaned up."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

WORKER = Path(__file__).with_name("worker.py")
DEADLINE = 20.0


class Worker:
    """One process with one node."""

    def __init__(self, **settings: Any) -> None:
        run = [sys.executable, "-W", "error", str(WORKER), json.dumps(settings)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ADSUM_")}
        self.process = subprocess.Popen(
            run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.diffs: list[tuple[float, list[list[str]]]] = []
        self._answers: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.name = self._answers.get(timeout=DEADLINE)

    def ask(self, *command: Any) -> Any:
        """Tell the process to do something, and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answers.get(timeout=DEADLINE)

    def lists(self, *keys: str) -> bool:
        """Whether exactly these keys are in the room, as the process sees it."""
        return bool(self.ask("list", "room") == list(keys))

    def updated(self, key: str) -> bool:
        """Whether the last thing that the process saw is an update of a key, and nothing else."""
        return bool(self.diffs and self.diffs[-1][1] == [[], [key], []])

    def joined_after(self, key: str, moment: float) -> bool:
        """Whether the process saw a key join after a moment."""
        return (self.joined(key) or 0.0) > moment

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; returns when."""
        now = time.monotonic()
        self.process.send_signal(number)
        return now

    def left(self, key: str) -> float | None:
        """When the process last saw a key leave, if it did."""
        times = [at for at, (_, _, leaves) in self.diffs if key in leaves]
        return times[-1] if times else None

    def joined(self, key: str) -> float | None:
        """When the process last saw a key join, if it did."""
        times = [at for at, (joins, _, _) in self.diffs if key in joins]
        return times[-1] if times else None

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

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, at, value = json.loads(line)
            if kind == "diff":
                self.diffs.append((at, value))
            else:
                self._answers.put(value)


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
        for worker in self.all:
            worker.end()


def eventually(what: str, condition: Callable[..., Any], *arguments: Any) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition(*arguments)):
        assert time.monotonic() < deadline, f"it never happened that {what}"
        time.sleep(0.01)
    return value
