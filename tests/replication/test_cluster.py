"""Clusters of real engines in virtual time: what must hold, fault by fault and all at once."""

import pytest

from adsum.replication.effects import Severity
from adsum.replication.timing import Timing
from adsum.testing import Simulation
from tests.support.effort import scaled


@pytest.fixture
def three() -> Simulation:
    simulation = Simulation(nodes=3, seed=1)
    simulation.run(1.0)
    for node in simulation.alive:
        node.track("room", node.name, {"at": node.name})
    simulation.run(1.0)
    simulation.check_agreement()
    return simulation


def room(simulation: Simulation, name: str) -> list[str]:
    return list(simulation.node(name).present("room"))


def statuses(simulation: Simulation, name: str) -> dict[str, str]:
    return {m.name: m.status for m in simulation.node(name).engine.members()}


def test_lost_delta_is_detected_at_next_heartbeat(three: Simulation) -> None:
    three.network.usual.loss = 1.0
    three.node("n1").track("room", "ann")
    three.run(0.01)
    three.network.usual.loss = 0.0
    assert "ann" not in room(three, "n2")
    three.run(1.1)
    three.check_agreement()


def test_version_gap_is_detected_with_next_delta(three: Simulation) -> None:
    three.run(three.timing.heartbeat_interval - three.clock.now % three.timing.heartbeat_interval)
    three.run(0.2)
    three.network.usual.loss = 1.0
    three.node("n1").track("room", "ann")
    three.run(0.01)
    three.network.usual.loss = 0.0
    three.node("n1").track("room", "bob")
    three.run(0.05)
    three.check_agreement()


def test_change_is_replicated_after_one_coalescing_interval(
    three: Simulation,
) -> None:
    three.node("n1").track("room", "ann")
    assert "ann" in room(three, "n1")
    three.run(three.timing.coalesce_interval + 2 * 0.002)
    assert "ann" in room(three, "n2")
    assert "ann" in room(three, "n3")


def test_changes_under_load_are_coalesced_into_one_delta(three: Simulation) -> None:
    before = three.network.frames
    for number in range(1000):
        three.node("n1").track("room", f"u{number}")
        three.run(0.0001)
    assert three.network.frames - before < 2 * 1000 * 0.0001 / 0.005 + 30
    three.run(0.02)
    three.check_agreement()


def test_crash_is_detected_within_a_quarter_of_a_second(three: Simulation) -> None:
    three.kill("n1")
    three.run(0.25)
    assert room(three, "n2") == room(three, "n3") == ["n2", "n3"]


def test_paused_node_is_down_within_down_after_and_hides_no_peer_on_resume(
    three: Simulation,
) -> None:
    three.node("n1").pause()
    three.run(three.timing.down_after + 0.01)
    assert room(three, "n2") == ["n2", "n3"]
    three.node("n1").resume()
    assert room(three, "n1") == ["n1", "n2", "n3"]
    for _ in range(100):
        three.run(0.01)
        assert room(three, "n1") == ["n1", "n2", "n3"]
    three.check_agreement()


def test_restarted_node_replaces_its_old_incarnation_at_once(three: Simulation) -> None:
    three.kill("n1")
    three.start("n1").track("room", "new")
    three.run(0.5)
    assert room(three, "n2") == ["n2", "n3", "new"]
    assert statuses(three, "n2") == {"n1": "up", "n2": "self", "n3": "up"}


def test_three_hundred_incarnations_leak_nothing(three: Simulation) -> None:
    for _ in range(300):
        three.kill("n1")
        three.run(three.rng.uniform(0.0, 0.4))
        three.start("n1").track("room", "n1")
        three.run(three.rng.uniform(0.0, 0.4))
    three.run(3.0)
    three.check_agreement()
    engine = three.node("n2").engine
    assert len(engine._exchange) == 3
    assert len(engine._links) == 2
    assert len(engine._suspicion.askers) <= 2
    assert engine._conflicts._refused == {}
    assert len(engine._dialler._peers) + len(engine._dialler._seeds) <= 5


def test_split_brain_converges_when_the_partition_heals(three: Simulation) -> None:
    three.partition(["n1"], ["n2", "n3"])
    three.node("n1").track("room", "left")
    three.node("n2").track("room", "right")
    three.run(30.0)
    assert room(three, "n1") == ["left", "n1"]
    assert room(three, "n3") == ["n2", "n3", "right"]
    three.heal()
    three.settle()
    three.check_agreement()
    assert room(three, "n1") == ["left", "n1", "n2", "n3", "right"]


def test_cut_of_one_link_hides_no_node(three: Simulation) -> None:
    three.partition(["n1"], ["n2"])
    for step in range(300):
        three.run(0.1)
        if step == 150:
            three.node("n1").track("room", "later")
        assert "n2" in room(three, "n1")
        assert "n1" in room(three, "n2")
    assert "later" in room(three, "n2")
    three.check_agreement()


@pytest.mark.parametrize(("source", "target"), [("n1", "n2"), ("n2", "n1")])
def test_one_way_cut_hides_no_node_for_good(three: Simulation, source: str, target: str) -> None:
    three.network.cut(source, target)
    three.run(30.0)
    three.node("n1").track("room", "x")
    three.node("n2").track("room", "y")
    three.run(3.0)
    three.check_agreement()


def test_goodbye_ends_presences_at_once(three: Simulation) -> None:
    three.stop("n1")
    three.run(0.01)
    assert room(three, "n2") == ["n2", "n3"]


def test_goodbye_with_linger_hides_presences_when_linger_ends(three: Simulation) -> None:
    three.stop("n1", linger=2.0)
    three.run(1.9)
    assert room(three, "n2") == ["n1", "n2", "n3"]
    three.run(0.2)
    assert room(three, "n2") == ["n2", "n3"]


