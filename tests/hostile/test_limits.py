"""What a hostile member can do: the limits that SECURITY.md has to state, each shown to be so.

All members share one secret, so a member can be told from a stranger, and not from another member.
"""

from random import Random

from adsum.replication.effects import Deliver
from adsum.replication.engine import Engine
from adsum.replication.messages import (
    Delta,
    Digest,
    Goodbye,
    Heartbeat,
    Publish,
    Pull,
    Sighting,
    Sync,
)
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

from .attacked_engine import ANN, EVE, TO_ANN, TO_EVE, AttackedEngine, entry, told_of


def test_member_can_impersonate_another_in_its_incarnation() -> None:
    """Name and incarnation are no secret: every digest tells them."""
    attacked = AttackedEngine()
    attacked.wait(2.0)
    attacked.link(100, ANN)
    attacked._hear(100, Delta(ANN, 1, 2, ((2, 1),)))
    assert attacked.shown() == {"room": ["mine"]}
    attacked._hear(100, Goodbye(9, 2, 0.0))
    assert attacked.status(ANN) == "left"


def test_member_can_invent_nodes_and_their_presences() -> None:
    attacked = AttackedEngine()
    ghost = Replica("ghost", 1)
    attacked.eve_says(
        *told_of(ghost, 1, 2, version=1), Delta(ghost, 0, 1, (entry(ghost, 1, "boo"),))
    )
    assert attacked.shown() == {"room": ["ann", "boo", "mine"]}


def test_member_can_forge_relays_of_an_unlinked_node() -> None:
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(*told_of(ANN, 1, 2, version=9), Delta(ANN, 0, 9, (entry(ANN, 9, "forged"),)))
    assert attacked.shown() == {"room": ["forged", "mine"]}


def test_member_can_keep_a_dead_node_alive_by_forged_vouches() -> None:
    attacked = AttackedEngine()
    attacked._ann_is_linked = False
    attacked.engine.link_down(1, attacked.now)
    for counter in range(1, 60):
        attacked.eve_says(*told_of(ANN, counter))
        attacked.wait(0.5)
    assert attacked.shown() == {"room": ["ann", "mine"]}


def test_member_can_take_the_name_of_a_suspect_node() -> None:
    attacked = AttackedEngine()
    attacked._ann_is_linked = False
    attacked.engine.link_down(1, attacked.now)
    attacked.link(100, Replica("ann", 666))
    assert attacked.shown() == {"room": ["mine"]}
    assert attacked.status(Replica("ann", 666)) == "up"


def test_member_can_send_conflicting_slices_to_different_nodes() -> None:
    one, other = AttackedEngine(), AttackedEngine()
    one.eve_says(Delta(EVE, 0, 1, (entry(EVE, 1, "x"),)))
    other.eve_says(Delta(EVE, 0, 1, (entry(EVE, 1, "y"),)))
    assert one.shown() != other.shown()


def test_member_can_replace_the_incarnation_of_another() -> None:
    """Of two lives that are both alive the higher is shown everywhere, and who can tell them?"""
    attacked = AttackedEngine()
    attacked.eve_says(*told_of(Replica("ann", 9), 1, 2))
    assert attacked.shown() == {"room": ["mine"]}
    assert attacked.status(Replica("ann", 9)) == "up"


def test_member_can_take_the_name_of_a_relayed_node() -> None:
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(*told_of(ANN, 1, 2, 3))
    for id in (100, 101):
        attacked.link(id, Replica("ann", 666))
        attacked.engine.link_down(id, attacked.now)
    assert attacked.status(ANN) == "unknown"


def test_forged_incarnation_of_an_absent_node_refuses_it_until_forgotten() -> None:
    """The owner is asked to go on from a version that it never made: it looks like a copy."""
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(*told_of(ANN, 1, 2, 3, version=2**62))
    attacked.eve_says(Delta(ANN, 0, 2**62, (entry(ANN, 2**62, "forged"),)))
    attacked.link(TO_ANN, ANN)
    assert [m.after for m in attacked.sent(TO_ANN) if isinstance(m, Sync)] == [2**62]


def test_member_can_delay_joining_of_others_by_an_invented_node() -> None:
    engine = Engine(Replica("new", 1), Timing(), Random(1), now=0.0)
    engine.add_seed("eve:1", lasting=True)
    engine.seeds_complete()
    engine.link_up(1, EVE, ("eve:1",), "eve:1", 0.0)
    engine.receive(1, Heartbeat(1, 0, 0, 0), 0.0)
    engine.receive(1, Digest((Sighting(Replica("ghost", 1), 1, 1, ("silent:1",)),)), 0.0)
    assert not engine.joined  # `join_timeout` bounds the wait


def test_member_can_publish_to_every_topic() -> None:
    attacked = AttackedEngine()
    message = Publish("any topic", "event", "{}")
    attacked.eve_says(message)
    assert [e.message for e in attacked.effects if isinstance(e, Deliver)] == [message]


def test_forged_fingerprint_wins_the_full_digest_request_of_a_heartbeat() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(Heartbeat(1, 0), Digest(()))
    attacked.wait(2.0)
    attacked.effects.clear()
    for counter in range(2, 30):
        attacked.eve_says(Heartbeat(counter, 0, members=counter), Digest(()))
    asked = [m for m in attacked.sent(TO_EVE) if isinstance(m, Pull) and m.everything]
    assert len(asked) == 1
