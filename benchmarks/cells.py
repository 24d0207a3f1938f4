"""One mesh against cells: the same processes as one cluster, and as several.

python -m benchmarks cells

Each process runs one node. A directory is one more process, with a node in each cell. It is
measured after the others, which do not have links to it before.
"""

import signal
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.figures import Figure, Samples
from benchmarks.host import WATCHED, Host
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers

_GROUP = "Cells"
#: Seconds of quiet before idle nodes are measured.
_QUIET = 3.0
#: Changes of one sample, and seconds before each.
_CHANGES, _INTERVAL = 10, 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """One cluster.

    Attributes:
        name: Its name.
        hosts: Its processes.
        peers: The address of the first one.
    """

    name: str
    hosts: list[Worker]
    peers: str


def run(plan: Plan) -> list[Figure]:
    """Measure each size as one mesh and as cells."""
    samples = Samples()
    for processes, counts in plan.cells:
        for count in counts:
            _measure(plan, samples, processes, count)
    return samples.figures(_GROUP)


def _measure(plan: Plan, samples: Samples, processes: int, count: int) -> None:
    size = processes // count
    side = f"one mesh of {size}" if count == 1 else f"{count} cells of {size}"
    with workers(Host, processes) as hosts, workers(Host, 1) as (directory,):
        chunks = [hosts[first : first + size] for first in range(0, processes, size)]
        cells = [_start(f"cell-{number}", chunk) for number, chunk in enumerate(chunks)]
        time.sleep(_QUIET)
        for host in (hosts[0], hosts[-1]):
            samples.note("links of a process", side, "", host.call("links"))
        _idle(plan, samples, side, hosts)
        _changes(plan, samples, side, cells)
        if count > 1:
            _directory(plan, samples, side, cells, directory)
            directory.call("stop")
        _crashes(plan, samples, side, cells)


def _start(name: str, hosts: list[Worker]) -> Cell:
    peers = ""
    for number, host in enumerate(hosts):
        settings = {"listen": "127.0.0.1:0", "peers": peers or None, "cluster": name}
        address = host.call("start", f"{name}-{number}", **settings)
        peers = peers or address
    for host in hosts:
        host.call("settle", len(hosts), 0)
        host.call("observe")
    return Cell(name, hosts, peers)


def _idle(plan: Plan, samples: Samples, side: str, hosts: list[Worker], nodes: int = 1) -> None:
    """Bytes, CPU and memory of a process in which nothing happens; the mean of all processes."""
    for _ in range(plan.repetitions):
        for host in hosts:
            host.tell("idle", 2 * plan.idle_seconds)
        received, cpu = zip(*(host.answer() for host in hosts), strict=True)
        mean = nodes / len(hosts)
        samples.note("idle: bytes received per second", side, "bytes", mean * sum(received))
        samples.note("idle: CPU per second", side, "ms", 1e3 * mean * sum(cpu))
    for host in hosts[:: max(1, len(hosts) // plan.repetitions)]:
        samples.note("resident memory", side, "MB", host.call("resident") / 1e6)


def _changes(plan: Plan, samples: Samples, side: str, cells: list[Cell]) -> None:
    """From `track` to the diff at each other process of the cell; the last of them counts."""
    for number in range(plan.repetitions):
        tracker, *watchers = cells[number % len(cells)].hosts
        slowest = list[float]()
        for change in range(_CHANGES):
            for watcher in watchers:
                watcher.tell("received_messages", 1)
            time.sleep(_INTERVAL)
            tracker.call("track_stamped", f"change {number}, {change}")
            slowest.append(max(delay for watcher in watchers for delay in watcher.answer()))
        samples.note("a change seen by the last", side, "ms", 1e3 * median(slowest))


def _directory(
    plan: Plan, samples: Samples, side: str, cells: list[Cell], directory: Worker
) -> None:
    """The idle costs of a process that has a node in each cell."""
    for cell in cells:
        directory.call("start", f"directory-{cell.name}", cluster=cell.name, peers=cell.peers)
    directory.call("settle", 1 + len(cells[0].hosts), 0)
    time.sleep(_QUIET)
    where = f"directory of {side}"
    samples.note("links of a process", where, "", directory.call("links"))
    _idle(plan, samples, where, [directory], len(cells))


def _crashes(plan: Plan, samples: Samples, side: str, cells: list[Cell]) -> None:
    """From `kill -9` to the leave at each other process of the cell; the last of them counts."""
    for number in range(plan.repetitions):
        hosts = cells[number % len(cells)].hosts
        victim, key = hosts.pop(), f"victim-{number}"
        victim.call("track", WATCHED, key)
        for host in hosts:
            host.call("wait_for_key", WATCHED, key)
        time.sleep(0.5)
        died = time.monotonic_ns()
        victim.signal(signal.SIGKILL)
        for host in hosts:
            host.tell("wait_for_leave", key)
        seen = [host.answer() for host in hosts]
        samples.note("kill -9 seen by the last", side, "ms", (max(seen) - died) / 1e6)
