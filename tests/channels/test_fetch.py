"""What `fetch` adds to presences on their way to clients, and what happens while it does."""

import asyncio
from typing import Any

from adsum.testing import Browser

from .app import App, Tracking
from .line import Line, line
from .running import run, until


def test_fetch_is_asked_once_for_each_diff_however_many_follow() -> None:
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


async def present(client: Line, key: str) -> None:
    """Join, and track."""
    await client.join("room")
    client.push("1", "2", "room", "track", {"key": key})
    assert (await client.reply("2"))["status"] == "ok"


def test_who_leaves_while_its_state_is_fetched_is_sent_nothing_and_not_kept() -> None:
    async def main() -> None:
        gate = Gate()
        app = App(Tracking, fetch=gate.fetch)
        gate.open.set()
        async with app.node, line(app.socket) as ann, line(app.socket) as bob:
            await present(ann, "a")
            assert list(await ann.payload("presence_state")) == ["a"]
            gate.open.clear()
            await present(bob, "b")
            app.socket.settle()
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


def test_who_leaves_while_the_state_of_another_is_fetched_takes_it_not_along() -> None:
    async def main() -> None:
        gate = Gate()
        app = App(Tracking, fetch=gate.fetch)
        gate.open.set()
        async with app.node, line(app.socket) as ann, line(app.socket) as bob:
            await present(bob, "b")
            await bob.payload("presence_state")
            gate.open.clear()
            await present(ann, "a")
            app.socket.settle()
            await until(lambda: gate.waits == 2)
            bob.push("1", "3", "room", "phx_leave", {})
            assert (await bob.reply("3"))["status"] == "ok"
            gate.open.set()
            assert list(await ann.payload("presence_state")) == ["a", "b"]
            assert list((await ann.payload("presence_diff"))["leaves"]) == ["b"]

    run(main())
