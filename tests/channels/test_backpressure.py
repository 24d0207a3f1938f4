"""What waits to be handled of a client: bounded in bytes, and no reason not to see that it goes."""

import asyncio
import json
from typing import Any

import pytest

from adsum.channels import Channel, Limits, on
from adsum.channels.carriers import websocketparts
from tests.support.waiting import until

from .app import App, Tracking, connections
from .asgi_client import AsgiClient, asgi_client
from .leak_check import leak_checked

pytestmark = pytest.mark.usefixtures("each_carrier")


class Slow(Channel, topic="slow:{slow}"):
    """Waits until it may go on, in its join or for each event; its topic says which."""

    go: asyncio.Event

    async def join(self, payload: Any) -> None:
        self.track("ann")
        if self.params.get("slow") == "join":
            await self.go.wait()

    @on("wait")
    async def wait(self, payload: Any) -> dict[str, Any]:
        await self.go.wait()
        return {}


@pytest.fixture
def one_held(each_carrier: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client of whom too much waits, one frame more is read."""
    monkeypatch.setattr(websocketparts, "MAX_HELD", 0)


async def never_read(client: AsgiClient, count: int) -> None:
    """The server reads until so many frames are left, and then no more."""
    await until(lambda: client.unread == count)
    for _ in range(20):
        await asyncio.sleep(0)
    assert client.unread == count


def frame(ref: str, topic: str, size: int) -> str:
    """A frame of so many bytes that is waited for; characters have several."""
    text = json.dumps(["1", ref, topic, "wait", "é"], ensure_ascii=False)
    return text.replace("é", "é" * ((size - len(text) + 1) // 2))


@pytest.mark.usefixtures("one_held")
@pytest.mark.parametrize("slow", ["join", "event"])
@leak_checked
async def test_backpressure_pauses_reading_while_too_many_bytes_are_queued(slow: str) -> None:
    Slow.go = asyncio.Event()
    app = App(Slow, limits=Limits(backlog=10_000))
    async with app.node, asgi_client(app.socket) as ann:
        ann.push("1", "1", f"slow:{slow}", "phx_join", {})
        if slow == "event":
            await ann.reply("1")
        for n in range(20):
            ann.send(frame(f"e{n}", f"slow:{slow}", 1000))
        # Ten or eleven are more than 10,000 bytes with the join or not; one more is held.
        await never_read(ann, 20 - 11 - 1 if slow == "event" else 20 - 10 - 1)
        Slow.go.set()
        for n in range(20):
            assert (await ann.reply(f"e{n}"))["status"] == "ok"


@pytest.mark.usefixtures("one_held")
@leak_checked
async def test_backpressure_counts_queued_bytes_for_each_client() -> None:
    Slow.go = asyncio.Event()
    app = App(Slow, limits=Limits(backlog=10_000))
    async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket) as bob:
        for n in range(20):
            await ann.join(f"slow:{n}")
        for n in range(20):
            ann.send(frame(f"e{n}", f"slow:{n}", 1000))
        await never_read(ann, 20 - 11 - 1)
        await bob.is_alive()
        before = len(ann.frames)
        Slow.go.set()
        await until(lambda: len(ann.frames) == before + 20)  # of several channels, in any order
        replies = map(json.loads, ann.frames[before:])
        assert {(reply[1], reply[4]["status"]) for reply in replies} == {
            (f"e{n}", "ok") for n in range(20)
        }


@pytest.mark.usefixtures("one_held")
@pytest.mark.parametrize("how", ["leaves", "crashes"])
@leak_checked
async def test_frames_dropped_at_channel_end_release_backpressure(how: str) -> None:
    class Fragile(Slow, topic="fragile"):
        async def wait(self, payload: Any) -> dict[str, Any]:
            await self.go.wait()
            if how == "crashes":
                raise RuntimeError("the handler crashes")
            self.stop()
            return {}

    app = App(Fragile, limits=Limits(backlog=10_000))
    async with app.node, asgi_client(app.socket) as ann:
        for ref in "ab":  # the second time as much fits as the first time
            Slow.go = asyncio.Event()
            await ann.join("fragile", ref="1")
            for n in range(20):
                ann.send(frame(f"{ref}{n}", "fragile", 1000))
            await never_read(ann, 20 - 11 - 1)
            Slow.go.set()
            assert (await ann.reply(f"{ref}19"))["response"] == {"reason": "unmatched topic"}
            await ann.is_alive()


@pytest.mark.parametrize("limits", [Limits(waiting=5), Limits(backlog=1000)])
@pytest.mark.parametrize("slow", ["join", "event"])
@leak_checked
async def test_disconnect_under_backpressure_ends_presences(limits: Limits, slow: str) -> None:
    Slow.go = asyncio.Event()
    app = App(Slow, limits=limits)
    async with app.node:
        ann = AsgiClient(app.socket)
        await ann.open()
        ann.push("1", "1", f"slow:{slow}", "phx_join", {})
        for n in range(10):
            ann.send(frame(f"e{n}", f"slow:{slow}", 500))
        await until(lambda: ann.unread == 0)
        (connection,) = connections(app.socket)
        assert connection.full
        assert app.presence.topics() == [f"slow:{slow}"]
        ann.vanish()
        await until(lambda: app.presence.topics() == [])
        Slow.go.set()
        await ann.served()


@leak_checked
async def test_ended_channel_leaves_no_mark_in_the_outbox_of_a_slow_consumer() -> None:
    app = App(Tracking, limits=Limits(joins=1000, updates=1000))
    async with app.node, asgi_client(app.socket) as slow:
        (connection,) = connections(app.socket)
        slow.reads.clear()
        for ref in map(str, range(50)):
            slow.push(ref, ref, "room", "phx_join", {})
            slow.push(ref, f"t{ref}", "room", "track", {"key": "ann"})
            await until(lambda: app.presence.topics())
            app.socket.flush_presences()
            slow.push(ref, f"l{ref}", "room", "phx_leave", {})
            await until(lambda: not app.presence.topics())
        assert not [
            one for one in connection.outbox._items or () if not isinstance(one, str | bytes)
        ]
