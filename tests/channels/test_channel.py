"""What an application's channel may rely on: order, replies, filters, tasks, presences."""

import asyncio
import json
from typing import Any

import pytest

from adsum.channels import Channel, RefusedError, Socket, intercept, on
from adsum.errors import UsageError
from adsum.presence import Presence
from adsum.testing import Browser, RefusedByServerError
from tests.support.nodes import running
from tests.support.waiting import until

from .app import App, Tracking
from .asgi_client import asgi_client
from .captured_log import Log
from .leak_check import leak_checked, run

pytestmark = pytest.mark.usefixtures("each_carrier")


@leak_checked
async def test_events_of_one_channel_are_handled_in_order() -> None:
    seen: list[str] = []

    class Room(Channel, topic="room"):
        @on("do")
        async def do(self, payload: Any) -> None:
            seen.append(f"begin {payload['n']}")
            for _ in range(payload["turns"]):
                await asyncio.sleep(0)
            seen.append(f"end {payload['n']}")

        @on("done")
        async def done(self, payload: Any) -> dict[str, Any]:
            return {}

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        for n in range(10):
            await room.push("do", {"n": n, "turns": 10 - n})
        await room.ask("done")
        assert seen == [f"{what} {n}" for n in range(10) for what in ("begin", "end")]


@leak_checked
async def test_events_before_the_join_reply_are_queued() -> None:
    class Room(Channel, topic="room"):
        async def join(self, payload: Any) -> None:
            self.here = False
            await asyncio.sleep(0)
            self.push("early", {})
            await asyncio.sleep(0)
            self.here = True

        @on("ask")
        async def ask(self, payload: Any) -> dict[str, Any]:
            return {"here": self.here}

    app = App(Room)
    async with app.node, asgi_client(app.socket) as ann:
        ann.push("1", "1", "room", "phx_join", {})
        ann.push("1", "2", "room", "ask", {})
        assert json.loads(await ann.read())[3:] == [
            "phx_reply",
            {"status": "ok", "response": {}},
        ]
        assert json.loads(await ann.read())[3] == "early"
        assert (await ann.reply("2"))["response"] == {"here": True}


@leak_checked
async def test_channels_of_one_client_are_handled_concurrently() -> None:
    class Room(Channel, topic="room:{room}"):
        async def join(self, payload: Any) -> None:
            self.go = self.client.assigns.setdefault("go", asyncio.Event())

        @on("wait")
        async def wait(self, payload: Any) -> dict[str, Any]:
            await self.go.wait()
            return {}

        @on("go")
        async def let_go(self, payload: Any) -> dict[str, Any]:
            self.go.set()
            return {}

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        one, two = await ann.join("room:1"), await ann.join("room:2")
        waiting = asyncio.create_task(one.ask("wait"))
        assert await two.ask("go") == {}
        assert await waiting == {}


@leak_checked
async def test_channel_has_topic_params_and_client() -> None:
    class Message(Channel, topic="room:{room}:user:{user}"):
        async def join(self, payload: Any) -> dict[str, Any]:
            return {"topic": self.topic, **self.params, "who": self.client.params["who"]}

    app = App(Message)
    async with app.node, Browser(app.socket, {"who": "ann"}) as ann:
        joined = await ann.join("room:a b:user:é")
        expected = {"topic": "room:a b:user:é", "room": "a b", "user": "é", "who": "ann"}
        assert joined.response == expected
        with pytest.raises(RefusedByServerError, match="unmatched topic"):
            await ann.join("room:a:b:user:1")


@leak_checked
async def test_longest_topic_has_broadcasts_of_other_nodes_and_a_longer_one_is_unmatched(
    cluster_name: str,
) -> None:
    class Served(Channel, topic="{all...}"):
        """Serves all topics."""

    longest = "x" * 1008
    async with running(2, cluster=cluster_name) as nodes:
        first, second = [Socket(Presence(node), [Served]) for node in nodes]
        async with Browser(first) as ann:
            room = await ann.join(longest)
            await second.broadcast(longest, "said", {"n": 1})
            assert await room.expect("said") == {"n": 1}
            with pytest.raises(RefusedByServerError, match="unmatched topic"):
                await ann.join(longest + "x")
            with pytest.raises(ValueError, match="topic must have 1 to 1008 characters"):
                await second.broadcast(longest + "x", "said", {})


