"""Hosts that are cut off from the server of their carrier: network namespaces, with real TCP."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.measurements import Measured, recording

from .carriers import over
from .cluster import Cluster, flickers, nobody_leaves, when_joined, when_left
from .namespaces import Network
from .packet_switch import Line

pytestmark = pytest.mark.processes

CUT = Line(cut=True)
#: The loss of the carrier is noticed before its silence hides anybody.
DURATIONS = (2.0, 12.0) if recording() else (1.0, 6.0)
USUAL = dict(zip(("heartbeat_interval", "down_after"), DURATIONS, strict=True))
#: Seconds for which a node that is cut off lists the others, once it has noticed.
GRACE = 5.0 if recording() else 1.0
#: Seconds after which it has noticed at the latest: it counts pings without an answer.
NOTICED = 6.0
#: Who is cut off how. In any case TCP gets no answers, so both ends lose the connection.
WAYS = {
    "cut off from the carrier": (True, True),
    "cut off from the carrier one way, outgoing": (True, False),
    "cut off from the carrier one way, incoming": (False, True),
}


@pytest.mark.parametrize("cut", WAYS if recording() else list(WAYS)[:1])
@over("nats")
def test_node_that_is_cut_off_is_hidden_and_hides_the_others_after_its_grace(
    network: Callable[[int], Network],
    cluster: Callable[..., Cluster],
    measured: Measured,
    tmp_path: Path,
    cut: str,
) -> None:
    net, nodes = network(3), cluster(**USUAL, carrier_grace=GRACE)
    ann, bob, cid = nodes.start_on(net, "ann", "bob", "cid", logs=tmp_path)
    nodes.linked()
    out, back = WAYS[cut]
    host, server = net.hosts[0], net.hosts[-1]
    cut_at = time.monotonic()
    net.one_way([host], [server], Line(cut=out))
    net.one_way([server], [host], Line(cut=back))
    hidden = when_left([bob, cid], "ann", cut_at)
    hidden_here = when_left([ann], "bob", cut_at) + when_left([ann], "cid", cut_at)
    assert all(worker.lists("bob", "cid") for worker in (bob, cid))
    assert ann.lists("ann")
    nodes.track(ann, "joined meanwhile")
    nodes.track(bob, "joined elsewhere")
    net.heal()
    healed = time.monotonic()
    nodes.agree()
    together = time.monotonic() - healed
    nodes.linked()
    assert flickers(ann, but=["bob", "cid"]) == []
    assert flickers(bob, cid, but=["ann"]) == []
    assert min(hidden) > nodes.silence
    assert max(hidden) < 1.5 * nodes.down_after
    assert min(hidden_here) > GRACE
    assert max(hidden_here) < GRACE + NOTICED
    assert len(nodes.lines(ann)) == 3
    assert nodes.lines(bob) == nodes.lines(cid) == []
    measured(fault=cut, sees="it leaves the others' lists", seconds=hidden)
    fault = f"{cut}, carrier_grace {GRACE:g} s"
    measured(fault=fault, sees="the others leave its own list", seconds=hidden_here)
    measured(fault=f"{cut}, healed", sees="all join again", seconds=[together])


@over("redis")
def test_node_that_vanishes_without_fin_is_hidden_and_a_new_one_takes_its_place(
    network: Callable[[int], Network], cluster: Callable[..., Cluster], measured: Measured
) -> None:
    net, nodes = network(3), cluster()
    victim, *witnesses = nodes.start_on(net, "gone", "ann", "bob")
    nodes.linked()
    net.both_ways(net.hosts[:1], net.hosts[1:], CUT)
    killed = victim.signal(signal.SIGKILL)
    victim.process.wait()
    nodes.gone(victim)
    times = when_left(witnesses, "gone", killed)
    nodes.agree()
    net.heal()
    nodes.start_on(net, "back")
    nodes.linked()
    assert flickers(*witnesses, but=nodes.departed) == []
    assert min(times) > nodes.silence
    assert max(times) < 1.5 * nodes.down_after
    measured(fault="killed while cut off, no FIN", sees="its presences leave", seconds=times)


@over()
def test_short_cut_of_one_node_hides_nobody_and_loses_no_change(
    network: Callable[[int], Network], cluster: Callable[..., Cluster], measured: Measured
) -> None:
    net, nodes = network(3), cluster(**USUAL)
    ann, bob, cid = nodes.start_on(net, "ann", "bob", "cid")
    nodes.linked()
    net.both_ways(net.hosts[:1], net.hosts[1:], CUT)
    nodes.track(ann, "from it")
    nodes.track(bob, "to it")
    nobody_leaves(1.5, ann, bob, cid)
    net.heal()
    healed = time.monotonic()
    times = when_joined([bob, cid], "from it", healed) + when_joined([ann], "to it", healed)
    nobody_leaves(0.5, ann, bob, cid)
    nodes.agree()
    fault = "cut off from the carrier for 1.5 s"
    measured(fault=fault, sees="changes made meanwhile are seen", seconds=times)
