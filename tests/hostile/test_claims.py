"""A hostile member claims things of itself and of others: what a node does not believe."""

import tracemalloc

import pytest

from adsum.errors import ProtocolError
from adsum.replication.codec import encode
from adsum.replication.dialler import MOST_DIALS
from adsum.replication.effects import Dial
from adsum.replication.entry import size_of
from adsum.replication.limits import DELTA_BUDGET, MAX_MEMBERS
from adsum.replication.links import MAX_ANSWERS
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Farewell,
    Goodbye,
    Heartbeat,
    ProtocolMessage,
    Pull,
    Sighting,
    Sync,
    Vouch,
)
from adsum.replication.redundancy import SPARE_LINKS
from adsum.replication.state import Replica
from adsum.transport.framing import FRAME_LIMIT
from adsum.values.limits import MAX_META, MAX_NUMBER

from .sizes import total_items
from .stage import ANN, EVE, ME, TO_ANN, TO_EVE, Stage, entry, told_of

UNHARMED = {"room": ["ann", "mine"]}
LAST = MAX_NUMBER - 1


def test_a_relay_that_was_not_asked_for_is_not_believed() -> None:
    stage = Stage()
    stage.eve_says(
        Delta(ANN, 0, 9, (entry(ANN, 9, "forged"),), reset=True),
        Delta(ANN, 1, 9, (entry(ANN, 9, "forged"),)),
        Delta(ANN, 1, 2, ((2, 1),)),
        Delta(ANN, 1, LAST, ()),
    )
    stage.wait(1.0)
    assert stage.shown() == UNHARMED
    assert stage.engine.slices()[ANN].horizon == 1


def test_whoever_has_a_live_link_to_somebody_asks_nobody_else_about_it() -> None:
    stage = Stage()
    stage.eve_says(*told_of(ANN, 1, 2, 3, version=LAST), Vouch(ANN, LAST))
    stage.wait(5.0)
    syncs = [m for m in stage.sent(TO_EVE) if isinstance(m, Sync)]
    assert {sync.replica for sync in syncs} == {EVE}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [0, 1, 5, LAST])
def test_a_claim_about_the_slice_of_the_receiver_closes_the_link(after: int, reset: bool) -> None:
    stage = Stage()
    with pytest.raises(ProtocolError, match="about the slice of this node"):
        stage.eve_says(Delta(ME, after, LAST, (), reset=reset))
    assert stage.shown() == UNHARMED


@pytest.mark.parametrize(
    "claim",
    [Sync(ME, 2, True), Sync(ME, LAST, False), *told_of(ME, LAST), *told_of(ME, 0, version=LAST)],
)
def test_a_claim_of_changes_that_this_node_never_made_closes_the_link_with_one_line(
    claim: ProtocolMessage,
) -> None:
    stage = Stage()
    stage.eve_says(claim)
    assert stage.closed() == {TO_EVE}
    assert len(stage.notices()) == 1
    assert stage.shown() == UNHARMED


def test_the_same_false_claim_on_one_link_after_the_other_costs_one_line() -> None:
    stage = Stage()
    for id in range(100, 150):
        stage.link(id, EVE)
        stage._hear(id, Sync(ME, LAST, False))
        stage.engine.link_down(id, stage.now)
    assert len(stage.notices()) == 1


def test_a_sync_for_versions_or_slices_that_never_existed_is_not_answered() -> None:
    stage = Stage()
    stage.wait(0.1)
    before = [m for m in stage.sent(TO_EVE) if isinstance(m, Delta)]
    stage.eve_says(Sync(ANN, 2, True), Sync(ANN, LAST, True), Sync(Replica("nobody", 1), 0, True))
    stage.wait(0.1)
    assert [m for m in stage.sent(TO_EVE) if isinstance(m, Delta)] == before
    assert not stage.closed()


def test_horizons_and_counters_do_not_go_back() -> None:
    stage = Stage()
    stage.eve_says(Delta(EVE, 0, 7, (entry(EVE, 7, "eve"),)), Heartbeat(9, 7))
    stage.eve_says(Delta(EVE, 0, 3, (entry(EVE, 3, "old"),)), Delta(EVE, 6, 7, ((7, 7),)))
    stage.eve_says(Heartbeat(1, 1), *told_of(ANN, 0))
    stage.wait(1.0)
    assert stage.shown() == {"room": ["ann", "eve", "mine"]}
    assert stage.engine.slices()[EVE].horizon == 7


