"""When a node has joined: by scenario in a simulated cluster, and by message for one engine."""

from random import Random

import pytest

from adsum.replication.effects import Joined
from adsum.replication.engine import Engine
from adsum.replication.messages import Delta, Digest, Farewell, Goodbye, Heartbeat, Sighting
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import Simulation

ME, ANN, BOB = Replica("me", 5), Replica("ann", 5), Replica("bob", 5)
AT = "ann:1"
LINK = 1


@pytest.fixture
def engine() -> Engine:
    """An engine that has been given one address, and no answer."""
    engine = Engine(ME, Timing(), Random(1), now=0.0)
    engine.add_seed(AT, lasting=True)
    engine.seeds_complete()
    engine.tick(0.0)
    return engine


def linked(engine: Engine) -> Engine:
    engine.link_up(LINK, ANN, (AT,), AT, 0.1)
    return engine


def entry(replica: Replica, version: int) -> Delta:
    change = (version, version, "room", "k", "{}", None, *replica)
    return Delta(replica, version - 1, version, (change,))


def announcements(engine: Engine) -> int:
    return sum(isinstance(effect, Joined) for effect in engine.take_effects())


def test_node_without_addresses_has_joined_at_once() -> None:
    engine = Engine(ME, Timing(), Random(1), now=0.0)
    assert not engine.joined
    engine.seeds_complete()
    engine.tick(0.0)
    assert engine.joined
    assert announcements(engine) == 1
    engine.tick(5.0)
    assert announcements(engine) == 0


def test_silent_address_is_waited_for(engine: Engine) -> None:
    engine.dial_failed(AT, refused=False, now=3.0)
    assert not engine.joined
    assert engine.join_missing == [AT]


def test_refused_dial_is_an_answer(engine: Engine) -> None:
    engine.dial_failed(AT, refused=True, now=0.1)
    assert engine.joined


def test_peer_of_another_cluster_is_an_answer(engine: Engine) -> None:
    engine.dial_rejected(AT, now=0.1)
    assert engine.joined


def test_own_address_is_an_answer(engine: Engine) -> None:
    engine.dialled_self(AT)
    assert engine.joined


def test_name_that_is_looked_up_is_waited_for() -> None:
    engine = Engine(ME, Timing(), Random(1), now=0.0)
    engine.expect_address("shop:7400")
    engine.seeds_complete()
    engine.tick(0.0)
    assert not engine.joined
    engine.settle_address("shop:7400")
    engine.tick(0.1)
    assert engine.joined


def test_link_is_an_answer_once_the_peer_has_sent_its_first_frame_and_digest(
    engine: Engine,
) -> None:
    linked(engine)
    assert not engine.joined
    engine.receive(LINK, Heartbeat(1, 0), 0.2)
    assert not engine.joined, "the digest is still missing"
    engine.receive(LINK, Digest(last=False), 0.3)
    assert not engine.joined, "a part of the digest is still missing"
    engine.receive(LINK, Digest(), 0.3)
    assert engine.joined


def test_slice_is_waited_for_up_to_the_version_of_the_first_heartbeat(engine: Engine) -> None:
    linked(engine)
    engine.receive(LINK, Heartbeat(1, 2), 0.2)
    engine.receive(LINK, Digest(), 0.2)
    engine.receive(LINK, entry(ANN, 1), 0.3)
    assert not engine.joined
    engine.receive(LINK, entry(ANN, 2), 0.4)
    assert engine.joined


def test_peer_that_closes_before_its_first_frame_has_not_answered(engine: Engine) -> None:
    """As a peer does that refuses the name of this node."""
    linked(engine)
    engine.link_down(LINK, 0.2)
    engine.tick(0.2)
    assert not engine.joined


def test_goodbye_is_an_answer(engine: Engine) -> None:
    linked(engine)
    engine.receive(LINK, Goodbye(5, 0, 0.0), 0.2)
    engine.tick(0.2)
    assert engine.joined


def test_replica_named_by_a_digest_is_waited_for_until_it_refuses(engine: Engine) -> None:
    linked(engine)
    engine.receive(LINK, Heartbeat(1, 0), 0.2)
    engine.receive(LINK, Digest((Sighting(BOB, 7, 3, ("bob:1",)),)), 0.2)
    engine.tick(0.2)
    assert not engine.joined
    assert engine.join_missing == [str(BOB)]
    engine.dial_failed("bob:1", refused=True, now=0.3)
    assert engine.joined


def test_replica_named_by_a_digest_is_waited_for_until_its_slice_is_here(engine: Engine) -> None:
    linked(engine)
    engine.receive(LINK, Heartbeat(1, 0), 0.2)
    engine.receive(LINK, Digest((Sighting(BOB, 7, 1, ("bob:1",)),)), 0.2)
    engine.link_up(2, BOB, ("bob:1",), "bob:1", 0.3)
    engine.receive(2, Heartbeat(8, 1), 0.3)
    engine.receive(2, Digest(), 0.3)
    assert not engine.joined
    engine.receive(2, entry(BOB, 1), 0.4)
    assert engine.joined


def test_slice_that_lingers_is_waited_for(engine: Engine) -> None:
    linked(engine)
    engine.receive(LINK, Heartbeat(1, 0), 0.2)
    engine.receive(LINK, Digest((), (Farewell(BOB, 9, 1, 5.0, 1),)), 0.2)
    assert not engine.joined
    engine.receive(LINK, entry(BOB, 1), 0.3)
    assert engine.joined
    assert engine.view.count("room") == 1


def test_progress_grows_with_each_step(engine: Engine) -> None:
    linked(engine)
    before = engine.join_progress
    engine.receive(LINK, Heartbeat(1, 2), 0.2)
    engine.receive(LINK, entry(ANN, 1), 0.3)
    assert engine.join_progress > before


def test_newcomer_that_knows_one_of_thirty_lists_everybody_once_it_has_joined() -> None:
    simulation = Simulation(nodes=30, seed=3, seeds_per_node=1)
    simulation.run(5.0)
    for node in simulation.alive:
        node.track("room", node.name)
    simulation.run(1.0)
    newcomer = simulation.start("late")
    while not newcomer.engine.joined:
        assert simulation.clock.step(simulation.clock.now + 1.0)
    assert len(newcomer.present("room")) == 30
    assert len(newcomer.links) == 30


def test_node_whose_name_is_refused_has_not_joined() -> None:
    simulation = Simulation(nodes=3, seed=1)
    simulation.run(2.0)
    double = simulation.start("n1", at="double")
    simulation.run(5.0)
    assert not double.engine.joined
    simulation.kill("n1")
    simulation.run(8.0)
    assert double.engine.joined


def test_two_nodes_that_know_only_each_other_do_not_wait_for_each_other() -> None:
    simulation = Simulation(nodes=0, seed=1)
    one, two = simulation.create("n1"), simulation.create("n2")
    one.engine.add_seed("n2", lasting=True)
    one.begin()
    two.begin()
    simulation.run(0.5)
    assert one.engine.joined
    assert two.engine.joined
