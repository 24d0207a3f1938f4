"""Held links: while a carrier is away, the silence of the members behind it means nothing."""

from random import Random

import pytest

from adsum.bus.bussession import MAX_UNANSWERED, PING_INTERVAL
from adsum.replication.effects import Close, Effect, Send
from adsum.replication.engine import Engine
from adsum.replication.liveness import Liveness, Status
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Farewell,
    Goodbye,
    Heartbeat,
    Pull,
    Sighting,
    Vouch,
)
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

TIMING = Timing(heartbeat_interval=1.0, down_after=6.0, link_grace=1.0, forget_after=100.0)
ME, ANN, BOB = (Replica(name, 5) for name in ("me", "ann", "bob"))
LATER, EARLIER = Replica("ann", 9), Replica("ann", 1)
#: Links of the engine: to ann over a carrier, to ann directly, to bob directly.
CARRIED, DIRECT, SIBLING = 1, 2, 3
#: Seconds of an outage, far more than any deadline except that of being forgotten.
OUTAGE = 60.0


class Held:
    """An engine in virtual time, with a link over a carrier to ann, which is held."""

    def __init__(self, *, joins: bool = False, timing: Timing = TIMING) -> None:
        self.engine = Engine(ME, timing, Random(1), 0.0)
        self.now = 0.0
        self.effects: list[Effect] = []
        if joins:
            self.engine.add_seed("bus:ann", lasting=False, direct=False)
            self.engine.seeds_complete()
            self.engine.tick(0.0)  # dials
        self.engine.link_up(CARRIED, ANN, ("bus:ann",), "bus:ann", 0.0, direct=False)
        if not joins:
            self.engine.receive(CARRIED, Heartbeat(10, 0), 0.0)
            self.engine.receive(CARRIED, Digest(), 0.0)
        self.engine.hold([CARRIED], True, 0.0)

    def run(self, seconds: float, *, sibling: bool = False) -> None:
        """Let time pass; bob sends a heartbeat each second if he is a sibling."""
        until, beat_at = self.now + seconds, self.now
        while self.now < until:
            if sibling and self.now >= beat_at:
                self.engine.receive(SIBLING, Heartbeat(int(self.now) + 2, 0), self.now)
                beat_at = self.now + 1.0
            self.engine.tick(self.now)
            self.collect()
            self.now = min(until, max(self.engine.wake_at, self.now + 0.001))
        self.engine.tick(self.now)
        self.collect()

    def add_sibling(self) -> None:
        self.engine.link_up(SIBLING, BOB, ("unix:bob",), None, self.now)
        self.engine.receive(SIBLING, Heartbeat(1, 0), self.now)
        self.collect()

    def release(self) -> None:
        self.engine.hold([CARRIED], False, self.now)

    def collect(self) -> None:
        while effects := self.engine.take_effects():
            self.effects += effects

    def status(self, name: str = "ann") -> str:
        [status] = [info.status for info in self.engine.members() if info.name == name] or ["gone"]
        return status

    @property
    def closed(self) -> list[int]:
        self.collect()
        return [effect.link for effect in self.effects if isinstance(effect, Close)]


@pytest.fixture
def held() -> Held:
    return Held()


def test_held_member_stays_up_and_its_link_open_however_long_it_is_silent(held: Held) -> None:
    held.engine.link_writable(CARRIED, False, 0.0)
    held.run(OUTAGE)
    assert held.status() == "up"
    assert held.closed == []


@pytest.mark.parametrize(("margin", "status"), [(0.1, "up"), (-0.1, "down")])
def test_hung_carrier_hides_a_member_if_down_after_is_below_a_heartbeat_and_the_noticing(
    margin: float, status: str
) -> None:
    """The server hangs as the next heartbeat is due, and its loss is noticed as late as possible.

    This is the bound that docs/configuration.md states for `down_after`.
    """
    noticed = (MAX_UNANSWERED + 1) * PING_INTERVAL
    silence = 2.0 + noticed
    held = Held(timing=Timing(heartbeat_interval=2.0, down_after=silence + margin))
    held.release()
    held.run(silence)
    held.engine.hold([CARRIED], True, held.now)
    held.run(OUTAGE)
    assert held.status() == status


