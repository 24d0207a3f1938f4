"""Nodes over carriers beside the mesh: the same processes, linked directly, over NATS and Redis.

python -m benchmarks carriers

Each part has a limit in seconds, and all parts together have one. A part that reaches its limit is
left out with a line on the terminal, and the others go on. Bytes are those of TCP connections as
the kernel counts them, without headers. A crowd shares a few processes.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from adsum.bus.limits import PROBE_INTERVAL
from benchmarks.carrierhost import CarrierHost
from benchmarks.engines import Engine, Nats, Redis
from benchmarks.figures import Figure, Samples, percentile
from benchmarks.host import WATCHED
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers

_GROUP = "Carriers"
_SECRET = "the secret of the benchmark"
#: Seconds of all parts together.
_LIMIT = 420.0
#: Repetitions at most, as three sides take turns.
_REPETITIONS = 3
#: Stopped processes of one side at most.
_STOPS = 2
#: Killed processes of one side at most, and seconds for which each has run before: a mesh waits
#: longer for a link that did not last.
_KILLS, _AGE = 5, 1.2
#: Seconds between the changes that are timed.
_INTERVAL = 0.02
#: Joins that are counted together.
_JOINS = 25
#: Processes that share the nodes of a crowd.
_PROCESSES = 5
#: Seconds after the start of a crowd until it is quiet, and of one sample of its traffic.
_QUIET, _IDLE = 4.0, 3.0
#: Seconds that the nodes of a crowd wait for each other.
_PATIENCE = 60.0
#: No announcement and no heartbeat falls among the joins that are counted.
_STILL = {"heartbeat_interval": 600.0, "down_after": 1800.0, "forget_after": 3600.0}


@dataclass(frozen=True, slots=True)
class Side:
    """One way to link nodes.

    Attributes:
        name: As the report shows it.
        engine: The engine, or None for the mesh.
    """

    name: str
    engine: Engine | None

    def settings(self, peers: str = "") -> dict[str, Any]:
        """Settings of a node, beside its name and its cluster."""
        if self.engine is not None:
            return {"secret": _SECRET, "carrier": self.engine.url}
        return {"secret": _SECRET, "listen": "127.0.0.1:0", "peers": peers or None}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the measurement.

    Attributes:
        name: As a line about its absence shows it.
        limit: Seconds that it may take.
        measure: Measures it.
    """

    name: str
    limit: float
    measure: Callable[[Plan, Samples], None]


class _TooLongError(Exception):
    """A part has reached its limit."""


def run(plan: Plan) -> list[Figure]:
    """Measure each part for the mesh and for each engine that is installed."""
    samples = Samples()
    give_up_at = time.monotonic() + _LIMIT
    with ExitStack() as stack:
        sides = [Side("mesh", None)]
        for kind in (Nats, Redis):
            if kind.missing():
                print(f"  carriers over {kind.__name__}: skipped, {kind.missing()}")
                continue
            engine = kind()
            stack.enter_context(engine.running())
            sides.append(Side(kind.__name__.lower(), engine))
        for part in _parts(plan, sides):
            seconds = min(part.limit, give_up_at - time.monotonic())
            _attempt(part, seconds, plan, samples)
    return samples.figures(_GROUP)


def _parts(plan: Plan, sides: list[Side]) -> Iterator[Part]:
    for side in sides:
        yield Part(f"changes, {side.name}", 20, partial(_changes, side))
        yield Part(f"kill -9, {side.name}", 25, partial(_crashes, side))
    yield Part("SIGSTOP", 35, partial(_stops, sides))
    for side in sides:
        yield Part(f"catching up, {side.name}", 40, partial(_catch_up, side))
    for size in plan.carried:
        for side in sides:
            yield Part(f"joins of {size} nodes, {side.name}", 45, partial(_joins, side, size))
    for side in sides:
        yield Part(f"a crowd, {side.name}", 60, partial(_crowd, side))


