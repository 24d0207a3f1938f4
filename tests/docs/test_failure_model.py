"""docs/failure-model.md, row by row, in virtual time with the default settings."""

from collections.abc import Callable

import pytest

from adsum.testing import Simulation
from tests.support.measurements import Measured, recording

pytestmark = pytest.mark.parametrize("seed", range(1, 21) if recording() else [1])


def cluster(seed: int) -> Simulation:
    """Five nodes in agreement, each present under its own name, somewhere between heartbeats."""
    simulation = Simulation(nodes=5, seed=seed)
    for name in simulation.nodes:
        simulation.node(name).track("room", name)
    simulation.run(3.0 + seed / 7)
    simulation.check_agreement()
    return simulation


def sees(simulation: Simulation, here: str, key: str) -> bool:
    return key in simulation.node(here).present("room")


def nobody_sees(simulation: Simulation, key: str) -> bool:
    return not any(
        sees(simulation, node.name, key) for node in simulation.alive if node.name != key
    )


def all_agree(simulation: Simulation) -> bool:
    return all(node.shown() == simulation.tracked() for node in simulation.alive)


def seconds_until(simulation: Simulation, condition: Callable[[], bool], most: float) -> float:
    began = simulation.clock.now
    while not condition():
        elapsed = simulation.clock.now - began
        assert elapsed < most, f"seed {simulation.seed}: not within {most} s"
        simulation.run(0.01)
    return simulation.clock.now - began


def test_crash_is_detected_after_a_refused_dial(seed: int, measured: Measured) -> None:
    simulation = cluster(seed)
    simulation.kill("n3")
    seconds = seconds_until(simulation, lambda: nobody_sees(simulation, "n3"), 0.3)
    assert seconds >= 0.15
    measured(fault="simulated: a crash", sees="its presences leave", seconds=[seconds])


def test_goodbye_is_applied_at_once(seed: int) -> None:
    simulation = cluster(seed)
    simulation.stop("n3")
    seconds_until(simulation, lambda: nobody_sees(simulation, "n3"), 0.05)


def test_goodbye_with_linger_hides_when_linger_ends(seed: int) -> None:
    simulation = cluster(seed)
    simulation.stop("n3", linger=3.0)
    simulation.run(2.9)
    assert all(sees(simulation, node.name, "n3") for node in simulation.alive)
    seconds_until(simulation, lambda: nobody_sees(simulation, "n3"), 0.2)


def test_paused_process_is_down_by_silence_and_hides_no_peer_on_resume(
    seed: int,
) -> None:
    simulation = cluster(seed)
    simulation.node("n3").pause()
    assert seconds_until(simulation, lambda: nobody_sees(simulation, "n3"), 6.1) >= 5
    simulation.run(60)
    simulation.node("n3").resume()
    seconds_until(simulation, lambda: all_agree(simulation), 0.1)
    for _ in range(100):
        simulation.run(0.1)
        assert all(sees(simulation, "n3", other) for other in simulation.nodes)


def test_short_block_of_the_event_loop_hides_nothing(seed: int) -> None:
    simulation = cluster(seed)
    simulation.node("n3").pause()
    simulation.run(3)
    assert not nobody_sees(simulation, "n3")
    simulation.node("n3").resume()
    simulation.run(3)
    simulation.check_agreement()


def test_partition_shows_each_side_its_own_until_it_heals(seed: int, measured: Measured) -> None:
    simulation = cluster(seed)
    simulation.partition(["n1", "n2"], ["n3", "n4", "n5"])

    def divided() -> bool:
        near, far = simulation.node("n1").present("room"), simulation.node("n5").present("room")
        return list(near) == ["n1", "n2"] and list(far) == ["n3", "n4", "n5"]

    assert seconds_until(simulation, divided, 6.1) >= 5
    simulation.run(60)
    simulation.heal()
    seconds = seconds_until(simulation, lambda: all_agree(simulation), 6.0)
    measured(fault="simulated: a partition that heals", sees="all agree", seconds=[seconds])


@pytest.mark.slow
def test_partition_longer_than_forget_after_heals(seed: int) -> None:
    simulation = cluster(seed)
    simulation.partition(["n1", "n2"], ["n3", "n4", "n5"])
    simulation.run(25 * 60)
    simulation.heal()
    seconds_until(simulation, lambda: all_agree(simulation), 6.0)


