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
    assert liveness.meet(ANN, ("here:1",), 0.0, rival_linked=False) is None
    liveness.hear(ANN, 10, 0, 0.0)
    return liveness


def ann(liveness: Liveness) -> Member:
    return liveness.members["ann"]


def status(liveness: Liveness, now: float) -> Status | None:
    liveness.expire(now)
    member = liveness.members.get("ann")
    return member.status if member is not None else None


def test_a_silent_replica_is_down_after_down_after(liveness: Liveness) -> None:
    assert status(liveness, 5.99) is Status.UP
    assert status(liveness, 6.0) is Status.DOWN


def test_a_counter_that_stands_still_is_silence(liveness: Liveness) -> None:
    for now in range(1, 6):
        liveness.hear_of(Sighting(ANN, 10, 0), float(now))
        liveness.hear_of(Sighting(ANN, 9, 0), float(now))
    assert status(liveness, 6.0) is Status.DOWN


def test_a_counter_that_advances_keeps_it_up_however_it_is_heard(liveness: Liveness) -> None:
    liveness.hear(ANN, 11, 0, 5.0)
    liveness.hear_of(Sighting(ANN, 12, 0), 10.0)
    assert status(liveness, 15.9) is Status.UP


def test_a_lost_link_is_suspicion_and_down_only_after_the_grace(liveness: Liveness) -> None:
    assert liveness.lose_link(ANN, 2.0)
    assert status(liveness, 2.99) is Status.SUSPECT
    assert ann(liveness).alive
    assert status(liveness, 3.0) is Status.DOWN
    assert not ann(liveness).alive


def test_a_refused_dial_shortens_the_doubt(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.01)
    assert status(liveness, 2.01 + TIMING.refused_grace) is Status.DOWN


