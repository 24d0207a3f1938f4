"""What `fetch` adds to presences on their way to clients, and what happens while it does."""

import asyncio
from datetime import datetime
from typing import Any

from adsum.channels import Channel
from adsum.testing import Browser
from tests.support.waiting import until

from .app import App, Tracking
from .asgi_client import AsgiClient, asgi_client
from .captured_log import Log
from .leak_check import run


def test_fetch_is_called_once_for_each_diff_for_all_followers() -> None:
    asked: list[list[str]] = []

    async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        asked.append(list(entries))
        await asyncio.sleep(0)
        return {key: {"name": key.upper()} for key in entries}

    async def main() -> None:
        app = App(Tracking, fetch=fetch)
        async with app.node, Browser(app.socket) as ann, Browser(app.socket) as bob:
            room, other = await ann.join("room"), await bob.join("room")
            await room.ask("track", {"key": "a"})
            await other.ask("track", {"key": "b"})
            await room.presence()
            await other.presence()
            asked.clear()
            await room.ask("track", {"key": "c"})
            for each in room, other:
                assert "c" in await each.presence()
            assert asked == [["c"]]

    run(main())


class Gate:
    """A fetch that waits while it is closed."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waits = 0

    async def fetch(self, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        self.waits += 1
        await self.open.wait()
        return {}


async def present(client: AsgiClient, key: str) -> None:
    """Join, and track."""
    await client.join("room")
    client.push("1", "2", "room", "track", {"key": key})
    assert (await client.reply("2"))["status"] == "ok"


def test_leave_during_fetch_of_its_state_sends_nothing_and_leaks_nothing() -> None:
    async def main() -> None:
        gate = Gate()
        app = App(Tracking, fetch=gate.fetch)
        gate.open.set()
        async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket) as bob:
            await present(ann, "a")
            assert list(await ann.payload("presence_state")) == ["a"]
            gate.open.clear()
            await present(bob, "b")
            app.socket.flush_presences()
            await until(lambda: gate.waits == 2)
            bob.push("1", "3", "room", "phx_leave", {})
            assert (await bob.reply("3"))["status"] == "ok"
            gate.open.set()
            assert list((await ann.payload("presence_diff"))["joins"]) == ["b"]
            assert list((await ann.payload("presence_diff"))["leaves"]) == ["b"]
            assert app.socket.stats()["followers"] == 1
            await bob.is_alive()
            assert "presence_state" not in bob.events()

    run(main())


def test_leave_during_fetch_does_not_cancel_the_fetch_of_others() -> None:
    async def main() -> None:
        gate = Gate()
        app = App(Tracking, fetch=gate.fetch)
        gate.open.set()
        async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket) as bob:
            await present(bob, "b")
            await bob.payload("presence_state")
            gate.open.clear()
            await present(ann, "a")
            app.socket.flush_presences()
            await until(lambda: gate.waits == 2)
            bob.push("1", "3", "room", "phx_leave", {})
            assert (await bob.reply("3"))["status"] == "ok"
            gate.open.set()
            assert list(await ann.payload("presence_state")) == ["a", "b"]
            assert list((await ann.payload("presence_diff"))["leaves"]) == ["b"]

    run(main())


def test_unencodable_fetch_result_is_omitted_for_its_key_only(log: Log) -> None:
    async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        return {
            key: {"since": datetime(2026, 1, 1)} if key.startswith("bad") else {"name": key.upper()}
            for key in entries
        }

    async def main() -> None:
        app = App(Tracking, fetch=fetch)
        async with app.node, Browser(app.socket) as ann, Browser(app.socket) as bob:
            room, other = await ann.join("room"), await bob.join("room")
            await room.ask("track", {"key": "a"})
            await room.presence()
            await other.ask("track", {"key": "bad\nkey"})  # for one in a diff, for one in a state
            for each in room, other:
                present = await each.presence()
                assert present["a"]["name"] == "A"
                assert list(present["bad\nkey"]) == ["metas"]
            assert log.lines
            for line in log.lines:
                assert line.startswith(
                    r"the fields that fetch added for 'bad\nkey' on 'room' were dropped: "
                )
            assert await room.ask("track", {"key": "c"}) == {"active": True}
            assert (await other.presence())["c"]["name"] == "C"

    run(main())


class Counting(Channel, topic="crowd"):
    """Tells who is there up to three keys."""

    counts_above = 3

    async def join(self, payload: Any) -> None:
        self.follow()


def test_client_behind_counts_is_sent_a_state_when_lists_resume() -> None:
    async def main() -> None:
        gate = Gate()
        gate.open.set()
        app = App(Counting, fetch=gate.fetch)
        async with app.node, asgi_client(app.socket) as slow:
            await slow.join("crowd")
            assert await slow.payload("presence_state") == {}
            slow.reads.clear()
            await app.socket.broadcast("crowd", "noise", {})  # which is on its way to it
            await until_told(app, slow)
            handles = [app.presence.track("crowd", "u0", owner=None)]
            await until_told(app, slow)  # one diff waits for the client
            handles += [app.presence.track("crowd", f"u{n}", owner=None) for n in range(1, 4)]
            await until_told(app, slow)  # now there are counts alone
            gate.open.clear()
            waits = gate.waits
            for handle in handles[2:]:
                handle.untrack()
            app.socket.flush_presences()
            await until(lambda: gate.waits > waits)  # lists again, once it is known who is there
            slow.reads.set()
            await slow.is_alive()
            gate.open.set()
            assert list(await slow.payload("presence_state")) == ["u0", "u1"]
            handles[0].untrack()
            assert list((await slow.payload("presence_diff"))["leaves"]) == ["u0"]

    run(main())


async def until_told(app: App, slow: AsgiClient) -> None:
    """Let a room cut, and what it fetches come."""
    await until(lambda: not app.socket.flush_presences())
    for _ in range(5):
        await asyncio.sleep(0)
