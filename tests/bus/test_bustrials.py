"""Clusters on a simulated bus: its restarts, absences, splits and deaths; trials from seeds."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest

from adsum.bus.busreconnector import FIRST_WAIT
from adsum.bus.limits import PROBE_INTERVAL, UNHEARD_PATIENCE
from adsum.config import CARRIER_GRACE
from adsum.replication.entry import Entry, Transition, ref
from adsum.replication.timing import Timing, carrier_timing
from adsum.testing import BrokenLawError, Simulation, Trial
from adsum.testing.simulator import simulatedbus
from adsum.testing.simulator.busfaults import BusFaults
from adsum.testing.simulator.faults import Step
from adsum.testing.simulator.simulatedbus import RETURN_DELAY, SHORT_ABSENCE
from adsum.testing.simulator.simulatedbusnode import FIND_AGAIN, SimulatedBusNode
from tests.support.effort import scaled

#: Seconds within which all clients have returned, and sent what was lost.
RETURNED = RETURN_DELAY[1] + 1.0
#: Seconds that a message takes at most.
SIMULATED_LATENCY = 0.002


def cluster(
    nodes: int, seed: int = 1, servers: int = 1, timing: Timing | None = None
) -> Simulation:
    """A cluster on a bus in which each node has a presence, and all agree."""
    simulation = Simulation(nodes, seed=seed, kind=SimulatedBusNode, timing=timing)
    for _ in range(servers - 1):
        simulation.bus.add_server()
    for node in simulation.alive:
        node.track("room", node.name)
    simulation.run(2.0)
    simulation.check_agreement()
    return simulation


class Departures:
    """The departures that any node has shown since its construction."""

    def __init__(self, simulation: Simulation) -> None:
        self.seen: list[tuple[str, Entry]] = []
        for node in simulation.alive:
            assert node.witness is not None
            record = self._recording(node.place, node.witness.notify)
            node.witness.notify = record  # type: ignore[assignment,method-assign]  # records as well

    def _recording(
        self, place: str, notify: Callable[[str, Iterable[Transition]], None]
    ) -> Callable[[str, Iterable[Transition]], None]:
        def record(topic: str, transitions: Iterable[Transition]) -> None:
            self.seen += [
                (place, old) for old, new in transitions if old is not None and new is None
            ]
            notify(topic, transitions)

        return record


@pytest.mark.parametrize("seed", range(scaled(90)))
def test_cluster_on_a_bus_converges_to_the_tracked_presences_after_any_faults(seed: int) -> None:
    Trial.from_seed(seed, 30, "bus").run()


@pytest.mark.parametrize("seed", range(7, 7 + 8 * scaled(5), 8))
def test_lost_messages_of_the_bus_are_repeated(seed: int) -> None:
    trial = Trial.from_seed(seed, 30, "bus")
    assert trial.loss
    trial.run()


def test_replay_command_of_a_trial_on_the_bus_names_the_bus() -> None:
    trial = Trial.from_seed(3, 30, "bus")
    assert trial.how_to_replay.endswith(" --replay 3 --steps 30 --on bus")
    assert Trial.from_json(trial.to_json()) == trial


def test_trial_on_the_bus_has_the_same_trace_each_time() -> None:
    first: list[str] = []
    second: list[str] = []
    Trial.from_seed(5, 20, "bus").run(first.append)
    Trial.from_seed(5, 20, "bus").run(second.append)
    assert first == second
    assert len(first) > 100


@pytest.mark.parametrize("seed", range(scaled(10)))
def test_restart_of_the_bus_lets_no_presence_leave(seed: int) -> None:
    simulation = cluster(5, seed)
    departures = Departures(simulation)
    simulation.bus.restart()
    simulation.run(0.5)
    simulation.bus.restart()
    simulation.run(30.0)
    assert departures.seen == []
    simulation.check_agreement()


@pytest.mark.parametrize("absence", [0.2, 3.0, 12.0, SHORT_ABSENCE])
def test_absence_shorter_than_the_grace_lets_no_presence_leave(absence: float) -> None:
    simulation = cluster(5)
    departures = Departures(simulation)
    simulation.bus.go_away()
    simulation.run(absence)
    simulation.bus.come_back()
    simulation.run(30.0)
    assert departures.seen == []
    simulation.check_agreement()


def test_changes_during_an_absence_arrive_after_it() -> None:
    simulation = cluster(4)
    simulation.bus.go_away()
    simulation.run(5.0)
    simulation.node("n1").track("room", "new")
    first = next(iter(simulation.node("n2").own_entries.values()))
    simulation.node("n2").untrack(first)
    simulation.run(5.0)
    assert "new" not in simulation.node("n3").present("room")
    simulation.bus.come_back()
    simulation.run(RETURNED)
    simulation.check_agreement()


def test_process_that_dies_during_an_absence_is_hidden_after_it() -> None:
    simulation = cluster(4)
    simulation.bus.go_away()
    simulation.run(5.0)
    simulation.kill("n2")
    simulation.run(5.0)
    assert "n2" in simulation.node("n1").present("room")
    simulation.bus.come_back()
    simulation.run(15.0)
    simulation.check_agreement()


def test_absence_longer_than_the_grace_hides_all_and_they_find_each_other_again() -> None:
    simulation = cluster(4)
    simulation.bus.go_away()
    simulation.run(CARRIER_GRACE + 10.0)
    assert list(simulation.node("n1").present("room")) == ["n1"]
    simulation.bus.come_back()
    simulation.settle()
    simulation.check_agreement()


def flap(simulation: Simulation, place: str, seconds: float) -> None:
    """Keep one node off the bus, or let it lose each connection soon."""
    until = simulation.clock.now + seconds
    while simulation.clock.now < until:
        simulation.bus.lose(place)
        simulation.run(0.02)


def test_node_that_is_away_alone_hides_nobody_and_is_hidden() -> None:
    simulation = cluster(4)
    simulation.run(30.0)
    departures = Departures(simulation)
    flap(simulation, "n2", CARRIER_GRACE / 2)
    assert {place for place, _ in departures.seen} <= {"n1", "n3", "n4"}
    assert len(simulation.node("n2").present("room")) == 4
    simulation.settle()
    assert "n2" not in {place for place, _ in departures.seen}
    simulation.check_agreement()


@pytest.fixture
def quick_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients return as fast as `BusReconnector` does to one server that runs."""
    monkeypatch.setattr(simulatedbus, "RETURN_DELAY", FIRST_WAIT)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_returns")