def test_who_vouches_extends_the_doubt_to_the_next_heartbeat(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    assert status(liveness, 3.4) is Status.SUSPECT
    assert status(liveness, 3.5) is Status.DOWN


def test_vouching_again_without_a_new_counter_extends_nothing(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    for step in range(20):
        liveness.vouch(ANN, 10, "bob", 2.0 + step / 10)
    assert status(liveness, 3.5) is Status.DOWN


def test_who_asks_takes_back_its_word(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    liveness.retract(ANN, "bob")
    assert status(liveness, 2.0 + TIMING.refused_grace) is Status.DOWN


def test_the_word_of_one_is_not_taken_back_by_another(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    liveness.retract(ANN, "eve")
    assert status(liveness, 3.4) is Status.SUSPECT


def test_an_advancing_counter_ends_the_doubt(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.vouch(ANN, 11, "bob", 2.5)
    assert status(liveness, 8.4) is Status.UP


def test_old_counters_of_the_dead_bring_nothing_back(liveness: Liveness) -> None:
    status(liveness, 6.0)
    for counter in (9, 10, 12, 12, 12):  # 12 had been missed here; it circulates still
        liveness.hear_of(Sighting(ANN, counter, 7), 7.0)
    assert status(liveness, 7.0) is Status.DOWN


def test_only_an_advancing_counter_brings_back(liveness: Liveness) -> None:
    status(liveness, 6.0)
    liveness.hear_of(Sighting(ANN, 12, 0), 7.0)
    liveness.hear_of(Sighting(ANN, 13, 0), 8.0)
    assert status(liveness, 8.0) is Status.UP


def test_a_link_brings_back_at_once(liveness: Liveness) -> None:
    status(liveness, 6.0)
    assert liveness.meet(ANN, (), 7.0, rival_linked=False) is None
    assert status(liveness, 7.0) is Status.UP


def test_who_is_only_heard_of_is_not_shown_before_it_proves_alive() -> None:
    liveness = Liveness(TIMING, ME)
    liveness.hear_of(Sighting(ANN, 40, 3, ("here:1",)), 0.0)
    assert not ann(liveness).alive
    liveness.hear_of(Sighting(ANN, 41, 3), 1.0)
    assert ann(liveness).alive


def test_the_dead_are_forgotten(liveness: Liveness) -> None:
    assert status(liveness, 6.0) is Status.DOWN
    assert status(liveness, 105.9) is Status.DOWN
    assert status(liveness, 106.0) is None


def test_removed_member_frees_its_name_and_leaves_another_life_alone(liveness: Liveness) -> None:
    liveness.remove(LATER)
    assert ann(liveness).replica == ANN
    liveness.remove(ANN)
    assert "ann" not in liveness.members
    assert liveness.meet(LATER, (), 2.0, rival_linked=False) is None


def test_fingerprint_covers_exactly_the_replicas_that_are_alive(liveness: Liveness) -> None:
    alone = mark(ME)
    assert liveness.fingerprint == alone ^ mark(ANN)
    liveness.lose_link(ANN, 1.0)
    assert liveness.fingerprint == alone ^ mark(ANN)
    assert liveness.meet(LATER, (), 1.1, rival_linked=False) is None
    assert liveness.fingerprint == alone ^ mark(LATER)
    status(liveness, 100.0)
    assert liveness.fingerprint == alone
    liveness.meet(LATER, (), 101.0, rival_linked=False)
    liveness.remove(LATER)
    assert liveness.fingerprint == alone


@pytest.mark.parametrize("other", [LATER, Replica("ann", 1)])
def test_another_life_replaces_a_dead_one_at_once(liveness: Liveness, other: Replica) -> None:
    liveness.lose_link(ANN, 1.0)
    assert liveness.meet(other, (), 1.1, rival_linked=False) is None
    assert ann(liveness).replica == other


def test_a_newcomer_with_the_name_of_a_live_node_is_refused(liveness: Liveness) -> None:
    assert "in use" in str(liveness.meet(LATER, (), 1.0, rival_linked=True))
    liveness.hear(ANN, 11, 0, 1.5)
    assert status(liveness, 3.5) is Status.UP
    assert ann(liveness).replica == ANN


def test_a_newcomer_gets_in_once_the_old_life_proves_silent(liveness: Liveness) -> None:
    assert liveness.meet(LATER, (), 1.0, rival_linked=True) is not None
    assert liveness.meet(LATER, (), 1.2, rival_linked=True) is not None
    assert status(liveness, 3.0) is Status.DOWN
    assert liveness.meet(LATER, (), 3.1, rival_linked=False) is None


def test_of_two_live_lives_the_later_one_is_shown_everywhere(liveness: Liveness) -> None:
    liveness.hear_of(Sighting(LATER, 7, 0), 1.0)
    assert ann(liveness).replica == ANN
    liveness.hear_of(Sighting(LATER, 8, 0), 2.0)
    assert ann(liveness).replica == LATER
    liveness.hear_of(Sighting(ANN, 50, 0), 3.0)
    liveness.hear_of(Sighting(ANN, 51, 0), 4.0)
    assert ann(liveness).replica == LATER


def test_fresh_lists_nobody_who_is_doubted_or_down(liveness: Liveness) -> None:
    assert [member.replica for member in liveness.fresh()] == [ANN]
    liveness.lose_link(ANN, 1.0)
    assert list(liveness.fresh()) == []


def test_there_is_a_limit_to_the_members() -> None:
    liveness = Liveness(TIMING, ME)
    for number in range(MAX_MEMBERS + 10):
        liveness.hear_of(Sighting(Replica(f"n{number}", 1), 1, 0), 0.0)
    assert len(liveness.members) == MAX_MEMBERS
    assert liveness.meet(ANN, (), 0.0, rival_linked=False) is not None


def test_check_at_is_never_later_than_what_is_due(liveness: Liveness) -> None:
    liveness.hear(ANN, 11, 0, 1.0)
    assert liveness.check_at <= 7.0
    liveness.lose_link(ANN, 2.0)
    assert liveness.check_at <= 3.0
    liveness.refuse("ann", 2.1)
    assert liveness.check_at <= 2.1 + TIMING.refused_grace


def test_a_word_that_is_taken_back_is_acted_on_in_time(liveness: Liveness) -> None:
    liveness.lose_link(ANN, 2.0)
    liveness.refuse("ann", 2.0)
    liveness.vouch(ANN, 10, "bob", 2.0)
    liveness.expire(2.5)
    assert liveness.check_at > 3.0
    liveness.retract(ANN, "bob")
    assert liveness.check_at <= 2.5
