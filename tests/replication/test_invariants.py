"""Invariants of docs/protocol.md that whole engines keep, checked in virtual time."""

from random import Random

import pytest

from adsum.errors import ProtocolError
from adsum.replication.engine import Engine
from adsum.replication.messages import Delta
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import Simulation


def test_delta_about_another_owners_slice_is_refused() -> None:
    me, peer = Replica("me", 1), Replica("peer", 1)
    engine = Engine(me, Timing(), Random(1), 0.0)
    engine.link_up(1, peer, ("peer",), None, 0.0)
    forged = Engine(me, Timing(), Random(2), 0.0).track("room", "ghost", "{}")
    with pytest.raises(ProtocolError, match="about the slice of this node"):
        engine.receive(1, Delta(me, 0, 1, (forged,)), 0.1)
    assert not engine.view.topics


@pytest.mark.slow
def test_interrupted_catch_up_shows_nothing() -> None:
    """Of a slice of many frames either nothing is shown or all of it, whenever it is cut off."""
    counts = set()
    for milliseconds in range(0, 40, 4):
        simulation = Simulation(nodes=1, seed=5, latency=(0.001, 0.002))
        for index in range(2000):
            simulation.node("n1").track("room", f"user {index}", {"text": "x" * 200})
        simulation.start("n2")
        simulation.run(milliseconds / 1000)
        simulation.partition(["n1"], ["n2"])
        simulation.run(1)
        counts.add(len(simulation.node("n2").present("room")))
        simulation.heal()
        simulation.run(10)
        simulation.check_agreement()
    assert counts <= {0, 2000}
    assert 0 in counts


def test_update_is_never_shown_as_leave() -> None:
    simulation = Simulation(nodes=3, seed=6)
    ann = simulation.node("n1").track("room", "ann")
    simulation.run(1)
    for number in range(200):
        ann = simulation.node("n1").update(ann, {"number": number})
        simulation.run(0.001)
        assert list(simulation.node("n3").present("room")) == ["ann"]