def test_join_of_an_unmatched_topic_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Room(Channel, topic="room:{room}"):
        """Serves rooms."""

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket) as ann:
            for _ in range(3):
                with pytest.raises(RefusedByServerError, match="unmatched topic"):
                    await ann.join("rooom:1")

    run(main())
    lines = [each.getMessage() for each in caplog.records if "rooom" in each.getMessage()]
    assert lines[0].endswith("was refused: no channel matches the topic 'rooom:1'")
    assert len(lines) <= 2


@leak_checked
async def test_ask_fails_at_once_if_the_channel_crashes() -> None:
    class Room(Channel, topic="room:{room}"):
        @on("boom")
        async def boom(self, payload: Any) -> None:
            raise ZeroDivisionError

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        async with asyncio.timeout(2):
            with pytest.raises(AssertionError, match="crashed before a reply to 'boom'"):
                await room.ask("boom")
        await room.expect("phx_error")


def test_reply_that_is_no_object_is_logged_as_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    class Room(Channel, topic="room:{room}"):
        @on("say")
        async def say(self, payload: Any) -> Any:
            return "hi"

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("room:1")
            await room.push("say")
            await room.expect("phx_error")

    run(main())
    assert "the handler of 'say' crashed" in caplog.text
    assert "reply must be a dict (a JSON object), not str 'hi'" in caplog.text


@leak_checked
async def test_first_matching_pattern_routes_a_topic() -> None:
    class Lobby(Channel, topic="room:lobby"):
        async def join(self, payload: Any) -> dict[str, Any]:
            return {"by": "lobby"}

    class Room(Channel, topic="room:{room}"):
        async def join(self, payload: Any) -> dict[str, Any]:
            return {"by": "room"}

    app = App(Lobby, Room)
    async with app.node, Browser(app.socket) as ann:
        assert (await ann.join("room:lobby")).response == {"by": "lobby"}
        assert (await ann.join("room:1")).response == {"by": "room"}


@leak_checked
async def test_subclass_inherits_and_overrides_handlers() -> None:
    class Base(Channel):
        @on("a")
        async def a(self, payload: Any) -> dict[str, Any]:
            return {"by": "base"}

        @on("b")
        async def b(self, payload: Any) -> dict[str, Any]:
            return {"by": "base"}

    class Room(Base, topic="room"):
        @on("b")
        async def other(self, payload: Any) -> dict[str, Any]:
            return {"by": "room"}

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        assert await room.ask("a") == {"by": "base"}
        assert await room.ask("b") == {"by": "room"}


@leak_checked
async def test_overridden_method_still_handles_its_event() -> None:
    class Base(Channel):
        @on("say")
        async def say(self, payload: Any) -> dict[str, Any]:
            return {"by": "base"}

        @intercept("news")
        async def show(self, payload: Any) -> dict[str, Any]:
            return {"by": "base"}

    class Room(Base, topic="room"):
        async def say(self, payload: Any) -> dict[str, Any]:
            return {"by": "room", "over": (await super().say(payload))["by"]}

        async def show(self, payload: Any) -> dict[str, Any]:
            return {"by": "room"}

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        assert await room.ask("say") == {"by": "room", "over": "base"}
        await app.socket.broadcast("room", "news", {})
        assert await room.expect("news") == {"by": "room"}


@leak_checked
async def test_channel_constructor_error_refuses_only_the_join(log: Log) -> None:
    class Numbered(Channel, topic="number:{number}"):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.number = int(self.params["number"])

        @on("ask")
        async def ask(self, payload: Any) -> dict[str, Any]:
            return {"number": self.number}

    app = App(Numbered)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("number:1")
        with pytest.raises(RefusedByServerError, match="join crashed"):
            await ann.join("number:one")
        assert len(log.lines) == 1
        assert "ValueError: invalid literal" in log.everything
        assert await room.ask("ask") == {"number": 1}
        assert app.socket.stats()["channels"] == 1


@leak_checked
async def test_spawned_task_is_cancelled_at_channel_end() -> None:
    told: list[str] = []

    class Room(Channel, topic="room"):
        async def join(self, payload: Any) -> None:
            self.spawn(self.tick())

        async def tick(self) -> None:
            try:
                self.push("tick", {})
                await asyncio.Event().wait()
            finally:
                told.append("cancelled")

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        assert await room.expect("tick") == {}
        assert told == []
        await room.leave()
        await until(lambda: told == ["cancelled"])


