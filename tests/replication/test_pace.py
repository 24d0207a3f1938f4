"""Heartbeats become less frequent in a crowd, and the deadlines that count them follow."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication.crowdpace import CrowdPace
from adsum.replication.engine import Engine
from adsum.replication.liveness import Liveness
from adsum.replication.messages import Digest, Heartbeat, Sighting
from adsum.replication.state import Replica
from adsum.replication.timing import Timing, carrier_timing
from adsum.testing import Simulation

TIMING = Timing(heartbeat_interval=2.0, down_after=12.0, crowd=100)
#: Members of the first digest of a newcomer.
LISTED = 1000


@pytest.mark.parametrize(
    ("members", "interval"), [(1, 2.0), (100, 2.0), (101, 2.02), (250, 5.0), (1000, 20.0)]
)
def test_heartbeats_slow_down_in_proportion_beyond_the_crowd(members: int, interval: float) -> None:
    pace = CrowdPace(TIMING)
    pace.beat(members, 0.0)
    assert pace.heartbeat_interval == pytest.approx(interval)
    assert pace.longest_interval == pytest.approx(interval)
    assert pace.down_after == pytest.approx(6 * interval)
    assert pace.vouch_grace == pytest.approx(1.5 * interval)


def test_pace_of_a_mesh_is_the_same_at_any_size() -> None:
    pace = CrowdPace(Timing())
    pace.beat(4000, 0.0)
    pace.expect(4000)
    assert (pace.heartbeat_interval, pace.down_after, pace.vouch_grace) == (1.0, 6.0, 1.5)


def test_deadlines_shrink_only_after_the_longest_one_has_passed() -> None:
    """Half of ten survivors of a thousand may have sent their last heartbeat 20 s ago."""
    pace = CrowdPace(TIMING)
    pace.beat(1000, 0.0)
    for second in range(2, 120, 2):
        pace.beat(10, float(second))
        assert pace.heartbeat_interval == 2.0
        assert pace.down_after == 120.0
    for second in range(120, 242, 2):
        pace.beat(10, float(second))
    assert pace.down_after == 12.0


numbers = st.lists(st.sampled_from([1, 50, 100, 200, 400, 900, 1000]), min_size=1, max_size=40)


@given(numbers, st.data())
def test_peer_that_sends_each_heartbeat_in_time_is_never_silent_for_too_long(
    sizes: list[int], data: st.DataObject
) -> None:
    """At every moment the two nodes know numbers of members that differ by a factor of two."""
    # The size of the cluster changes at any moments, by any factor; each node knows half of it,
    # all of it, or twice as many members.
    changes = sorted(data.draw(st.lists(st.floats(0.0, 600.0), min_size=len(sizes))))
    halves = data.draw(st.sampled_from([(1.0, 1.0), (0.5, 1.0), (1.0, 0.5)]))

    def size(at: float) -> int:
        passed = [size for size, change in zip(sizes, changes, strict=False) if change <= at]
        return passed[-1] if passed else sizes[0]

    sender, receiver = CrowdPace(TIMING), CrowdPace(TIMING)
    beats = {"sender": 0.0, "receiver": data.draw(st.floats(0.0, 2.0))}
    received_at = 0.0
    receiver.expect(int(size(0.0) * halves[1]))  # by its first digest
    while min(beats.values()) < 700.0:
        node = min(beats, key=lambda name: beats[name])
        now = beats[node]
        silent = now - received_at
        assert silent < receiver.down_after
        if node == "sender":
            sender.beat(max(1, int(size(now) * halves[0])), now)
            receiver.expect(max(1, int(size(now) * halves[1])))  # it knows them at this moment
            received_at, beats[node] = now, now + sender.heartbeat_interval
        else:
            receiver.beat(max(1, int(size(now) * halves[1])), now)
            beats[node] = now + receiver.heartbeat_interval


def test_newcomer_has_the_patience_of_its_peers_with_their_first_digest() -> None:
    """It knows a thousand replicas by name and none of them as alive."""
    peer = Replica("peer", 1)
    engine = Engine(Replica("me", 1), TIMING, Random(1), 0.0)
    engine.link_up(1, peer, (), None, 0.0)
    engine.receive(1, Heartbeat(1, 0, 0, 0), 0.0)
    sightings = tuple(Sighting(Replica(f"n{n}", 1), 1, 0) for n in range(LISTED - 1))
    engine.receive(1, Digest(sightings[:500], last=False), 0.0)
    engine.receive(1, Digest(sightings[500:]), 0.0)
    now = 0.0
    while now < 100.0:  # six times the interval of the peer are 120 s
        engine.tick(now)
        engine.take_effects()
        now = max(engine.wake_at, now + 0.001)
    [info] = [info for info in engine.members() if info.name == "peer"]
    assert (info.status, engine.links) == ("up", 1)


def test_deadlines_follow_a_member_that_comes_up_at_once() -> None:
    liveness = Liveness(Timing(heartbeat_interval=1.0, down_after=6.0, crowd=1), Replica("me", 1))
    liveness.admit(Replica("ann", 1), (), 0.0, rival_linked=False)
    assert liveness.pace.down_after == 12.0


def test_active_time_does_not_lag_behind_slow_heartbeats() -> None:
    """Nothing but the heartbeats of this node, 20 s apart, wakes it."""
    engine = Engine(
        Replica("me", 1),
        Timing(heartbeat_interval=2.0, down_after=12.0, crowd=0.2),
        Random(1),
        0.0,
    )
    engine.link_up(1, Replica("peer", 1), (), None, 0.0)
    now = 0.0
    while now < 119.0:
        engine.tick(now)
        engine.take_effects()
        now = max(engine.wake_at, now + 0.001)
    engine.tick(121.0)
    [info] = [info for info in engine.members() if info.name == "peer"]
    assert info.status == "down"


def test_number_of_alive_members_follows_every_change() -> None:
    liveness = Liveness(TIMING, Replica("me", 1))
    ann, bob = Replica("ann", 1), Replica("bob", 1)
    liveness.admit(ann, (), 0.0, rival_linked=False)
    liveness.note_sighting(Sighting(bob, 1, 0), 0.0)
    assert (liveness.alive, liveness.listed()) == (2, 3)
    liveness.note_sighting(Sighting(bob, 2, 0), 0.0)
    assert liveness.alive == 3
    liveness.remove(ann)
    assert liveness.alive == 2
    liveness.expire(12.0)
    assert (liveness.alive, liveness.listed()) == (1, 1)


def test_crowded_cluster_joins_converges_and_detects_a_silent_node() -> None:
    timing = Timing(heartbeat_interval=0.5, down_after=3.0, crowd=4)
    simulation = Simulation(16, seed=3, timing=timing)
    simulation.run(5.0)
    simulation.start("late").track("room", "ann")
    simulation.run(60.0)
    for node in simulation.alive:
        assert len(node.engine.members()) == 17
        assert {info.status for info in node.engine.members()} == {"self", "up"}
        assert "ann" in node.present("room")
    frames = simulation.network.frames
    simulation.run(17.0)
    beats = (simulation.network.frames - frames) / (17 * 16)
    assert beats == pytest.approx(17.0 / (0.5 * 17 / 4), abs=1.0)  # instead of 34

    simulation.partition(["late"], [f"n{number}" for number in range(1, 17)])
    simulation.run(11.0)
    assert "ann" in simulation.node("n1").present("room")
    simulation.run(5.0)
    assert "ann" not in simulation.node("n1").present("room")


def test_crowded_cluster_survives_the_sudden_end_of_most_of_its_nodes() -> None:
    timing = Timing(heartbeat_interval=0.5, down_after=3.0, crowd=2)
    simulation = Simulation(24, seed=5, timing=timing)
    simulation.run(30.0)
    for number in range(4, 25):
        simulation.kill(f"n{number}")
    for _ in range(100):
        simulation.run(0.5)
        for node in simulation.alive:
            survivors = [info for info in node.engine.members() if info.name in ("n1", "n2", "n3")]
            assert {info.status for info in survivors} == {"self", "up"}


def test_carrier_timing_bounds_the_deliveries_at_each_node() -> None:
    timing = carrier_timing()
    for members in (100, 1000, 4000):
        pace = CrowdPace(timing)
        pace.beat(members, 0.0)
        assert members / pace.heartbeat_interval == pytest.approx(50.0)