def test_large_catch_up_is_framed_and_shown_as_a_whole(three: Simulation) -> None:
    for number in range(5000):
        three.node("n1").track("big", f"u{number}")
    three.run(0.5)
    three.network.usual.bandwidth = 500_000.0  # so that the frames come one by one
    newcomer, counts = three.start("n4"), set[int]()
    for _ in range(2000):
        three.run(0.001)
        counts.add(len(newcomer.present("big")))
    assert counts == {0, 5000}
    three.check_agreement()


def test_interrupted_catch_up_restarts_and_shows_no_partial_state(three: Simulation) -> None:
    for number in range(5000):
        three.node("n1").track("big", f"u{number}")
    three.run(0.5)
    three.network.usual.bandwidth = 500_000.0
    newcomer, counts = three.start("n4"), set[int]()
    for step in range(4000):
        three.run(0.001)
        counts.add(len(newcomer.present("big")))
        if step in (100, 300, 500, 700):
            for link in three.network.between("n1", "n4"):
                three.network.sever(link)
    assert counts == {0, 5000}
    three.check_agreement()


def test_nodes_behind_one_hub_list_each_other_through_its_relay() -> None:
    simulation = Simulation(nodes=1, seed=9, seeds_per_node=1)
    for number in range(12):
        for other in simulation.nodes:
            if other != "n1":
                simulation.partition([other], [f"leaf {number}"])
        simulation.start(f"leaf {number}").track("room", f"leaf {number}")
    simulation.run(10.0)
    for _ in range(100):
        simulation.run(0.5)
        simulation.check_agreement()


def test_duplicate_name_that_keeps_dialling_causes_no_link_storm(three: Simulation) -> None:
    three.start("n1", at="elsewhere")
    before = three.network.frames
    three.run(20.0)
    assert three.network.frames - before < 20 * 3 * 20
    assert sum(n.severity is Severity.ERROR for n in three.node("n2").notices) <= 2


def test_sender_on_slow_link_is_not_suspected(three: Simulation) -> None:
    three.network.usual.bandwidth = 100_000.0
    for number in range(2000):
        three.node("n1").track("big", f"u{number}", {"pad": "x" * 500})
    newcomer = three.start("n4")
    for _ in range(300):
        three.run(0.1)
        assert statuses(three, "n4").get("n1", "up") == "up"
    assert len(newcomer.present("big")) == 2000
    three.check_agreement()


def test_down_replica_is_forgotten_by_every_node() -> None:
    simulation = Simulation(nodes=4, seed=3, timing=Timing(forget_after=60.0))
    simulation.run(1.0)
    simulation.node("n4").track("room", "ghost")
    simulation.run(1.0)
    simulation.kill("n4")
    simulation.run(90.0)
    for node in simulation.alive:
        assert set(statuses(simulation, node.name)) == {"n1", "n2", "n3"}
        assert len(node.engine.slices()) == 3


def test_duplicate_name_of_live_node_is_refused_and_logged_by_all(three: Simulation) -> None:
    three.start("n1", at="elsewhere").track("room", "intruder")
    three.run(10.0)
    assert "intruder" not in room(three, "n2")
    assert "n1" in room(three, "n2")
    errors = [n.text for n in three.node("n2").notices if n.severity is Severity.ERROR]
    assert any("in use by another live node" in text for text in errors)


def test_clock_jump_hides_no_replica(three: Simulation) -> None:
    for jump in (3600.0, -3600.0, 1e6):
        three.node("n1").set_clock(jump)
        assert room(three, "n1") == ["n1", "n2", "n3"]
        three.run(0.1)
    three.run(3.0)
    three.check_agreement()


def test_slow_consumer_costs_bounded_memory_and_catches_up(three: Simulation) -> None:
    three.node("n3").pause()
    three.network.cut("n1", "n3")
    queued = 0
    for number in range(3000):
        three.node("n1").track("room", f"u{number}", {"pad": "x" * 1000})
        three.run(0.001)
        for id in three.network.between("n1", "n3"):
            queued = max(queued, *[p.size for p in three.network._links[id].pipes])
    assert queued < 2 * 1024 * 1024
    three.heal()
    three.node("n3").resume()
    three.settle()
    three.check_agreement()


def test_idle_cluster_sends_only_heartbeats() -> None:
    simulation = Simulation(nodes=3, seed=4)
    simulation.run(5.0)
    before = simulation.network.bytes
    simulation.run(100.0)
    assert (simulation.network.bytes - before) / 100 / 3 < 250


def test_thirty_nodes_with_one_seed_each_discover_each_other() -> None:
    simulation = Simulation(nodes=30, seed=5, seeds_per_node=1)
    for node in simulation.alive:
        node.track("room", node.name)
    simulation.run(5.0)
    simulation.check_agreement()
    links = {len(node.engine._links) for node in simulation.alive}
    assert links == {29}


@pytest.mark.parametrize("seed", range(scaled(30)))
def test_nodes_push_changes_right_after_linking(seed: int) -> None:
    simulation = Simulation(nodes=4, seed=seed)
    for node in simulation.alive:
        node.track("room", node.name)
    simulation.run(0.05)
    newcomer = simulation.start("n5")
    newcomer.track("room", "n5")
    simulation.run(0.05)
    for node in simulation.alive:
        node.track("later", node.name)
    simulation.run(0.02)
    simulation.check_agreement()


@pytest.mark.parametrize("verb", ["node", "kill", "stop"])
def test_unknown_node_name_error_lists_existing_nodes(verb: str) -> None:
    simulation = Simulation(nodes=2, seed=1)
    with pytest.raises(ValueError, match=r"^place='n9': must be a place .*: 'n1', 'n2'$"):
        getattr(simulation, verb)("n9")
