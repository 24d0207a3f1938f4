"""An engine has joined when all that it had to find at startup has answered, and no sooner."""

from random import Random

import pytest

from adsum.replication.effects import Close, Send
from adsum.replication.engine import Engine
from adsum.replication.fingerprint import mark
from adsum.replication.joining import LINK_PATIENCE
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Farewell,
    Goodbye,
    Heartbeat,
    ProtocolMessage,
    Publish,
    Pull,
    Sighting,
)
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import Simulation

ME, ANN, BOB, CAT = (Replica(name, 5) for name in ("me", "ann", "bob", "cat"))
ALIVE = Heartbeat(1, 0, 0, 0)


def starting(*addresses: str, me: Replica = ME) -> Engine:
    """An engine that has just started and dials these addresses."""
    engine = Engine(me, Timing(), Random(1), now=0.0)
    for address in addresses:
        engine.add_seed(address, lasting=True)
    engine.seeds_complete()
    engine.tick(0.0)
    engine.take_effects()
    return engine


def sent(engine: Engine) -> list[ProtocolMessage]:
    return [e.message for e in engine.take_effects() if isinstance(e, Send)]


def changes(replica: Replica, version: int) -> Delta:
    entry = (version, version, "room", "k", "{}", None, *replica)
    return Delta(replica, version - 1, version, (entry,))


def test_node_without_seeds_has_joined() -> None:
    assert starting().joined


def test_link_without_a_first_frame_is_no_answer() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    assert not engine.joined
    engine.receive(1, ALIVE, 0.0)
    assert not engine.joined  # the digest is missing
    engine.receive(1, Digest(), 0.0)
    assert engine.joined


def test_joining_waits_for_catch_up_to_the_version_of_the_first_frame() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, Heartbeat(1, 2, 0, 0), 0.0)
    engine.receive(1, Digest(), 0.0)
    engine.receive(1, changes(ANN, 1), 0.0)
    assert not engine.joined
    progress = engine.join_progress
    engine.receive(1, changes(ANN, 2), 0.0)
    assert engine.join_progress > progress
    assert engine.joined


def test_refused_dial_rejected_handshake_and_own_address_count_as_answers() -> None:
    engine = starting("a:1", "b:1", "c:1")
    engine.dial_failed("a:1", True, 0.0)
    engine.dial_rejected("b:1", 0.0)
    assert engine.join_missing == ["c:1"]
    engine.dialled_self("c:1")
    assert engine.joined


def test_failed_dial_is_no_answer() -> None:
    engine = starting("a:1")
    engine.dial_failed("a:1", False, 0.0)
    assert not engine.joined


def test_goodbye_before_the_first_frame_counts_as_answer() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, Goodbye(1, 0, 0.0), 0.0)
    assert engine.joined


def test_address_of_a_duplicate_link_counts_as_answered() -> None:
    """The peer has dialled first; of the two links the node with the lower name keeps one."""
    for me, peer in ((ANN, BOB), (BOB, ANN)):
        engine = starting("peer:1", me=me)
        engine.link_up(1, peer, ("peer:1",), None, 0.0)
        engine.receive(1, ALIVE, 0.0)
        engine.receive(1, Digest(), 0.0)
        assert not engine.joined
        engine.link_up(2, peer, ("peer:1",), "peer:1", 0.0)
        engine.link_down(2, 0.0)
        assert engine.joined


def test_joining_does_not_wait_for_a_slice_of_the_digest_that_is_current() -> None:
    engine = starting("ann:1", "bob:1")
    for number, peer in ((1, ANN), (2, BOB)):
        engine.link_up(number, peer, (f"{peer.name}:1",), f"{peer.name}:1", 0.0)
        engine.receive(number, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(BOB, 1, 0),)), 0.0)
    engine.receive(2, Digest((Sighting(ANN, 1, 0),)), 0.0)
    assert engine.joined


