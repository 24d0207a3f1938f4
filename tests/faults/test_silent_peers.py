"""Peers that accept connections and never read: strangers, and nodes that are stopped."""

import itertools
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.measurements import Measured
from tests.support.waiting import eventually

from .carriers import over
from .cluster import Cluster, alike, flickers, nobody_leaves, when_joined
from .procfs import descriptors, megabytes

pytestmark = pytest.mark.processes

KEYS, ROUNDS, SIZE = 500, 100, 1000


def test_silent_peer_costs_one_connection_and_delays_no_change(
    cluster: Callable[..., Cluster], measured: Measured, mute: socket.socket
) -> None:
    nodes = cluster()
    [ann] = nodes.start("ann")
    host, port = mute.getsockname()
    [bob] = nodes.start("bob", peers=f"{host}:{port}")
    nodes.linked()
    before = descriptors(bob)
    times = []
    ends_at = time.monotonic() + 6.5  # Longer than a handshake may take, and than a silence.
    # Until the node gives up and tries again.
    for number in itertools.count():
        times += when_joined([ann], f"guest {number}", nodes.track(bob, f"guest {number}"))
        assert descriptors(bob) <= before + 2
        nobody_leaves(0.2, ann, bob)
        if time.monotonic() > ends_at and waiting(mute) >= 2:
            break
    nodes.agree()
    assert max(times) < 3.0, "a change waits for a handshake"
    measured(fault="a peer that sends nothing", sees="a change is seen", seconds=times)


@over("sockets")
def test_slow_consumer_is_memory_bound_and_catches_up_on_resume(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster()
    sender, witness, stopped = nodes.start("sender", "witness", "stopped")
    sender.ask("track_many", "crowd", KEYS)
    sender.ask("churn", "crowd", 2, SIZE)  # As large as it gets, before it is measured.
    eventually(partial(alike, sender, witness, stopped), "all have the crowd")
    before = megabytes(sender)
    stopped.process.send_signal(signal.SIGSTOP)
    for _ in range(ROUNDS // 10):  # each answer has a deadline
        sender.ask("churn", "crowd", 10, SIZE)
    grown = megabytes(sender) - before
    eventually(partial(alike, sender, witness), "the others have everything")
    continued = stopped.signal(signal.SIGCONT)
    eventually(partial(alike, sender, stopped), "it has everything")
    caught_up = time.monotonic() - continued
    nodes.agree()
    assert flickers(sender, witness, but=["stopped"]) == []
    assert flickers(stopped) == []
    assert grown < 8.0
    fault = f"{KEYS * ROUNDS * SIZE // 1_000_000} MB of updates at a stopped node"
    measured(fault=fault, sees="the sender grows", MB=[grown])
    measured(fault=f"{fault}, SIGCONT", sees="it has everything", seconds=[caught_up])


def waiting(listener: socket.socket) -> int:
    """How many connections were made to somebody who has not looked yet."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return int.from_bytes(info[24:28], sys.byteorder)  # of a listener, the length of its queue


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """Somebody to whom the kernel connects, and who never looks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
