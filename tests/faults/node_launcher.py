"""The launcher as a test sees it: processes that cost no start of Python, in whatever number."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import eventually
from tests.support.worker_processes import Process, python

LAUNCHER = Path(__file__).with_name("launcher_process.py")


@dataclass(frozen=True, slots=True)
class Sight:
    """What the nodes of one process saw at some time: by all, by some only, and ever left."""

    at: float
    listed: frozenset[str]
    disputed: frozenset[str]
    left: frozenset[str]


class Launcher(Process):
    """Forks processes with nodes; leaving the block kills them all.

    Attributes:
        sights: What each process saw last, by its id.
    """

    def __init__(self) -> None:
        self.sights: dict[int, Sight] = {}
        super().__init__(python(LAUNCHER))

    def launch(self, keys: Iterable[str], **settings: Any) -> int:
        """Start a process with a node for each key; returns its id."""
        pid: int = self.ask(settings, list(keys))
        return pid

    def kill(self, pid: int) -> float:
        """Kill a process; returns when."""
        now = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self.sights.pop(pid, None)
        return now

    def kill_first(self, crowd: dict[int, frozenset[str]]) -> float:
        """Kill the first process of a crowd; all others see its nodes leave, and no other ones.

        Args:
            crowd: The keys of the nodes of each process, by its id.

        Returns:
            Seconds until the last of the others has seen it.
        """
        (victim, lost), *others = crowd.items()
        assert self.left() == set()
        killed_at = self.kill(victim)
        rest = frozenset().union(*(keys for _, keys in others))
        pids = [pid for pid, _ in others]
        gone_at: float = eventually(partial(self.all_see, pids, rest), "the nodes leave")
        assert self.left() == lost
        return gone_at - killed_at

    def all_see(self, processes: Iterable[int], keys: frozenset[str]) -> float | None:
        """When the last of some processes came to list exactly these keys, if all do."""
        sights = [self.sights.get(pid) for pid in processes]
        if all(sight and sight.listed == keys and not sight.disputed for sight in sights):
            return max(sight.at for sight in sights if sight)
        return None

    def left(self) -> frozenset[str]:
        """Every key that any node of a living process ever saw leave."""
        return frozenset().union(*(sight.left for sight in self.sights.values()))

    def hears(self, kind: str, at: float, value: Any) -> None:
        if kind == "sees":
            pid, *seen = value
            self.sights[pid] = Sight(at, *map(frozenset, seen))
        else:
            super().hears(kind, at, value)

    def end(self) -> None:
        """Kill the launcher with all that it launched."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        super().end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