def test_joining_waits_for_replica_of_a_digest_until_its_addresses_refuse() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(CAT, 1, 3, ("cat:1",)),)), 0.0)
    engine.tick(0.1)
    assert engine.join_missing == [str(CAT)]
    engine.dial_failed("cat:1", True, 0.2)
    assert engine.joined


def test_joining_waits_for_silent_replica_of_a_digest_until_it_is_down() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(CAT, 1, 3),)), 0.0)
    for second in range(1, 9):
        engine.receive(1, Heartbeat(1 + second, 0, 0, 0), float(second))
        engine.tick(float(second))
        assert engine.joined is (second > Timing().down_after)


def relayed() -> Engine:
    """An engine to which ANN has relayed that BOB and CAT live, before it has links to them."""
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    for counter in (1, 2):
        sightings = (Sighting(one, counter, 0, (f"{one.name}:1",)) for one in (BOB, CAT))
        engine.receive(1, Digest(tuple(sightings)), 0.0)
    assert {info.status for info in engine.members()} == {"self", "up"}
    return engine


def test_joining_waits_for_dialled_replica_while_it_is_relayed() -> None:
    engine = relayed()
    assert engine.join_missing == [str(BOB), str(CAT)]
    for number, peer in ((2, BOB), (3, CAT)):
        assert not engine.joined
        engine.link_up(number, peer, (f"{peer.name}:1",), f"{peer.name}:1", 0.1)
        engine.receive(number, ALIVE, 0.1)
        engine.receive(number, Digest(), 0.1)
    assert engine.joined
    engine.take_effects()
    message = Publish("jobs", "message", "{}")
    assert engine.publish(message, None, 0.2).missed == 0
    assert Send((1, 2, 3), message) in engine.take_effects()


def test_joining_accepts_relayed_replica_once_no_link_has_opened_for_a_while() -> None:
    engine = relayed()
    engine.tick(0.5)
    engine.dial_failed("bob:1", False, 0.5)  # no answer, which is no refusal
    engine.link_up(2, CAT, ("cat:1",), "cat:1", 0.6)
    engine.receive(2, ALIVE, 0.6)
    engine.receive(2, Digest(), 0.6)
    engine.tick(0.5 + LINK_PATIENCE)
    assert engine.join_missing == [str(BOB)]
    assert engine.wake_at <= 0.6 + LINK_PATIENCE
    engine.tick(0.6 + LINK_PATIENCE)
    assert engine.joined


def test_repeated_digests_of_a_relayed_replica_do_not_prolong_joining() -> None:
    engine = relayed()
    for counter in range(3, 12):
        now = LINK_PATIENCE * counter / 12
        engine.receive(1, Digest((Sighting(BOB, counter, 0), Sighting(CAT, counter, 0))), now)
        assert not engine.joined
    engine.tick(LINK_PATIENCE)
    assert engine.joined


def test_joining_does_not_wait_for_empty_replica_without_a_link() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(CAT, 1, 0),)), 0.0)
    assert engine.joined


def test_fetch_of_a_departed_replica_is_answered_with_its_goodbye() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(CAT, 1, 3),)), 0.0)
    engine.take_effects()
    engine.tick(1.0)
    assert Pull((CAT,)) in sent(engine)
    engine.receive(1, Digest((), (Farewell(CAT, 2, 3, 0.0, 0),)), 1.0)
    engine.tick(1.0)
    assert engine.joined


def test_version_invented_by_a_peer_is_corrected_by_the_owner() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(BOB, 1, 2**40, ("bob:1",)),)), 0.0)
    engine.link_up(2, BOB, ("bob:1",), "bob:1", 0.0)
    engine.receive(2, ALIVE, 0.0)
    engine.receive(2, Digest(), 0.0)
    assert engine.joined


def test_unanswered_digest_request_is_repeated_with_next_heartbeat() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    assert Pull(everything=True) in sent(engine)
    assert engine.join_missing == [str(ANN)]
    engine.tick(1.0)
    assert Pull(everything=True) in sent(engine)
    engine.receive(1, Digest(), 1.0)
    assert engine.joined


