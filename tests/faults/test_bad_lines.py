"""Lines that lose, delay, disorder and repeat real packets: everybody stays, and changes arrive."""

import itertools
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.measurements import Measured
from tests.support.waiting import eventually

from .carriers import over
from .cluster import Cluster, alike, flickers, nobody_leaves, when_joined, when_left
from .namespaces import Network
from .packet_switch import Fate, Line

pytestmark = pytest.mark.processes

#: What is wrong with a line, how it is called, and what the switch must have done about it.
BAD_LINES: dict[str, tuple[Line, Fate]] = {
    "10 % of packets lost": (Line(loss=0.1), "lost"),
    "delay of 100 ms, 50 ms more or less": (Line(delay=0.1, jitter=0.05), "late"),
    "25 % of packets overtaken": (Line(delay=0.002, reorder=0.25), "held back"),
    "25 % of packets repeated": (Line(duplicate=0.25), "duplicated"),
}
ALL_OF_IT = Line(loss=0.05, delay=0.03, jitter=0.02, reorder=0.1, duplicate=0.1)
#: A silence short enough for a test to outlast it, and long enough for TCP to repeat what is lost.
SETTINGS = {"heartbeat_interval": 0.5, "down_after": 3.0}
#: Seconds of joins and leaves, longer than that silence.
BUSY = 3.2


@pytest.mark.parametrize("wrong", BAD_LINES)
@over("sockets")
def test_packet_faults_cause_no_leave_and_lose_no_change(
    network: Callable[[int], Network],
    cluster: Callable[..., Cluster],
    measured: Measured,
    wrong: str,
) -> None:
    line, fate = BAD_LINES[wrong]
    net, nodes = network(3), cluster(**SETTINGS)
    nodes.start_on(net, "ann", "bob", "cid")
    net.everywhere(line)
    times = come_and_go(nodes)
    assert net.switch.fates[fate] > 10
    assert max(times) < 6.0
    measured(fault=wrong, sees="a change is seen", seconds=times)


@over("sockets", "redis")
def test_large_catch_up_arrives_over_a_line_with_every_packet_fault(
    network: Callable[[int], Network], cluster: Callable[..., Cluster], measured: Measured
) -> None:
    net, nodes = network(3), cluster(**SETTINGS)
    ann, bob, cid = nodes.start_on(net, "ann", "bob", "cid")
    net.everywhere(ALL_OF_IT)
    began = time.monotonic()
    ann.ask("track_many", "crowd", 2000)
    for witness in (bob, cid):
        eventually(partial(alike, ann, witness), "all have arrived")
    took = time.monotonic() - began
    nobody_leaves(0.5, ann, bob, cid)
    nodes.agree()
    measured(fault="all of it at once", sees="2,000 joins have arrived", seconds=[took])


@pytest.mark.parametrize(
    "wrong", ["loss 10%", "delay 100ms 50ms", "delay 20ms reorder 25%", "duplicate 25%"]
)
@over("sockets")
def test_netem_packet_faults_cause_no_leave(
    network: Callable[[int], Network],
    cluster: Callable[..., Cluster],
    measured: Measured,
    wrong: str,
) -> None:
    net, nodes = network(3), cluster(**SETTINGS)
    net.let_the_kernel_spoil(wrong)
    nodes.start_on(net, "ann", "bob", "cid")
    times = come_and_go(nodes)
    assert max(times) < 6.0
    measured(fault=f"tc netem {wrong}", sees="a change is seen", seconds=times)


def come_and_go(nodes: Cluster) -> list[float]:
    """Let keys join and leave all over the cluster; returns after how long each was seen."""
    workers = list(nodes.tracked.values())
    times: list[float] = []
    ends_at = time.monotonic() + BUSY
    for number in itertools.count():
        here = workers[number % len(workers)]
        others = [worker for worker in workers if worker is not here]
        key = f"guest {number}"
        times += when_joined(others, key, nodes.track(here, key))
        if number % 3:
            times += when_left(others, key, nodes.untrack(key))
        assert flickers(*workers, but=nodes.departed) == []
        if time.monotonic() > ends_at:
            break
    nodes.agree()
    return times
