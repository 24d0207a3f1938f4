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

from .attacked_engine import ANN, EVE, ME, TO_ANN, TO_EVE, AttackedEngine, entry, told_of
from .container_sizes import total_items

UNHARMED = {"room": ["ann", "mine"]}
LAST = MAX_NUMBER - 1


def test_unrequested_relay_is_rejected() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(
        Delta(ANN, 0, 9, (entry(ANN, 9, "forged"),), reset=True),
        Delta(ANN, 1, 9, (entry(ANN, 9, "forged"),)),
        Delta(ANN, 1, 2, ((2, 1),)),
        Delta(ANN, 1, LAST, ()),
    )
    attacked.wait(1.0)
    assert attacked.shown() == UNHARMED
    assert attacked.engine.slices()[ANN].horizon == 1


def test_linked_replica_is_fetched_from_no_relay() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(*told_of(ANN, 1, 2, 3, version=LAST), Vouch(ANN, LAST))
    attacked.wait(5.0)
    syncs = [m for m in attacked.sent(TO_EVE) if isinstance(m, Sync)]
    assert {sync.replica for sync in syncs} == {EVE}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [0, 1, 5, LAST])
def test_delta_about_the_receivers_slice_closes_the_link(after: int, reset: bool) -> None:
    attacked = AttackedEngine()
    with pytest.raises(ProtocolError, match="about the slice of this node"):
        attacked.eve_says(Delta(ME, after, LAST, (), reset=reset))
    assert attacked.shown() == UNHARMED


@pytest.mark.parametrize(
    "claim",
    [Sync(ME, 2, True), Sync(ME, LAST, False), *told_of(ME, LAST), *told_of(ME, 0, version=LAST)],
)
def test_claim_of_unmade_own_changes_closes_the_link_with_one_line(
    claim: ProtocolMessage,
) -> None:
    attacked = AttackedEngine()
    attacked.eve_says(claim)
    assert attacked.closed() == {TO_EVE}
    assert len(attacked.notices()) == 1
    assert attacked.shown() == UNHARMED


def test_repeated_false_claim_on_many_links_is_logged_once() -> None:
    attacked = AttackedEngine()
    for id in range(100, 150):
        attacked.link(id, EVE)
        attacked._hear(id, Sync(ME, LAST, False))
        attacked.engine.link_down(id, attacked.now)
    assert len(attacked.notices()) == 1


def test_fetch_of_nonexistent_versions_or_slices_is_not_answered() -> None:
    attacked = AttackedEngine()
    attacked.wait(0.1)
    before = [m for m in attacked.sent(TO_EVE) if isinstance(m, Delta)]
    attacked.eve_says(
        Sync(ANN, 2, True), Sync(ANN, LAST, True), Sync(Replica("nobody", 1), 0, True)
    )
    attacked.wait(0.1)
    assert [m for m in attacked.sent(TO_EVE) if isinstance(m, Delta)] == before
    assert not attacked.closed()


def test_stale_horizons_and_counters_are_ignored() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(Delta(EVE, 0, 7, (entry(EVE, 7, "eve"),)), Heartbeat(9, 7))
    attacked.eve_says(Delta(EVE, 0, 3, (entry(EVE, 3, "old"),)), Delta(EVE, 6, 7, ((7, 7),)))
    attacked.eve_says(Heartbeat(1, 1), *told_of(ANN, 0))
    attacked.wait(1.0)
    assert attacked.shown() == {"room": ["ann", "eve", "mine"]}
    assert attacked.engine.slices()[EVE].horizon == 7


def test_maximum_numbers_harm_only_their_sender() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(Heartbeat(LAST, LAST), Delta(EVE, 0, LAST, (entry(EVE, LAST, "eve"),)))
    attacked.eve_says(Sync(EVE, LAST, True), Ask(Replica("ann", LAST)), Vouch(ANN, LAST))
    attacked.wait(20.0)
    assert attacked.shown() == UNHARMED
    attacked.ann_says(Delta(ANN, 1, 2, (entry(ANN, 2, "new"),)))
    assert attacked.shown() == {"room": ["ann", "mine", "new"]}