@pytest.mark.parametrize("seed", range(scaled(5)))
def test_node_whose_connection_breaks_every_half_second_hides_nobody_and_stays_listed(
    seed: int,
) -> None:
    simulation = cluster(5, seed, timing=carrier_timing())
    departures = Departures(simulation)
    for _ in range(120):
        simulation.bus.lose("n2")
        simulation.run(0.5)
    assert departures.seen == []
    simulation.run(RETURNED)
    simulation.check_agreement()


@pytest.mark.usefixtures("quick_returns")
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_node_whose_connection_breaks_every_half_second_hides_a_process_that_is_gone(
    fault: str,
) -> None:
    simulation = cluster(5, timing=carrier_timing())
    flapping, other = simulation.node("n2"), simulation.node("n4")
    if fault == "kill":
        simulation.kill("n4")
    else:
        other.pause()
    until = simulation.clock.now + 1.5 * UNHEARD_PATIENCE
    while simulation.clock.now < until:
        simulation.bus.lose("n2")
        simulation.run(0.5)
    assert list(flapping.present("room")) == ["n1", "n2", "n3", "n5"]


def test_node_that_suspects_others_while_it_is_away_breaks_a_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = cluster(4)
    simulation.run(30.0)
    monkeypatch.setattr(SimulatedBusNode, "_hold", lambda *_: None)
    with pytest.raises(BrokenLawError, match=r"n2: .* both nodes were well"):
        flap(simulation, "n2", CARRIER_GRACE / 2)


def test_grace_of_an_absence_is_active_time() -> None:
    simulation = cluster(3)
    simulation.bus.go_away()
    simulation.run(1.0)
    simulation.node("n2").pause()
    simulation.run(2 * CARRIER_GRACE)
    simulation.node("n2").resume()
    assert list(simulation.node("n1").present("room")) == ["n1"]
    simulation.run(CARRIER_GRACE - 3.0)
    assert len(simulation.node("n2").present("room")) == 3
    simulation.run(5.0)
    assert list(simulation.node("n2").present("room")) == ["n2"]
    simulation.bus.come_back()
    simulation.settle()
    simulation.check_agreement()


