"""The browser for tests: it knows who is there as a client does, and says what is wrong."""

import asyncio
from typing import Any

import pytest

from adsum.channels import Channel, Socket, on
from adsum.testing import Browser, browser
from adsum.values.jsontext import dump

from .app import App, Tracking, connections
from .leak_check import run


class Room(Channel, topic="room"):
    """Tracks whoever comes."""

    async def join(self, payload: Any) -> None:
        self.track(self.client.params["user"])


async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    """Names, which take a few turns to look up."""
    for _ in range(2 * browser._QUIET_TURNS):
        await asyncio.sleep(0)
    return {key: {"user": {"name": key.upper()}} for key in entries}


def test_browser_presence_waits_for_first_state_and_keeps_fetched_fields() -> None:
    async def main() -> None:
        app = App(Room, fetch=fetch)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            present = await room.presence()
            assert present["ann"]["user"] == {"name": "ANN"}
            assert present["ann"]["metas"] == app.presence.list("room")["ann"]["metas"]

    run(main())


def test_browser_presence_waits_for_a_running_fetch() -> None:
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


def test_browser_presence_error_names_a_channel_that_neither_tracks_nor_follows(
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


def test_leave_of_absent_key_in_a_diff_fails_the_test() -> None:
    diff = {"joins": {}, "leaves": {"eve": {"metas": [{"phx_ref": "r1"}]}}}

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            await room.presence()
            send_wrong_diff(app, diff)
            with pytest.raises(AssertionError, match="'eve', which was not listed"):
                await room.presence()

    run(main())


def test_leave_of_absent_ref_in_a_diff_fails_the_test() -> None:
    diff = {"joins": {}, "leaves": {"ann": {"metas": [{"phx_ref": "r1"}]}}}

    async def main() -> None:
        app = App(Room)
        async with app.node, Browser(app.socket, {"user": "ann"}) as ann:
            room = await ann.join("room")
            await room.presence()
            send_wrong_diff(app, diff)
            with pytest.raises(AssertionError, match="'r1', which was not listed"):
                await room.expect("never")

    run(main())


class Photos(Channel, topic="photos"):
    """Answers, pushes and broadcasts bytes."""

    @on("photo")
    async def photo(self, payload: bytes) -> bytes:
        self.push("pushed", payload + b"1")
        await self.broadcast("broadcast", payload + b"2")
        return payload


def test_binary_payloads_are_sent_and_received() -> None:
    async def main() -> None:
        app = App(Photos)
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("photos")
            reply = await room.ask("photo", b"\x00\xff")
            assert reply == b"\x00\xff"
            assert await room.expect("pushed") == b"\x00\xff1"
            assert await room.expect("broadcast") == b"\x00\xff2"

    run(main())


def test_refute_fails_for_an_event_that_arrives() -> None:
    async def main() -> None:
        app = App(Photos)
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("photos")
            await room.refute("pushed")
            await room.push("photo", b"x")
            with pytest.raises(AssertionError, match="'pushed' came on 'photos': b'x1'"):
                await room.refute("pushed")

    run(main())


class BrokenSocket(Socket):
    """Accepts, and ends without a close once the client has sent a frame, as after a fault."""

    error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        if self.error is not None:
            raise self.error


def test_socket_that_ends_without_a_close_fails_the_wait() -> None:
    async def main() -> None:
        socket = BrokenSocket(App().presence, [])
        async with Browser(socket) as ann:
            with pytest.raises(AssertionError, match="was closed with 1006"):
                await ann.join("room")

    run(main())


def test_error_of_the_socket_is_raised_to_the_test() -> None:
    async def main() -> None:
        socket = BrokenSocket(App().presence, [])
        socket.error = RuntimeError("the socket crashes")
        async with Browser(socket) as ann:
            with pytest.raises(RuntimeError, match="the socket crashes"):
                await ann.join("room")

    run(main())
