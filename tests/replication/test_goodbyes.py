"""Goodbyes in a cluster: which nodes show which slices until when, whichever path the news took."""

import pytest

from adsum.replication.state import Replica
from adsum.testing import Simulation


def cluster(nodes: int = 3, seeds_per_node: int = 2) -> Simulation:
    """Nodes that know each other; ann is present on the first."""
    simulation = Simulation(nodes, seed=1, seeds_per_node=seeds_per_node)
    simulation.run(2.0)
    simulation.node("n1").track("room", "ann")
    simulation.run(1.0)
    return simulation


def shows(simulation: Simulation, place: str) -> bool:
    return "ann" in simulation.node(place).present("room")


def hidden_after(simulation: Simulation, place: str, most: float = 40.0) -> float:
    """Seconds until a node hides ann."""
    began = simulation.clock.now
    while shows(simulation, place):
        assert simulation.clock.now - began < most, f"{place} shows ann for ever"
        simulation.run(0.05)
    return simulation.clock.now - began


def test_newcomer_shows_lingering_slice_and_hides_it_with_the_others() -> None:
    simulation = cluster()
    simulation.stop("n3")
    simulation.stop("n1", linger=5.0)
    simulation.run(1.0)
    simulation.start("n3")
    simulation.run(0.5)
    assert shows(simulation, "n2")
    assert shows(simulation, "n3")
    assert hidden_after(simulation, "n3") == pytest.approx(3.5, abs=0.2)
    assert not shows(simulation, "n2")


def test_newcomer_learns_of_a_linger_from_another_newcomer() -> None:
    simulation = cluster(seeds_per_node=6)
    simulation.stop("n1", linger=20.0)
    for old, new in (("n2", "n4"), ("n3", "n5"), ("n4", "n6")):
        simulation.start(new)
        simulation.run(1.0)
        simulation.stop(old)
        simulation.run(1.0)
    assert shows(simulation, "n5")
    assert shows(simulation, "n6")


@pytest.mark.parametrize("linger", [0.0, 5.0, 20.0])
def test_goodbye_is_relayed_to_a_node_whose_link_to_the_leaver_is_cut(linger: float) -> None:
    simulation = cluster()
    simulation.partition(["n1"], ["n2"])
    simulation.run(0.2)
    simulation.stop("n1", linger=linger)
    assert hidden_after(simulation, "n2") == pytest.approx(linger, abs=2.6)


def test_goodbye_with_linger_shows_slice_of_down_replica_again() -> None:
    simulation = cluster(nodes=4)
    simulation.partition(["n1", "n4"], ["n2", "n3"])
    simulation.run(8.0)
    assert not shows(simulation, "n2")
    simulation.stop("n1", linger=20.0)
    simulation.run(1.0)
    simulation.heal()
    simulation.run(7.0)
    assert shows(simulation, "n2")
    assert hidden_after(simulation, "n2") == pytest.approx(12.0, abs=0.3)


def test_old_incarnation_lingers_beside_the_new_one() -> None:
    simulation = cluster()
    simulation.stop("n1", linger=5.0)
    simulation.run(0.5)
    simulation.start("n1").track("room", "bob")
    simulation.run(0.5)
    for place in ("n1", "n2", "n3"):
        assert list(simulation.node(place).present("room")) == ["ann", "bob"]
    statuses = [m.status for m in simulation.node("n2").engine.members() if m.name == "n1"]
    assert statuses == ["left", "up"]
    assert hidden_after(simulation, "n2") == pytest.approx(4.0, abs=0.2)
    assert list(simulation.node("n1").present("room")) == ["bob"]


def test_linger_counts_time_in_which_the_relay_was_paused() -> None:
    simulation = cluster()
    simulation.stop("n1", linger=10.0)
    simulation.run(1.0)
    simulation.node("n2").pause()
    simulation.kill("n3")
    simulation.run(60.0)
    simulation.node("n2").resume()
    simulation.start("n4")
    simulation.run(3.0)
    assert not shows(simulation, "n2")
    assert not shows(simulation, "n4")


