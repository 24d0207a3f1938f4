"""The demo over a carrier, for real: its engine is killed and started, and nobody leaves."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support.bus_servers import SEARCH
from tests.support.waiting import eventually

from .demo_process import Demo
from .room_client import RoomClient

pytestmark = pytest.mark.processes

ANN = "visitor:ann"
NODES = ("n1", "n2", "n3")
PROGRAMS = {"nats": "nats-server", "redis": "redis-server"}


@pytest.fixture(scope="module", params=PROGRAMS)
def carrier(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    if shutil.which(PROGRAMS[request.param], path=SEARCH) is None:
        pytest.skip(f"needs the package {PROGRAMS[request.param]}")
    return str(request.param)


@pytest.fixture(scope="module")
def demo(carrier: str) -> Iterator[Demo]:
    with Demo("--carrier", carrier) as demo:
        yield demo.wait_until_open()


@pytest.fixture
def rooms(demo: Demo) -> Iterator[dict[str, RoomClient]]:
    """Somebody who looks on at each server."""
    with ExitStack() as stack:
        rooms = {node: stack.enter_context(demo.visit(node)) for node in NODES}
        for robot in ("robot:n1:Ada", "robot:n2:Grace", "robot:n3:Edsger"):
            everywhere(rooms, robot)
        yield rooms


def everywhere(rooms: dict[str, RoomClient], key: str, **fields: str) -> None:
    for node, room in rooms.items():
        eventually(partial(room.sees, key, **fields), f"{node} shows {key} {fields}")


def test_killed_server_is_noticed_and_comes_back_over_a_carrier(
    demo: Demo, rooms: dict[str, RoomClient]
) -> None:
    assert demo.act("kill", "n3") == 200
    noticed = demo.measured("kill", "n3")
    assert noticed.keys() == {"n1", "n2"}
    assert all(0 < milliseconds < 5000 for milliseconds in noticed.values())
    assert demo.act("restart", "n3") == 200
    everywhere({node: rooms[node] for node in ("n1", "n2")}, "robot:n3:Edsger")


def test_nobody_leaves_while_the_engine_is_away(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    with demo.visit("n1", "ann") as ann:
        everywhere(rooms, ANN, status="here")
        before = {node: set(room.people()) for node, room in rooms.items()}
        assert demo.post("engine/kill") == 200
        assert demo.state()["engine"]["state"] == "dead"
        ann.update(status="away")
        everywhere({"n1": rooms["n1"]}, ANN, status="away")
        assert rooms["n2"].sees(ANN, status="here")
        assert demo.post("engine/start") == 200
        everywhere(rooms, ANN, status="away")
        assert {node: set(room.people()) for node, room in rooms.items()} == before
    for node, room in rooms.items():
        eventually(partial(room.misses, ANN), f"{node} does not show {ANN}")
        assert room.gone == {ANN}, "only the visitor left, at the end"
    incidents = [(each["action"], each["node"]) for each in demo.state()["incidents"]]
    program = demo.state()["engine"]["program"]
    assert incidents[-2:] == [("outage", program), ("return", program)]


def test_invalid_action_on_the_engine_is_refused(demo: Demo) -> None:
    assert demo.post("engine/start") == 409
    assert demo.post("engine/explode") == 404
    assert demo.post("engine/kill", Origin="http://elsewhere.example") == 403
    assert demo.post("network/split/n1") == 409
    assert demo.state()["engine"]["state"] == "running"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_engine_ends_with_the_demo(carrier: str, number: signal.Signals) -> None:
    with Demo("--nodes", "2", "--carrier", carrier) as demo:
        demo.wait_until_open()
        demo.note(demo.state()["engine"]["pid"])
        assert len(demo.alive()) == 3
        demo.end(number)
        eventually(lambda: not demo.alive(), "the servers and the engine end")


def test_demo_without_a_carrier_has_no_engine() -> None:
    with Demo("--nodes", "2") as demo:
        demo.wait_until_open()
        assert demo.state()["engine"] is None
        assert demo.post("engine/kill") == 409
