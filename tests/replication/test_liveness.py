"""Who is up, by what was heard and when. Time is a number that each test passes in."""

import pytest

from adsum.replication.fingerprint import mark
from adsum.replication.limits import MAX_MEMBERS
from adsum.replication.liveness import Liveness, Member, Status
from adsum.replication.messages import Sighting
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

TIMING = Timing(heartbeat_interval=1.0, down_after=6.0, link_grace=1.0, forget_after=100.0)
ME = Replica("me", 5)
ANN = Replica("ann", 5)
LATER = Replica("ann", 9)


@pytest.fixture
def liveness() -> Liveness:
    liveness = Liveness(TIMING, ME)
    assert liveness.admit(ANN, ("here:1",), 0.0, rival_linked=False) is None
    liveness.note_heartbeat(ANN, 10, 0, 0.0)
    return liveness


def ann(liveness: Liveness) -> Member:
    return liveness.members["ann"]


def status(liveness: Liveness, now: float) -> Status | None:
    liveness.expire(now)
    member = liveness.members.get("ann")
    return member.status if member is not None else None


def test_silent_replica_is_down_after_down_after(liveness: Liveness) -> None:
    assert status(liveness, 5.99) is Status.UP
    assert status(liveness, 6.0) is Status.DOWN


def test_repeated_heartbeat_counter_counts_as_silence(liveness: Liveness) -> None:
    for now in range(1, 6):
        liveness.note_sighting(Sighting(ANN, 10, 0), float(now))
        liveness.note_sighting(Sighting(ANN, 9, 0), float(now))
    assert status(liveness, 6.0) is Status.DOWN


def test_advancing_heartbeat_counter_keeps_replica_up_by_any_path(liveness: Liveness) -> None:
    liveness.note_heartbeat(ANN, 11, 0, 5.0)
    liveness.note_sighting(Sighting(ANN, 12, 0), 10.0)
    assert status(liveness, 15.9) is Status.UP


def test_lost_link_makes_suspect_and_down_only_after_link_grace(liveness: Liveness) -> None:
    assert liveness.lose_link(ANN, 2.0)
    assert status(liveness, 2.99) is Status.SUSPECT
    assert ann(liveness).alive
    assert status(liveness, 3.0) is Status.DOWN
    assert not ann(liveness).alive


def test_refused_dial_shortens_suspicion(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.01)
    assert status(liveness, 2.01 + TIMING.refused_grace) is Status.DOWN


