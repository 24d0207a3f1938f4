"""Hosts that are cut off from one another: network namespaces, with real TCP between them."""

import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.measurements import Measured
from tests.support.waiting import eventually
from tests.support.worker_processes import Worker

from .cluster import Cluster, flickers, nobody_leaves, when_joined, when_left
from .namespaces import Host, Network
from .packet_switch import Line
from .procfs import connections

pytestmark = pytest.mark.processes

CUT = Line(cut=True)


def test_partition_shows_each_side_its_own_until_it_heals(
    network: Callable[[int], Network], cluster: Callable[..., Cluster], measured: Measured
) -> None:
    net, nodes = network(3), cluster()
    ann, bob, cid = nodes.start_on(net, "ann", "bob", "cid")
    nodes.linked()
    cut = time.monotonic()
    net.both_ways(net.hosts[:1], net.hosts[1:], CUT)
    hidden = when_left([bob, cid], "ann", cut)
    hidden += when_left([ann], "bob", cut) + when_left([ann], "cid", cut)
    assert all(worker.lists("bob", "cid") for worker in (bob, cid))
    assert ann.lists("ann")
    nodes.track(ann, "joined meanwhile")
    net.heal()
    back = back_together(nodes, time.monotonic())
    assert flickers(ann, but=["bob", "cid"]) == []
    assert flickers(bob, cid, but=["ann"]) == []
    assert min(hidden) > 4.5
    assert max(hidden) < 9.0
    measured(fault="full partition", sees="the other side leaves", seconds=hidden)
    measured(fault="full partition, healed", sees="all join again", seconds=[back])


def test_one_way_partition_hides_the_node_until_it_heals(
    network: Callable[[int], Network], cluster: Callable[..., Cluster], measured: Measured
) -> None:
    net, nodes = network(3), cluster()
    ann, bob, cid = nodes.start_on(net, "ann", "bob", "cid")
    nodes.linked()
    cut = time.monotonic()
    net.one_way(net.hosts[:1], net.hosts[1:], CUT)
    hidden = when_left([bob, cid], "ann", cut)
    hidden_here = when_left([ann], "bob", cut) + when_left([ann], "cid", cut)
    assert all(worker.lists("bob", "cid") for worker in (bob, cid))
    nodes.track(bob, "joined meanwhile")
    net.heal()
    back = back_together(nodes, time.monotonic())
    assert flickers(ann, but=["bob", "cid"]) == []
    assert flickers(bob, cid, but=["ann"]) == []
    assert min(hidden + hidden_here) > 4.5
    assert max(hidden + hidden_here) < 9.0
    measured(fault="cut off one way", sees="it leaves the others' lists", seconds=hidden)
    measured(fault="cut off one way", sees="the others leave its own list", seconds=hidden_here)
    measured(fault="cut off one way, healed", sees="all join again", seconds=[back])


@pytest.mark.parametrize("ways", ["both ways", "one way"])
def test_netsplit_between_two_nodes_is_relayed_by_the_third(
    network: Callable[[int], Network],
    cluster: Callable[..., Cluster],
    measured: Measured,
    ways: str,
) -> None:
    net, nodes = network(3), cluster(heartbeat_interval=0.5, down_after=3.0)
    ann, bob, cid = nodes.start_on(net, "ann", "bob", "cid")
    nodes.linked()
    cut = net.both_ways if ways == "both ways" else net.one_way
    cut(net.hosts[:1], net.hosts[1:2], CUT)
    times = []
    for number in range(3):
        times += when_joined([bob], f"a{number}", nodes.track(ann, f"a{number}"))
        times += when_joined([ann], f"b{number}", nodes.track(bob, f"b{number}"))
    nobody_leaves(3.5, ann, bob, cid)
    nodes.agree()
    assert net.switch.fates["cut"] > 0
    net.heal()
    healed = time.monotonic()
    nodes.linked()
    linked = time.monotonic() - healed
    nodes.agree()
    assert flickers(ann, bob, cid) == []
    assert max(times) < 5.0
    fault = f"only the line between two cut, {ways}, heartbeats of 0.5 s"
    measured(fault=fault, sees="a change of one is seen by the other", seconds=times)
    measured(fault=f"{fault}; healed", sees="the link is back", seconds=[linked])


def test_peer_that_vanishes_without_fin_is_hidden_and_its_links_close(
    network: Callable[[int], Network], cluster: Callable[..., Cluster], measured: Measured
) -> None:
    net, nodes = network(3), cluster()
    victim, *witnesses = nodes.start_on(net, "gone", "ann", "bob")
    nodes.linked()
    for witness in witnesses:  # of two that dialled each other, the second link ends soon
        eventually(partial(one_connection, witness, net.hosts[0]), "there is one connection")
    net.both_ways(net.hosts[:1], net.hosts[1:], CUT)
    killed = victim.signal(signal.SIGKILL)
    victim.process.wait()
    nodes.gone(victim)
    times = when_left(witnesses, "gone", killed)
    nodes.agree()
    for witness in witnesses:
        eventually(partial(unconnected, witness, net.hosts[0]), "no connection stays half open")
    net.heal()
    nodes.start_on(net, "back")
    nodes.linked()
    assert flickers(*witnesses, but=nodes.departed) == []
    assert min(times) > 4.5
    assert max(times) < 9.0
    measured(fault="killed while cut off, no FIN", sees="its presences leave", seconds=times)


def back_together(nodes: Cluster, healed: float) -> float:
    """How long it took after a moment until all listed all."""
    nodes.agree()
    return time.monotonic() - healed


def one_connection(witness: Worker, host: Host) -> bool:
    return connections(witness, host.address) == 1


def unconnected(witness: Worker, host: Host) -> bool:
    return connections(witness, host.address) == 0
