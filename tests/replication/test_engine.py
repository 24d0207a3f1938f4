"""What an engine makes of single messages, above all of those that must not be."""

from random import Random

import pytest

from adsum.errors import ProtocolError
from adsum.replication.effects import Close, Dial, Notice, Send, Severity
from adsum.replication.engine import Engine
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Goodbye,
    Heartbeat,
    ProtocolMessage,
    Publish,
    Sighting,
    Sync,
    Vouch,
)
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

ME, ANN, BOB = Replica("me", 5), Replica("ann", 5), Replica("bob", 5)
FIRST = 1


@pytest.fixture
def engine() -> Engine:
    """An engine with a link to ann, who has said nothing yet."""
    engine = Engine(ME, Timing(), Random(1), now=0.0)
    engine.link_up(FIRST, ANN, ("ann:1",), None, 0.0)
    engine.take_effects()
    return engine


def closed(engine: Engine) -> list[str]:
    return [e.reason for e in engine.take_effects() if isinstance(e, Close)]


def sent(engine: Engine) -> list[ProtocolMessage]:
    return [e.message for e in engine.take_effects() if isinstance(e, Send)]


def entry(replica: Replica, version: int, key: str = "k") -> Delta:
    change = (version, version, "room", key, "{}", None, *replica)
    return Delta(replica, version - 1, version, (change,))


def test_delta_about_receivers_own_slice_is_a_protocol_error(engine: Engine) -> None:
    engine.track("room", "me", "{}")
    with pytest.raises(ProtocolError, match="delta about"):
        engine.receive(FIRST, entry(ME, 2), 0.1)
    assert list(engine.view.render("room")) == ["me"]


@pytest.mark.parametrize(
    "message",
    [Sync(ME, 7, True), Digest((Sighting(ME, 0, 7),)), Digest((Sighting(ME, 99, 0),))],
    ids=["sync", "version", "counter"],
)
def test_claim_of_unmade_own_changes_closes_the_link_and_is_logged(
    engine: Engine, message: ProtocolMessage
) -> None:
    engine.receive(FIRST, message, 0.1)
    effects = engine.take_effects()
    notices = [e.severity for e in effects if isinstance(e, Notice)]
    assert Severity.ERROR in notices
    assert [e.link for e in effects if isinstance(e, Close)] == [FIRST]


def test_unrequested_relay_is_ignored(engine: Engine) -> None:
    engine.link_up(2, BOB, ("bob:1",), None, 0.0)
    engine.receive(FIRST, entry(BOB, 1), 0.1)
    assert engine.view.count("room") == 0
    engine.receive(2, entry(BOB, 1), 0.1)
    assert engine.view.count("room") == 1


def test_messages_about_unknown_replicas_are_harmless(engine: Engine) -> None:
    for message in (
        Sync(BOB, 0, True),
        Sync(BOB, 9, False),
        entry(BOB, 1),
        Ask(BOB),
        Vouch(BOB, 3),
    ):
        engine.receive(FIRST, message, 0.1)
    assert closed_links(engine) == []
    assert engine.view.topics == {}


@pytest.mark.parametrize("message", [Vouch(ME, 3), Ask(ME), Digest((Sighting(ME, 0, 0),))])
def test_sightings_of_this_node_are_harmless(engine: Engine, message: ProtocolMessage) -> None:
    engine.track("room", "me", "{}")
    engine.receive(FIRST, message, 0.1)
    assert closed_links(engine) == []
    assert engine.view.count("room") == 1


def test_digest_that_replaces_its_own_sender_is_harmless(engine: Engine) -> None:
    later = Replica("ann", 9)
    for counter in (1, 2):
        engine.receive(FIRST, Digest((Sighting(later, counter, 0), Sighting(BOB, 1, 0))), 0.1)
    assert len(closed(engine)) == 1


@pytest.mark.parametrize("gone", [False, True])
def test_replica_of_a_short_link_is_dialled_at_once_only_if_it_is_gone(
    engine: Engine, gone: bool
) -> None:
    engine.link_up(2, BOB, ("bob:1",), None, 0.0)
    engine.take_effects()

    engine.link_down(2, 0.1, gone)
    engine.tick(0.1)

    assert (Dial("bob:1") in engine.take_effects()) is gone
    engine.tick(0.3)
    assert (Dial("bob:1") in engine.take_effects()) is not gone


