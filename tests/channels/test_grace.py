"""Presences of channels with a linger: clients that reconnect depart for nobody."""

import asyncio
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, on
from adsum.channels.carriers.sessions import Sessions
from adsum.channels.connection import Connection
from adsum.channels.wire.frames import V2_TEXT
from adsum.errors import AlreadyTrackedError, ConfigurationError
from adsum.testing import Browser, RefusedByServerError
from tests.support.waiting import until

from .asgi_client import AsgiClient, asgi_client
from .captured_log import Log
from .leak_check import leak_checked

pytestmark = pytest.mark.usefixtures("each_carrier")

ROOM = "room:1"


class Room(Channel, topic="room:{room}"):
    """Tracks the key and the linger that the client names."""

    async def join(self, payload: Any) -> None:
        App.joining.set()
        if payload.get("waits"):
            await App.go_on.wait()
        self.client.id = payload.get("id")
        meta = {"n": payload.get("n", 0)}
        self.me = self.track(
            payload.get("key", "ann"),
            meta,
            linger=payload.get("linger", 60.0),
            device=payload.get("device"),
        )
        if payload.get("refuse"):
            raise RefusedError
        if payload.get("crash"):
            raise RuntimeError("the join crashes")

    @on("crash")
    async def crash(self, payload: Any) -> None:
        raise RuntimeError("the handler crashes")

    @on("stop")
    async def halt(self, payload: Any) -> None:
        self.stop()

    @on("logout")
    async def log_out(self, payload: Any) -> None:
        self.me.untrack()

    @on("wait")
    async def wait(self, payload: Any) -> None:
        App.waiting.set()
        await App.go_on.wait()


class App:
    """A node and a socket."""

    joining: asyncio.Event
    waiting: asyncio.Event
    go_on: asyncio.Event

    def __init__(self, **settings: Any) -> None:
        App.joining, App.waiting, App.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.node = adsum.Node(siblings=False, **settings)
        self.presence = adsum.Presence(self.node)
        self.socket = Socket(self.presence, [Room])

    async def come_and_go(self, code: int = 1006, **payload: Any) -> None:
        """Be a client that is present, and whose connection ends without a leave."""
        made = AsgiClient(self.socket)
        await made.open()
        await made.join(ROOM, payload)
        made.vanish(code)
        await made.served()

    @property
    def metas(self) -> list[Any]:
        return [meta["n"] for meta in self.presence.get(ROOM, "ann")]


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1012])
@leak_checked
async def test_presence_lingers_however_its_connection_was_lost(code: int) -> None:
    app = App()
    async with app.node:
        await app.come_and_go(code)
        assert app.metas == [0]
        assert app.node.stats()["lingering_presences"] == 1


@leak_checked
async def test_presence_without_linger_leaves_with_its_connection() -> None:
    app = App()
    async with app.node:
        await app.come_and_go(linger=0)
        assert app.metas == []


@leak_checked
async def test_lingering_presence_leaves_when_its_linger_ends() -> None:
    app = App()
    async with app.node:
        await app.come_and_go(linger=0.05)
        await until(lambda: app.metas == [])


@leak_checked
async def test_reconnect_updates_the_lingering_presence_in_place_and_others_see_no_leave() -> None:
    app = App()
    async with app.node, asgi_client(app.socket) as bob:
        await bob.join(ROOM, {"key": "bob"})
        watch = app.presence.watch_topics()
        await anext(watch)
        for n in (1, 2, 3):
            await app.come_and_go(n=n)
            assert app.metas == [n]
        diff = await anext(watch)
        assert (diff.arrived, diff.departed) == (("ann",), ())
        assert diff.joins["ann"]["metas"][0]["n"] == 3


@leak_checked
async def test_second_device_does_not_end_the_grace_of_the_first() -> None:
    app = App()
    async with app.node:
        await app.come_and_go(n=1, device="phone")
        async with Browser(app.socket) as laptop:
            room = await laptop.join(ROOM, {"n": 2, "device": "laptop"})
            assert app.metas == [1, 2]
            await room.leave()
            assert app.metas == [1]
        async with Browser(app.socket) as unnamed:
            await unnamed.join(ROOM, {"n": 3})
            assert app.metas == [1, 3]
        await app.come_and_go(n=4, device="phone")
        assert app.metas == [4, 3]


@leak_checked
async def test_leave_of_a_device_ends_no_grace_of_its_other_connections() -> None:
    app = App()
    async with app.node:
        await app.come_and_go(n=1, device="phone", key="bob")
        async with Browser(app.socket) as phone:
            room = await phone.join(ROOM, {"n": 2, "device": "phone"})
            await room.leave()
        assert app.metas == []
        assert app.presence.count(ROOM) == 1


@pytest.mark.parametrize("device", [7, "", "x" * 1025])
@leak_checked
async def test_device_of_another_form_is_refused(device: Any) -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        with pytest.raises(RefusedByServerError):
            await ann.join(ROOM, {"device": device})


@leak_checked
async def test_channel_that_names_many_devices_is_refused() -> None:
    class Many(Channel, topic="many"):
        async def join(self, payload: Any) -> None:
            for number in range(17):
                self.track("ann", device=str(number)).untrack()

    node = adsum.Node(siblings=False)
    async with node, Browser(Socket(adsum.Presence(node), [Many])) as ann:
        with pytest.raises(RefusedByServerError, match="join crashed"):
            await ann.join("many")


@leak_checked
async def test_leave_is_immediate() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join(ROOM)
        await room.leave()
        assert app.metas == []