@pytest.mark.slow
def test_invented_members_are_bounded_and_evict_no_real_one() -> None:
    attacked = AttackedEngine()
    for counter in (1, 2):
        for start in range(0, 3 * MAX_MEMBERS, 500):
            names = [Replica(f"ghost {n}", 1) for n in range(start, start + 500)]
            attacked.eve_says(Digest(tuple([Sighting(name, counter, 1) for name in names])))
    assert len(attacked.engine.members()) == MAX_MEMBERS + 1
    assert not attacked.closed()
    attacked.wait(10.0)
    assert attacked.shown() == UNHARMED
    assert attacked.status(ANN) == "up"


def test_replayed_messages_cost_nothing() -> None:
    attacked = AttackedEngine()
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
    attacked.eve_says(*said)
    before = total_items(attacked.engine)
    for _ in range(200):
        attacked.eve_says(*said)
        attacked.effects.clear()
    assert total_items(attacked.engine) <= before + len(said)


def test_repeated_fetch_of_everything_is_answered_in_bounded_parts() -> None:
    attacked = AttackedEngine()
    for number in range(3000):
        attacked.engine.track("hall", f"user {number}", '{"text":"' + "x" * 100 + '"}')
    attacked.wait(1.0)
    attacked.effects.clear()
    before = total_items(attacked.engine)
    for _ in range(100):
        attacked.eve_says(Sync(ME, 0, True), Sync(ME, 0, False), Sync(ANN, 0, True))
        attacked.engine.tick(attacked.now)
        attacked._settle()
        deltas = [m for m in attacked.sent(TO_EVE) if isinstance(m, Delta)]
        assert sum(size_of(c) for delta in deltas for c in delta.changes) <= 4 * DELTA_BUDGET
        attacked.effects.clear()
    assert total_items(attacked.engine) <= before + 10


def test_fetch_by_a_peer_that_does_not_read_is_not_answered() -> None:
    attacked = AttackedEngine()
    for number in range(3000):
        attacked.engine.track("hall", f"user {number}", "{}")
    attacked.engine.link_writable(TO_EVE, False, attacked.now)
    attacked.effects.clear()
    for _ in range(100):
        attacked.eve_says(Sync(ME, 0, True))
        attacked.engine.tick(attacked.now)
        attacked._settle()
    assert not [m for m in attacked.sent(TO_EVE) if isinstance(m, Delta)]