@leak_checked
async def test_spawned_task_that_raises_crashes_the_channel(log: Log) -> None:
    ends: list[str] = []

    class Room(Channel, topic="room"):
        async def join(self, payload: Any) -> None:
            self.track("ann")
            self.spawn(self.fail())

        async def fail(self) -> None:
            raise RuntimeError("what was spawned fails")

        async def terminate(self, reason: str) -> None:
            ends.append(reason)

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        assert await room.expect("phx_error") == {}
        await until(lambda: ends == ["crashed"])
        assert app.presence.list("room") == {}
        assert log.everything.count("RuntimeError: what was spawned fails") == 1


@leak_checked
async def test_finished_spawned_task_does_not_end_the_channel() -> None:
    class Room(Channel, topic="room"):
        async def join(self, payload: Any) -> None:
            self.spawn(self.greet())

        async def greet(self) -> None:
            self.push("hello", {})

        @on("ask")
        async def ask(self, payload: Any) -> dict[str, Any]:
            return {}

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        assert await room.expect("hello") == {}
        assert await room.ask("ask") == {}


@leak_checked
async def test_ended_channel_cannot_track_or_spawn() -> None:
    kept: list[Any] = []

    class Room(Channel, topic="room"):
        async def join(self, payload: Any) -> None:
            kept.append(self)

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        await room.leave()
        (channel,) = kept
        with pytest.raises(UsageError, match="has ended"):
            channel.track("ann")
        with pytest.raises(UsageError, match="has ended"):
            channel.spawn(asyncio.sleep(0))
        channel.push("late", {})
        channel.stop()
        await room.refute("late")
        assert app.presence.topics() == []


@leak_checked
async def test_channel_tracks_updates_and_untracks_several_keys() -> None:
    app = App(Tracking)
    async with app.node, Browser(app.socket) as ann, Browser(app.socket) as bob:
        room, other = await ann.join("room"), await bob.join("room")
        await other.ask("track", {"key": "bob"})
        assert await room.ask("track", {"key": "a", "meta": {"n": 1}}) == {"active": True}
        await room.ask("track", {"key": "b"})
        await room.ask("update", {"key": "a", "meta": {"m": 2}})
        for each in room, other:
            present = await each.presence()
            assert list(present) == ["a", "b", "bob"]
            (meta,) = present["a"]["metas"]
            assert (meta["n"], meta["m"]) == (1, 2)
        assert await room.ask("untrack", {"key": "a"}) == {"active": False}
        assert list(await other.presence()) == ["b", "bob"] == list(app.presence.list("room"))
        await ann.close()
        assert list(await other.presence()) == ["bob"]


@leak_checked
async def test_duplicate_track_crashes_the_channel_and_leaks_nothing() -> None:
    app = App(Tracking)
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room")
        await room.ask("track", {"key": "a"})
        await room.push("track", {"key": "a"})
        await room.expect("phx_error")
        assert app.presence.topics() == []


@leak_checked
async def test_unencodable_refusal_crashes_the_channel(log: Log) -> None:
    class Room(Channel, topic="room:{room}"):
        async def join(self, payload: Any) -> None:
            if self.params["room"] == "bad":
                raise RefusedError({"when": object()})

        @on("refuse")
        async def refuse(self, payload: Any) -> None:
            raise RefusedError({"when": object()})

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        with pytest.raises(RefusedByServerError, match="join crashed"):
            await ann.join("room:bad")
        room = await ann.join("room:1")
        await room.push("refuse")
        assert await room.expect("phx_error") == {}
        assert len(log.lines) == 2


@leak_checked
async def test_unencodable_reply_crashes_the_channel() -> None:
    class Room(Channel, topic="room:{room}"):
        async def join(self, payload: Any) -> Any:
            return payload.get("response", {}) if self.params["room"] == "1" else [1]

        @on("ask")
        async def ask(self, payload: Any) -> Any:
            return {"text": "x" * 2_000_000}

        @on("tell")
        async def tell(self, payload: Any) -> Any:
            self.push("told", {"n": float("nan")})

    app = App(Room)
    async with app.node, Browser(app.socket) as ann:
        with pytest.raises(RefusedByServerError, match="join crashed"):
            await ann.join("room:2")
        for event in "ask", "tell":
            room = await ann.join("room:1")
            await room.push(event)
            assert await room.expect("phx_error") == {}
        assert ann.closed is None
