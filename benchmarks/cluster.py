"""Several processes: how fast changes, deaths and newcomers are seen, and what idling costs."""

import signal
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, percentile
from benchmarks.host import WATCHED, Host
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers

#: Seconds between the changes that are timed: more than changes are gathered for.
_INTERVAL = 0.02
_LOAD = 1_000
#: Nodes that share a process where there are more than a few.
_SHARED = 5


def latency(plan: Plan) -> list[Figure]:
    """From `track` in one process to the diff at a watcher in another."""
    samples: dict[tuple[str, str], list[float]] = {}
    with workers(Host, 2) as (tracker, watcher):
        address = tracker.call("start", "tracker", listen="127.0.0.1:0")
        watcher.call("start", "watcher", listen="127.0.0.1:0", peers=address)
        watcher.call("settle", 2, 0)
        watcher.call("observe")
        for _ in range(plan.repetitions):
            for when, load in (("idle", 0), (f"{_LOAD:,} changes/s", _LOAD)):
                tracker.call("send_changes", plan.changes, _INTERVAL, load)
                delays = watcher.call("take_delays")
                for percent in (50, 99):
                    delay = 1e3 * percentile(delays, percent)
                    samples.setdefault((when, f"p{percent}"), []).append(delay)
    compared = {"p50": ("756 ms (tuned: 28)", "2 ms"), "p99": ("1,497 ms (tuned: 52)", "15 ms")}
    return [
        Figure(
            group="Seen elsewhere",
            name=f"a change seen in another process, {when}: {which}",
            unit="ms",
            samples=tuple(values),
            original=compared[which][0],
            target=compared[which][1],
        )
        for (when, which), values in samples.items()
    ]


def failure(plan: Plan) -> list[Figure]:
    """From a crash or a stop to the leaves on two survivors; the later of the two counts."""
    figures = []
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("TCP", "Unix socket"):
            figures.append(
                Figure(
                    group="Failures",
                    name=f"kill -9 to the leaves on both survivors, {kind}",
                    unit="ms",
                    samples=tuple(_time_crashes(plan, kind, directory)),
                    original="14,000 to 31,000, median 29,500",
                    target="250",
                )
            )
    figures.append(
        Figure(
            group="Failures",
            name="SIGSTOP to the leaves on both survivors, TCP (`down_after` is 6 s)",
            unit="ms",
            samples=tuple(_time_stops(plan)),
            original="about 30,000",
        )
    )
    return figures


def _time_crashes(plan: Plan, kind: str, directory: str) -> list[float]:
    delays = []
    with workers(Host, 2) as survivors:
        peers = _gather(survivors, kind, directory)
        for number in range(plan.repetitions):
            with workers(Host, 1) as (victim,):
                key = _join(victim, survivors, peers, _listen(kind, directory, f"v{number}"))
                died = time.monotonic_ns()
                victim.signal(signal.SIGKILL)
                delays.append(_last_leave(survivors, key, died))
    return delays


def _time_stops(plan: Plan) -> list[float]:
    """Stops several nodes, one after another, and waits for all: each takes seconds to notice."""
    with workers(Host, 2) as survivors, workers(Host, plan.repetitions) as victims:
        peers = _gather(survivors, "TCP", "")
        stopped = []
        keys = [_join(victim, survivors, peers, _listen("TCP", "", "")) for victim in victims]
        for victim, key in zip(victims, keys, strict=True):
            time.sleep(0.35)
            stopped.append((key, time.monotonic_ns()))
            victim.signal(signal.SIGSTOP)
        return [_last_leave(survivors, key, at) for key, at in stopped]


def _listen(kind: str, directory: str, name: str) -> str:
    return "127.0.0.1:0" if kind == "TCP" else f"unix:{Path(directory) / name}.sock"


