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

from .stage import ANN, EVE, TO_ANN, TO_EVE, Stage, entry, told_of


def test_a_member_can_pose_as_another_one_in_its_very_life() -> None:
    """Name and incarnation are no secret: every digest tells them."""
    stage = Stage()
    stage.wait(2.0)
    stage.link(100, ANN)
    stage._hear(100, Delta(ANN, 1, 2, ((2, 1),)))
    assert stage.shown() == {"room": ["mine"]}
    stage._hear(100, Goodbye(9, 2, 0.0))
    assert stage.status(ANN) == "left"


def test_a_member_can_invent_nodes_and_their_presences() -> None:
    stage = Stage()
    ghost = Replica("ghost", 1)
    stage.eve_says(*told_of(ghost, 1, 2, version=1), Delta(ghost, 0, 1, (entry(ghost, 1, "boo"),)))
    assert stage.shown() == {"room": ["ann", "boo", "mine"]}


def test_a_member_can_speak_for_a_node_to_which_there_is_no_link() -> None:
    stage = Stage(ann_is_linked=False)
    stage.eve_says(*told_of(ANN, 1, 2, version=9), Delta(ANN, 0, 9, (entry(ANN, 9, "forged"),)))
    assert stage.shown() == {"room": ["forged", "mine"]}


def test_a_member_can_keep_a_dead_node_alive_for_others() -> None:
    stage = Stage()
    stage._ann_is_linked = False
    stage.engine.link_down(1, stage.now)
    for counter in range(1, 60):
        stage.eve_says(*told_of(ANN, counter))
        stage.wait(0.5)
    assert stage.shown() == {"room": ["ann", "mine"]}


def test_a_member_can_take_the_name_of_a_node_that_is_in_doubt() -> None:
    stage = Stage()
    stage._ann_is_linked = False
    stage.engine.link_down(1, stage.now)
    stage.link(100, Replica("ann", 666))
    assert stage.shown() == {"room": ["mine"]}
    assert stage.status(Replica("ann", 666)) == "up"


def test_a_member_can_tell_each_node_something_else_of_itself() -> None:
    one, other = Stage(), Stage()
    one.eve_says(Delta(EVE, 0, 1, (entry(EVE, 1, "x"),)))
    other.eve_says(Delta(EVE, 0, 1, (entry(EVE, 1, "y"),)))
    assert one.shown() != other.shown()


def test_a_member_can_make_others_take_another_life_of_a_name_for_the_present_one() -> None:
    """Of two lives that are both alive the higher is shown everywhere, and who can tell them?"""
    stage = Stage()
    stage.eve_says(*told_of(Replica("ann", 9), 1, 2))
    assert stage.shown() == {"room": ["mine"]}
    assert stage.status(Replica("ann", 9)) == "up"


def test_a_member_can_take_the_name_of_a_node_that_is_only_heard_of() -> None:
    stage = Stage(ann_is_linked=False)
    stage.eve_says(*told_of(ANN, 1, 2, 3))
    for id in (100, 101):
        stage.link(id, Replica("ann", 666))
        stage.engine.link_down(id, stage.now)
    assert stage.status(ANN) == "unknown"


def test_what_a_member_made_up_of_an_absent_node_keeps_that_one_away_until_it_is_forgotten() -> (
    None
):
    """The owner is asked to go on from a version that it never made: it looks like a copy."""
    stage = Stage(ann_is_linked=False)
    stage.eve_says(*told_of(ANN, 1, 2, 3, version=2**62))
    stage.eve_says(Delta(ANN, 0, 2**62, (entry(ANN, 2**62, "forged"),)))
    stage.link(TO_ANN, ANN)
    assert [m.after for m in stage.sent(TO_ANN) if isinstance(m, Sync)] == [2**62]


def test_a_member_can_delay_the_start_of_others_by_an_invented_node() -> None:
    engine = Engine(Replica("new", 1), Timing(), Random(1), now=0.0)
    engine.add_seed("eve:1", lasting=True)
    engine.seeds_complete()
    engine.link_up(1, EVE, ("eve:1",), "eve:1", 0.0)
    engine.receive(1, Heartbeat(1, 0, 0, 0), 0.0)
    engine.receive(1, Digest((Sighting(Replica("ghost", 1), 1, 1, ("silent:1",)),)), 0.0)
    assert not engine.joined  # `join_timeout` bounds the wait


def test_a_member_can_publish_to_every_topic() -> None:
    stage = Stage()
    message = Publish("any topic", "event", "{}")
    stage.eve_says(message)
    assert [e.message for e in stage.effects if isinstance(e, Deliver)] == [message]


def test_fingerprint_that_differs_wins_the_one_request_for_everything_of_a_heartbeat() -> None:
    stage = Stage()
    stage.eve_says(Heartbeat(1, 0), Digest(()))
    stage.wait(2.0)
    stage.effects.clear()
    for counter in range(2, 30):
        stage.eve_says(Heartbeat(counter, 0, members=counter), Digest(()))
    asked = [m for m in stage.sent(TO_EVE) if isinstance(m, Pull) and m.everything]
    assert len(asked) == 1
