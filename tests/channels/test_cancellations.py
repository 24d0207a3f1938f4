"""Cancellations: of what an application awaits, which is a crash, and of a whole event loop."""

import asyncio
from typing import Any

import pytest

from adsum.channels import Channel, on, outgoing
from adsum.testing import Browser, RefusedByServerError

from .app import App, Tracking
from .conftest import Log
from .line import Line
from .running import DEADLINE, run

CANCELLED = "RuntimeError: something that it waited for was cancelled"


async def awaiting_what_is_cancelled() -> None:
    """Wait for a task that somebody else has cancelled."""
    task = asyncio.create_task(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


class Room(Channel, topic="room:{where}"):
    """Waits for what is cancelled where its topic says."""

    ends: list[str] = []  # noqa: RUF012  # a test empties it

    async def join(self, payload: Any) -> None:
        self.track("ann")
        await self.maybe("join")

    @on("handle")
    async def handle(self, payload: Any) -> None:
        await self.maybe("handler")

    @outgoing("news")
    async def news(self, payload: Any) -> Any:
        await self.maybe("filter")
        return payload

    async def terminate(self, reason: str) -> None:
        self.ends.append(reason)
        await self.maybe("terminate")

    async def maybe(self, where: str) -> None:
        if self.params["where"] == where:
            await awaiting_what_is_cancelled()


@pytest.mark.parametrize("where", ["handler", "filter"])
def test_what_waits_for_something_that_is_cancelled_crashes_its_channel(
    where: str, log: Log
) -> None:
    async def main() -> None:
        app = App(Room)
        Room.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join(f"room:{where}")
            if where == "handler":
                await room.push("handle")
            else:
                await app.socket.broadcast(room.topic, "news", {})
            assert await room.expect("phx_error") == {}
            assert Room.ends == ["crashed"]
            assert app.presence.topics() == []
            assert len(log.lines) == 1
            assert CANCELLED in log.everything
            await ann.join("room:elsewhere")

    run(main())


def test_a_join_that_waits_for_something_that_is_cancelled_crashes(log: Log) -> None:
    async def main() -> None:
        app = App(Room)
        Room.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            with pytest.raises(RefusedByServerError, match="join crashed"):
                await ann.join("room:join")
            assert (app.presence.topics(), Room.ends) == ([], [])
            assert CANCELLED in log.everything
            await ann.join("room:elsewhere")

    run(main())


def test_terminate_that_waits_for_something_that_is_cancelled_is_logged(log: Log) -> None:
    async def main() -> None:
        app = App(Room)
        Room.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            await (await ann.join("room:terminate")).leave()
            await ann.close()
            assert Room.ends == ["left"]
            assert len(log.lines) == 1
            assert CANCELLED in log.everything

    run(main())


def cancel_all(runner: asyncio.Runner) -> set["asyncio.Task[Any]"]:
    """Cancel everything, as `asyncio.run` does at its end; returns what does not end."""
    tasks = asyncio.all_tasks(runner.get_loop())
    for task in tasks:
        task.cancel()
    return runner.run(asyncio.wait(tasks, timeout=DEADLINE / 5))[1]


@pytest.mark.parametrize("turns", range(6))
def test_a_loop_that_ends_waits_for_nothing_that_was_about_to_be_handled(turns: int) -> None:
    """Whatever turn it is: the frame is not read yet, or its handling has not begun, or has."""

    async def main() -> None:
        app = App(Tracking)
        await app.node.start()
        ann = Line(app.socket)
        await ann.open()
        await ann.join("room")
        ann.push("1", "2", "room", "track", {"key": "ann"})
        for _ in range(turns):
            await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        runner.run(main())
        assert cancel_all(runner) == set()
