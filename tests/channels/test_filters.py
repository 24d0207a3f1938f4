"""Filters: what a channel does with broadcasts before they go to its client."""

import asyncio
from typing import Any

from adsum.channels import Channel, intercept, on
from adsum.testing import Browser

from .app import App
from .captured_log import Log
from .leak_check import run


class Filtering(Channel, topic="filtered"):
    """Censors what is shouted, by the user's wish."""

    @on("shout")
    async def shout(self, payload: Any) -> None:
        await self.broadcast("shout", payload)

    @intercept("shout")
    async def censor(self, payload: Any) -> Any:
        match self.client.params["wish"]:
            case "all":
                return payload
            case "none":
                return None
            case "polite":
                return {"text": "***"}
        raise RuntimeError("the filter crashes")


def test_intercept_passes_alters_or_drops_a_broadcast() -> None:
    async def main() -> None:
        app = App(Filtering)
        async with (
            app.node,
            Browser(app.socket, {"wish": "all"}) as ann,
            Browser(app.socket, {"wish": "none"}) as bob,
            Browser(app.socket, {"wish": "polite"}) as eve,
        ):
            rooms = [await browser.join("filtered") for browser in (ann, bob, eve)]
            await rooms[1].push("shout", {"text": "damn"})
            assert await rooms[0].expect("shout") == {"text": "damn"}
            assert await rooms[2].expect("shout") == {"text": "***"}
            await rooms[1].refute("shout")
            await app.socket.broadcast("filtered", "other", {"text": "damn"})
            for room in rooms:  # other events pass without any call
                assert await room.expect("other") == {"text": "damn"}

    run(main())


def test_intercept_crash_ends_only_its_channel(log: Log) -> None:
    async def main() -> None:
        app = App(Filtering)
        async with (
            app.node,
            Browser(app.socket, {"wish": "all"}) as ann,
            Browser(app.socket, {"wish": "?"}) as eve,
        ):
            room, hers = await ann.join("filtered"), await eve.join("filtered")
            await room.push("shout", {})
            assert await room.expect("shout") == {}
            assert await hers.expect("phx_error") == {}
            assert len(log.lines) == 1
            assert eve.closed is None

    run(main())


def test_intercept_keeps_the_order_of_broadcasts() -> None:
    class Room(Channel, topic="room"):
        @intercept("n")
        async def slowly(self, payload: Any) -> Any:
            for _ in range(payload["turns"]):
                await asyncio.sleep(0)
            return payload

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("room")
            for n in range(20):
                await app.socket.broadcast("room", "n", {"n": n, "turns": 20 - n})
            assert [(await room.expect("n"))["n"] for n in range(20)] == list(range(20))

    run(main())