def test_member_has_its_full_down_after_from_the_end_of_its_hold(held: Held) -> None:
    held.run(OUTAGE)
    held.release()
    held.run(5.9)
    assert held.status() == "up"
    held.run(0.2)
    assert held.status() == "down"


@pytest.mark.parametrize("writable", [True, False], ids=["silent", "not read"])
def test_link_has_its_full_down_after_from_the_end_of_its_hold(held: Held, writable: bool) -> None:
    held.engine.link_writable(CARRIED, writable, 0.0)
    held.run(OUTAGE)
    held.release()
    for _ in range(5):
        held.run(1.0)
        if not writable:
            held.engine.receive(CARRIED, Heartbeat(11, 0), held.now)
    assert held.closed == []
    held.run(3.0)
    assert held.closed == [CARRIED]


def test_repeated_hold_does_not_begin_again(held: Held) -> None:
    held.run(OUTAGE)
    held.release()
    held.run(4.0)
    held.release()
    held.run(3.0)
    assert held.status() == "down"


def test_hold_of_a_closed_link_is_ignored(held: Held) -> None:
    held.engine.hold([77], True, 0.0)
    held.run(1.0)
    assert held.status() == "up"


def test_link_that_closes_while_held_makes_its_member_suspect(held: Held) -> None:
    held.run(OUTAGE)
    held.engine.link_down(CARRIED, held.now)
    assert held.status() == "suspect"
    held.run(0.9)
    assert held.status() == "suspect"
    held.run(0.2)
    assert held.status() == "down"


def test_silence_over_a_direct_link_beside_a_held_one_counts(held: Held) -> None:
    held.engine.link_up(DIRECT, ANN, ("unix:ann",), None, 0.0)
    held.run(6.5)
    assert held.status() == "down"


def test_member_whose_direct_link_closes_beside_a_held_one_is_held_from_then(held: Held) -> None:
    held.engine.link_up(DIRECT, ANN, ("unix:ann",), None, 0.0)
    held.run(5.0)
    held.engine.link_down(DIRECT, held.now)
    held.run(OUTAGE)
    assert held.status() == "up"


def test_new_direct_link_ends_a_hold(held: Held) -> None:
    held.run(OUTAGE)
    held.engine.link_up(DIRECT, ANN, ("unix:ann",), None, held.now)
    held.run(6.5)
    assert held.status() == "down"


def test_other_members_are_not_held(held: Held) -> None:
    held.add_sibling()
    held.run(7.0)
    assert held.status("bob") == "down"
    assert held.status() == "up"


def test_goodbye_relayed_by_a_sibling_ends_the_membership_of_a_held_replica(held: Held) -> None:
    held.add_sibling()
    held.run(5.0, sibling=True)
    farewell = Farewell(ANN, 11, 0, 60.0, 0)
    held.engine.receive(SIBLING, Digest((), (farewell,)), held.now)
    assert held.status() == "left"
    assert held.closed == [CARRIED]


def test_linger_ends_in_time_while_links_are_held(held: Held) -> None:
    held.add_sibling()
    held.engine.receive(SIBLING, Goodbye(3, 0, 5.0), held.now)
    held.run(4.9)
    assert held.status("bob") == "left"
    held.run(0.2)
    assert held.status("bob") == "gone"


def test_newer_incarnation_in_digests_replaces_a_held_replica(held: Held) -> None:
    held.add_sibling()
    for counter in (1, 2):
        held.engine.receive(SIBLING, Digest((Sighting(LATER, counter, 0),)), held.now)
    assert [info.incarnation for info in held.engine.members() if info.name == "ann"] == [9]
    assert held.closed == [CARRIED]


@pytest.mark.parametrize(
    ("replica", "known", "closed"),
    [(LATER, 9, CARRIED), (EARLIER, 5, DIRECT)],
    ids=["newer", "older"],
)
def test_of_a_held_replica_and_a_link_of_its_name_the_newer_incarnation_remains(
    held: Held, replica: Replica, known: int, closed: int
) -> None:
    held.engine.link_up(DIRECT, replica, ("unix:ann",), None, held.now)
    assert held.closed == [closed]
    held.run(OUTAGE if known == 5 else 0.1)
    [info] = [info for info in held.engine.members() if info.name == "ann"]
    assert (info.incarnation, info.status) == (known, "up")


