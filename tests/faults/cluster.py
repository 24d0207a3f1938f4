"""Processes of one cluster, each present under its own key, and what must hold in any fault."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from adsum.replication.timing import Timing, carrier_timing
from tests.support.bus_servers import BusServer
from tests.support.measurements import recording
from tests.support.waiting import eventually
from tests.support.worker_processes import Worker, Workers

from .carriers import Carrier
from .namespaces import Host, Network

#: Every address that other hosts could reach asks for one.
SECRET = "only for the tests of faults"
PORT = 7400
#: Open files that are enough for a node with some links, and few enough to be used up.
FILES = 64


class Cluster:
    """Processes of one cluster, and what each of them tracks on the topic room.

    Args:
        workers: Starts the processes, and ends them after the test.
        carrier: Starts the server that carries the links; None for links over sockets.
        settings: Those of every node. With the URL of a `carrier` no server is started.

    Attributes:
        server: The server of the carrier, once the first node has been started.
    """

    def __init__(
        self, workers: Workers, carrier: Carrier | None = None, /, **settings: Any
    ) -> None:
        self.workers = workers
        self.carrier = carrier
        self._server: BusServer | None = None
        self.settings = settings
        if carrier is not None:
            self.settings = {**carrier.settings, "siblings": False, "secret": SECRET, **settings}
        #: Who tracks each key that has to be listed, and the keys that had reason to leave.
        self.tracked: dict[str, Worker] = {}
        self._logs: dict[Worker, Path] = {}
        self.departed: set[str] = set()

    @property
    def down_after(self) -> float:
        """Seconds of silence after which a node is down."""
        usual = Timing() if self.carrier is None else carrier_timing()
        return float(self.settings.get("down_after", usual.down_after))

    @property
    def silence(self) -> float:
        """Seconds until silence can hide a node at the earliest; an earlier leave has a reason."""
        return 0.75 * self.down_after

    def rounds(self, usual: int) -> int:
        """How often a fault is repeated; over a carrier only for the record."""
        return usual if self.carrier is None or recording() else 1

    @property
    def server(self) -> BusServer:
        """The server of the carrier, started by the first node."""
        assert self._server is not None
        return self._server

    def reach(self, host: Host | None = None) -> None:
        """Start the server of the carrier, if there is to be one and there is none yet."""
        if self.carrier is not None and "carrier" not in self.settings:
            self._server = self.carrier.start(host)
            self.settings["carrier"] = self._server.url

    def start(self, *keys: str, log: Path | None = None, **other: Any) -> list[Worker]:
        """Start a process for each key; returns them when all list all."""
        self.reach()
        workers = [self.workers.start(log=log, **self.settings | other) for _ in keys]
        return self._introduce(workers, keys)

    def start_logged(self, directory: Path, *keys: str, **other: Any) -> list[Worker]:
        """The same with a log of each node from INFO on, see `lines`."""
        workers = []
        for key in keys:
            log = directory / f"{key}.{len(self._logs)}.log"
            workers += self.start(key, log=log, **other)
            self._log(workers[-1], log)
        return workers

    def lines(self, worker: Worker) -> list[str]:
        """What a node has logged about its carrier, line by line."""
        return [line for line in self._logs[worker].read_text().splitlines() if "carrier" in line]

    def start_on(self, network: Network, *keys: str, logs: Path | None = None) -> list[Worker]:
        """The same on the first hosts of a network; all its hosts are peers.

        Over a carrier its server is on the last host, and no node dials another one.
        """
        self.reach(network.hosts[-1])
        workers = [
            self.workers.start(
                prefix=host.prefix,
                log=logs and logs / f"{key}.log",
                **self._settings_on(host, network),
            )
            for host, key in zip(network.hosts, keys, strict=False)
        ]
        for worker, key in zip(workers, keys, strict=True):
            if logs is not None:
                self._log(worker, logs / f"{key}.log")
        return self._introduce(workers, keys)

    def _log(self, worker: Worker, log: Path) -> None:
        worker.ask("log")
        self._logs[worker] = log

    def _settings_on(self, host: Host, network: Network) -> dict[str, Any]:
        if self.carrier is not None:
            return self.settings
        peers = [f"{peer.address}:{PORT}" for peer in network.hosts if peer is not host]
        listen = {"listen": f"{host.address}:{PORT}", "peers": peers}
        return {**listen, "siblings": False, "secret": SECRET, **self.settings}

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


def use_up_files(nodes: Cluster, log: Path) -> tuple[Worker, Worker, list[float]]:
    """Start two processes, of which one has no file descriptors left, and let each see the other.

    Returns:
        The two, the poor one second, and the seconds in which a change of each was seen.
    """
    [ann] = nodes.start("ann")
    [poor] = nodes.start("poor", log=log, prefix=("prlimit", f"--nofile={FILES}"))
    nodes.linked()
    assert poor.ask("open_files") > 0
    times = when_joined([ann], "from it", nodes.track(poor, "from it"))
    times += when_joined([poor], "to it", nodes.track(ann, "to it"))
    return ann, poor, times


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