def _attempt(part: Part, seconds: float, plan: Plan, samples: Samples) -> None:
    """Measure a part within a limit of seconds."""
    try:
        with _limited(seconds):
            part.measure(plan, samples)
    except (_TooLongError, RuntimeError) as error:
        why = f"it took more than {seconds:.0f} s" if isinstance(error, _TooLongError) else error
        print(f"  {part.name}: incomplete, {why}", flush=True)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `_TooLongError` in the block after some seconds. Only in the main thread."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError

    if seconds <= 0:
        raise _TooLongError
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _repetitions(plan: Plan) -> range:
    return range(min(plan.repetitions, _REPETITIONS))


def _start(
    side: Side, cluster: str, hosts: list[Worker], counts: list[int], **settings: Any
) -> str:
    """Start nodes, so many in each process, one process after another.

    Returns:
        The address of the first node.
    """
    peers = ""
    for number, (host, count) in enumerate(zip(hosts, counts, strict=True)):
        own = {**side.settings(peers), **settings, "cluster": cluster}
        first, *others = (f"node {number}.{each}" for each in range(count))
        address = host.call("start", first, **own)
        host.call("start_many", others, **own)
        peers = peers or address
    for host in hosts:
        host.call("settle", sum(counts), 0)
    return peers


def _changes(side: Side, plan: Plan, samples: Samples) -> None:
    """From `track` in one process to the diff at a watcher in another."""
    with workers(CarrierHost, 2) as (tracker, watcher):
        _start(side, "changes", [tracker, watcher], [1, 1])
        watcher.call("observe")
        for _ in _repetitions(plan):
            tracker.call("send_changes", plan.changes, _INTERVAL, 0)
            delays = watcher.call("take_delays")
            for percent in (50, 99):
                delay = 1e3 * percentile(delays, percent)
                samples.note(f"a change seen elsewhere, p{percent}", side.name, "ms", delay)


def _crashes(side: Side, plan: Plan, samples: Samples) -> None:
    """From `kill -9` to the leaves on two survivors; the later of the two counts."""
    with workers(CarrierHost, 2) as survivors:
        peers = _survive(side, "crashes", survivors)
        count = min(plan.repetitions, _KILLS)
        for number in range(count):
            with workers(CarrierHost, 1) as (victim,):
                _victim(side, "crashes", victim, survivors, peers, f"victim {number}")
                # Probes begin anew with each loss, so their phase would be the same each time.
                time.sleep(_AGE + PROBE_INTERVAL * number / count)
                died = time.monotonic_ns()
                victim.signal(signal.SIGKILL)
                leave = _last_leave(survivors, f"victim {number}", died)
                samples.note("kill -9 to the leaves on two survivors", side.name, "ms", leave)


def _stops(sides: list[Side], plan: Plan, samples: Samples) -> None:
    """From SIGSTOP to the leaves on two survivors; all sides at once, as each takes seconds."""
    with ExitStack() as stack:
        running = list[tuple[Side, list[Worker], Worker, str]]()
        for side in sides:
            survivors = stack.enter_context(workers(CarrierHost, 2))
            victims = stack.enter_context(workers(CarrierHost, min(plan.repetitions, _STOPS)))
            peers = _survive(side, "stops", survivors)
            for number, victim in enumerate(victims):
                name = f"victim {number}"
                _victim(side, "stops", victim, survivors, peers, name)
                running.append((side, survivors, victim, name))
        stopped = dict[str, int]()
        for side, _, victim, name in running:
            time.sleep(0.35)
            stopped[side.name + name] = time.monotonic_ns()
            victim.signal(signal.SIGSTOP)
        for side, survivors, _, name in running:
            seconds = _last_leave(survivors, name, stopped[side.name + name]) / 1e3
            samples.note("SIGSTOP to the leaves on two survivors", side.name, "s", seconds)


def _survive(side: Side, cluster: str, survivors: list[Worker]) -> str:
    peers = _start(side, cluster, survivors, [1] * len(survivors))
    for survivor in survivors:
        survivor.call("observe")
    return peers


def _victim(
    side: Side, cluster: str, victim: Worker, survivors: list[Worker], peers: str, name: str
) -> None:
    """Start a node, track on it, and wait until the survivors show it."""
    victim.call("start", name, cluster=cluster, **side.settings(peers))
    victim.call("settle", len(survivors) + 1, 0)
    victim.call("track", WATCHED, name)
    for survivor in survivors:
        survivor.call("wait_for_key", WATCHED, name)


