"""The demo, for real: three servers, visitors who come and go, and every button of the page."""

import re
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.waiting import eventually

from .demo_process import Demo, is_alive
from .room_client import META, RoomClient

pytestmark = pytest.mark.processes

ANN = "visitor:ann"
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demo for many tests; each leaves it with all servers running."""
    with Demo() as demo:
        yield demo.wait_until_open()


@pytest.fixture
def rooms(demo: Demo) -> Iterator[dict[str, RoomClient]]:
    """Somebody who looks on at each server."""
    with demo.visit("n1") as n1, demo.visit("n2") as n2, demo.visit("n3") as n3:
        rooms = {"n1": n1, "n2": n2, "n3": n3}
        for room in rooms.values():
            # Grace is the robot of n2. A visitor of the test before may have to leave yet.
            eventually(partial(room.sees, "robot:n2:Grace"), "everybody sees the robots")
            eventually(partial(shows_robots_alone, room), "no visitor is left")
        for room in rooms.values():
            room.forget()
        yield rooms


def shows_robots_alone(room: RoomClient) -> bool:
    return all(key.startswith("robot:") for key in room.people())


def everywhere(rooms: dict[str, RoomClient], key: str, **fields: str) -> None:
    """Wait until every server shows somebody, once."""
    for node, room in rooms.items():
        eventually(partial(room.sees, key, **fields), f"{node} shows {key} {fields}")


def nowhere(rooms: dict[str, RoomClient], key: str) -> None:
    for node, room in rooms.items():
        eventually(partial(room.misses, key), f"{node} does not show {key}")


def test_three_servers_see_each_other(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    for node, room in rooms.items():
        expected = {name: "self" if name == node else "up" for name in NODES}
        eventually(partial(room.knows, expected), f"{node} knows that all are up")


def test_page_and_its_assets_are_served(demo: Demo) -> None:
    page = demo.fetch("")
    needed = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    assert {"demo.js", "style.css"} <= {*needed}
    for file in needed:  # the list grows
        text = demo.fetch(file)
        needed += {*re.findall(r'from "./(.+?)"', text)} - {*needed}
    assert {"room.js", "phoenix/phoenix.mjs"} <= {*needed}
    assert "//" not in page.replace("http://www.w3.org/2000/svg", ""), "nothing from elsewhere"


def test_visitor_is_seen_on_every_server_and_goes_with_the_connection(
    demo: Demo, rooms: dict[str, RoomClient]
) -> None:
    with demo.visit("n1", "ann"):
        everywhere(rooms, ANN, name="Ann", node="n1")
    nowhere(rooms, ANN)


def test_visitor_can_rejoin_after_a_leave(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    with demo.visit("n1", "ann") as ann:
        everywhere(rooms, ANN)
        ann.leave()
        nowhere(rooms, ANN)
        ann.join()
        everywhere(rooms, ANN)


def test_rename_away_and_typing_are_updates(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    with demo.visit("n1", "ann") as ann:
        everywhere(rooms, ANN, name="Ann")
        before = {node: len(room.diffs) for node, room in rooms.items()}
        ann.update(name="Anna")
        everywhere(rooms, ANN, name="Anna", status="here")
        for status in ("typing", "here", "away"):
            ann.update(status=status)
            everywhere(rooms, ANN, name="Anna", status=status)
        for node, room in rooms.items():
            for diff in room.diffs[before[node] :]:
                joins, leaves = diff["joins"].get(ANN), diff["leaves"].get(ANN)
                assert bool(joins) == bool(leaves), "replaced in place"
                if joins:
                    assert joins["metas"][0]["phx_ref_prev"] == leaves["metas"][0]["phx_ref"]


def test_two_devices_are_one_person(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    with demo.visit("n1", "ann", device="phone") as phone:
        everywhere(rooms, ANN, device="phone")
        with demo.visit("n3", "ann", device="laptop"):
            for node, room in rooms.items():
                eventually(
                    partial(room.sees_devices, ANN, "phone", "laptop"), f"{node} shows both devices"
                )
            phone.update(status="away")
            eventually(
                lambda: {"away", "here"} == {m["status"] for m in rooms["n2"].people()[ANN]},
                "one device is away, the other one is not",
            )
        everywhere(rooms, ANN, device="phone", status="away")
        for room in rooms.values():
            assert ANN not in room.gone, "one device is left, so the person never was gone"
            assert {*room.announced.values()} == {1}, "nothing is told twice"
    nowhere(rooms, ANN)


def test_message_reaches_every_server(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    with demo.visit("n2", "ann") as ann:
        assert ann.ask("shout", {"text": " hello "})["status"] == "ok"
        for node, room in {**rooms, "ann herself": ann}.items():
            shout = {"user": ANN, "text": "hello"}
            eventually(partial(room.heard, shout), f"{node} hears it")


def test_observer_is_not_present_and_cannot_send(rooms: dict[str, RoomClient]) -> None:
    onlooker = rooms["n1"]
    for answer in (onlooker.update(name="Ann"), onlooker.ask("shout", {"text": "hello"})):
        assert answer["status"] == "error"
    assert {key.split(":")[0] for key in onlooker.people()} == {"robot"}


def test_only_the_page_of_the_demo_may_connect(demo: Demo) -> None:
    with demo.visit("n1", origin=demo.url) as visitor:
        assert visitor.node == "n1"
    with pytest.raises(InvalidStatus, match="403"):
        demo.visit("n1", origin="http://elsewhere.example").__enter__()


@pytest.mark.parametrize(
    "garbage", ["nonsense", b"\x00\xff", "[1]", "[" * 50_000, "x" * 100_000], ids=lambda it: it[:9]
)
def test_garbage_closes_only_its_connection(
    demo: Demo, rooms: dict[str, RoomClient], garbage: str | bytes
) -> None:
    pid = demo.node("n1")["pid"]
    with demo.visit("n1", "ann") as ann:
        everywhere(rooms, ANN)
        ann.send(garbage)
        with pytest.raises(ConnectionClosed):
            eventually(lambda: ann.people() and False, "it is closed")
    nowhere(rooms, ANN)
    assert demo.node("n1")["pid"] == pid


@pytest.mark.parametrize(
    "payload", [None, 1, "here", [], {}, {**META, "name": " "}, {**META, "status": "dancing"}]
)
def test_invalid_room_event_is_answered_with_an_error(
    demo: Demo, rooms: dict[str, RoomClient], payload: Any
) -> None:
    with demo.visit("n1", "ann") as ann:
        everywhere(rooms, ANN)
        answer = ann.ask("update", payload)
        assert answer["status"] == "error"
        assert "must " in answer["response"]["reason"]
        assert ann.ask("shout", payload)["status"] == "error"
        everywhere(rooms, ANN, name="Ann", status="here")


def test_killed_server_is_noticed_and_comes_back(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    others = {"n2": rooms["n2"], "n3": rooms["n3"]}
    with demo.visit("n1", "ann"):
        everywhere(rooms, ANN, node="n1")
        demo.act("kill", "n1")
        nowhere(others, ANN)
    noticed = demo.measured("kill", "n1")
    assert noticed.keys() == {"n2", "n3"}
    assert all(0 < milliseconds < 5000 for milliseconds in noticed.values())
    assert (demo.node("n1")["state"], demo.node("n1")["reason"]) == ("dead", "SIGKILL")

    assert demo.act("restart", "n1") == 200
    assert demo.measured("start", "n1").keys() == {"n2", "n3"}
    with demo.visit("n1", "ann") as ann:
        everywhere({**others, "n1": ann}, ANN, node="n1")
        everywhere({**others, "n1": ann}, "robot:n1:Ada", node="n1")


def test_device_reconnects_to_another_server_after_a_crash(
    demo: Demo, rooms: dict[str, RoomClient]
) -> None:
    others = {"n2": rooms["n2"], "n3": rooms["n3"]}
    with demo.visit("n1", "ann") as ann:
        everywhere(rooms, ANN, node="n1")
        demo.act("kill", "n1")
        with pytest.raises(ConnectionClosed):
            eventually(lambda: ann.people() and False, "the connection is lost")
    with demo.visit("n2", "ann") as ann:
        everywhere({**others, "n2 itself": ann}, ANN, node="n2")
        assert demo.act("restart", "n1") == 200
        with demo.visit("n1") as returned:
            everywhere({**others, "n1": returned}, ANN, node="n2")


def test_partition_shows_two_sides_and_heals(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    alone, others = {"n1": rooms["n1"]}, {"n2": rooms["n2"], "n3": rooms["n3"]}
    with demo.visit("n1", "ann") as ann, demo.visit("n3", "ben", name="Ben") as ben:
        everywhere(rooms, ANN)
        everywhere(rooms, "visitor:ben")
        assert demo.post("network/split/n1") == 200
        assert demo.state()["cut"] == "n1"
        for far in ("visitor:ben", "robot:n2:Grace", "robot:n3:Edsger"):
            nowhere(alone, far)
        for far in (ANN, "robot:n1:Ada"):
            nowhere(others, far)
        noticed = demo.measured("split", "n1")
        assert noticed.keys() == {*NODES}
        assert min(noticed.values()) > 1000  # nothing came through, and silence takes its time

        # Each side goes on.
        ann.update(name="Anna")
        everywhere({**alone, "ann herself": ann}, ANN, name="Anna")
        ben.update(status="away")
        everywhere({**others, "ben himself": ben}, "visitor:ben", status="away")
        assert rooms["n2"].misses(ANN)

        assert demo.post("network/heal") == 200
        everywhere(rooms, ANN, name="Anna", node="n1")
        everywhere(rooms, "visitor:ben", status="away", node="n3")
        everywhere(rooms, "robot:n2:Grace")
        assert demo.measured("heal", "n1").keys() == {*NODES}
        for room in rooms.values():
            assert {*room.most.values()} == {1}, "nobody was there twice"


def test_crash_beyond_a_partition_is_detected_on_that_side_only(
    demo: Demo, rooms: dict[str, RoomClient]
) -> None:
    assert demo.post("network/split/n1") == 200
    demo.measured("split", "n1")
    demo.act("kill", "n3")
    assert demo.measured("kill", "n3").keys() == {"n2"}
    assert demo.act("restart", "n3") == 200
    assert demo.measured("start", "n3").keys() == {"n2"}
    everywhere({"n2": rooms["n2"]}, "robot:n3:Edsger")
    assert rooms["n1"].misses("robot:n3:Edsger")
    assert demo.post("network/heal") == 200
    everywhere({"n1": rooms["n1"], "n2": rooms["n2"]}, "robot:n3:Edsger")
    everywhere({"n1": rooms["n1"], "n2": rooms["n2"]}, "robot:n1:Ada")


def test_paused_server_is_hidden_until_it_goes_on(demo: Demo, rooms: dict[str, RoomClient]) -> None:
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
    assert "robot:n1:Ada" not in rooms["n3"].gone


def test_requests_go_to_live_servers_on_the_own_side(
    demo: Demo, rooms: dict[str, RoomClient]
) -> None:
    def answered(node: str, *servers: str) -> None:
        eventually(partial(rooms[node].is_answered_by, *servers), f"{servers} answer {node}")

    for node in rooms:
        answered(node, *NODES)
    demo.act("kill", "n3")
    for node in ("n1", "n2"):
        answered(node, "n1", "n2")
    assert demo.act("restart", "n3") == 200
    for node in ("n1", "n2"):
        answered(node, *NODES)
    assert demo.post("network/split/n1") == 200
    answered("n1", "n1")
    answered("n2", "n2", "n3")
    assert demo.post("network/heal") == 200
    for node in ("n1", "n2"):
        answered(node, *NODES)


def test_running_server_is_restarted_politely(demo: Demo, rooms: dict[str, RoomClient]) -> None:
    pid = demo.node("n2")["pid"]
    assert demo.act("restart", "n2") == 200
    # The times of those who report the leave only after the next start has begun are not shown.
    assert demo.measured("stop", "n2").keys() <= {"n1", "n3"}
    for node in ("n1", "n3"):
        eventually(partial(rooms[node].has_missed, "robot:n2:Grace"), f"{node} showed the leave")
    assert demo.measured("start", "n2").keys() == {"n1", "n3"}
    assert demo.node("n2")["pid"] != pid
    assert not is_alive(pid)


def test_invalid_action_is_refused(demo: Demo) -> None:
    assert demo.act("resume", "n1") == 409
    assert demo.act("explode", "n1") == 404
    assert demo.act("kill", "n9") == 404
    assert demo.act("kill", "n1", Origin="http://elsewhere.example") == 403
    assert demo.post("network/heal") == 409
    assert demo.post("network/split/n3") == 409
    assert demo.post("network/split/n9") == 404
    assert demo.post("network/split/n1", Origin="http://elsewhere.example") == 403
    assert demo.node("n1")["state"] == "running"
    assert demo.state()["cut"] is None


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


def test_failing_cleanup_of_processes_leaves_no_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> set[int]:
        raise FileNotFoundError

    demo = Demo("--nodes", "2")
    monkeypatch.setattr(demo, "alive", fail)
    with pytest.raises(FileNotFoundError), demo:
        demo.wait_until_starting()
    with pytest.raises(FileNotFoundError):
        demo.leavings()
