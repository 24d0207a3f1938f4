"""Forged goodbyes and requests of a hostile member: what they cost, and that none of them lasts."""

from adsum.replication.messages import Heartbeat, Sync
from adsum.replication.state import Replica

from .stage import ANN, ME, TO_ANN, Stage
from .test_claims import forged

OTHER_ANN = Replica("ann", 6)


def test_refuted_goodbye_of_a_name_in_use_leaves_no_feed_of_a_closed_link() -> None:
    stage = Stage(ann_is_linked=False)
    stage.eve_says(forged(ANN, remaining=60.0))
    stage.link(10, OTHER_ANN)
    stage.link(11, ANN)
    for message in (Sync(ME, 0, True), Heartbeat(10, 0), Heartbeat(11, 0)):
        stage._hear(11, message)
    assert stage.closed() == {11}
    stage.engine.track("room", "later", "{}")
    stage.wait(1.0)  # a KeyError here stops every flush
    assert ANN not in stage.engine.slices()


def test_forged_goodbye_of_a_node_with_a_silent_link_lasts_until_it_dials_again() -> None:
    stage = Stage()
    stage.ann_says(Heartbeat(20, 1))
    stage._ann_is_linked = False
    stage.wait(2.0)
    stage.eve_says(forged(ANN, remaining=60.0))
    assert stage.closed() == {TO_ANN}
    stage.link(10, ANN)
    stage._hear(10, Heartbeat(21, 1))
    stage._hear(10, Heartbeat(22, 1))
    assert stage.status(ANN) == "up"