def test_own_heartbeat_before_a_peers_first_frame_requests_no_digest() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.5)
    engine.tick(1.0)
    engine.receive(1, ALIVE, 1.1)
    assert not engine.joined  # the digest is missing
    engine.receive(1, Digest(), 1.2)
    assert engine.joined


def test_unsolicited_goodbye_does_not_answer_a_digest_request() -> None:
    peer = starting(me=ANN)
    peer.link_up(1, BOB, ("bob:1",), None, 0.0)
    peer.link_up(2, ME, ("me:1",), None, 0.0)
    peer.receive(1, Goodbye(9, 0, 5.0), 0.0)
    peer.take_effects()
    peer.receive(2, Ask(BOB), 0.0)
    [answer] = sent(peer)
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, answer, 0.0)
    assert not engine.joined


def test_full_digest_request_is_repeated_before_other_requests() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.receive(1, Digest((Sighting(CAT, 1, 3),), last=False), 0.0)
    engine.take_effects()
    engine.tick(1.0)
    pulls = [message for message in sent(engine) if isinstance(message, Pull)]
    assert pulls == [Pull(everything=True), Pull((CAT,))]


def test_link_lost_before_the_digest_does_not_count_as_answer() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.link_down(1, 0.1)
    assert engine.join_missing == ["ann:1"]
    engine.link_up(2, ANN, ("ann:1",), "ann:1", 0.2)
    engine.receive(2, ALIVE, 0.2)
    assert not engine.joined
    engine.receive(2, Digest(), 0.2)
    assert engine.joined


def test_refused_dial_after_a_lost_link_counts_as_answer() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.0)
    engine.receive(1, ALIVE, 0.0)
    engine.link_down(1, 0.1)
    engine.dial_failed("ann:1", True, 0.2)
    assert engine.joined


def test_refused_duplicate_name_is_neither_answer_nor_progress() -> None:
    engine = starting("ann:1")
    progress = engine.join_progress
    for number in range(1, 5):
        engine.link_up(number, ANN, ("ann:1",), "ann:1", float(number))
        engine.link_down(number, float(number))
    assert not engine.joined
    assert engine.join_progress == progress


def test_live_node_with_duplicate_name_is_redialled_soon_and_is_no_answer() -> None:
    engine = starting("me:1")
    engine.link_up(1, Replica("me", 4), ("me:1",), "me:1", 0.0)
    assert [e.link for e in engine.take_effects() if isinstance(e, Close)] == [1]
    assert not engine.joined
    assert engine.wake_at < 1.0
    engine.dial_failed("me:1", True, 0.5)
    assert engine.joined


def test_thirty_nodes_join_through_one_seed() -> None:
    simulation = Simulation(nodes=1, seed=1, seeds_per_node=1)
    for number in range(2, 31):
        newcomer = simulation.start(f"n{number}")
        simulation.run(0.2)
        assert newcomer.engine.joined
        assert newcomer.engine.links >= number - 1


@pytest.mark.parametrize("phase", range(10))
def test_first_message_of_a_newcomer_on_slow_lines_reaches_all(phase: int) -> None:
    """One seed relays heartbeats of the others while the newcomer still dials them."""
    simulation = Simulation(nodes=3, seed=1, seeds_per_node=1)
    simulation.run(5.0 + phase / 10)  # of an interval between two heartbeats
    for other in ("n2", "n3"):
        for ends in (("late", other), (other, "late")):
            simulation.network.line(*ends).latency = (0.3, 0.3)
    newcomer = simulation.start("late")
    while not newcomer.engine.joined:
        assert simulation.clock.step(simulation.clock.now + 1.0)
    assert newcomer.engine.links == 3
    message = Publish("jobs", "message", "{}")
    assert newcomer.engine.publish(message, None, simulation.clock.now).missed == 0


