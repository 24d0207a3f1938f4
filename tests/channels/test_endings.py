"""The ends of channels, connections and nodes: each once, for the right reason, leaving nothing."""

import asyncio
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, RefusedError, Socket, connection, on, process
from adsum.channels.connection import Connection
from adsum.channels.process import ChannelProcess
from adsum.errors import NodeNotRunningError
from adsum.testing import Browser, RefusedByServerError
from tests.support.waiting import until

from .asgi_client import AsgiClient, asgi_client
from .captured_log import Log
from .leak_check import leak_checked, run

pytestmark = pytest.mark.usefixtures("each_carrier")


class Room(Channel, topic="room:{room}"):
    """Tracks, and writes down what happens to it."""

    async def join(self, payload: Any) -> None:
        if payload.get("refuse"):
            raise RefusedError
        if payload.get("crash"):
            raise RuntimeError("the join crashes")
        self.story: list[Any] = self.client.assigns.setdefault("story", [])
        self.me = self.track(self.client.params.get("user", "ann"))

    @on("crash")
    async def crash(self, payload: Any) -> None:
        raise RuntimeError("the handler crashes")

    @on("stop")
    async def halt(self, payload: Any) -> dict[str, Any]:
        self.stop()
        return {}

    @on("note")
    async def note(self, payload: Any) -> None:
        await asyncio.sleep(0)
        self.story.append(payload)

    @on("hang")
    async def hang(self, payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.story.append("cancelled")

    @on("late")
    async def late(self, payload: Any) -> None:
        """Do what may be done while the client is there, when it is not any more."""
        await until(lambda: not self.connected())
        self.me.update({"away": True})
        self.push("told", {})
        await self.broadcast("told", {})
        handle = self.track("somebody else")
        handle.update({"a": 1})
        self.follow()
        self.story.append(("late", handle.active, self.presence_list()))

    def connected(self) -> bool:
        """Whether nobody has ended the connection yet."""
        assert isinstance(self._process, ChannelProcess)
        assert isinstance(self._process.connection, Connection)
        return self._process.connection.closing is None

    async def terminate(self, reason: str) -> None:
        self.story.append((reason, self.presence_list()))

    def presence_list(self) -> list[str]:
        """Who is present at the end."""
        assert isinstance(self._process, ChannelProcess)
        return list(self._process._shared.presence.list(self.topic))


class App:
    """A node, and a socket with rooms whose stories are in one list."""

    def __init__(self, **settings: Any) -> None:
        self.node = adsum.Node(siblings=False)
        self.presence = adsum.Presence(self.node)
        self.story: list[Any] = []
        kinds = settings.pop("channels", [Room])
        self.socket = Socket(self.presence, kinds, connect=self.connect, **settings)

    async def connect(self, client: Any) -> None:
        client.assigns.update(story=self.story, presence=self.presence)
        client.id = client.params.get("id")


@pytest.mark.parametrize(
    ("how", "reason"),
    [("leave", "left"), ("close", "closed"), ("crash", "crashed"), ("stop", "stopped")],
)
@leak_checked
async def test_terminate_is_called_once_with_the_reason_after_presences_left(
    how: str, reason: str
) -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        assert list(app.presence.list("room:1")) == ["ann"]
        if how == "leave":
            await room.leave()
        elif how == "close":
            await ann.close()
        else:
            await room.push(how)
        await until(lambda: app.story)
        assert app.presence.topics() == []
        await ann.close()
        assert app.story == [(reason, [])]


class Guide(Channel, topic="tour:{tour}"):
    """Tracks presences of the application, whose owners are the tasks of its handlers."""

    async def join(self, payload: Any) -> None:
        self.presence: adsum.Presence = self.client.assigns["presence"]
        self.presence.track("stops", "entrance")

    @on("stop at")
    async def stop_at(self, payload: Any) -> dict[str, Any]:
        self.presence.track("stops", payload["stop"])
        if payload.get("wait"):
            await asyncio.sleep(0)
        return {}

    @on("crash")
    async def crash(self, payload: Any) -> None:
        raise RuntimeError("the handler crashes")


@pytest.mark.parametrize("how", ["leave", "close", "crash"])
@leak_checked
async def test_presence_tracked_by_a_handler_without_owner_stays_until_the_channel_ends(
    how: str,
) -> None:
    app = App(channels=[Guide])
    async with app.node, Browser(app.socket) as ann:
        tour = await ann.join("tour:1")
        await tour.ask("stop at", {"stop": "hall"})
        await tour.ask("stop at", {"stop": "roof", "wait": True})
        await asyncio.sleep(0)
        assert list(app.presence.list("stops")) == ["entrance", "hall", "roof"]
        if how == "leave":
            await tour.leave()
        elif how == "close":
            await ann.close()
        else:
            await tour.push("crash")
        await until(lambda: not app.presence.list("stops"))


@leak_checked
async def test_rejoin_terminates_old_channel_with_replaced_before_the_new_join() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        await ann.join("room:1")
        await ann.join("room:1")
        assert app.story == [("replaced", [])]
        await ann.close()
        assert app.story == [("replaced", []), ("closed", [])]


@pytest.mark.parametrize("how", ["refuse", "crash"])
@leak_checked
async def test_terminate_is_not_called_for_a_join_that_is_refused_or_crashes(how: str) -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        with pytest.raises(RefusedByServerError):
            await ann.join("room:1", {how: True})
        assert app.presence.topics() == []
    assert app.story == []


@leak_checked
async def test_events_before_a_disconnect_are_handled_in_order() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        for n in range(20):
            await room.push("note", n)
        await ann.close()
        assert app.story == [*range(20), ("closed", [])]


@leak_checked
async def test_events_before_a_rejoin_are_still_handled() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        await room.push("note", 1)
        await room.push("note", 2)
        await ann.join("room:1")
        assert app.story == [1, 2, ("replaced", [])]


@pytest.mark.parametrize(("event", "reason"), [("stop", "stopped"), ("crash", "crashed")])
@leak_checked
async def test_events_queued_behind_a_stop_or_crash_are_dropped(event: str, reason: str) -> None:
    app = App()
    async with app.node, asgi_client(app.socket) as ann:
        await ann.join("room:1")
        for ref, what in enumerate(["note", event, "note", "note"]):
            ann.push("1", str(ref), "room:1", what, ref)
        await until(lambda: len(app.story) == 2)
        await ann.is_alive()
        assert app.story == [0, (reason, [])]


@leak_checked
async def test_handler_may_finish_after_a_disconnect() -> None:
    app = App()
    async with app.node, Browser(app.socket) as bob:
        other = await bob.join("room:1")
        async with Browser(app.socket, {"user": "eve"}) as eve:
            room = await eve.join("room:1")
            await room.push("late")
        assert app.story == [("late", False, ["ann"]), ("closed", ["ann"])]
        assert await other.expect("told") == {}
        assert list(await other.presence()) == ["ann"]


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may go on for a moment only."""
    monkeypatch.setattr(process, "GRACE", 0.05)
    monkeypatch.setattr(connection, "GRACE", 0.05)


@pytest.mark.usefixtures("short_grace")
@leak_checked
async def test_hanging_handler_is_cancelled_after_the_grace() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        await room.push("hang")
        await room.push("note", "never")
        await ann.close()
        assert app.story == ["cancelled", ("closed", [])]


@pytest.mark.usefixtures("short_grace")
@leak_checked
async def test_hanging_handler_delays_a_rejoin_by_the_grace_only() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        await room.push("hang")
        await ann.join("room:1")
        assert app.story == ["cancelled", ("replaced", [])]
        await room.expect("phx_close")


@pytest.mark.usefixtures("short_grace")
@leak_checked
async def test_hanging_terminate_is_abandoned(log: Log) -> None:
    class Slow(Channel, topic="slow"):
        async def terminate(self, reason: str) -> None:
            await asyncio.Event().wait()

    class Crashing(Channel, topic="crashing"):
        async def terminate(self, reason: str) -> None:
            raise RuntimeError("terminate crashes")

    node = adsum.Node(siblings=False)
    socket = Socket(adsum.Presence(node), [Slow, Crashing])
    async with node, Browser(socket) as ann:
        for topic in "slow", "crashing":
            await (await ann.join(topic)).leave()
        await ann.close()
    assert len(log.lines) == 2
    assert "RuntimeError: terminate crashes" in log.everything


class Patient(Channel, topic="patient"):
    """Handles until it is told to go on, and never ends what it does at its end."""

    @on("wait")
    async def wait(self, payload: Any) -> None:
        await until(lambda: self._process.ending)  # the client is gone
        self.client.assigns["story"].append("waited")

    async def terminate(self, reason: str) -> None:
        self.client.assigns["story"].append(reason)
        await asyncio.Event().wait()


@pytest.mark.parametrize("waits", [False, True])
@leak_checked
async def test_terminate_has_its_full_grace_after_a_slow_handler(
    waits: bool, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)

    app = App(channels=[Patient])
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("patient")
        if waits:
            await room.push("wait")
        await ann.close()
        assert app.story == [*(["waited"] if waits else []), "closed"]
        assert log.lines == ["Patient on 'patient': terminate took longer than 0.2 s"]


@leak_checked
async def test_events_and_leaves_after_channel_end_are_answered_as_unjoined() -> None:
    app = App()
    async with app.node, Browser(app.socket) as ann:
        room = await ann.join("room:1")
        await room.push("stop")
        assert await room.expect("phx_close") == {}
        with pytest.raises(RefusedByServerError, match="unmatched topic"):
            await room.ask("note")
        await room.leave()


def test_node_stop_closes_with_1012_and_restart_serves_again() -> None:
    async def main() -> None:
        app = App()
        async with app.node:
            ann = await Browser(app.socket).connect()
            bob = await Browser(app.socket, {"user": "bob"}).connect()
            room = await ann.join("room:1")
            await bob.join("room:1")
            assert list(await room.presence()) == ["ann", "bob"]
        assert [await ann.expect_close(), await bob.expect_close()] == [1012, 1012]
        await ann.close()
        await bob.close()
        assert app.socket.stats()["connections"] == app.socket.stats()["followers"] == 0
        with pytest.raises(RefusedByServerError):
            await Browser(app.socket).connect()
        with pytest.raises(NodeNotRunningError):
            await app.socket.broadcast("room:1", "a", {})
        async with app.node, Browser(app.socket) as again:
            room = await again.join("room:1")
            assert list(await room.presence()) == ["ann"]

    # The reasons are told although nobody can be asked any more who is present.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Room, "presence_list", lambda self: [])
        run(main())


@pytest.mark.slow
def test_channels_work_in_consecutive_event_loops() -> None:
    app = App(timeout=0.2)

    async def main() -> None:
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("room:1")
            assert list(await room.presence()) == ["ann"]
            assert await ann.expect_close() == 1001  # the silent are looked for in each loop

    run(main())
    run(main())


@leak_checked
async def test_disconnect_during_accept_leaks_nothing() -> None:
    class Slowly(Channel, topic="slowly"):
        async def join(self, payload: Any) -> None:
            await self.client.assigns["go"].wait()
            self.track("ann")

        async def terminate(self, reason: str) -> None:
            self.client.assigns["ends"].append(reason)

    node = adsum.Node(siblings=False)
    presence, go, ends = adsum.Presence(node), asyncio.Event(), list[str]()

    async def connect(client: Any) -> None:
        client.assigns.update(go=go, ends=ends)

    socket = Socket(presence, [Slowly], connect=connect)
    async with node, asgi_client(socket) as ann:
        ann.push("1", "1", "slowly", "phx_join", {})
        await until(lambda: socket._shared.registry.connections)
        ann.vanish()
        await until(lambda: not socket._shared.registry.connections)
        go.set()
        await ann.served()
        assert (presence.topics(), ends) == ([], ["closed"])


class Hesitant(AsgiClient):
    """A client whose connection is accepted only when it reads."""

    async def _from_server(self, message: Any) -> None:
        await self.reads.wait()
        await super()._from_server(message)


@leak_checked
async def test_disconnect_closes_a_pending_connection() -> None:
    app = App()
    async with app.node:
        ann = Hesitant(app.socket, "vsn=2.0.0&id=users:4")
        ann.reads.clear()
        opening = asyncio.create_task(ann.open())
        await until(lambda: app.socket.stats()["connections"] == 1)
        await app.socket.disconnect("users:4")
        ann.reads.set()
        await opening
        await until(lambda: ann.closed == 1000)
        await ann.served()
