"""Clients that do not read, and those that send too much: what they cost, what they are told."""

import asyncio
import contextlib
import json
from typing import Any, Literal

import pytest

import adsum
from adsum.channels import (
    Channel,
    ChannelPresence,
    Limits,
    Socket,
    intercept,
    on,
)
from adsum.channels.carriers import websocketparts
from adsum.channels.connection import Connection
from adsum.channels.presence import history
from adsum.testing import Browser, RefusedByServerError
from tests.support.waiting import until

from .app import Tracking, connections
from .asgi_client import AsgiClient, asgi_client
from .captured_log import Log
from .leak_check import run
from .phoenix_presence import Presence


class Room(Channel, topic="room:{room}"):
    """Follows, and tracks, and waits as it is told."""

    me: ChannelPresence

    async def join(self, payload: Any) -> None:
        self.follow()
        self.go: asyncio.Event = self.client.assigns.setdefault("go", asyncio.Event())

    @on("echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @on("track")
    async def on_track(self, payload: Any) -> dict[str, Any]:
        self.me = self.track(payload["key"])
        return {}

    @on("update")
    async def on_update(self, payload: Any) -> dict[str, Any]:
        self.me.update(payload)
        return {}

    @on("wait")
    async def wait(self, payload: Any) -> dict[str, Any]:
        await self.go.wait()
        if "then" in payload:
            raise RuntimeError("the handler crashes")
        return {}


class App:
    """A node, and a socket with rooms."""

    def __init__(self, *channels: type[Channel], **settings: Any) -> None:
        self.node = adsum.Node(siblings=False)
        self.presence = adsum.Presence(self.node)
        self.go = asyncio.Event()
        kinds = channels or (Room,)
        self.socket = Socket(self.presence, kinds, connect=self.connect, **settings)

    async def connect(self, client: Any) -> None:
        client.assigns["go"] = self.go


def test_channel_limit_refuses_joins_until_a_channel_ends() -> None:
    async def main() -> None:
        app = App(limits=Limits(channels=2))
        async with app.node, Browser(app.socket) as ann:
            one, _ = await ann.join("room:1"), await ann.join("room:2")
            with pytest.raises(RefusedByServerError) as caught:
                await ann.join("room:3")
            assert caught.value.response == {"reason": "too many channels"}
            await ann.join("room:2")  # which takes the place of the one before
            await one.leave()
            await ann.join("room:3")

    run(main())


def test_rate_limit_refuses_joins_until_the_interval_ends() -> None:
    async def main() -> None:
        app = App(limits=Limits(joins=3, interval=0.2))
        async with app.node, Browser(app.socket) as ann:
            for _ in range(3):
                await ann.join("room:1")
            with pytest.raises(RefusedByServerError) as caught:
                await ann.join("room:1")
            assert caught.value.response == {"reason": "too many joins"}

            refused = True
            while refused:
                with contextlib.suppress(RefusedByServerError):
                    await ann.join("room:1")
                    refused = False

    run(main())


def test_rate_limit_counts_joins_of_unmatched_topics() -> None:
    async def main() -> None:
        app = App(limits=Limits(joins=3))
        async with app.node, Browser(app.socket) as ann:
            for _ in range(3):
                with pytest.raises(RefusedByServerError, match="unmatched topic"):
                    await ann.join("nobody's")
            for topic in "nobody's", "room:1":
                with pytest.raises(RefusedByServerError, match="too many joins"):
                    await ann.join(topic)

    run(main())


def test_rate_limit_refuses_updates_and_keeps_the_channel() -> None:
    async def main() -> None:
        app = App(limits=Limits(updates=3))
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("room:1")
            await room.ask("track", {"key": "ann"})
            await room.ask("update", {"n": 1})
            await room.ask("update", {"n": 2})
            with pytest.raises(RefusedByServerError) as caught:
                await room.ask("update", {"n": 3})
            assert caught.value.response == {"reason": "too many presence updates"}
            assert app.presence.get("room:1", "ann")[0]["n"] == 2
            assert await room.ask("echo", {"a": 1}) == {"a": 1}

    run(main())


@pytest.fixture
def one_held(each_carrier: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client of whom too much waits, one frame more is read."""
    monkeypatch.setattr(websocketparts, "MAX_HELD", 0)


@pytest.mark.usefixtures("one_held")
def test_backpressure_pauses_reading_while_too_many_events_are_queued() -> None:
    async def main() -> None:
        app = App(limits=Limits(waiting=5))
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            ann.push("1", "2", "room:1", "wait", {})
            for n in range(20):
                ann.push("1", f"e{n}", "room:1", "echo", {"n": n})
            ann.push(None, "beat", "phoenix", "heartbeat", {})
            # One is handled, five wait, one is held; the rest is with the client.
            await until(lambda: ann.unread == 20 + 1 - 5 - 1)
            for _ in range(20):
                await asyncio.sleep(0)
            assert ann.unread == 15
            app.go.set()
            assert (await ann.reply("e19"))["response"] == {"n": 19}
            refs = [json.loads(frame)[1] for frame in ann.frames if isinstance(frame, str)]
            echoed = [ref for ref in refs if ref and ref.startswith("e")]
            assert echoed == [f"e{n}" for n in range(20)]

    run(main())


@pytest.mark.usefixtures("one_held")
def test_client_under_backpressure_can_be_closed() -> None:
    async def main() -> None:
        app = App(limits=Limits(waiting=1))
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            for n in range(5):
                ann.push("1", f"e{n}", "room:1", "wait", {})
            await until(lambda: ann.unread == 2)
            (connection,) = connections(app.socket)
            connection.close(1000, "enough")
            await until(lambda: ann.closed == 1000)
            app.go.set()
            await ann.served()

    run(main())


@pytest.mark.usefixtures("one_held")
def test_channel_end_releases_backpressure() -> None:
    async def main() -> None:
        app = App(limits=Limits(waiting=1))
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            ann.push("1", "2", "room:1", "wait", {"then": "crash"})
            for n in range(5):
                ann.push("1", f"e{n}", "room:1", "echo", {})
            await until(lambda: ann.unread == 3)
            app.go.set()
            assert (await ann.reply("e4"))["response"] == {"reason": "unmatched topic"}
            assert "phx_error" in ann.events()
            await ann.is_alive()

    run(main())


def test_released_backpressure_leaves_no_waiter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Connection]()
    room = Connection.wait_room

    async def counted(connection: Connection) -> None:
        asked.append(connection)
        await room(connection)

    async def main() -> None:
        monkeypatch.setattr(Connection, "wait_room", counted)
        app = App(limits=Limits(waiting=1))
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            for n in range(4):
                ann.push("1", f"e{n}", "room:1", "wait", {})
            await until(lambda: ann.unread == 0 and asked != [])
            app.go.set()
            await ann.reply("e3")
            asked.clear()
            for _ in range(50):
                await asyncio.sleep(0)
            assert asked == []
            await ann.is_alive()

    run(main())


def test_room_in_a_mailbox_wakes_its_waiters() -> None:
    async def main() -> None:
        app = App(limits=Limits(waiting=1))
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            (connection,) = connections(app.socket)
            frames = [json.dumps(["1", f"e{n}", "room:1", "wait", {}]) for n in range(6)]
            for frame in frames:
                connection.receive(frame)
            waiting = [asyncio.create_task(connection.wait_room()) for _ in range(2)]
            for _ in range(10):
                await asyncio.sleep(0)
            assert not any(one.done() for one in waiting)
            app.go.set()
            await until(lambda: all(one.done() for one in waiting))
            for n in range(6):
                assert await ann.reply(f"e{n}") == {"status": "ok", "response": {}}

    run(main())


def test_slow_consumer_overflow_closes_with_1013(log: Log) -> None:
    async def main() -> None:
        app = App(limits=Limits(outbox=10_000))
        async with app.node, asgi_client(app.socket) as slow, asgi_client(app.socket) as quick:
            await slow.join("room:1")
            await quick.join("room:1")
            slow.reads.clear()
            for n in range(20):
                await app.socket.broadcast("room:1", "news", {"n": n, "text": "x" * 1000})
            assert len(log.lines) == 1
            for n in range(20):
                assert (await quick.payload("news"))["n"] == n
            slow.reads.set()
            await until(lambda: slow.closed == 1013)
            assert len(slow.frames) < 10
            await quick.is_alive()

    run(main())


def test_frame_larger_than_the_outbox_reaches_a_client_that_reads() -> None:
    async def main() -> None:
        app = App(limits=Limits(outbox=100))
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            await app.socket.broadcast("room:1", "news", {"text": "x" * 1000})
            assert (await ann.payload("news"))["text"] == "x" * 1000
            await ann.is_alive()

    run(main())


async def until_sent(app: App, topic: str) -> None:
    """Let a room cut, and its clients be sent what they can be sent."""
    app.socket.flush_presences()
    for _ in range(5):
        await asyncio.sleep(0)


def test_presence_diffs_of_a_slow_consumer_are_merged_outside_its_outbox() -> None:
    async def main() -> None:
        app = App(limits=Limits(outbox=2000))
        async with app.node, asgi_client(app.socket) as slow:
            await slow.join("room:1")
            assert await slow.payload("presence_state") == {}
            slow.reads.clear()
            handles = [app.presence.track("room:1", f"u{n}", owner=None) for n in range(50)]
            await until_sent(app, "room:1")
            for n in range(10):  # one frame is on its way; these changes wait together
                for handle in handles:
                    handle.update({"n": n})
                await until_sent(app, "room:1")
            for handle in handles[:25]:
                handle.untrack()
            await until_sent(app, "room:1")
            slow.reads.set()
            first = await slow.payload("presence_diff")
            assert (len(first["joins"]), len(first["leaves"])) == (50, 0)
            second = await slow.payload("presence_diff")
            assert (len(second["joins"]), len(second["leaves"])) == (25, 50)
            assert all(entry["metas"][0]["n"] == 9 for entry in second["joins"].values())
            await slow.is_alive()
            assert slow.events().count("presence_diff") == 2

    run(main())


def test_join_and_leave_unread_by_a_slow_consumer_are_never_sent() -> None:
    async def main() -> None:
        app = App()
        async with app.node, asgi_client(app.socket) as slow:
            await slow.join("room:1")
            await slow.payload("presence_state")
            slow.reads.clear()
            app.presence.track("room:1", "first", owner=None)
            await until_sent(app, "room:1")
            app.presence.track("room:1", "brief", owner=None)
            await until_sent(app, "room:1")
            app.presence.untrack("room:1", "brief", owner=None)
            await until_sent(app, "room:1")
            slow.reads.set()
            assert list((await slow.payload("presence_diff"))["joins"]) == ["first"]
            await slow.is_alive()
            assert slow.events().count("presence_diff") == 1

    run(main())


async def fall_behind(app: App, slow: AsgiClient) -> Presence:
    """Change more than a room remembers while a client does not read; returns what it knows."""
    await slow.join("room:1")
    seen = Presence("1")
    seen.take(json.loads(await slow.read()))
    slow.reads.clear()
    app.presence.track("room:1", "stays", owner=None)
    goes = app.presence.track("room:1", "goes", owner=None)
    await until_sent(app, "room:1")
    goes.untrack()
    for n in range(history.REMEMBERED + 10):
        app.presence.track("room:1", "brief", {"n": n}, owner=None).untrack()
        app.presence.track("room:1", f"u{n % 7}", owner=n)
        await until_sent(app, "room:1")
        app.presence.untrack_all(n)
        await until_sent(app, "room:1")
    return seen


@pytest.mark.parametrize("when_slow", ["state", "close"])
def test_slow_consumer_too_far_behind_gets_a_new_state_or_is_closed(
    when_slow: Literal["state", "close"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 20)

    async def main() -> None:
        app = App(when_slow=when_slow)
        async with app.node, asgi_client(app.socket) as slow:
            seen = await fall_behind(app, slow)
            app.presence.track("room:1", "new", owner=None)
            slow.reads.set()
            if when_slow == "close":
                await until(lambda: slow.closed == 1013)
                return
            while list(seen.state) != ["new", "stays"]:
                seen.take(json.loads(await slow.read()))
            await slow.is_alive()
            assert slow.events().count("presence_state") == 2

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("reads_in_the_end", [False, True])
def test_slow_consumer_that_ignores_its_close_leaves_and_counts_until_gone(
    monkeypatch: pytest.MonkeyPatch, reads_in_the_end: bool
) -> None:
    monkeypatch.setattr("adsum.channels.connection.GRACE", 0.05)

    async def main() -> None:
        app = App(Tracking, timeout=0.1, limits=Limits(connections=1))
        async with app.node:
            slow = AsgiClient(app.socket)
            await slow.open()
            await slow.join("room")
            slow.push("1", "2", "room", "track", {"key": "ann"})
            await slow.reply("2")
            slow.reads.clear()
            await app.socket.broadcast("room", "news", {})
            await until(lambda: not app.presence.topics())
            await until(lambda: not app.socket._shared.registry.connections)
            for _ in range(100):  # what it sends is of no concern, and is taken all the same
                slow.send("no frame")
            await until(lambda: slow.unread == 0)
            assert app.socket.stats()["connections"] == 1
            refused = AsgiClient(app.socket)
            await refused.open()
            assert not refused.accepted
            if reads_in_the_end:
                slow.reads.set()
                await until(lambda: slow.closed == 1001)
            else:
                slow.vanish()
            await slow.served()
            assert app.socket.stats()["connections"] == 0
            async with asgi_client(app.socket) as bob:
                await bob.is_alive()

    run(main())


class Counting(Room, topic="crowd"):
    """Tells who is there up to ten keys."""

    counts_above = 10


def test_counts_replace_states_above_counts_above() -> None:
    async def main() -> None:
        app = App(Counting)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("crowd")
            assert await ann.payload("presence_state") == {}
            for n in range(10):
                app.presence.track("crowd", f"u{n}", owner=None)
            app.socket.flush_presences()
            assert len((await ann.payload("presence_diff"))["joins"]) == 10
            app.presence.track("crowd", "one too many", owner=None)
            app.socket.flush_presences()
            assert await ann.payload("presence_count") == {"count": 11}
            async with asgi_client(app.socket) as bob:  # who comes now is told the count alone
                await bob.join("crowd")
                app.socket.flush_presences()
                assert await bob.payload("presence_count") == {"count": 11}
                for n in range(2):
                    app.presence.untrack("crowd", f"u{n}", owner=None)
                    app.socket.flush_presences()
                    # Not at once: only when there are a fifth fewer than the limit.
                    assert await ann.payload("presence_count") == {"count": 10 - n}
                app.presence.untrack("crowd", "u2", owner=None)
                app.socket.flush_presences()
                for each in ann, bob:
                    assert await each.payload("presence_state") == app.presence.list("crowd")
                assert "presence_diff" not in bob.events()
                app.presence.track("crowd", "u0", owner=None)
                app.socket.flush_presences()
                for each in ann, bob:
                    assert list((await each.payload("presence_diff"))["joins"]) == ["u0"]

    run(main())


def test_duplicate_count_is_not_sent() -> None:
    async def main() -> None:
        app = App(Counting)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("crowd")
            handles = [app.presence.track("crowd", f"u{n}", owner=None) for n in range(12)]
            app.socket.flush_presences()
            assert await ann.payload("presence_count") == {"count": 12}
            for n in range(5):
                handles[n].update({"n": n})
                app.socket.flush_presences()
            await ann.is_alive()
            assert ann.events().count("presence_count") == 1

    run(main())


def test_slow_intercept_overflow_ends_only_its_channel() -> None:
    class Filtered(Channel, topic="filtered"):
        @intercept("news")
        async def slowly(self, payload: Any) -> Any:
            await self.client.assigns["go"].wait()
            return payload

    async def main() -> None:
        app = App(Filtered, Room, limits=Limits(waiting=5))
        async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket) as bob:
            await ann.join("filtered")
            await bob.join("room:1")
            for n in range(10):
                await app.socket.broadcast("filtered", "news", {"n": n})
            await bob.is_alive()
            app.go.set()
            await until(lambda: "phx_error" in ann.events())
            await ann.is_alive()

    run(main())
