"""Servers of a carrier that die, hang, refuse or forget: nobody leaves, and no change is lost."""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from redis import Redis

from tests.support.bus_servers import BusServer
from tests.support.measurements import Measured, recording
from tests.support.waiting import eventually
from tests.support.worker_processes import Worker

from .carriers import Carrier, over
from .cluster import Cluster, flickers, nobody_leaves, when_joined, when_left
from .namespaces import Network
from .packet_switch import Line

pytestmark = pytest.mark.processes

KEYS = ("ann", "bob", "cid") if recording() else ("ann", "bob")
#: Seconds that a server is away: longer than it takes to notice, shorter than any grace.
AWAY = 2.0 if recording() else 1.0
#: Seconds that a server does not answer. The loss is noticed after three seconds or four.
HUNG = 8.0 if recording() else 4.5
#: With shorter ones nodes would be silent for too long before the loss of a server is noticed.
USUAL = {"heartbeat_interval": 2.0, "down_after": 12.0}
#: Seconds in which what has ended wrongly would be seen.
AFTERWARDS = 1.5 if recording() else 0.5


@over("nats")
def test_restart_of_the_server_hides_nobody_and_loses_no_change(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes = cluster()
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    nodes.server.kill()
    change_alone(nodes, workers)
    nobody_leaves(AWAY, *workers)
    nodes.server.start()
    times = recovers(nodes, workers, time.monotonic(), "is gone", "is back")
    fault = f"server of the carrier killed, back after {AWAY:g} s"
    measured(fault=fault, sees="changes made meanwhile are seen", seconds=times)


@over("redis")
def test_outage_beyond_the_grace_is_a_partition_that_heals(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes = cluster(carrier_grace=1.0)
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    killed = time.monotonic()
    nodes.server.kill()
    hidden = []
    for worker, key in zip(workers, KEYS, strict=True):
        for other in set(KEYS) - {key}:
            hidden += when_left([worker], other, killed)
        assert worker.lists(key)
    change_alone(nodes, workers)
    nodes.server.start()
    arrive(nodes, workers, started := time.monotonic())
    nodes.agree()
    back = time.monotonic() - started
    for worker, key in zip(workers, KEYS, strict=True):
        assert flickers(worker, but=set(KEYS) - {key}) == []
        assert_lines(nodes, worker, "is gone", "has been away", "is back")
    assert min(hidden) > 1.0
    fault = "server of the carrier away, carrier_grace 1 s"
    measured(fault=fault, sees="the other nodes leave", seconds=hidden)
    measured(fault=f"{fault}; back", sees="all join again", seconds=[back])


@over("redis")
def test_hung_server_hides_nobody_and_loses_no_change(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes = cluster(**USUAL)
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    nodes.server.pause()
    change_alone(nodes, workers)
    nobody_leaves(HUNG, *workers)
    lose_the_carrier(nodes, workers)
    nodes.server.resume()
    times = recovers(nodes, workers, time.monotonic(), "is gone", "is back")
    fault = f"server of the carrier hangs for {HUNG:g} s"
    measured(fault=fault, sees="changes made meanwhile are seen", seconds=times)


@over("nats")
def test_blocked_port_of_the_server_hides_nobody_and_loses_no_change(
    network: Callable[[int], Network],
    cluster: Callable[..., Cluster],
    measured: Measured,
    tmp_path: Path,
) -> None:
    net, nodes = network(3), cluster(**USUAL)
    workers = nodes.start_on(net, *KEYS, logs=tmp_path)
    nodes.linked()
    net.both_ways(net.hosts[:-1], net.hosts[-1:], Line(cut=True))
    change_alone(nodes, workers)
    nobody_leaves(HUNG, *workers)
    lose_the_carrier(nodes, workers)
    net.heal()
    times = recovers(nodes, workers, time.monotonic(), "is gone", "is back")
    fault = f"packets to the server of the carrier dropped for {HUNG:g} s"
    measured(fault=fault, sees="changes made meanwhile are seen", seconds=times)


@over("nats")
def test_changed_credentials_are_logged_once_until_they_are_accepted(
    carrier: Carrier, cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    server = carrier.start(user="adsum", password="first")
    nodes = cluster(carrier=server.url)
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    server.password = "second"
    server.restart()
    change_alone(nodes, workers)
    nobody_leaves(AWAY, *workers)
    for worker in workers:
        assert_lines(nodes, worker, "is gone", "refuses the credentials")
        assert "first" not in "".join(nodes.lines(worker))
    server.password = "first"
    server.restart()
    logged = ("is gone", "refuses the credentials", "is back")
    times = recovers(nodes, workers, time.monotonic(), *logged)
    fault = f"credentials refused by the carrier for {AWAY:g} s"
    measured(fault=fault, sees="changes made meanwhile are seen", seconds=times)


@pytest.mark.parametrize("carrier", ["nats"], indirect=True)
def test_killed_server_of_a_cluster_hides_nobody(
    carrier: Carrier, cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    first = carrier.start(routes=[])
    second = carrier.start(routes=[first.route_port])  # type: ignore[attr-defined]  # of NATS
    nodes = cluster()
    workers = [
        *nodes.start_logged(tmp_path, "ann", "bob", carrier=f"{first.url},{second.url}"),
        *nodes.start_logged(tmp_path, "cid", carrier=f"{first.url},{second.url}"),
    ]
    nodes.linked()
    first.kill()
    times = arrive(nodes, workers, change_alone(nodes, workers))
    nobody_leaves(AFTERWARDS, *workers)
    fault = "one of two servers of the carrier killed"
    measured(fault=fault, sees="changes made at once are seen", seconds=times)


@pytest.mark.parametrize("carrier", ["redis"], indirect=True)
def test_failover_to_a_replica_hides_nobody_and_loses_no_change(
    carrier: Carrier, cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    master = carrier.start()
    replica = carrier.start(replica_of=master)
    nodes = cluster(carrier=f"{master.url},{replica.url}")
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    master.kill()
    change_alone(nodes, workers)
    nobody_leaves(AWAY, *workers)
    with admin(replica) as redis:
        redis.replicaof("NO", "ONE")
    times = recovers(nodes, workers, time.monotonic(), "is gone", "is back")
    fault = f"master of the carrier killed, replica promoted after {AWAY:g} s"
    measured(fault=fault, sees="changes made meanwhile are seen", seconds=times)


@pytest.mark.parametrize("carrier", ["redis"], indirect=True)
def test_flushall_changes_nothing(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes = cluster()
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    with admin(nodes.server) as redis:
        redis.flushall()
    times = recovers(nodes, workers, change_alone(nodes, workers))
    measured(fault="FLUSHALL", sees="a change is seen", seconds=times)


@pytest.mark.parametrize("carrier", ["redis"], indirect=True)
def test_connection_of_one_node_that_is_reset_hides_nobody(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes = cluster()
    workers = nodes.start_logged(tmp_path, *KEYS)
    nodes.linked()
    times = []
    for number in range(nodes.rounds(10)):
        key = f"guest {number}"
        with admin(nodes.server) as redis:
            reset(redis, workers[0])
        times += when_joined(workers[1:], key, nodes.track(workers[0], key))
        nodes.linked()
    nobody_leaves(AFTERWARDS, *workers)
    measured(fault="connection of one node reset", sees="a change of it is seen", seconds=times)


def change_alone(nodes: Cluster, workers: list[Worker]) -> float:
    """Let each node track one more key; returns when the first did."""
    times = [nodes.track(worker, f"more {at}") for at, worker in enumerate(workers)]
    return min(times)


def lose_the_carrier(nodes: Cluster, workers: list[Worker]) -> None:
    """Wait until each node has noticed that the server does not answer."""
    for worker in workers:
        eventually(partial(nodes.lines, worker), f"{worker.name} has lost the carrier")


def arrive(nodes: Cluster, workers: list[Worker], since: float) -> list[float]:
    """How long after a moment each change of `change_alone` is seen by each other node."""
    times = []
    for at, worker in enumerate(workers):
        others = [other for other in workers if other is not worker]
        times += when_joined(others, f"more {at}", since)
    nodes.agree()
    return times


def recovers(nodes: Cluster, workers: list[Worker], since: float, *lines: str) -> list[float]:
    """Check that all changes arrive and nobody leaves, and the log of each node; as `arrive`."""
    times = arrive(nodes, workers, since)
    nobody_leaves(AFTERWARDS, *workers)
    for worker in workers:
        assert_lines(nodes, worker, *lines)
    return times


def assert_lines(nodes: Cluster, worker: Worker, *parts: str) -> None:
    """Check that a node has logged exactly one line with each of some texts."""

    def logged() -> bool:
        lines = nodes.lines(worker)
        return len(lines) == len(parts) and all(map(str.__contains__, lines, parts))

    eventually(logged, f"{worker.name} logs {parts}: {nodes.lines(worker)}")


def admin(server: BusServer) -> "closing[Redis]":
    """A client of an operator."""
    return closing(Redis(host=server.host, port=server.port))


def reset(redis: Redis, worker: Worker) -> None:
    """Let the server end the connections of a node."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in worker.name)
    clients = [each for each in redis.client_list() if each["name"] == f"adsum-{name}"]
    assert clients
    for each in clients:
        redis.client_kill_filter(_id=each["id"])