@pytest.mark.parametrize("one_way", [False, True])
def test_netsplit_between_two_nodes_hides_no_presence(
    seed: int, one_way: bool, measured: Measured
) -> None:
    simulation = cluster(seed)
    simulation.network.cut("n1", "n2")
    if not one_way:
        simulation.network.cut("n2", "n1")
    for _ in range(300):
        simulation.run(0.1)
        assert all_agree(simulation)
    simulation.node("n1").track("room", "late")
    seconds = seconds_until(simulation, lambda: sees(simulation, "n2", "late"), 1.1)
    fault = "simulated: the line between two of five cut"
    measured(fault=fault, sees="a change of one is seen by the other", seconds=[seconds])


def test_nodes_behind_one_hub_list_each_other(seed: int, measured: Measured) -> None:
    simulation = Simulation(nodes=1, seed=seed)
    for leaf in ("n2", "n3", "n4", "n5"):
        for other in simulation.nodes:
            if other != "n1":
                simulation.partition([other], [leaf])
        simulation.start(leaf).track("room", leaf)
    joined = seconds_until(simulation, lambda: all_agree(simulation), 3.0)
    for _ in range(300):
        simulation.run(0.1)
        assert all_agree(simulation)
    simulation.node("n2").track("room", "late")
    seen = seconds_until(simulation, lambda: sees(simulation, "n5", "late"), 1.1)
    fault = "simulated: four nodes behind one hub"
    measured(fault=fault, sees="all list all", seconds=[joined])
    measured(fault=fault, sees="a change of one is seen by another", seconds=[seen])


def test_reconnect_of_a_broken_link_hides_no_presence(seed: int) -> None:
    simulation = cluster(seed)
    for _ in range(20):
        for link in simulation.network.between("n1", "n2"):
            simulation.network.sever(link)
        simulation.run(0.1)
        assert all_agree(simulation)


def test_block_during_suspicion_declares_no_peer_down(seed: int) -> None:
    simulation = cluster(seed)
    for link in simulation.network.between("n1", "n2"):
        simulation.network.sever(link)
    simulation.run(0.01)
    simulation.node("n1").pause()
    simulation.run(3)
    simulation.node("n1").resume()
    for _ in range(100):
        simulation.run(0.05)
        assert list(simulation.node("n1").present("room")) == list(simulation.nodes)


def test_slow_consumer_is_not_suspected(seed: int) -> None:
    simulation = cluster(seed)
    simulation.network.usual.bandwidth = 100_000.0
    for number in range(2000):
        simulation.node("n1").track("big", f"user {number}", {"text": "x" * 500})
    for _ in range(300):
        simulation.run(0.1)
        assert len(simulation.node("n2").present("room")) == 5
    simulation.check_agreement()


@pytest.mark.slow
def test_too_narrow_line_is_closed_and_heals_when_it_widens(seed: int) -> None:
    simulation = cluster(seed)
    links = simulation.network.between("n1", "n2")
    simulation.network.usual.bandwidth = 20_000.0
    for number in range(2000):
        simulation.node("n1").track("big", f"user {number}", {"text": "x" * 500})
    simulation.run(20)
    assert set(links).isdisjoint(simulation.network.between("n1", "n2"))
    assert simulation.node("n2").present("big") == {}
    simulation.network.usual.bandwidth = float("inf")
    seconds_until(simulation, lambda: all_agree(simulation), 6.0)


def test_one_way_partition_hides_and_heals(seed: int) -> None:
    simulation = cluster(seed)
    for other in ("n2", "n3", "n4", "n5"):
        simulation.network.cut("n1", other)
    assert seconds_until(simulation, lambda: nobody_sees(simulation, "n1"), 6.1) >= 5
    simulation.run(30)
    assert list(simulation.node("n1").present("room")) == ["n1"]
    simulation.heal()
    seconds_until(simulation, lambda: all_agree(simulation), 6.0)


def test_restart_under_the_same_name_replaces_the_old_incarnation(seed: int) -> None:
    simulation = cluster(seed)
    simulation.kill("n3")
    simulation.run(0.5)
    simulation.start("n3").track("room", "new")
    seconds_until(simulation, lambda: all_agree(simulation), 2.1)


def test_restart_after_goodbye_shows_the_old_incarnation_until_linger_ends(seed: int) -> None:
    simulation = cluster(seed)
    simulation.stop("n3", linger=60.0)
    simulation.run(0.5)
    simulation.start("n3").track("room", "new")
    simulation.run(2.1)
    for place in ("n1", "n2", "n3"):
        assert {"n3", "new"} <= set(simulation.node(place).present("room"))
    simulation.run(57.5)
    seconds_until(simulation, lambda: all_agree(simulation), 1.0)
