"""Forged goodbyes and requests of a hostile member: what they cost, and that none of them lasts."""

from time import process_time

import pytest

from adsum.replication.codec import encode
from adsum.replication.messages import (
    Ask,
    Digest,
    Farewell,
    Goodbye,
    Heartbeat,
    Pull,
    Sighting,
    Sync,
)
from adsum.replication.state import Replica
from adsum.transport.framing import FRAME_LIMIT
from adsum.values.limits import MAX_ADDRESS, MAX_ADDRESSES, MAX_NODE_NAME

from .attacked_engine import ANN, ME, TO_ANN, TO_EVE, AttackedEngine
from .test_claims import LAST, forged

OTHER_ANN = Replica("ann", 6)


def test_refuted_goodbye_of_a_duplicate_name_leaks_no_feed_of_a_closed_link() -> None:
    attacked = AttackedEngine(ann_is_linked=False)
    attacked.eve_says(forged(ANN, remaining=60.0))
    attacked.link(10, OTHER_ANN)
    attacked.link(11, ANN)
    for message in (Sync(ME, 0, True), Heartbeat(10, 0), Heartbeat(11, 0)):
        attacked._hear(11, message)
    assert attacked.closed() == {11}
    attacked.engine.track("room", "later", "{}")
    attacked.wait(1.0)  # a KeyError here stops every flush
    assert ANN not in attacked.engine.slices()


def test_forged_goodbye_of_a_silent_linked_node_lasts_until_reconnect() -> None:
    attacked = AttackedEngine()
    attacked.ann_says(Heartbeat(20, 1))
    attacked._ann_is_linked = False
    attacked.wait(2.0)
    attacked.eve_says(forged(ANN, remaining=60.0))
    assert attacked.closed() == {TO_ANN}
    attacked.link(10, ANN)
    attacked._hear(10, Heartbeat(21, 1))
    attacked._hear(10, Heartbeat(22, 1))
    assert attacked.status(ANN) == "up"


@pytest.mark.parametrize("character", ["\x01", '"', "\U0001f600", "a"])
def test_names_of_any_characters_keep_digests_below_the_frame_limit(
    character: str,
) -> None:
    attacked = AttackedEngine()
    name, address = character * (MAX_NODE_NAME - 3), character * MAX_ADDRESS
    ghosts = [Replica(f"{name}{number}", LAST) for number in range(256)]
    for counter in (1, 2):
        for ghost in ghosts[:20]:
            attacked.eve_says(Digest((Sighting(ghost, counter, 0, (address,) * MAX_ADDRESSES),)))
        for ghost in ghosts[20:]:
            attacked.eve_says(Digest((Sighting(ghost, counter, 0),)))
    for ghost in ghosts:
        attacked.eve_says(Digest((), (Farewell(Replica(ghost.name, 1), LAST, LAST, 9.5, 0),)))
    attacked.eve_says(Pull(everything=True), Heartbeat(1, 0))
    attacked.wait(3.0)
    sent = [
        m for m in attacked.sent(TO_EVE) + attacked.sent(TO_ANN) if isinstance(m, Pull | Digest)
    ]
    assert max(len(encode(message)) for message in sent) <= FRAME_LIMIT
    assert len({s.replica for m in sent if isinstance(m, Digest) for s in m.sightings}) == 257


def seconds_for(farewells: list[Farewell]) -> float:
    attacked = AttackedEngine()
    digest = Digest((), tuple(farewells))
    began = process_time()
    attacked.engine.receive(TO_EVE, digest, attacked.now)
    return process_time() - began


def test_goodbyes_of_many_incarnations_cost_as_much_as_of_many_names() -> None:
    usual = seconds_for([Farewell(Replica(f"{n}", 1), 1, 1, 9.0, 0) for n in range(4000)])
    lives = seconds_for([Farewell(Replica("ghost", n), 1, 1, 9.0, 0) for n in range(4000)])
    assert lives < 10 * usual, "it was 40 times as much"


def test_suspect_query_about_a_departed_node_is_dropped() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(Ask(ANN))
    attacked.ann_says(Goodbye(50, 1, 5.0))
    assert attacked.engine._suspicion.askers == {}
