"""Goodbyes: how long a replica lingers, and which statement about it counts. Time is a number."""

import pytest

from adsum.replication.clock import Clock
from adsum.replication.departures import Departures
from adsum.replication.fingerprint import mark
from adsum.replication.limits import MAX_MEMBERS
from adsum.replication.messages import Farewell
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

TIMING = Timing(forget_after=100.0)
ANN, BOB = Replica("ann", 5), Replica("bob", 5)


def farewell(remaining: float, replica: Replica = ANN, counter: int = 10) -> Farewell:
    return Farewell(replica, counter, 3, remaining, 3)


def test_consecutive_absences_add_up() -> None:
    clock = Clock(0.0, heartbeat_interval=1.0)
    clock.advance(60.0, patience=1.0)
    clock.advance(60.5, patience=1.0)
    clock.advance(70.5, patience=1.0)
    assert clock.recent_absence == 70.0


@pytest.fixture
def departures() -> Departures:
    departures = Departures(TIMING)
    assert departures.note(farewell(5.0), 0.0, sure=True)
    return departures


def test_departed_replica_lingers_then_is_remembered_then_forgotten(
    departures: Departures,
) -> None:
    assert departures.expire(4.99, sure=True) == []
    assert departures.lingers(ANN)
    assert departures.expire(5.0, sure=True) == [ANN]
    assert not departures.lingers(ANN)
    departures.expire(104.9, sure=True)
    assert ANN in departures
    departures.expire(105.0, sure=True)
    assert ANN not in departures


def test_relayed_linger_remainder_only_shortens(departures: Departures) -> None:
    assert not departures.note(farewell(5.0), 1.0, sure=True)
    assert not departures.note(farewell(60.0), 1.0, sure=True)
    assert departures.note(farewell(2.0), 1.0, sure=True)
    assert departures.expire(3.0, sure=True) == [ANN]


def test_ended_linger_does_not_restart(departures: Departures) -> None:
    departures.expire(5.0, sure=True)
    assert not departures.note(farewell(60.0), 6.0, sure=True)
    assert not departures.lingers(ANN)


def test_certain_linger_remainder_replaces_uncertain_one_only() -> None:
    departures = Departures(TIMING)
    assert departures.note(farewell(1.0), 0.0, sure=False)
    assert departures.fingerprint == 0, "an unsure linger is not announced"
    assert departures.note(farewell(4.0), 0.5, sure=True)
    assert departures.fingerprint == mark(ANN)
    assert not departures.note(farewell(0.1), 0.6, sure=False)
    assert departures.expire(4.4, sure=True) == []
    assert departures.expire(4.5, sure=True) == [ANN]


def test_certain_remainder_revives_ended_uncertain_linger() -> None:
    departures = Departures(TIMING)
    departures.note(farewell(0.0), 0.0, sure=False)
    assert departures.expire(0.0, sure=True) == [ANN]
    assert departures.note(farewell(4.0), 0.5, sure=True)
    assert departures.lingers(ANN)


def test_digest_fingerprint_covers_exactly_the_lingering_replicas(departures: Departures) -> None:
    departures.note(farewell(9.0, BOB), 0.0, sure=True)
    assert departures.fingerprint == mark(ANN) ^ mark(BOB)
    departures.expire(5.0, sure=True)
    assert departures.fingerprint == mark(BOB)
    departures.refute(BOB)
    assert departures.fingerprint == 0
    assert BOB not in departures


def test_departed_replicas_are_bounded_and_oldest_ended_are_evicted() -> None:
    departures = Departures(TIMING)
    departures.note(farewell(0.0), 0.0, sure=True)
    departures.expire(0.0, sure=True)
    for number in range(MAX_MEMBERS + 10):
        departures.note(farewell(50.0, Replica(f"n{number}", 1)), 1.0, sure=True)
    assert len(departures) == MAX_MEMBERS
    assert ANN not in departures
    assert not departures.note(farewell(5.0, BOB), 1.0, sure=True)


def test_check_at_is_never_later_than_a_deadline(departures: Departures) -> None:
    assert departures.check_at <= 5.0
    departures.note(farewell(1.0), 1.0, sure=True)
    assert departures.check_at <= 2.0
    departures.expire(2.0, sure=True)
    assert departures.check_at <= 102.0