def _gather(survivors: list[Worker], kind: str, directory: str) -> list[str]:
    """Start the survivors, linked and watching; returns their addresses."""
    peers: list[str] = []
    for number, survivor in enumerate(survivors):
        listen = _listen(kind, directory, f"s{number}")
        peers.append(survivor.call("start", f"survivor {number}", listen=listen, peers=list(peers)))
        survivor.call("settle", number + 1, 0)
        survivor.call("observe")
    return peers


def _join(victim: Worker, survivors: list[Worker], peers: list[str], listen: str) -> str:
    """Start a node, track on it, and wait until the survivors show it."""
    name = f"victim {time.monotonic_ns()}"
    victim.call("start", name, listen=listen, peers=peers)
    victim.call("settle", len(peers) + 1, 0)
    victim.call("track", WATCHED, name)
    for survivor in survivors:
        survivor.call("wait_for_key", WATCHED, name)
    time.sleep(0.5)
    return name


def _last_leave(survivors: list[Worker], key: str, since: int) -> float:
    for survivor in survivors:
        survivor.tell("wait_for_leave", key)
    seen: list[int] = [survivor.answer() for survivor in survivors]
    return (max(seen) - since) / 1e6


def catch_up(plan: Plan) -> list[Figure]:
    """A new node learns all that another holds: how long, and how long the loops stall."""
    samples: list[tuple[float, float, float]] = []
    with workers(Host, 1) as (owner,):
        address = owner.call("start", "owner", listen="127.0.0.1:0")
        owner.call("fill", plan.large)
        owner.call("resident")  # collects the garbage of the filling
        for number in range(plan.repetitions):
            with workers(Host, 1) as (newcomer,):
                newcomer.call("watch_stalls")
                owner.call("watch_stalls")
                newcomer.call("start", f"new {number}", listen="127.0.0.1:0", peers=address)
                took = newcomer.call("settle", 2, plan.large)
                stalls = newcomer.call("longest_stall"), owner.call("longest_stall")
                samples.append((took, *stalls))
                newcomer.call("stop")
    rows = (
        (f"a new node learns {plan.large:,} presences", "3,000 to 9,000", "about 1,000"),
        ("longest stall of the new node's loop meanwhile", "", "20"),
        ("longest stall of the sender's loop meanwhile", "", "20"),
    )
    return [
        Figure(
            group="Catching up",
            name=name,
            unit="ms",
            samples=tuple([1e3 * value for value in values]),
            original=original,
            target=target,
        )
        for (name, original, target), values in zip(rows, zip(*samples, strict=True), strict=True)
    ]


def idle(plan: Plan) -> list[Figure]:
    """What a node costs while nothing happens, by the size of the cluster."""
    figures = []
    for size in plan.clusters:
        share = 1 if size <= _SHARED else _SHARED
        samples = _idle(size, share, plan)
        how = f"{size} nodes" if share == 1 else f"{size} nodes, {share} to a process"
        original = f"{9.7 * (size - 1):.0f}"
        for name, unit, values, beside in (
            ("received by a node per second", "bytes", [b for b, _ in samples], original),
            ("CPU of a node per second", "ms", [1e3 * cpu for _, cpu in samples], ""),
        ):
            figures.append(
                Figure(
                    group="Idle",
                    name=f"{name}, {how}",
                    unit=unit,
                    samples=tuple(values),
                    original=beside,
                )
            )
    return figures


def _idle(size: int, share: int, plan: Plan) -> list[tuple[float, float]]:
    with workers(Host, size // share) as hosts:
        first = ""
        for host in hosts:
            for _ in range(share):
                name = f"node {time.monotonic_ns()}"
                peers = [first] if first else None
                address = host.call("start", name, listen="127.0.0.1:0", peers=peers)
                first = first or address
        for host in hosts:
            host.call("settle", size, 0)
        time.sleep(2 * plan.idle_seconds)
        samples = []
        for _ in range(plan.repetitions):
            for host in hosts:
                host.tell("idle", plan.idle_seconds)
            costs = [host.answer() for host in hosts]
            received, cpu = zip(*costs, strict=True)
            samples.append((sum(received) / len(hosts), sum(cpu) / len(hosts)))
    return samples