def test_newcomer_behind_a_hub_joins_without_links_to_unreachable_nodes() -> None:
    simulation = Simulation(nodes=1, seed=1, seeds_per_node=1)
    for leaf in ("n2", "n3", "n4"):
        simulation.partition([other for other in simulation.nodes if other != "n1"], [leaf])
        simulation.start(leaf)
        simulation.run(1.0)
    simulation.partition(["n2", "n3", "n4"], ["late"])
    newcomer = simulation.start("late")
    simulation.run(2.5)
    assert newcomer.engine.joined
    assert newcomer.engine.links == 1


def test_joining_waits_for_lingering_slice() -> None:
    engine = starting("ann:1")
    engine.link_up(1, ANN, ("ann:1",), "ann:1", 0.1)
    engine.receive(1, ALIVE, 0.2)
    engine.receive(1, Digest((), (Farewell(BOB, 9, 1, 5.0, 1),)), 0.2)
    assert not engine.joined
    engine.receive(1, changes(BOB, 1), 0.3)
    assert engine.joined
    assert engine.view.count("room") == 1


def test_newcomer_with_one_seed_of_thirty_lists_all_once_joined() -> None:
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


def test_two_nodes_that_seed_each_other_join_without_waiting() -> None:
    simulation = Simulation(nodes=0, seed=1)
    one, two = simulation.create("n1"), simulation.create("n2")
    one.engine.add_seed("n2", lasting=True)
    one.begin()
    two.begin()
    simulation.run(0.5)
    assert one.engine.joined
    assert two.engine.joined


@pytest.mark.parametrize("seeds", [1, 2, 4, 9])
@pytest.mark.parametrize("gap", [0.0, 0.3, 2.5])
def test_newcomer_lists_every_lingering_node_and_its_presences_once_it_has_joined(
    seeds: int, gap: float
) -> None:
    for seed in range(2):
        simulation = Simulation(9, seed=seed)
        simulation.run(3.0)
        for place in ("n3", "n7"):
            simulation.node(place).track("room", place)
        simulation.run(1.0)
        for place in ("n3", "n7"):
            simulation.stop(place, linger=60.0)
            simulation.run(gap)
        newcomer = simulation.create("new")
        addresses = [node.place for node in simulation.alive if node is not newcomer]
        simulation.rng.shuffle(addresses)
        for address in addresses[:seeds]:
            newcomer.engine.add_seed(address, lasting=True)
        newcomer.begin()
        began = simulation.clock.now
        while not newcomer.engine.joined:
            assert simulation.clock.now - began < 3.0, "it never joins"
            simulation.run(0.002)
        left = [info.name for info in newcomer.engine.members() if info.status == "left"]
        assert left == ["n3", "n7"]
        assert sorted(newcomer.present("room")) == ["n3", "n7"]


def test_newcomer_asks_each_peer_for_a_lingering_slice_that_the_first_peers_lack() -> None:
    """The first peers are newcomers too: they relay the goodbye, and have no slice of it yet."""
    peers = [Replica(f"peer {number}", 1) for number in range(1, 6)]
    lingering = mark(CAT)
    engine = starting(*(peer.name for peer in peers))
    for number, peer in enumerate(peers, 1):
        engine.link_up(number, peer, (peer.name,), peer.name, 0.0)
    for number in range(1, 5):
        engine.receive(number, Heartbeat(1, 0, 0, lingering), 0.0)
        engine.receive(number, Digest((), (Farewell(CAT, 9, 1, 60.0, 0),)), 0.0)
    engine.take_effects()
    engine.receive(5, Heartbeat(1, 0, 0, lingering), 0.0)
    assert [m for m in sent(engine) if isinstance(m, Pull)] == [Pull((CAT,), everything=False)]
    assert not engine.joined
    engine.receive(5, Digest((), (Farewell(CAT, 9, 1, 60.0, 1),)), 0.0)
    assert not engine.joined
    engine.receive(5, changes(CAT, 1), 0.0)
    assert engine.joined