@leak_checked
async def test_stop_by_the_server_code_is_immediate() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join(ROOM)
        await room.push("stop")
        await until(lambda: app.metas == [])


@leak_checked
async def test_untrack_is_immediate() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join(ROOM)
        await room.push("logout")
        await until(lambda: app.metas == [])


@leak_checked
async def test_disconnect_of_an_id_is_immediate() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        await ann.join(ROOM, {"id": "users:ann"})
        connection = next(iter(app.socket._shared.registry.connections))
        assert isinstance(connection, Connection)
        connection.close(1000, "disconnected")
        assert await ann.expect_close() == 1000
        await until(lambda: app.metas == [])


@pytest.mark.parametrize("event", ["phx_leave", "logout", "stop"])
@leak_checked
async def test_intended_end_just_before_the_connection_is_lost_is_immediate(event: str) -> None:
    app = App()
    async with app.node:
        made = AsgiClient(app.socket)
        await made.open()
        await made.join(ROOM)
        made.push("1", "2", ROOM, "wait", {})
        made.push("1", "3", ROOM, event, {})
        await App.waiting.wait()
        await until(lambda: not made.unread)
        made.vanish()
        await until(lambda: app.node.stats()["lingering_presences"] == 1)
        App.go_on.set()
        await made.served()
        assert app.metas == []


@leak_checked
async def test_crash_of_a_handler_lingers_until_the_client_rejoins(log: Log) -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join(ROOM, {"n": 1})
        await room.push("crash")
        await until(lambda: app.node.stats()["lingering_presences"] == 1)
        assert app.metas == [1]
        await ann.join(ROOM, {"n": 2})
        assert app.metas == [2]
        assert app.node.stats()["lingering_presences"] == 0


@leak_checked
async def test_rejoin_updates_the_presence_of_the_replaced_channel_in_place() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        await ann.join(ROOM, {"n": 1})
        watch = app.presence.watch(ROOM)
        await anext(watch)
        await ann.join(ROOM, {"n": 2})
        diff = await anext(watch)
        assert (dict(diff.joins), dict(diff.leaves), list(diff.updates)) == ({}, {}, ["ann"])


@pytest.mark.parametrize(("how", "stays"), [("refuse", []), ("crash", [0])])
@leak_checked
async def test_join_that_crashes_lingers_and_one_that_is_refused_does_not(
    how: str, stays: list[int], log: Log
) -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        with pytest.raises(RefusedByServerError):
            await ann.join(ROOM, {how: True})
        assert app.metas == stays


@leak_checked
async def test_join_that_outlives_its_connection_takes_nothing_over_and_shows_nothing() -> None:
    app = App()
    async with app.node:
        await app.come_and_go(n=1)
        late = [AsgiClient(app.socket) for _ in range(2)]
        for made, key in zip(late, ("ann", "bob"), strict=True):
            await made.open()
            made.push("1", "1", ROOM, "phx_join", {"waits": True, "key": key, "n": 2})
            await until(App.joining.is_set)
            App.joining.clear()
            made.vanish()
        await until(lambda: app.socket.stats()["connections"] == 0)
        App.go_on.set()
        for made in late:
            await made.served()
        assert app.metas == [1]
        assert list(app.presence.list(ROOM)) == ["ann"]


@leak_checked
async def test_poll_session_that_ends_lingers() -> None:
    app = App()
    async with app.node:
        sessions = Sessions.of(app.node)
        connection = Connection(app.socket._shared, Client(), V2_TEXT)
        sessions.begin(connection)
        [session] = sessions._sessions.values()
        await session.send(f'["1","1","{ROOM}","phx_join",{{}}]', lines=False)
        await until(lambda: app.metas == [0])
        session.end()
        await until(lambda: connection._finished)
        assert app.metas == [0]


@leak_checked
async def test_leave_of_a_second_device_leaves_the_grace_of_the_first() -> None:
    app = App()
    async with app.node, Browser(app.socket) as laptop:
        room = await laptop.join(ROOM, {"n": 2})
        await app.come_and_go(n=1)
        assert app.metas == [2, 1]
        await room.leave()
        assert app.metas == [1]


@leak_checked
async def test_channel_tracks_a_key_again_with_a_linger() -> None:
    errors = list[type[Exception]]()

    class Twice(Channel, topic="twice"):
        async def join(self, payload: Any) -> None:
            self.track("ann", {"n": 1})
            try:
                self.track("ann", {"n": 2})
            except AlreadyTrackedError as error:
                errors.append(type(error))
            self.track("ann", {"n": 3}, linger=15.0)

    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)
    async with node, Browser(Socket(presence, [Twice])) as ann:
        await ann.join("twice")
        assert [meta["n"] for meta in presence.get("twice", "ann")] == [3]
    assert errors == [AlreadyTrackedError]


@leak_checked
async def test_linger_out_of_range_is_refused_and_tracks_nothing() -> None:
    refused = list[str]()

    class Wrong(Channel, topic="wrong"):
        async def join(self, payload: Any) -> None:
            with pytest.raises(ConfigurationError) as error:
                self.track("ann", linger=payload)
            refused.append(str(error.value))

    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)
    async with node, Browser(Socket(presence, [Wrong])) as ann:
        for linger in (-1, 3600.5, "15"):
            await ann.join("wrong", linger)
        assert presence.topics() == []
    assert refused[0] == "linger=-1: must be a number of seconds from 0 to 3600"
    assert len(refused) == 3
