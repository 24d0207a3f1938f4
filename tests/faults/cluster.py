"""Processes of one cluster, each present under its own key, and what must hold in any fault."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually
from tests.support.worker_processes import Worker, Workers

from .namespaces import Network

#: Every address that other hosts could reach asks for one.
SECRET = "only for the tests of faults"
PORT = 7400


class Cluster:
    """Processes of one cluster, and what each of them tracks on the topic room.

    Args:
        workers: Starts the processes, and ends them after the test.
        settings: Those of every node.
    """

    def __init__(self, workers: Workers, **settings: Any) -> None:
        self.workers = workers
        self.settings = settings
        #: Who tracks each key that has to be listed, and the keys that had reason to leave.
        self.tracked: dict[str, Worker] = {}
        self.departed: set[str] = set()

    def start(self, *keys: str, log: Path | None = None, **other: Any) -> list[Worker]:
        """Start a process for each key; returns them when all list all."""
        workers = [self.workers.start(log=log, **self.settings | other) for _ in keys]
        return self._introduce(workers, keys)

    def start_on(self, network: Network, *keys: str) -> list[Worker]:
        """The same on the first hosts of a network; all its hosts are peers."""
        workers = [
            self.workers.start(
                prefix=host.prefix,
                listen=f"{host.address}:{PORT}",
                peers=[f"{peer.address}:{PORT}" for peer in network.hosts if peer is not host],
                siblings=False,
                secret=SECRET,
                **self.settings,
            )
            for host in network.hosts[: len(keys)]
        ]
        return self._introduce(workers, keys)

    def track(self, worker: Worker, key: str) -> float:
        """Let a process track a key; returns when it did."""
        now = time.monotonic()
        worker.ask("track", "room", key, {})
        self.tracked[key] = worker
        return now

    def untrack(self, key: str) -> float:
        """Let whoever tracks a key do so no longer; returns when it did."""
        now = time.monotonic()
        self.departed.add(key)
        self.tracked.pop(key).ask("untrack", "room", key)
        return now

    def gone(self, worker: Worker) -> None:
        """A process is no more: nothing of it has to be listed."""
        for key in [key for key, by in self.tracked.items() if by is worker]:
            self.departed.add(key)
            del self.tracked[key]

    def agree(self) -> None:
        """Wait until every process that tracks something lists exactly what is tracked."""
        for worker in set(self.tracked.values()):
            eventually(partial(worker.lists, *sorted(self.tracked)), "all list what is tracked")

    def linked(self) -> None:
        """Wait until every process that tracks something has a link to every other."""
        everybody = set(self.tracked.values())
        for worker in everybody:
            names = [other.name for other in everybody - {worker}]
            eventually(partial(worker.is_linked_to, *names), "all are linked")

    def _introduce(self, workers: list[Worker], keys: Iterable[str]) -> list[Worker]:
        for worker, key in zip(workers, keys, strict=True):
            self.track(worker, key)
        self.agree()
        return workers


def leaves(witness: Worker) -> Counter[str]:
    """How often a process saw each key leave."""
    return Counter(key for _, (_, _, left) in witness.diffs for key in left)


def flickers(*witnesses: Worker, but: Iterable[str] = ()) -> list[Counter[str]]:
    """What processes saw leave, each process for itself; who has reason to may do so once."""
    seen = (leaves(witness) - Counter(set(but)) for witness in witnesses)
    return [left for left in seen if left]


def nobody_leaves(seconds: float, *witnesses: Worker, but: Iterable[str] = ()) -> None:
    """Look on for some time, in which nobody may leave, nor have left, but who had reason to."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert flickers(*witnesses, but=but) == []
        time.sleep(0.02)


def when_left(witnesses: Iterable[Worker], key: str, since: float) -> list[float]:
    """Wait until processes have seen a key leave; returns how long after a moment each did."""
    return [
        eventually(partial(_after, witness.left, key, since), f"{key} is seen to leave")
        for witness in witnesses
    ]


def when_joined(witnesses: Iterable[Worker], key: str, since: float) -> list[float]:
    """Wait until processes have seen a key join; returns how long after a moment each did."""
    return [
        eventually(partial(_after, witness.joined, key, since), f"{key} is seen to join")
        for witness in witnesses
    ]


def _after(when: Callable[[str], float | None], key: str, since: float) -> float:
    """How long after a moment something last happened to a key; zero if it did not."""
    return max(0.0, (when(key) or 0.0) - since)


def alike(one: Worker, *others: Worker) -> bool:
    """Whether processes list the same in the crowd, to the letter."""
    fingerprint = one.ask("fingerprint", "crowd")
    return all(other.ask("fingerprint", "crowd") == fingerprint for other in others)
