"""Nodes over a carrier that restart, do not read for a while, or have no descriptors left."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.measurements import Measured, recording
from tests.support.waiting import DEADLINE, eventually
from tests.support.worker_processes import Worker

from .carriers import Carrier, over
from .cluster import Cluster, alike, flickers, nobody_leaves, use_up_files, when_joined, when_left

pytestmark = pytest.mark.processes

#: So long that nobody is hidden for silence while a test stops a node.
PATIENT = {"heartbeat_interval": 2.0, "down_after": 12.0}
#: Seconds for which a node is stopped.
STOPPED = 5.0 if recording() else 1.0
#: Settings with which a server soon disconnects a client that does not read: bytes that wait for
#: it, and with NATS seconds, as that writes to the kernel for longer.
PENDING = 1_100_000
SLOW: dict[str, dict[str, Any]] = {
    "nats": {"pending": PENDING, "write_deadline": 1.0},
    "redis": {"pending": PENDING},
}
MESSAGES, SIZE = 400, 50_000
#: Messages that are under way at once: fewer bytes than a node queues before it drops some.
BATCH = 40


@over("redis")
def test_restart_under_the_same_name_after_a_kill_leaves_no_ghost(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster()
    witnesses = nodes.start("ann", "bob")
    times = []
    for number in range(nodes.rounds(5)):
        [victim] = nodes.start(f"life {number}", name="restarted")
        nodes.linked()
        victim.signal(signal.SIGKILL)
        victim.process.wait()
        nodes.gone(victim)
        began = time.monotonic()
        [victim] = nodes.start(f"next {number}", name="restarted")
        times += when_joined(witnesses, f"next {number}", began)
        victim.signal(signal.SIGKILL)
        nodes.gone(victim)
        nodes.agree()
    assert flickers(*witnesses, but=nodes.departed) == []
    measured(
        fault="kill -9, started again under the same name",
        sees="the new process is listed after its start",
        seconds=times,
    )


@over("nats")
def test_rolling_restart_with_linger_shows_no_leave(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster(linger=10.0)
    keys = ("ann", "bob", "cid") if recording() else ("ann", "bob")
    workers = dict(zip(keys, nodes.start(*keys), strict=True))
    nodes.linked()
    times = []
    for key in keys:
        stopped = workers[key].signal(signal.SIGTERM)
        assert workers[key].process.wait(DEADLINE) == 0
        [workers[key]] = nodes.start(key)
        times.append(time.monotonic() - stopped)
        nodes.linked()
    nobody_leaves(0.5, *workers.values())
    measured(
        fault="rolling restart with linger",
        sees="all list all after a SIGTERM, and nobody has left",
        seconds=times,
    )


@over("nats")
def test_stopped_node_misses_messages_alone_and_catches_up(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster(**PATIENT)
    sender, witness, stopped = nodes.start("sender", "witness", "stopped")
    nodes.linked()
    witness.ask("subscribe")
    # Over one connection the subscription precedes this change: the sender that lists it can
    # publish no message that is too early for the subscription.
    when_joined([sender], "subscribed", nodes.track(witness, "subscribed"))
    stop_and_publish(nodes, sender, witness, stopped)
    continued = stopped.signal(signal.SIGCONT)
    times = when_joined([stopped], "joined meanwhile", continued)
    nodes.agree()
    nobody_leaves(0.5, sender, witness, stopped)
    fault = f"{MESSAGES * SIZE // 1_000_000} MB of messages past a node stopped for {STOPPED:g} s"
    measured(fault=f"{fault}, SIGCONT", sees="it has all changes", seconds=times)


@over("nats", "redis")
def test_slow_consumer_that_the_server_disconnects_returns_and_catches_up(
    carrier: Carrier, cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    server = carrier.start(**SLOW[carrier.name])
    nodes = cluster(carrier=server.url, **PATIENT)
    sender, *others = nodes.start("sender", "ann", "bob")
    [stopped] = nodes.start_logged(tmp_path, "stopped")
    nodes.linked()
    sender.ask("track_many", "crowd", 500)
    eventually(partial(alike, sender, *others, stopped), "all have the crowd")
    began = stopped.signal(signal.SIGSTOP)

    def is_disconnected() -> bool:
        sender.ask("churn", "crowd", 10, 1000)
        return server.slow_consumer in server.log

    eventually(is_disconnected, "the server disconnects it")
    eventually(partial(alike, sender, *others), "the others have everything")
    left = when_left([sender, *others], "stopped", began)
    continued = stopped.signal(signal.SIGCONT)
    times = when_joined([sender, *others], "stopped", continued)
    eventually(partial(alike, sender, *others, stopped), "it has everything")
    nodes.agree()
    nodes.linked()
    assert flickers(sender, *others, but=["stopped"]) == []
    assert len(nodes.lines(stopped)) <= 2
    fault = "SIGSTOP, disconnected by the server as a slow consumer"
    measured(fault=fault, sees="its presences leave", seconds=left)
    measured(fault=f"{fault}, SIGCONT", sees="they join again", seconds=times)


@over("nats")
def test_file_descriptor_exhaustion_delays_the_return_to_a_restarted_server_alone(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes, log = cluster(), tmp_path / "log"
    _, poor, times = use_up_files(nodes, log)
    nodes.start("newcomer")
    nodes.linked()
    poor.ask("close_files")
    nodes.server.kill()
    eventually(partial(is_away, poor), "it has lost the carrier")
    assert poor.ask("open_files") > 0
    nodes.server.start()
    nobody_leaves(1.0, poor)
    assert is_away(poor)
    # The limit at the start, the lost carrier, and the files in use, if they are checked meanwhile.
    assert log.read_text().count("\n") <= 3
    assert "Traceback" not in log.read_text()
    poor.ask("close_files")
    freed = time.monotonic()
    eventually(lambda: not is_away(poor), "it is back")  # Its links were held, not closed.
    returned = time.monotonic() - freed
    nodes.agree()
    assert flickers(poor) == []
    measured(fault="no file descriptors", sees="a change is seen on old links", seconds=times)
    fault = "no file descriptors at the return to the carrier, free again"
    measured(fault=fault, sees="it is back", seconds=[returned])


def stop_and_publish(nodes: Cluster, sender: Worker, witness: Worker, stopped: Worker) -> None:
    """Publish for some seconds past a node that is stopped; the other one has all in time."""
    began = stopped.signal(signal.SIGSTOP)
    for count in range(BATCH, MESSAGES + 1, BATCH):
        sender.ask("publish", count, SIZE, BATCH)
        eventually(partial(has_read, witness, count), "the witness has all messages")
    when_joined([witness], "joined meanwhile", nodes.track(sender, "joined meanwhile"))
    nobody_leaves(max(0.0, began + STOPPED - time.monotonic()), sender, witness)


def has_read(worker: Worker, count: int) -> bool:
    return len(worker.ask("read")) == count


def is_away(worker: Worker) -> bool:
    return not worker.ask("stats")["carrier_connected"]