def test_messages_on_closed_links_are_ignored(engine: Engine) -> None:
    engine.link_down(FIRST, 0.1)
    engine.receive(FIRST, Heartbeat(5, 0), 0.2)
    engine.link_writable(FIRST, False, 0.2)
    engine.link_down(FIRST, 0.3)
    assert closed_links(engine) == []


def test_entry_moved_to_another_topic_leaves_and_joins(engine: Engine) -> None:
    engine.receive(FIRST, entry(ANN, 1), 0.1)
    moved = (2, 1, "hall", "k", "{}", 1, *ANN)
    engine.receive(FIRST, Delta(ANN, 1, 2, (moved,)), 0.2)
    assert list(engine.view.topics) == ["hall"]


def test_gap_is_fetched_once_however_many_deltas_follow(engine: Engine) -> None:
    engine.receive(FIRST, Delta(ANN, 0, 0, ()), 0.1)
    for version in (5, 6, 7):
        engine.receive(FIRST, entry(ANN, version), 0.2)
    assert [m for m in sent(engine) if isinstance(m, Sync)] == [Sync(ANN, 0, True)]


def test_direct_link_takes_over_after_the_answer_of_a_relay_fetch(
    engine: Engine,
) -> None:
    for counter in (1, 2, 3):
        engine.receive(FIRST, Digest((Sighting(BOB, counter, 1),)), 0.1 * counter)
    assert Sync(BOB, 0, False) in sent(engine)
    engine.link_up(2, BOB, ("bob:1",), None, 0.5)
    assert not [m for m in sent(engine) if isinstance(m, Sync)]
    engine.receive(FIRST, entry(BOB, 1), 0.6)
    assert Sync(BOB, 1, True) in sent(engine)


def test_goodbye_leads_to_forgetting_in_time(engine: Engine) -> None:
    engine.receive(FIRST, entry(ANN, 1), 0.1)
    engine.receive(FIRST, Goodbye(1, 1, 0.0), 0.2)
    assert engine.wake_at <= 0.2
    engine.tick(0.2)
    assert engine.view.topics == {}


def test_first_change_is_sent_at_once_and_later_ones_are_coalesced(engine: Engine) -> None:
    engine.receive(FIRST, Sync(ME, 0, True), 1.0)
    engine.tick(1.0)
    engine.tick(1.1)
    engine.take_effects()
    engine.track("room", "a", "{}")
    assert engine.wake_at <= 1.1
    engine.tick(1.1)
    assert len([m for m in sent(engine) if isinstance(m, Delta)]) == 1
    engine.track("room", "b", "{}")
    assert engine.wake_at == pytest.approx(1.105)
    engine.tick(1.102)
    assert not [m for m in sent(engine) if isinstance(m, Delta)]
    engine.tick(1.105)
    assert len([m for m in sent(engine) if isinstance(m, Delta)]) == 1


def with_two_links(me: str, *, dialled: bool, received_at: float = 2.0) -> Engine:
    """A node with an old link, 1, and a new one, 2, to bob."""
    engine = Engine(Replica(me, 1), Timing(), Random(1), now=0.0)
    engine.link_up(1, BOB, ("bob:1",), None, 0.0)
    engine.receive(1, Heartbeat(5, 0), 0.1)
    for tenth in range(1, 30):
        engine.tick(tenth / 10)
        if tenth / 10 <= received_at:
            engine.receive(1, Heartbeat(5 + tenth, 0), tenth / 10)
    engine.take_effects()
    engine.link_up(2, BOB, ("bob:1",), "bob:1" if dialled else None, 3.0)
    return engine


def closed_links(engine: Engine) -> list[int]:
    return [effect.link for effect in engine.take_effects() if isinstance(effect, Close)]


@pytest.mark.parametrize("me", ["a", "z"])
def test_duplicate_link_beside_a_working_one_is_closed_at_both_ends(me: str) -> None:
    assert closed_links(with_two_links(me, dialled=True)) == [2]


def test_reconnect_replaces_old_link_with_its_first_frame() -> None:
    engine = with_two_links("a", dialled=False)
    assert closed_links(engine) == [], "the peer still sends over the older link"
    engine.publish(Publish("t", "e", "{}"), None, 3.0)
    sends = [effect for effect in engine.take_effects() if isinstance(effect, Send)]
    assert [s.links for s in sends if isinstance(s.message, Publish)] == [(1,)]
    engine.receive(2, Heartbeat(50, 0), 3.1)
    assert closed_links(engine) == [1]


