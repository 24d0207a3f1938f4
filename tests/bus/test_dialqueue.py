"""Dials that wait for a place: nodes that were heard first, and few places for stopped ones."""

from itertools import combinations

import pytest

from adsum.bus.dialqueue import DialQueue
from adsum.bus.limits import (
    DIAL_PATIENCE,
    HEARD_FOR,
    MAX_DIALS,
    MAX_HEARD,
    MAX_SILENT_DIALS,
    MAX_SILENT_WAITING,
)
from adsum.replication.limits import MAX_MEMBERS
from adsum.replication.timing import carrier_timing
from adsum.testing import Simulation
from adsum.testing.simulator.simulatedbusnode import SimulatedBusNode


def lives(count: int, kind: str = "life") -> list[bytes]:
    return [f"{kind} {number}".encode() for number in range(count)]


def add_all(queue: DialQueue, names: list[bytes]) -> None:
    for name in names:
        assert queue.add(name)


def test_silent_dials_hold_a_part_of_the_places() -> None:
    queue, silent = DialQueue(), lives(MAX_DIALS)
    add_all(queue, silent)
    assert queue.begin(0.0) == silent[:MAX_SILENT_DIALS]
    assert queue.begin(0.0) == []
    assert queue.wake_at == DIAL_PATIENCE
    assert queue.begin(DIAL_PATIENCE) == silent[MAX_SILENT_DIALS : 2 * MAX_SILENT_DIALS]


def test_dial_that_waits_already_is_not_refused() -> None:
    queue, silent = DialQueue(), lives(MAX_SILENT_WAITING)
    add_all(queue, silent)
    add_all(queue, silent)
    assert not queue.add(b"one more")
    assert queue.clear() == silent


def test_dial_to_a_node_that_was_heard_overtakes_silent_ones() -> None:
    queue, silent = DialQueue(), lives(MAX_DIALS)
    add_all(queue, silent)
    queue.begin(0.0)
    queue.note(b"living", 0.0)
    add_all(queue, [b"living"])
    assert queue.begin(0.1) == [b"living"]


def test_dials_to_nodes_that_were_heard_take_all_places_and_no_more() -> None:
    queue, heard = DialQueue(), lives(MAX_DIALS + 1)
    for life in heard:
        queue.note(life, 0.0)
    add_all(queue, heard)
    assert queue.begin(0.0) == heard[:MAX_DIALS]
    queue.end(heard[0])
    assert queue.begin(0.1) == heard[MAX_DIALS:]
    assert queue.wake_at == float("inf")


def test_silent_node_that_is_heard_while_its_dial_waits_begins_at_once() -> None:
    queue, silent = DialQueue(), lives(MAX_DIALS)
    add_all(queue, silent)
    queue.begin(0.0)
    queue.note(silent[-1], 0.0)
    assert queue.begin(0.1) == [silent[-1]]


def test_node_that_did_not_answer_is_silent_again() -> None:
    queue = DialQueue()
    for life in lives(MAX_SILENT_DIALS + 1):
        queue.note(life, 0.0)
        queue.end(life)
    add_all(queue, lives(MAX_SILENT_DIALS + 1))
    assert len(queue.begin(0.0)) == MAX_SILENT_DIALS


def test_silent_dials_beyond_the_bound_may_not_wait() -> None:
    queue = DialQueue()
    add_all(queue, lives(MAX_SILENT_WAITING))
    assert not queue.add(b"another")
    queue.note(b"living", 0.0)
    assert queue.add(b"living")


@pytest.mark.slow
def test_dial_to_each_member_of_the_largest_cluster_overtakes_silent_ones() -> None:
    queue, members = DialQueue(), lives(MAX_MEMBERS - 1)
    add_all(queue, lives(MAX_SILENT_DIALS, "stopped"))
    for life in members:
        queue.note(life, 0.0)
    add_all(queue, members)
    begun = queue.begin(0.0)
    while len(begun) < len(members):
        assert not any(life.startswith(b"stopped") for life in begun)
        queue.end(begun[-1])
        begun += queue.begin(0.0)


def test_nodes_that_are_remembered_as_heard_are_bounded() -> None:
    queue = DialQueue()
    for life in lives(MAX_HEARD + 1):
        queue.note(life, 0.0)
    add_all(queue, [b"life 0", *lives(MAX_DIALS, "other")])
    queue.note(b"other 0", 0.0)
    assert queue.begin(0.0)[0] == b"other 0"


def test_node_without_a_message_for_some_time_does_not_count_as_heard() -> None:
    queue = DialQueue()
    queue.note(b"gone", 0.0)
    queue.note(b"living", 1.0)
    queue.note(b"living", HEARD_FOR - 0.5)
    queue.begin(HEARD_FOR + 0.5)
    assert set(queue.heard) == {b"living"}


def test_living_nodes_link_at_once_beside_many_stopped_ones() -> None:
    simulation = Simulation(40, seed=1, kind=SimulatedBusNode, timing=carrier_timing())
    simulation.run(2.0)
    for number in range(1, 14):
        simulation.node(f"n{number}").pause()
    simulation.run(0.1)  # their last messages have arrived
    simulation.start("first")
    simulation.run(2.0)  # the first newcomer dials the stopped nodes
    simulation.start("second")
    simulation.run(0.1)
    living = [node for node in simulation.alive if not node.paused]
    assert all(one.linked_to(other) for one, other in combinations(living, 2))
    for number in range(1, 14):
        simulation.node(f"n{number}").resume()
    simulation.settle()
    simulation.check_agreement()