def test_the_largest_numbers_harm_only_who_says_them() -> None:
    stage = Stage()
    stage.eve_says(Heartbeat(LAST, LAST), Delta(EVE, 0, LAST, (entry(EVE, LAST, "eve"),)))
    stage.eve_says(Sync(EVE, LAST, True), Ask(Replica("ann", LAST)), Vouch(ANN, LAST))
    stage.wait(20.0)
    assert stage.shown() == UNHARMED
    stage.ann_says(Delta(ANN, 1, 2, (entry(ANN, 2, "new"),)))
    assert stage.shown() == {"room": ["ann", "mine", "new"]}


@pytest.mark.slow
def test_thousands_of_invented_nodes_are_bounded_and_forgotten_in_favour_of_nobody() -> None:
    stage = Stage()
    for counter in (1, 2):
        for start in range(0, 3 * MAX_MEMBERS, 500):
            names = [Replica(f"ghost {n}", 1) for n in range(start, start + 500)]
            stage.eve_says(Digest(tuple([Sighting(name, counter, 1) for name in names])))
    assert len(stage.engine.members()) == MAX_MEMBERS + 1
    assert not stage.closed()
    stage.wait(10.0)
    assert stage.shown() == UNHARMED
    assert stage.status(ANN) == "up"


def test_what_is_repeated_costs_nothing() -> None:
    stage = Stage()
    said: list[ProtocolMessage] = [
        Sync(ME, 0, True),
        Sync(ANN, 0, True),
        Ask(ANN),
        Vouch(ANN, 5),
        Heartbeat(3, 3),
        Delta(EVE, 0, 1, (entry(EVE, 1, "eve"),)),
        Delta(EVE, 1, 5, (), last=False),
        Delta(ANN, 1, 2, ()),
        *told_of(ANN, 3, version=3),
        *told_of(Replica("ann", 9), 3),
    ]
    stage.eve_says(*said)
    before = total_items(stage.engine)
    for _ in range(200):
        stage.eve_says(*said)
        stage.effects.clear()
    assert total_items(stage.engine) <= before + len(said)


def test_whoever_asks_for_everything_again_and_again_is_sent_a_bounded_part_in_each_turn() -> None:
    stage = Stage()
    for number in range(3000):
        stage.engine.track("hall", f"user {number}", '{"text":"' + "x" * 100 + '"}')
    stage.wait(1.0)
    stage.effects.clear()
    before = total_items(stage.engine)
    for _ in range(100):
        stage.eve_says(Sync(ME, 0, True), Sync(ME, 0, False), Sync(ANN, 0, True))
        stage.engine.tick(stage.now)
        stage._settle()
        deltas = [m for m in stage.sent(TO_EVE) if isinstance(m, Delta)]
        assert sum(size_of(c) for delta in deltas for c in delta.changes) <= 4 * DELTA_BUDGET
        stage.effects.clear()
    assert total_items(stage.engine) <= before + 10


def test_whoever_asks_and_does_not_read_is_sent_nothing() -> None:
    stage = Stage()
    for number in range(3000):
        stage.engine.track("hall", f"user {number}", "{}")
    stage.engine.link_writable(TO_EVE, False, stage.now)
    stage.effects.clear()
    for _ in range(100):
        stage.eve_says(Sync(ME, 0, True))
        stage.engine.tick(stage.now)
        stage._settle()
    assert not [m for m in stage.sent(TO_EVE) if isinstance(m, Delta)]