def test_reconnect_beside_a_silent_link_keeps_the_new_link() -> None:
    assert closed_links(with_two_links("z", dialled=True, received_at=1.0)) == []


def test_duplicate_links_of_a_silent_peer_are_bounded() -> None:
    engine = with_two_links("a", dialled=False)
    for number in range(3, 20):
        engine.link_up(number, BOB, ("bob:1",), None, 3.0 + 2 * number)
    assert engine.links <= 4


@pytest.mark.parametrize(("links", "interval"), [(1, 0.005), (12, 0.005), (24, 0.01), (300, 0.1)])
def test_coalescing_interval_grows_with_the_links(links: int, interval: float) -> None:
    engine = Engine(ME, Timing(), Random(1), now=0.0)
    for number in range(links):
        peer = Replica(f"peer {number}", 1)
        engine.link_up(number, peer, (), None, 0.0)
        engine.receive(number, Sync(ME, 0, True), 0.0)
    engine.tick(0.0)
    engine.tick(0.5)
    engine.track("room", "a", "{}")
    assert engine.wake_at <= 0.5, "a change after quiet is sent at once"
    engine.tick(0.5)
    engine.track("room", "b", "{}")
    assert engine.wake_at == pytest.approx(0.5 + interval)


def test_sizes_of_an_engine_are_within_their_bounds() -> None:
    engine = Engine(Replica("me", 1), Timing(), Random(1), 0.0)
    engine.link_up(1, Replica("peer", 1), ("peer:1",), None, 0.0)
    engine.receive(1, Ask(Replica("third", 1)), 0.1)
    sizes = {size.name: size for size in engine.sizes(names=2)}
    assert {"members", "departures", "links", "questions", "slices"} <= sizes.keys()
    assert sizes["links"].value == sizes["members"].value == 1
    assert all(size.value <= size.bound for size in sizes.values())


def test_vouch_for_a_peer_that_asked_and_hung_up_is_dropped() -> None:
    engine, suspect = Engine(Replica("me", 5), Timing(), Random(1), 0.0), Replica("suspect", 5)
    for link, replica in enumerate((Replica("asker", 5), suspect)):
        engine.link_up(link, replica, (), None, 0.0)
        engine.receive(link, Heartbeat(1, 0, 0, 0), 0.1)
    engine.receive(0, Ask(suspect), 0.2)
    engine.link_down(0, 0.3)
    engine.take_effects()
    engine.receive(1, Heartbeat(2, 0, 0, 0), 0.4)
    assert not any(isinstance(effect, Send) for effect in engine.take_effects())


@pytest.mark.parametrize(("absence", "answered"), [(0.1, True), (30.0, False)])
def test_only_a_sure_goodbye_answers_a_question(absence: float, answered: bool) -> None:
    """A goodbye that waited in a buffer while this process did not run is unsure."""
    engine = Engine(ME, Timing(), Random(1), 0.0)
    for link, replica in enumerate((ANN, BOB)):
        engine.link_up(link, replica, (), None, 0.0)
        engine.receive(link, Heartbeat(1, 0, 0, 0), 0.1)
    now = 0.1 + absence
    engine.receive(1, Goodbye(2, 0, 60.0), now)
    engine.take_effects()

    engine.receive(0, Ask(BOB), now)

    digests = [message for message in sent(engine) if isinstance(message, Digest)]
    goodbyes = [farewell.replica for digest in digests for farewell in digest.farewells]
    assert goodbyes == ([BOB] if answered else [])


def test_seed_with_the_name_of_a_live_node_is_dialled_again_after_a_backoff(
    engine: Engine,
) -> None:
    for counter in (1, 2):
        engine.receive(FIRST, Digest((Sighting(BOB, counter, 0),)), 0.1)
    engine.add_seed("rival:1", lasting=True)
    engine.tick(0.1)
    assert dialled(engine) == ["rival:1"]

    engine.link_up(2, Replica("bob", 9), (), "rival:1", 0.2)
    assert closed(engine) == ["the name 'bob' is in use by another live node"]
    engine.tick(0.2)

    assert dialled(engine) == []
    for now in (0.25, 0.3):
        engine.tick(now)
    assert dialled(engine) == ["rival:1"]


def dialled(engine: Engine) -> list[str]:
    return [e.address for e in engine.take_effects() if isinstance(e, Dial)]
