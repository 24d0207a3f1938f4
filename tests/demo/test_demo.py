"""The demo, for real: three servers, visitors who come and go, and every button of the page."""

import re
import signal
from collections.abc import Iterator
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed

from .running import Demo, Visitor, eventually, is_alive

pytestmark = pytest.mark.processes

ANN = {"id": "ann", "name": "Ann", "status": "here"}
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demo for many tests; each leaves it with all servers running."""
    with Demo() as demo:
        yield demo.wait_until_open()


@pytest.fixture
def rooms(demo: Demo) -> Iterator[dict[str, Visitor]]:
    """Somebody who looks on at each server."""
    with demo.visit("n1") as n1, demo.visit("n2") as n2, demo.visit("n3") as n3:
        rooms = {"n1": n1, "n2": n2, "n3": n3}
        for room in rooms.values():
            # Grace is the robot of n2.
            eventually(partial(room.sees, "robot:n2:Grace"), "everybody sees the robots")
        yield rooms


def everywhere(rooms: dict[str, Visitor], key: str, **fields: str) -> None:
    """Wait until every server shows somebody, once."""
    for node, room in rooms.items():
        eventually(partial(room.sees, key, **fields), f"{node} shows {key} {fields}")


def nowhere(rooms: dict[str, Visitor], key: str) -> None:
    for node, room in rooms.items():
        eventually(partial(room.misses, key), f"{node} does not show {key}")


def test_three_servers_see_each_other(demo: Demo, rooms: dict[str, Visitor]) -> None:
    for node, room in rooms.items():
        expected = {name: "self" if name == node else "up" for name in NODES}
        eventually(partial(room.knows, expected), f"{node} knows that all are up")


def test_the_page_and_what_it_needs_are_served(demo: Demo) -> None:
    page = demo.fetch("")
    for file in ("style.css", "demo.js", "column.js", "room.js"):
        assert file in page + demo.fetch("demo.js") + demo.fetch("column.js")
        assert demo.fetch(file)
    assert "//" not in re.sub(r"http://www.w3.org/2000/svg", "", page), "nothing from elsewhere"


def test_a_visitor_is_seen_on_every_server_and_goes_with_the_connection(
    demo: Demo, rooms: dict[str, Visitor]
) -> None:
    with demo.visit("n1") as ann:
        ann.say("join", **ANN)
        everywhere(rooms, "visitor:ann", name="Ann", node="n1")
    nowhere(rooms, "visitor:ann")


def test_a_visitor_who_leaves_may_join_again(demo: Demo, rooms: dict[str, Visitor]) -> None:
    with demo.visit("n1") as ann:
        for _ in range(2):
            ann.say("join", **ANN)
            everywhere(rooms, "visitor:ann")
            ann.say("leave")
            nowhere(rooms, "visitor:ann")


def test_rename_and_away_are_updates(demo: Demo, rooms: dict[str, Visitor]) -> None:
    with demo.visit("n1") as ann:
        ann.say("join", **ANN)
        everywhere(rooms, "visitor:ann", name="Ann")
        before = {node: len(room.diffs) for node, room in rooms.items()}
        ann.say("update", **{**ANN, "name": "Anna"})
        everywhere(rooms, "visitor:ann", name="Anna", status="here")
        ann.say("update", **{**ANN, "name": "Anna", "status": "away"})
        everywhere(rooms, "visitor:ann", name="Anna", status="away")
        for node, room in rooms.items():
            for diff in room.diffs[before[node] :]:
                assert "visitor:ann" not in {**diff["joins"], **diff["leaves"]}


def test_garbage_harms_nobody(demo: Demo, rooms: dict[str, Visitor]) -> None:
    pid = demo.node("n1")["pid"]
    garbage: list[str | bytes] = ["nonsense", b"\x00\xff", "[1]", '{"do":"dance"}', "[" * 50_000]
    with demo.visit("n1") as visitor:
        for data in [*garbage, '{"do":"join"}', '{"do":"join","id":"x","name":" ","status":"?"}']:
            visitor.send(data)
            eventually(visitor.take_error, f"an answer to {data[:20]!r}")
        visitor.send("x" * 100_000)  # too much at once costs the connection
        with pytest.raises(ConnectionClosed):
            eventually(lambda: visitor.people() and False, "it is closed")
    with demo.visit("n1") as ann:
        ann.say("join", **ANN)
        everywhere(rooms, "visitor:ann", name="Ann")
    assert demo.node("n1")["pid"] == pid


def test_a_killed_server_is_noticed_and_comes_back(demo: Demo, rooms: dict[str, Visitor]) -> None:
    others = {"n2": rooms["n2"], "n3": rooms["n3"]}
    with demo.visit("n1") as ann:
        ann.say("join", **ANN)
        everywhere(rooms, "visitor:ann", node="n1")
        demo.act("kill", "n1")
        nowhere(others, "visitor:ann")
    noticed = demo.measured("kill", "n1")
    assert noticed.keys() == {"n2", "n3"}
    assert all(0 < milliseconds < 5000 for milliseconds in noticed.values())
    assert (demo.node("n1")["state"], demo.node("n1")["reason"]) == ("dead", "SIGKILL")

    assert demo.act("restart", "n1") == 200
    assert demo.measured("start", "n1").keys() == {"n2", "n3"}
    with demo.visit("n1") as ann:
        ann.say("join", **ANN)
        everywhere({**others, "n1": ann}, "visitor:ann", node="n1")
        everywhere({**others, "n1": ann}, "robot:n1:Ada", node="n1")


def test_a_paused_server_is_hidden_until_it_goes_on(demo: Demo, rooms: dict[str, Visitor]) -> None:
    others = {"n1": rooms["n1"], "n2": rooms["n2"]}
    demo.act("pause", "n3")
    assert demo.node("n3")["state"] == "paused"
    nowhere(others, "robot:n3:Edsger")
    noticed = demo.measured("pause", "n3")
    assert noticed.keys() == {"n1", "n2"}
    assert min(noticed.values()) > 1000  # silence alone is no proof
    demo.act("resume", "n3")
    everywhere(rooms, "robot:n3:Edsger", node="n3")
    assert demo.measured("resume", "n3").keys() == {"n1", "n2"}
    # It has not taken the others for dead while it stood still itself.
    assert not any("robot:n1:Ada" in diff["leaves"] for diff in rooms["n3"].diffs)


def test_a_running_server_is_restarted_politely(demo: Demo) -> None:
    pid = demo.node("n2")["pid"]
    assert demo.act("restart", "n2") == 200
    assert demo.measured("stop", "n2").keys() == {"n1", "n3"}
    assert demo.measured("start", "n2").keys() == {"n1", "n3"}
    assert demo.node("n2")["pid"] != pid
    assert not is_alive(pid)


def test_what_makes_no_sense_is_refused(demo: Demo) -> None:
    assert demo.act("resume", "n1") == 409
    assert demo.act("explode", "n1") == 404
    assert demo.act("kill", "n9") == 404
    assert demo.act("kill", "n1", Origin="http://elsewhere.example") == 403
    assert demo.node("n1")["state"] == "running"


def test_interrupting_ends_everything(demo: Demo) -> None:
    with Demo("--nodes", "2") as second:
        second.wait_until_open()
        second.act("pause", "n1")
        assert len(second.alive()) == 2
        assert second.state()["cluster"] != demo.state()["cluster"]
        assert second.end(signal.SIGINT) == 0
        assert not second.alive()
        assert not second.leavings()
    assert len(demo.alive()) == 3


def test_interrupting_the_start_ends_everything() -> None:
    with Demo() as demo:
        demo.wait_until_starting()
        assert demo.end(signal.SIGTERM) == 0
        eventually(lambda: not demo.alive(), "the servers end")


def test_servers_do_not_outlive_a_supervisor_that_is_killed() -> None:
    with Demo("--nodes", "2") as demo:
        demo.wait_until_open()
        demo.act("pause", "n1")
        demo.end(signal.SIGKILL)
        eventually(lambda: not demo.alive(), "the servers end")