def _last_leave(survivors: list[Worker], key: str, since: int) -> float:
    """Milliseconds until the last of them has seen a key leave."""
    for survivor in survivors:
        survivor.tell("wait_for_leave", key)
    seen: list[int] = [survivor.answer() for survivor in survivors]
    return (max(seen) - since) / 1e6


def _catch_up(side: Side, plan: Plan, samples: Samples) -> None:
    """A new node receives all presences of another one."""
    what = f"a new node receives {plan.large:,} presences"
    with workers(CarrierHost, 1) as (owner,):
        address = owner.call("start", "owner", cluster="catching up", **side.settings())
        owner.call("fill", plan.large)
        for number in _repetitions(plan):
            with workers(CarrierHost, 1) as (newcomer,):
                own = side.settings(address)
                newcomer.call("start", f"new {number}", cluster="catching up", **own)
                took = newcomer.call("settle", 2, plan.large)
                samples.note(what, side.name, "ms", 1e3 * took)
                newcomer.call("stop")


def _joins(side: Side, size: int, plan: Plan, samples: Samples) -> None:
    """One join among so many nodes: bytes of its owner, publishes, and CPU of all processes.

    What the same time costs without joins is subtracted: probes go on.
    """
    others = min(size - 1, _PROCESSES - 1)
    share, rest = divmod(size - 1, others)
    counts = [1, *(share + (number < rest) for number in range(others))]
    with workers(CarrierHost, len(counts)) as hosts:
        _start(side, f"joins of {size}", hosts, counts, **_STILL)
        time.sleep(1.0)
        for _ in _repetitions(plan):
            before = _spent(side, hosts)
            sent, seconds = hosts[0].call("join_some", _JOINS)
            middle = _spent(side, hosts)
            idle = hosts[0].call("rest", seconds)
            after = _spent(side, hosts)
            costs = [
                (2 * b - a - c) / _JOINS for a, b, c in zip(before, middle, after, strict=True)
            ]
            name = f"a join among {size} nodes"
            owner = (sent - idle) / _JOINS
            samples.note(f"{name}, bytes sent by its owner", side.name, "bytes", owner)
            samples.note(f"{name}, CPU of all processes", side.name, "ms", 1e3 * costs[0])
            if side.engine is not None:
                samples.note(f"{name}, messages published", side.name, "", costs[1])


def _spent(side: Side, hosts: list[Worker]) -> tuple[float, float]:
    """Seconds of CPU of all processes, and messages published, so far."""
    cpu = sum(host.call("cpu") for host in hosts)
    if side.engine is None:
        return cpu, 0.0
    return cpu + side.engine.cpu, side.engine.publishes


def _crowd(side: Side, plan: Plan, samples: Samples) -> None:
    """Nodes that start at the same time, and what each sends while nothing happens."""
    size = plan.carried_crowd
    with workers(CarrierHost, _PROCESSES) as hosts:
        peers = hosts[0].call("start", "seed", cluster="crowd", **side.settings())
        began = time.monotonic()
        for number, host in enumerate(hosts):
            names = [f"node {each}" for each in range(1 + number, size, _PROCESSES)]
            own = {**side.settings(peers), "join_timeout": _PATIENCE}
            host.tell("start_many", names, cluster="crowd", **own)
        for host in hosts:
            host.answer()
        for host in hosts:
            host.tell("settle", size, 0)
        for host in hosts:
            host.answer()
        took, (cpu, _) = time.monotonic() - began, _spent(side, hosts)
        what = f"{size} nodes start at once"
        samples.note(f"{what}, until all list all", side.name, "s", took)
        samples.note(f"{what}, CPU of all processes", side.name, "s", cpu)
        time.sleep(_QUIET)
        for _ in _repetitions(plan):
            for host in hosts:
                host.tell("rest", _IDLE)
            sent = sum(host.answer() for host in hosts) / _IDLE / size
            what = f"idle: sent by each of {size} nodes per second"
            samples.note(what, side.name, "bytes", sent)
