"""Digests travel only on demand: where nodes differ, or do not hear each other."""

from collections import Counter

import pytest

from adsum.replication.messages import Digest, Message, Pull
from adsum.testing import Simulation


class Traffic:
    """Counts the messages that a simulation sends, by kind."""

    def __init__(self, nodes: int) -> None:
        self.simulation = Simulation(nodes, seed=1)
        self.kinds: Counter[type[Message]] = Counter()
        say_of = self.simulation.say_of

        def count(message: Message, source: str, target: str) -> None:
            self.kinds[type(message)] += 1
            say_of(message, source, target)

        self.simulation.say_of = count  # type: ignore[method-assign]  # a tap on the network

    def during(self, seconds: float) -> Counter[type[Message]]:
        self.kinds.clear()
        self.simulation.run(seconds)
        return self.kinds


@pytest.mark.parametrize("nodes", [2, 3, 20])
def test_idle_cluster_sends_no_digest(nodes: int) -> None:
    traffic = Traffic(nodes)
    traffic.simulation.run(5.0)
    kinds = traffic.during(20.0)
    assert kinds[Digest] == kinds[Pull] == 0


def test_replica_that_is_not_heard_directly_is_pulled_with_each_heartbeat() -> None:
    traffic = Traffic(3)
    traffic.simulation.run(5.0)
    traffic.simulation.partition(["n1"], ["n2"])
    traffic.simulation.run(10.0)
    kinds = traffic.during(10.0)
    assert 2 * 9 <= kinds[Pull] <= 2 * 11
    assert kinds[Digest] == kinds[Pull]


def test_lost_news_of_a_member_is_found_with_the_next_heartbeats() -> None:
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


def test_forming_cluster_sends_a_bounded_number_of_sightings() -> None:
    nodes = 60
    sightings = 0
    simulation = Simulation(0, seed=1, checked=False)

    def count(message: Message, source: str, target: str) -> None:
        nonlocal sightings
        if isinstance(message, Digest):
            sightings += len(message.sightings)

    simulation.say_of = count  # type: ignore[method-assign]  # a tap on the network
    for number in range(nodes):
        simulation.start(f"n{number}")
    simulation.run(10.0)
    assert all(len(node.links) == nodes - 1 for node in simulation.alive)
    assert sightings <= 6 * nodes * nodes