def test_joining_waits_for_a_held_link_as_long_as_for_a_silent_one() -> None:
    held = Held(joins=True)
    held.run(5.5)
    assert not held.engine.joined
    held.run(2.0)
    assert held.engine.joined


def test_joining_waits_for_the_slice_of_a_held_replica_as_long_as_for_a_silent_one() -> None:
    held = Held(joins=True)
    held.engine.receive(CARRIED, Heartbeat(10, 7), 0.0)
    held.engine.receive(CARRIED, Digest(), 0.0)
    held.run(5.5)
    assert not held.engine.joined
    held.run(2.0)
    assert held.engine.joined


def test_joining_continues_after_a_short_hold() -> None:
    held = Held(joins=True)
    held.run(2.0)
    held.release()
    held.engine.receive(CARRIED, Heartbeat(10, 1), held.now)
    held.engine.receive(CARRIED, Digest(), held.now)
    assert not held.engine.joined
    entry = (1, 1, "room", "ann", "{}", None, *ANN)
    held.engine.receive(CARRIED, Delta(ANN, 0, 1, (entry,)), held.now)
    assert held.engine.joined


def test_held_replica_is_not_vouched_for(held: Held) -> None:
    held.add_sibling()
    held.effects.clear()
    held.engine.receive(SIBLING, Ask(ANN), held.now)
    held.collect()
    assert not any(isinstance(e.message, Vouch) for e in held.effects if isinstance(e, Send))


def test_siblings_are_asked_about_held_members_and_held_links_are_not(held: Held) -> None:
    held.add_sibling()
    held.effects.clear()
    held.run(3.0, sibling=True)
    pulls = [e for e in held.effects if isinstance(e, Send) and isinstance(e.message, Pull)]
    assert {pull.links for pull in pulls} == {(SIBLING,)}
    assert Pull((ANN,)) in [pull.message for pull in pulls]


# Suspicions. A linked member is suspect when another node connected with its name.


@pytest.fixture
def suspect() -> Liveness:
    """Ann was suspected at 10.0, and is held since 11.5, half a second before the end of that."""
    liveness = Liveness(TIMING, ME)
    assert liveness.admit(ANN, (), 10.0, rival_linked=False) is None
    assert liveness.admit(LATER, (), 10.0, rival_linked=False) is not None
    liveness.hold(ANN, True, 11.5)
    return liveness


def status(liveness: Liveness, now: float) -> Status:
    liveness.expire(now)
    return liveness.members["ann"].status


def test_suspicion_stands_still_during_a_hold_and_has_link_grace_after_it(
    suspect: Liveness,
) -> None:
    assert status(suspect, 99.9) is Status.SUSPECT
    suspect.hold(ANN, False, 100.0)
    assert status(suspect, 100.99) is Status.SUSPECT
    assert status(suspect, 101.0) is Status.DOWN


def test_suspicion_that_had_more_time_left_has_the_rest_after_a_hold(suspect: Liveness) -> None:
    suspect.hold(ANN, False, 11.5)
    suspect.members["ann"].until = 15.0
    suspect.hold(ANN, True, 12.0)
    suspect.hold(ANN, False, 100.0)
    assert status(suspect, 102.99) is Status.SUSPECT
    assert status(suspect, 103.0) is Status.DOWN


def test_relayed_advance_ends_a_suspicion_during_a_hold(suspect: Liveness) -> None:
    suspect.note_sighting(Sighting(ANN, 99, 0), 50.0)
    assert status(suspect, 50.0) is Status.UP


def test_down_replica_is_not_forgotten_during_a_hold() -> None:
    liveness = Liveness(TIMING, ME)
    liveness.admit(ANN, (), 0.0, rival_linked=False)
    assert status(liveness, 6.0) is Status.DOWN
    liveness.hold(ANN, True, 7.0)
    assert status(liveness, 500.0) is Status.DOWN
    liveness.hold(ANN, False, 500.0)
    assert status(liveness, 598.9) is Status.DOWN
    liveness.expire(599.0)
    assert "ann" not in liveness.members
