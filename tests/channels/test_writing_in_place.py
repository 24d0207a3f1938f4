"""The plain WebSocket carrier: frames are sent in place while the server takes them at once."""

import asyncio
import json
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Limits, on
from tests.support.waiting import until

from .app import App, connections
from .asgi_client import AsgiClient, asgi_client
from .leak_check import run


class Room(Channel, topic="room:{n}"):
    """Answers at once, or once its event is set."""

    presence: adsum.Presence
    tasks: list["asyncio.Task[Any] | None"]
    go: asyncio.Event

    @on("echo")
    async def echo(self, payload: Any) -> Any:
        self.tasks.append(asyncio.current_task())
        return payload

    @on("wait")
    async def wait(self, payload: Any) -> Any:
        self.tasks.append(asyncio.current_task())
        await self.go.wait()
        self.tasks.append(asyncio.current_task())
        return payload

    @on("track")
    async def on_track(self, payload: Any) -> dict[str, Any]:
        self.presence.track("elsewhere", "ann")
        return {}


@pytest.fixture
def app() -> App:
    made = App(Room)
    Room.presence, Room.tasks, Room.go = made.presence, [], asyncio.Event()
    return made


def test_all_handlers_of_a_channel_run_in_one_task_of_its_own(app: App) -> None:
    async def main() -> None:
        async with app.node, asgi_client(app.socket) as ann:
            for topic in "room:1", "room:2":
                await ann.join(topic)
            Room.go.set()
            for event in "echo", "wait", "echo":
                for topic in "room:1", "room:2":
                    ann.push("1", event + topic, topic, event, {})
                    await ann.reply(event + topic)
            first, second = (
                {*Room.tasks[0:1], *Room.tasks[2:4]},
                {*Room.tasks[1:2], *Room.tasks[4:6]},
            )
            assert len(Room.tasks) == 8
            assert len(first) == len(second) == 1
            assert len({*Room.tasks}) == 2

    run(main())


def test_presence_that_a_handler_tracks_by_default_ends_with_the_channel(app: App) -> None:
    async def main() -> None:
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            ann.push("1", "2", "room:1", "track", {})
            await ann.reply("2")
            ann.push("1", "3", "room:1", "echo", {})
            await ann.reply("3")
            assert list(app.presence.list("elsewhere")) == ["ann"]
            ann.push("1", "4", "room:1", "phx_leave", {})
            await ann.reply("4")
            await until(lambda: not app.presence.topics())

    run(main())


def test_echoes_create_no_tasks(app: App) -> None:
    async def main() -> None:
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            created = list[Any]()
            loop = asyncio.get_running_loop()

            def factory(loop: Any, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
                created.append(coroutine)
                return asyncio.Task(coroutine, loop=loop, **options)

            loop.set_task_factory(factory)
            for n in range(50):
                ann.push("1", f"{n}", "room:1", "echo", {"n": n})
            assert (await ann.reply("49"))["response"] == {"n": 49}
            assert created == []
            loop.set_task_factory(None)

    run(main())


def test_frames_behind_a_send_that_waits_keep_their_order(app: App) -> None:
    async def main() -> None:
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room:1")
            before = len(ann.frames)
            ann.reads.clear()
            for n in range(5):
                ann.push("1", f"{n}", "room:1", "echo", {})
            await until(lambda: len(Room.tasks) == 5)
            assert len(ann.frames) == before
            ann.reads.set()
            await ann.reply("4")
            refs = [json.loads(frame)[1] for frame in ann.frames[before:]]
            assert refs == ["0", "1", "2", "3", "4"]

    run(main())


def test_send_that_fails_in_place_before_the_end_is_received_leaves_no_channel(app: App) -> None:
    """The reader receives the end of the connection without a wait after the failed send."""

    class Gone(AsgiClient):
        """Its transport fails, and its end is queued behind its events."""

        gone = False

        async def _from_server(self, message: Any) -> None:
            if self.gone:
                raise OSError("the client is gone")
            await super()._from_server(message)

    async def main() -> None:
        async with app.node:
            ann = Gone(app.socket)
            await ann.open()
            await ann.join("room:1")
            ann.gone = True
            ann.push("1", "2", "room:1", "echo", {})
            ann.vanish()
            await ann.served()
            assert len(Room.tasks) == 1
            assert connections(app.socket) == []
            assert app.socket.stats()["channels"] == 0

    run(main())


def test_channel_with_a_full_mailbox_pauses_reading_until_it_has_room(app: App) -> None:
    async def main() -> None:
        limited = App(Room, limits=Limits(waiting=3))
        async with limited.node, asgi_client(limited.socket) as ann:
            for topic in "room:1", "room:2":
                await ann.join(topic)
            (connection,) = connections(limited.socket)
            ann.push("1", "w", "room:1", "wait", {})
            for n in range(3):
                assert not connection.full
                ann.push("1", f"{n}", "room:1", "echo", {})
                await until(lambda: ann.unread == 0)
                ann.push("1", "b", "room:2", "echo", {})
                await until(lambda: ann.unread == 0)
            await until(lambda: connection.full)
            Room.go.set()
            await ann.reply("2")
            assert not connection.full
            assert connection._full_processes == []

    run(main())