def test_the_largest_metas_are_passed_on_in_frames_that_fit() -> None:
    stage = Stage()
    hard = '{"":"' + "\\\\" * (MAX_META // 2 - 4) + '"}'
    assert len(hard) <= MAX_META
    name = "\U0001f600" * 1024
    for number in range(1, 6):
        change = entry(EVE, number, name, topic=name, meta=hard)
        stage.eve_says(Delta(EVE, number - 1, number, (change,)))
    stage.ann_says(Sync(EVE, 0, True))
    stage.wait(1.0)
    frames = [encode(m) for m in stage.sent(TO_ANN) if isinstance(m, Delta) and m.replica == EVE]
    assert len(frames) == 5
    assert max(map(len, frames)) <= FRAME_LIMIT


def test_a_storm_of_links_that_open_and_close_leaves_nothing_behind() -> None:
    stage = Stage()
    stage.wait(2.0)
    before = total_items(stage.engine)
    for id in range(100, 1100):
        stage.link(id, EVE)
        stage.engine.link_down(id, stage.now)
        stage.effects.clear()
    stage.wait(2.0)
    assert total_items(stage.engine) <= before + 20
    assert stage.engine.links == 2
    assert stage.status(ANN) == "up"


def test_another_life_of_a_linked_node_is_refused_and_the_living_one_stays() -> None:
    stage = Stage()
    for id in range(100, 150):
        stage.link(id, Replica("ann", id))
        stage.wait(0.1)
    assert stage.closed() == set(range(100, 150))
    assert stage.status(ANN) == "up"
    assert stage.shown() == UNHARMED


def test_the_memory_of_a_half_sent_slice_goes_with_its_link() -> None:
    stage = Stage()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            big = entry(EVE, number + 1, f"k{number}", meta='{"x":"' + "x" * 10_000 + '"}')
            stage.eve_says(Delta(EVE, number, number + 1, (big,), last=False))
        held, _ = tracemalloc.get_traced_memory()
        assert held - before > 1_000_000
        stage.engine.link_down(TO_EVE, stage.now)
        left, _ = tracemalloc.get_traced_memory()
        assert left - before < 300_000
    finally:
        tracemalloc.stop()


def test_two_contents_of_one_version_leave_slice_and_view_in_agreement() -> None:
    stage = Stage()
    stage.eve_says(
        Delta(EVE, 0, 3, (entry(EVE, 1, "k"),)),
        Delta(EVE, 0, 10, (entry(EVE, 4, "one", topic="hall"),), last=False),
        Delta(EVE, 3, 4, (entry(EVE, 4, "other", topic="yard"),)),
        Delta(EVE, 10, 12, ()),
    )
    held = stage.engine.slices()[EVE].entries
    assert stage.engine.view.all_entries("hall") == [e for e in held.values() if e[2] == "hall"]
    assert stage.engine.view.all_entries("yard") == [e for e in held.values() if e[2] == "yard"]
    stage.engine.link_down(2, stage.now)
    stage.wait(10.0)  # a KeyError here leaves the node without a timer
    assert stage.shown() == {"room": ["ann", "mine"]}


def test_invented_namesakes_cost_one_line() -> None:
    stage = Stage()
    for life in range(100, 200):
        stage.eve_says(*told_of(Replica(ME.name, life), 1, 2))
    assert len(stage.notices()) == 1


def test_namesakes_that_dial_cost_one_line() -> None:
    stage = Stage()
    for life in range(100, 200):
        stage.link(life, Replica(ME.name, life))
    assert len(stage.notices()) == 1


def test_goodbyes_without_end_cost_one_line() -> None:
    stage = Stage()
    stage.eve_says(*[Goodbye(50, 0, 5.0)] * 100)
    assert len(stage.notices()) == 1


def forged(replica: Replica, counter: int = LAST, remaining: float = 0.0, held: int = 0) -> Digest:
    """A goodbye of a third replica, as a relay would send it."""
    return Digest((), (Farewell(replica, counter, held, remaining, held),))


@pytest.mark.parametrize("remaining", [0.0, 3600.0])
def test_forged_goodbye_hides_no_node_that_is_heard_directly(remaining: float) -> None:
    stage = Stage()
    stage.eve_says(forged(ANN, remaining=remaining))
    stage.wait(3.0)
    assert stage.status(ANN) == "up"
    assert stage.shown() == {"room": ["ann", "mine"]}
    assert stage.closed() == set()


def test_goodbye_with_a_counter_that_is_no_higher_than_a_known_one_is_refused() -> None:
    stage = Stage(ann_is_linked=False)
    stage.eve_says(*told_of(ANN, 6, 7))
    stage.eve_says(forged(ANN, counter=7))
    assert stage.status(ANN) == "up"
    stage.eve_says(forged(ANN, counter=8, remaining=5.0))
    assert stage.status(ANN) == "left"


def test_higher_counter_on_the_owners_own_link_refutes_a_goodbye() -> None:
    stage = Stage(ann_is_linked=False)
    stage.eve_says(*told_of(ANN, 1, 2), forged(ANN, counter=9))
    stage.wait(0.1)
    stage.link(TO_ANN, ANN)
    stage.ann_says(Heartbeat(10, 1))
    assert stage.status(ANN) == "up"
    stage.ann_says(Delta(ANN, 0, 1, (entry(ANN, 1, "ann"),)))
    assert stage.shown() == {"room": ["ann", "mine"]}


def test_two_heartbeats_on_a_new_link_refute_a_goodbye_with_any_counter() -> None:
    stage = Stage(ann_is_linked=False)
    stage.eve_says(forged(ANN))
    stage.link(TO_ANN, ANN)
    stage.ann_says(Heartbeat(10, 1))
    assert stage.status(ANN) != "up"
    stage.ann_says(Heartbeat(10, 1))
    assert stage.status(ANN) != "up", "a repeated counter is no sign of life"
    stage.ann_says(Heartbeat(11, 1))
    assert stage.status(ANN) == "up"


def test_late_heartbeats_after_a_goodbye_bring_nobody_back() -> None:
    stage = Stage()
    stage.ann_says(Heartbeat(20, 1))
    stage._ann_is_linked = False
    stage.wait(2.0)
    stage.eve_says(forged(ANN, counter=30, remaining=60.0))
    assert stage.status(ANN) == "left"
    assert stage.closed() == {TO_ANN}
    for counter in (21, 22, 29):
        stage.ann_says(Heartbeat(counter, 1))
    assert stage.status(ANN) == "left"


def test_forged_goodbye_takes_no_name_from_a_living_member() -> None:
    stage = Stage()
    stage.eve_says(forged(Replica("ann", 4), remaining=60.0), forged(Replica("ann", 6)))
    assert stage.status(ANN) == "up"
    stage.wait(1.0)
    assert stage.shown() == {"room": ["ann", "mine"]}


def test_forged_goodbye_of_this_node_is_ignored() -> None:
    stage = Stage()
    stage.eve_says(forged(ME))
    stage.wait(1.0)
    assert stage.shown() == {"room": ["ann", "mine"]}
    assert stage.closed() == set()


def test_invented_goodbyes_are_bounded_and_cost_no_lines() -> None:
    stage = Stage()
    for first in range(0, 2 * MAX_MEMBERS, 500):
        ghosts = [Replica(f"ghost {number}", 1) for number in range(first, first + 500)]
        stage.eve_says(Digest((), tuple([Farewell(one, 1, 1, 3600.0, 1) for one in ghosts])))
    assert len(stage.engine._departures) <= MAX_MEMBERS
    assert len(stage.engine._exchange) <= MAX_MEMBERS + 3
    assert stage.notices() == []


def test_requests_beyond_the_allowance_of_a_heartbeat_are_not_answered() -> None:
    stage = Stage()
    stage.effects.clear()
    stage.eve_says(*[Pull(everything=True)] * 100)
    answers = [message for message in stage.sent(TO_EVE) if isinstance(message, Digest)]
    assert len(answers) == MAX_ANSWERS


def test_request_that_names_too_many_is_answered_for_some() -> None:
    stage = Stage()
    stage.effects.clear()
    names = [Replica(f"ghost {number}", 1) for number in range(3000)]
    stage.eve_says(Pull((*names, ANN)), Pull((ANN, *names)))
    sightings = [s for m in stage.sent(TO_EVE) if isinstance(m, Digest) for s in m.sightings]
    assert [sighting.replica for sighting in sightings] == [ANN]


def test_an_invented_name_does_not_forge_log_lines() -> None:
    stage = Stage()
    stage.eve_says(*told_of(Replica("x\nERROR forged", 1), 1, 2, 3))
    stage.wait(10.0)
    assert stage.notices()
    assert all(text.isprintable() for text in stage.notices())


def test_one_replica_does_not_hold_any_number_of_links() -> None:
    stage = Stage()
    for id in range(100, 200):
        stage.link(id, Replica("a smaller name", 1))
        stage.now += 2.0
    assert stage.engine.links == 2 + SPARE_LINKS + 1


def test_a_digest_fits_into_a_frame_whatever_one_was_told_of() -> None:
    stage = Stage()
    long = ("\U0001f600" * 300,) * 16
    for counter in (1, 2):
        for number in range(20):
            ghost = Replica(f"ghost {number}", 1)
            stage.eve_says(Digest((Sighting(ghost, counter, 0, long),)))
    stage.link(100, Replica("new", 1))
    assert max(len(encode(message)) for message in stage.sent(100)) <= FRAME_LIMIT


@pytest.mark.slow
def test_invented_nodes_are_not_all_dialled_at_once() -> None:
    stage = Stage()
    for number in range(2000):
        stage.eve_says(*told_of(Replica(f"ghost {number}", 1), 1, at=f"10.0.0.1:{number + 1}"))
    stage.wait(0.1)
    assert len([effect for effect in stage.effects if isinstance(effect, Dial)]) <= MOST_DIALS


def test_a_counter_that_its_owner_contradicts_is_not_told_to_others() -> None:
    stage = Stage()
    stage.eve_says(*told_of(ANN, 2**62))
    stage.wait(3.0)  # the owner's heartbeats come on its own link meanwhile
    stage.effects.clear()
    stage.link(100, Replica("new", 1))
    stage._hear(100, Pull(everything=True))
    told = [s for m in stage.sent(100) if isinstance(m, Digest) for s in m.sightings]
    assert [s.counter for s in told if s.replica == ANN] == [stage._ann_counter]


def test_nobody_moves_a_node_that_has_a_link() -> None:
    stage = Stage()
    stage.eve_says(*told_of(ANN, 1, at="10.6.6.6:666"))
    assert [m.address for m in stage.engine.members() if m.name == "ann"] == ["ann:1"]
