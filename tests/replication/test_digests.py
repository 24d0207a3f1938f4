"""Digests travel only on demand: where nodes differ, or have no live link to each other."""

from collections import Counter
from random import Random

import pytest

from adsum.replication.effects import Send
from adsum.replication.engine import Engine
from adsum.replication.messages import Digest, Farewell, Goodbye, Heartbeat, ProtocolMessage, Pull
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import Simulation


class Traffic:
    """Counts the messages that a simulation sends, by kind."""

    def __init__(self, nodes: int) -> None:
        self.simulation = Simulation(nodes, seed=1)
        self.kinds: Counter[type[ProtocolMessage]] = Counter()
        trace_message = self.simulation.trace_message

        def count(message: ProtocolMessage, source: str, target: str) -> None:
            self.kinds[type(message)] += 1
            trace_message(message, source, target)

        self.simulation.trace_message = count  # type: ignore[method-assign]  # a tap on the network

    def during(self, seconds: float) -> Counter[type[ProtocolMessage]]:
        self.kinds.clear()
        self.simulation.run(seconds)
        return self.kinds


@pytest.mark.parametrize("nodes", [2, 3, 20])
def test_idle_cluster_sends_no_digest(nodes: int) -> None:
    traffic = Traffic(nodes)
    traffic.simulation.run(5.0)
    kinds = traffic.during(20.0)
    assert kinds[Digest] == kinds[Pull] == 0


def test_relayed_replica_is_fetched_with_each_heartbeat() -> None:
    traffic = Traffic(3)
    traffic.simulation.run(5.0)
    traffic.simulation.partition(["n1"], ["n2"])
    traffic.simulation.run(10.0)
    kinds = traffic.during(10.0)
    assert 2 * 9 <= kinds[Pull] <= 2 * 11
    assert kinds[Digest] == kinds[Pull]


def test_lost_sighting_is_recovered_by_digest_after_heartbeats() -> None:
    traffic = Traffic(3)
    simulation = traffic.simulation
    simulation.run(5.0)
    simulation.partition(["n4"], ["n2"], ["n3"])
    simulation.network.mend("n2", "n3")
    simulation.network.mend("n3", "n2")
    simulation.network.usual.loss = 1.0
    simulation.start("n4").track("room", "ann")
    simulation.run(0.5)
    simulation.network.usual.loss = 0.0
    simulation.run(12.0)
    assert "ann" in simulation.node("n2").present("room")
    assert "ann" in simulation.node("n3").present("room")


@pytest.mark.slow
def test_forming_cluster_sends_bounded_sightings_in_digests() -> None:
    nodes = 60
    sightings = 0
    simulation = Simulation(0, seed=1, checked=False)

    def count(message: ProtocolMessage, source: str, target: str) -> None:
        nonlocal sightings
        if isinstance(message, Digest):
            sightings += len(message.sightings)

    simulation.trace_message = count  # type: ignore[method-assign]  # a tap on the network
    for number in range(nodes):
        simulation.start(f"n{number}")
    simulation.run(10.0)
    assert all(len(node.links) == nodes - 1 for node in simulation.alive)
    assert sightings <= 6 * nodes * nodes


def test_full_digest_request_names_lingering_replicas() -> None:
    """Where two nodes never agree on the living, each of their requests is one for everything."""
    ann, bob = Replica("ann", 5), Replica("bob", 5)
    engine = Engine(Replica("me", 5), Timing(), Random(1), 0.0)
    for id, replica in ((1, ann), (2, bob)):
        engine.link_up(id, replica, (), None, 0.0)
        engine.receive(id, Heartbeat(1, 0), 0.0)
        engine.receive(id, Digest(), 0.0)
    engine.receive(2, Goodbye(2, 0, 60.0), 0.0)
    engine.take_effects()
    engine.receive(1, Heartbeat(2, 0, members=1), 1.0)
    pulls = [e.message for e in engine.take_effects() if isinstance(e, Send)]
    assert pulls == [Pull((bob,), everything=True)]
    engine.receive(1, Digest((), (Farewell(bob, 2, 0, 0.0, 0),)), 1.0)
    engine.tick(1.0)
    assert engine.lingering() == {}


def test_goodbye_is_pushed_to_the_peer_that_requested_its_owner() -> None:
    peer, leaver = Replica("peer", 1), Replica("leaver", 1)
    engine = Engine(Replica("me", 1), Timing(), Random(1), 0.0)
    for link, replica in enumerate((peer, leaver)):
        engine.link_up(link, replica, (f"{replica.name}:1",), None, 0.0)
        engine.receive(link, Heartbeat(1, 0, 0, 0), 0.1)
    engine.receive(0, Pull((leaver,), everything=False), 0.2)  # it has no live link to the leaver
    engine.take_effects()

    engine.receive(1, Goodbye(2, 0, 5.0), 0.3)

    sent = [effect for effect in engine.take_effects() if isinstance(effect, Send)]
    [digest] = [send.message for send in sent if send.links == (0,)]
    assert digest == Digest((), (Farewell(leaver, 2, 0, 5.0, 0),), last=False)
