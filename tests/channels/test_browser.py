"""The browser for tests: it knows who is there as a client does, and says what is wrong."""

import asyncio
from typing import Any

import pytest

from adsum.channels import Channel
from adsum.testing import Browser, browser
from adsum.values.jsontext import dump

from .app import App, Tracking, connections
from .running import run


class Room(Channel, topic="room"):
    """Tracks whoever comes."""

    async def join(self, payload: Any) -> None:
        self.track(self.client.params["user"])


async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    """Names, which take a few turns to look up."""
    for _ in range(2 * browser._QUIET_TURNS):
        await asyncio.sleep(0)
    return {key: {"user": {"name": key.upper()}} for key in entries}


def test_presence_waits_for_the_first_state_and_keeps_what_fetch_adds() -> None:
    async def main() -> None:
        app = App(Room, fetch=fetch)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            present = await room.presence()
            assert present["ann"]["user"] == {"name": "ANN"}
            assert present["ann"]["metas"] == app.presence.list("room")["ann"]["metas"]

    run(main())


def test_presence_waits_for_a_fetch_that_is_under_way() -> None:
    async def main() -> None:
        app = App(Room, fetch=fetch)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            await room.presence()
            async with Browser(app.socket, {"user": "bob"}) as bob:
                await bob.join("room")
                present = await room.presence()
                assert {key: entry["user"]["name"] for key, entry in present.items()} == {
                    "ann": "ANN",
                    "bob": "BOB",
                }
            assert list(await room.presence()) == ["ann"]

    run(main())


def test_presence_says_that_a_channel_neither_tracks_nor_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(browser, "PATIENCE", 0.05)

    async def main() -> None:
        app = App(Tracking)
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("room")
            with pytest.raises(AssertionError, match=r"presence_state on 'room'.*Channel\.track"):
                await room.presence()

    run(main())


def send_wrong_diff(app: App, diff: dict[str, Any]) -> None:
    """Send what a server with a fault would send; an application may not."""
    for connection in connections(app.socket):
        connection.send(connection.serializer.broadcast("room", "presence_diff", dump(diff)))


def test_a_diff_that_names_somebody_who_was_not_there_fails_the_test() -> None:
    diff = {"joins": {}, "leaves": {"eve": {"metas": [{"phx_ref": "r1"}]}}}

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            await room.presence()
            send_wrong_diff(app, diff)
            with pytest.raises(AssertionError, match="'eve', who was not there"):
                await room.presence()

    run(main())


def test_a_diff_that_names_a_ref_that_was_not_there_fails_the_test() -> None:
    diff = {"joins": {}, "leaves": {"ann": {"metas": [{"phx_ref": "r1"}]}}}

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            await room.presence()
            send_wrong_diff(app, diff)
            with pytest.raises(AssertionError, match="'r1', who was not there"):
                await room.expect("never")

    run(main())