def test_goodbye_held_by_a_paused_relay_reaches_no_newcomer() -> None:
    simulation = cluster()
    simulation.kill("n3")
    simulation.run(1.0)
    simulation.node("n2").pause()
    simulation.stop("n1", linger=10.0)
    simulation.run(60.0)
    simulation.node("n2").resume()
    simulation.start("n4")
    simulation.run(3.0)
    assert not shows(simulation, "n2")
    assert not shows(simulation, "n4")


def test_resumed_relay_learns_linger_remainder_from_peers() -> None:
    simulation = cluster()
    simulation.node("n2").pause()
    simulation.run(0.5)
    simulation.stop("n1", linger=20.0)
    simulation.run(3.5)
    simulation.node("n2").resume()
    simulation.run(3.0)
    assert shows(simulation, "n2")
    assert hidden_after(simulation, "n2") == pytest.approx(20.0 - 6.5, abs=0.3)


@pytest.mark.parametrize("left_before", [0.1, 1.0, 1.9])
def test_goodbye_right_before_resume_hides_nothing_too_early(left_before: float) -> None:
    simulation = cluster()
    simulation.node("n2").pause()
    simulation.run(4.0 - left_before)
    simulation.stop("n1", linger=2.0)
    simulation.run(left_before)
    simulation.node("n2").resume()
    remainder = 2.0 - left_before
    assert remainder - 0.1 <= hidden_after(simulation, "n2") <= max(remainder, 2.5) + 0.1


def test_goodbye_held_by_the_last_node_lingers_at_most_2_5_heartbeats() -> None:
    simulation = cluster()
    simulation.stop("n3")
    simulation.node("n2").pause()
    simulation.run(1.0)
    simulation.stop("n1", linger=5.0)
    simulation.run(60.0)
    simulation.node("n2").resume()
    assert hidden_after(simulation, "n2") <= 2.5 + 0.1


def test_resumed_node_shows_lingering_peer_it_has_no_link_to() -> None:
    simulation = cluster()
    simulation.network.cut("n1", "n2")
    simulation.run(0.1)
    simulation.stop("n1", linger=20.0)
    simulation.run(3.0)
    assert shows(simulation, "n2")
    assert (
        Replica("n1", simulation.node("n1").replica.incarnation)
        in simulation.node("n2").engine.lingering()
    )


def test_goodbyes_of_many_nodes_at_once_cause_no_flood() -> None:
    simulation = cluster(nodes=20)
    simulation.run(10.0)
    before = simulation.network.frames
    simulation.run(3.0)
    idle = simulation.network.frames - before
    before = simulation.network.frames
    simulation.stop("n1", linger=5.0)
    simulation.run(3.0)
    frames = simulation.network.frames - before
    assert frames - idle < 3 * 20, "each node receives it once, from its owner"


def test_departed_replicas_are_forgotten_as_late_as_down_ones() -> None:
    simulation = cluster()
    replica = simulation.node("n1").replica
    simulation.stop("n1", linger=1.0)
    simulation.run(simulation.timing.forget_after - 1.0)
    assert replica in simulation.node("n2").engine._departures
    simulation.run(10.0)
    assert replica not in simulation.node("n2").engine._departures


def test_goodbye_is_pushed_at_once_to_nodes_behind_a_hub() -> None:
    simulation = Simulation(nodes=4, seed=1, seeds_per_node=1)
    simulation.partition(["n2"], ["n3"], ["n4"])
    simulation.run(8.0)
    simulation.node("n2").track("room", "ann")
    simulation.run(3.0)
    assert shows(simulation, "n4")
    simulation.stop("n2")
    simulation.run(0.05)
    assert not shows(simulation, "n3")
    assert not shows(simulation, "n4")