def test_vouch_extends_suspicion_to_the_next_heartbeat(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    assert status(liveness, 3.4) is Status.SUSPECT
    assert status(liveness, 3.5) is Status.DOWN


def test_repeated_vouch_without_a_new_counter_extends_nothing(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    for step in range(20):
        liveness.vouch(ANN, 10, "bob", 2.0 + step / 10)
    assert status(liveness, 3.5) is Status.DOWN


def test_suspect_query_withdraws_the_senders_own_vouch(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    liveness.retract(ANN, "bob")
    assert status(liveness, 2.0 + TIMING.refused_grace) is Status.DOWN


def test_vouch_of_one_peer_is_not_withdrawn_by_another(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    liveness.retract(ANN, "eve")
    assert status(liveness, 3.4) is Status.SUSPECT


def test_advancing_counter_ends_suspicion(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.vouch(ANN, 11, "bob", 2.5)
    assert status(liveness, 8.4) is Status.UP


def test_stale_counters_do_not_revive_a_down_replica(liveness: Liveness) -> None:
    status(liveness, 6.0)
    for counter in (9, 10, 12, 12, 12):  # 12 had been missed here; it circulates still
        liveness.note_sighting(Sighting(ANN, counter, 7), 7.0)
    assert status(liveness, 7.0) is Status.DOWN


def test_down_replica_is_revived_only_by_an_advancing_counter(liveness: Liveness) -> None:
    status(liveness, 6.0)
    liveness.note_sighting(Sighting(ANN, 12, 0), 7.0)
    liveness.note_sighting(Sighting(ANN, 13, 0), 8.0)
    assert status(liveness, 8.0) is Status.UP


def test_new_link_revives_a_down_replica_at_once(liveness: Liveness) -> None:
    status(liveness, 6.0)
    assert liveness.admit(ANN, (), 7.0, rival_linked=False) is None
    assert status(liveness, 7.0) is Status.UP


def test_replica_known_by_digest_is_hidden_until_it_proves_alive() -> None:
    liveness = Liveness(TIMING, ME)
    liveness.note_sighting(Sighting(ANN, 40, 3, ("here:1",)), 0.0)
    assert not ann(liveness).alive
    liveness.note_sighting(Sighting(ANN, 41, 3), 1.0)
    assert ann(liveness).alive


def test_down_replica_is_forgotten_after_forget_after(liveness: Liveness) -> None:
    assert status(liveness, 6.0) is Status.DOWN
    assert status(liveness, 105.9) is Status.DOWN
    assert status(liveness, 106.0) is None


def test_removed_member_frees_its_name_but_no_other_incarnation(liveness: Liveness) -> None:
    liveness.remove(LATER)
    assert ann(liveness).replica == ANN
    liveness.remove(ANN)
    assert "ann" not in liveness.members
    assert liveness.admit(LATER, (), 2.0, rival_linked=False) is None


def test_digest_fingerprint_covers_exactly_the_alive_replicas(liveness: Liveness) -> None:
    alone = mark(ME)
    assert liveness.fingerprint == alone ^ mark(ANN)
    liveness.lose_link(ANN, 1.0)
    assert liveness.fingerprint == alone ^ mark(ANN)
    assert liveness.admit(LATER, (), 1.1, rival_linked=False) is None
    assert liveness.fingerprint == alone ^ mark(LATER)
    status(liveness, 100.0)
    assert liveness.fingerprint == alone
    liveness.admit(LATER, (), 101.0, rival_linked=False)
    liveness.remove(LATER)
    assert liveness.fingerprint == alone


@pytest.mark.parametrize("other", [LATER, Replica("ann", 1)])
def test_new_incarnation_replaces_a_down_one_at_once(liveness: Liveness, other: Replica) -> None:
    liveness.lose_link(ANN, 1.0)
    assert liveness.admit(other, (), 1.1, rival_linked=False) is None
    assert ann(liveness).replica == other


def test_newcomer_with_duplicate_name_of_a_live_node_is_refused(liveness: Liveness) -> None:
    assert "in use" in str(liveness.admit(LATER, (), 1.0, rival_linked=True))
    liveness.note_heartbeat(ANN, 11, 0, 1.5)
    assert status(liveness, 3.5) is Status.UP
    assert ann(liveness).replica == ANN


def test_new_incarnation_is_admitted_once_the_old_one_is_silent(liveness: Liveness) -> None:
    assert liveness.admit(LATER, (), 1.0, rival_linked=True) is not None
    assert liveness.admit(LATER, (), 1.2, rival_linked=True) is not None
    assert status(liveness, 3.0) is Status.DOWN
    assert liveness.admit(LATER, (), 3.1, rival_linked=False) is None


def test_higher_of_two_live_incarnations_is_shown_everywhere(liveness: Liveness) -> None:
    liveness.note_sighting(Sighting(LATER, 7, 0), 1.0)
    assert ann(liveness).replica == ANN
    liveness.note_sighting(Sighting(LATER, 8, 0), 2.0)
    assert ann(liveness).replica == LATER
    liveness.note_sighting(Sighting(ANN, 50, 0), 3.0)
    liveness.note_sighting(Sighting(ANN, 51, 0), 4.0)
    assert ann(liveness).replica == LATER


def test_fresh_lists_no_suspect_and_no_down_replica(liveness: Liveness) -> None:
    assert [member.replica for member in liveness.fresh()] == [ANN]
    liveness.lose_link(ANN, 1.0)
    assert list(liveness.fresh()) == []


def test_members_are_bounded() -> None:
    liveness = Liveness(TIMING, ME)
    for number in range(MAX_MEMBERS + 10):
        liveness.note_sighting(Sighting(Replica(f"n{number}", 1), 1, 0), 0.0)
    assert len(liveness.members) == MAX_MEMBERS
    assert liveness.admit(ANN, (), 0.0, rival_linked=False) is not None


def test_check_at_is_never_later_than_a_due_change(liveness: Liveness) -> None:
    liveness.note_heartbeat(ANN, 11, 0, 1.0)
    assert liveness.check_at <= 7.0
    liveness.lose_link(ANN, 2.0)
    assert liveness.check_at <= 3.0
    liveness.refuse("ann", 2.1)
    assert liveness.check_at <= 2.1 + TIMING.refused_grace


def test_withdrawn_vouch_is_acted_on_in_time(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    liveness.expire(2.5)
    assert liveness.check_at > 3.0
    liveness.retract(ANN, "bob")
    assert liveness.check_at <= 2.5