def test_killed_process_is_hidden_everywhere_within_half_a_second() -> None:
    simulation = cluster(6)
    simulation.run(10.0)
    simulation.kill("n3")
    simulation.run(0.6)
    simulation.check_agreement()


def test_paused_process_is_a_slow_consumer_and_returns() -> None:
    simulation = cluster(3)
    simulation.bus.choke("n2")
    simulation.node("n2").pause()
    simulation.run(10.0)
    assert list(simulation.node("n1").present("room")) == ["n1", "n3"]
    simulation.node("n2").resume()
    simulation.settle()
    simulation.check_agreement()


def test_sides_of_cut_servers_hide_each_other_and_meet_again() -> None:
    simulation = cluster(8, servers=2)
    sides = {
        node.place: node.session.server
        for node in simulation.alive
        if isinstance(node, SimulatedBusNode) and node.session is not None
    }
    assert set(sides.values()) == {0, 1}
    simulation.bus.cut()
    simulation.run(40.0)
    for node in simulation.alive:
        near = [place for place, side in sides.items() if side == sides[node.place]]
        assert list(node.present("room")) == near
    simulation.bus.mend()
    simulation.run(FIND_AGAIN)
    simulation.check_agreement()


def test_cluster_agrees_after_the_death_of_one_of_two_servers() -> None:
    simulation = cluster(6, servers=2)
    simulation.bus.kill(0)
    simulation.settle()
    simulation.check_agreement()


@pytest.mark.parametrize("age", [0.2, 5.0])
def test_killed_process_leaves_after_one_probe_and_the_grace_of_a_refused_dial(age: float) -> None:
    seconds = [seconds_until_hidden(seed, age) for seed in range(20)]
    steps = 12 * SIMULATED_LATENCY
    assert max(seconds) < PROBE_INTERVAL + Timing().refused_grace + steps
    assert min(seconds) >= Timing().refused_grace


def seconds_until_hidden(seed: int, age: float) -> float:
    """Seconds from the death of a node until no other lists it.

    Args:
        seed: Of the cluster.
        age: Seconds since its start.
    """
    simulation = cluster(4, seed)
    simulation.start("victim").track("room", "victim")
    simulation.run(age)
    assert all("victim" in node.present("room") for node in simulation.alive)
    simulation.kill("victim")
    began = simulation.clock.now
    while any("victim" in node.present("room") for node in simulation.alive):
        simulation.run(0.001)
    return simulation.clock.now - began


def test_idle_node_publishes_one_heartbeat_for_all_and_its_probes() -> None:
    simulation = cluster(10)
    simulation.run(10.0)
    before = simulation.bus.messages
    simulation.run(20.0)
    each = (simulation.bus.messages - before) / 20.0 / 10
    assert each < 1.0 / simulation.timing.heartbeat_interval + 1.0 / PROBE_INTERVAL + 0.2


def test_messages_of_one_publisher_arrive_once_and_in_order_through_restarts() -> None:
    simulation = cluster(3)
    faults = BusFaults(simulation)
    faults.duplicate(0.3)
    for number in range(20):
        faults.perform(Step("publish", ("n1", 100, 2), 0.1))
        if number % 6 == 5:
            faults.perform(Step("restart_bus", (), 4.0))
    events = [each.message.event for each in simulation.node("n2").delivered]
    order = [int(event.split(".")[1]) for event in events]
    assert order
    assert all(one < other for one, other in pairwise(order))


def test_hidden_presence_of_a_node_that_is_well_breaks_a_law() -> None:
    simulation = cluster(3)
    simulation.run(30.0)
    node, replica = simulation.node("n1"), simulation.node("n2").replica
    (entry,) = simulation.node("n2").own_entries.values()
    assert node.witness is not None
    with pytest.raises(BrokenLawError, match="both nodes were well"):
        node.witness.notify("room", [(entry, None)])
    assert ref(entry) in node.present("room")["n2"]["metas"][0]["phx_ref"]
    simulation.bus.lose("n2")
    assert node.witness.hiding_violation(entry, replica) is None