def test_relayed_metas_of_maximum_size_fit_into_frames() -> None:
    attacked = AttackedEngine()
    hard = '{"":"' + "\\\\" * (MAX_META // 2 - 4) + '"}'
    assert len(hard) <= MAX_META
    name = "\U0001f600" * 1024
    for number in range(1, 6):
        change = entry(EVE, number, name, topic=name, meta=hard)
        attacked.eve_says(Delta(EVE, number - 1, number, (change,)))
    attacked.ann_says(Sync(EVE, 0, True))
    attacked.wait(1.0)
    frames = [encode(m) for m in attacked.sent(TO_ANN) if isinstance(m, Delta) and m.replica == EVE]
    assert len(frames) == 5
    assert max(map(len, frames)) <= FRAME_LIMIT


def test_link_open_close_storm_leaks_nothing() -> None:
    attacked = AttackedEngine()
    attacked.wait(2.0)
    before = total_items(attacked.engine)
    for id in range(100, 1100):
        attacked.link(id, EVE)
        attacked.engine.link_down(id, attacked.now)
        attacked.effects.clear()
    attacked.wait(2.0)
    assert total_items(attacked.engine) <= before + 20
    assert attacked.engine.links == 2
    assert attacked.status(ANN) == "up"


def test_other_incarnation_of_a_linked_node_is_refused() -> None:
    attacked = AttackedEngine()
    for id in range(100, 150):
        attacked.link(id, Replica("ann", id))
        attacked.wait(0.1)
    assert attacked.closed() == set(range(100, 150))
    assert attacked.status(ANN) == "up"
    assert attacked.shown() == UNHARMED


def test_partial_catch_up_memory_is_freed_with_its_link() -> None:
    attacked = AttackedEngine()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            big = entry(EVE, number + 1, f"k{number}", meta='{"x":"' + "x" * 10_000 + '"}')
            attacked.eve_says(Delta(EVE, number, number + 1, (big,), last=False))
        held, _ = tracemalloc.get_traced_memory()
        assert held - before > 1_000_000
        attacked.engine.link_down(TO_EVE, attacked.now)
        left, _ = tracemalloc.get_traced_memory()
        assert left - before < 300_000
    finally:
        tracemalloc.stop()


def test_conflicting_entries_of_one_version_keep_slice_and_view_consistent() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(
        Delta(EVE, 0, 3, (entry(EVE, 1, "k"),)),
        Delta(EVE, 0, 10, (entry(EVE, 4, "one", topic="hall"),), last=False),
        Delta(EVE, 3, 4, (entry(EVE, 4, "other", topic="yard"),)),
        Delta(EVE, 10, 12, ()),
    )
    held = attacked.engine.slices()[EVE].entries
    assert attacked.engine.view.all_entries("hall") == [e for e in held.values() if e[2] == "hall"]
    assert attacked.engine.view.all_entries("yard") == [e for e in held.values() if e[2] == "yard"]
    attacked.engine.link_down(2, attacked.now)
    attacked.wait(10.0)  # a KeyError here leaves the node without a timer
    assert attacked.shown() == {"room": ["ann", "mine"]}


def test_invented_duplicate_names_cost_one_log_line() -> None:
    attacked = AttackedEngine()
    for life in range(100, 200):
        attacked.eve_says(*told_of(Replica(ME.name, life), 1, 2))
    assert len(attacked.notices()) == 1


def test_dialling_duplicate_names_cost_one_log_line() -> None:
    attacked = AttackedEngine()
    for life in range(100, 200):
        attacked.link(life, Replica(ME.name, life))
    assert len(attacked.notices()) == 1


def test_goodbye_flood_costs_one_log_line() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(*[Goodbye(50, 0, 5.0)] * 100)
    assert len(attacked.notices()) == 1


def forged(replica: Replica, counter: int = LAST, remaining: float = 0.0, held: int = 0) -> Digest:
    """A goodbye of a third replica, as a relay would send it."""
    return Digest((), (Farewell(replica, counter, held, remaining, held),))


@pytest.mark.parametrize("remaining", [0.0, 3600.0])
def test_forged_goodbye_hides_no_linked_node(remaining: float) -> None:
    attacked = AttackedEngine()
    attacked.eve_says(forged(ANN, remaining=remaining))
    attacked.wait(3.0)
    assert attacked.status(ANN) == "up"
    assert attacked.shown() == {"room": ["ann", "mine"]}
    assert attacked.closed() == set()


def test_stale_goodbye_counter_is_refused() -> None:
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(*told_of(ANN, 6, 7))
    attacked.eve_says(forged(ANN, counter=7))
    assert attacked.status(ANN) == "up"
    attacked.eve_says(forged(ANN, counter=8, remaining=5.0))
    assert attacked.status(ANN) == "left"


def test_higher_heartbeat_counter_on_the_owners_link_refutes_a_goodbye() -> None:
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(*told_of(ANN, 1, 2), forged(ANN, counter=9))
    attacked.wait(0.1)
    attacked.link(TO_ANN, ANN)
    attacked.ann_says(Heartbeat(10, 1))
    assert attacked.status(ANN) == "up"
    attacked.ann_says(Delta(ANN, 0, 1, (entry(ANN, 1, "ann"),)))
    assert attacked.shown() == {"room": ["ann", "mine"]}


def test_two_heartbeats_on_a_new_link_refute_a_goodbye_with_any_counter() -> None:
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(forged(ANN))
    attacked.link(TO_ANN, ANN)
    attacked.ann_says(Heartbeat(10, 1))
    assert attacked.status(ANN) != "up"
    attacked.ann_says(Heartbeat(10, 1))
    assert attacked.status(ANN) != "up", "a repeated counter is no sign of life"
    attacked.ann_says(Heartbeat(11, 1))
    assert attacked.status(ANN) == "up"


def test_late_heartbeats_after_goodbye_revive_no_replica() -> None:
    attacked = AttackedEngine()
    attacked.ann_says(Heartbeat(20, 1))
    attacked._ann_is_linked = False
    attacked.wait(2.0)
    attacked.eve_says(forged(ANN, counter=30, remaining=60.0))
    assert attacked.status(ANN) == "left"
    assert attacked.closed() == {TO_ANN}
    for counter in (21, 22, 29):
        attacked.ann_says(Heartbeat(counter, 1))
    assert attacked.status(ANN) == "left"


def test_forged_goodbye_frees_no_name_of_a_live_member() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(forged(Replica("ann", 4), remaining=60.0), forged(Replica("ann", 6)))
    assert attacked.status(ANN) == "up"
    attacked.wait(1.0)
    assert attacked.shown() == {"room": ["ann", "mine"]}


def test_forged_goodbye_of_this_node_is_ignored() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(forged(ME))
    attacked.wait(1.0)
    assert attacked.shown() == {"room": ["ann", "mine"]}
    assert attacked.closed() == set()


def test_invented_goodbyes_are_memory_bound_and_not_logged() -> None:
    attacked = AttackedEngine()
    for first in range(0, 2 * MAX_MEMBERS, 500):
        ghosts = [Replica(f"ghost {number}", 1) for number in range(first, first + 500)]
        attacked.eve_says(Digest((), tuple([Farewell(one, 1, 1, 3600.0, 1) for one in ghosts])))
    assert len(attacked.engine._departures) <= MAX_MEMBERS
    assert len(attacked.engine._exchange) <= MAX_MEMBERS + 3
    assert attacked.notices() == []


def test_digest_requests_beyond_the_rate_limit_are_not_answered() -> None:
    attacked = AttackedEngine()
    attacked.effects.clear()
    attacked.eve_says(*[Pull(everything=True)] * 100)
    answers = [message for message in attacked.sent(TO_EVE) if isinstance(message, Digest)]
    assert len(answers) == MAX_ANSWERS


def test_oversized_digest_request_is_answered_in_part() -> None:
    attacked = AttackedEngine()
    attacked.effects.clear()
    names = [Replica(f"ghost {number}", 1) for number in range(3000)]
    attacked.eve_says(Pull((*names, ANN)), Pull((ANN, *names)))
    sightings = [s for m in attacked.sent(TO_EVE) if isinstance(m, Digest) for s in m.sightings]
    assert [sighting.replica for sighting in sightings] == [ANN]


def test_invented_name_forges_no_log_line() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(*told_of(Replica("x\nERROR forged", 1), 1, 2, 3))
    attacked.wait(10.0)
    assert attacked.notices()
    assert all(text.isprintable() for text in attacked.notices())


def test_links_of_one_replica_are_bounded() -> None:
    attacked = AttackedEngine()
    for id in range(100, 200):
        attacked.link(id, Replica("a smaller name", 1))
        attacked.now += 2.0
    assert attacked.engine.links == 2 + SPARE_LINKS + 1


def test_digest_fits_into_a_frame_with_any_sightings() -> None:
    attacked = AttackedEngine()
    long = ("\U0001f600" * 300,) * 16
    for counter in (1, 2):
        for number in range(20):
            ghost = Replica(f"ghost {number}", 1)
            attacked.eve_says(Digest((Sighting(ghost, counter, 0, long),)))
    attacked.link(100, Replica("new", 1))
    assert max(len(encode(message)) for message in attacked.sent(100)) <= FRAME_LIMIT


@pytest.mark.slow
def test_dials_of_invented_members_are_rate_limited() -> None:
    attacked = AttackedEngine()
    for number in range(2000):
        attacked.eve_says(*told_of(Replica(f"ghost {number}", 1), 1, at=f"10.0.0.1:{number + 1}"))
    attacked.wait(0.1)
    assert len([effect for effect in attacked.effects if isinstance(effect, Dial)]) <= MOST_DIALS


def test_counter_contradicted_by_its_owner_is_not_relayed() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(*told_of(ANN, 2**62))
    attacked.wait(3.0)  # the owner's heartbeats come on its own link meanwhile
    attacked.effects.clear()
    attacked.link(100, Replica("new", 1))
    attacked._hear(100, Pull(everything=True))
    told = [s for m in attacked.sent(100) if isinstance(m, Digest) for s in m.sightings]
    assert [s.counter for s in told if s.replica == ANN] == [attacked._ann_counter]


def test_forged_address_of_a_linked_node_is_ignored() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(*told_of(ANN, 1, at="10.6.6.6:666"))
    assert [m.address for m in attacked.engine.members() if m.name == "ann"] == ["ann:1"]
