"""Cancellations of what an application awaits or of its own task, which crash; and of a loop."""

import asyncio
import contextlib
from typing import Any

import pytest

from adsum.channels import Channel, Client, intercept, on
from adsum.testing import Browser, RefusedByServerError
from tests.support.waiting import DEADLINE, until

from .app import App, Tracking
from .asgi_client import AsgiClient
from .captured_log import Log
from .leak_check import run

CANCELLED = "RuntimeError: an awaitable of the application was cancelled"


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

    @intercept("news")
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
def test_cancelled_awaitable_in_handler_crashes_its_channel(where: str, log: Log) -> None:
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


def test_cancelled_awaitable_in_join_crashes_the_join(log: Log) -> None:
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


def test_cancelled_awaitable_in_terminate_is_logged(log: Log) -> None:
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


ITSELF = "RuntimeError: cancelled by itself or by other code of the application"


def cancel_oneself() -> None:
    """Cancel the current task."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancel_and_wait() -> None:
    cancel_oneself()
    await asyncio.sleep(0)


async def cancel_and_return() -> None:
    cancel_oneself()


async def cancel_repeatedly() -> None:
    for _ in range(3):
        cancel_oneself()
    await asyncio.sleep(0)


async def be_cancelled_by_another_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.Event().wait()


async def raise_a_cancellation() -> None:
    raise asyncio.CancelledError


WAYS = {
    "waits": cancel_and_wait,
    "returns": cancel_and_return,
    "repeatedly": cancel_repeatedly,
    "other": be_cancelled_by_another_task,
    "raises": raise_a_cancellation,
}


class Cancelling(Channel, topic="{way}:{where}"):
    """Is cancelled where and how its topic says."""

    ends: list[str] = []  # noqa: RUF012  # a test empties it

    async def join(self, payload: Any) -> None:
        self.track("ann")
        await self.maybe("join")

    @on("handle")
    async def handle(self, payload: Any) -> dict[str, Any]:
        await self.maybe("handler")
        return {}

    @on("spawn")
    async def spawn_it(self, payload: Any) -> dict[str, Any]:
        self.spawn(self.maybe("spawn"))
        return {}

    @intercept("news")
    async def news(self, payload: Any) -> Any:
        await self.maybe("filter")
        return payload

    async def terminate(self, reason: str) -> None:
        self.ends.append(reason)
        await self.maybe("terminate")

    async def maybe(self, where: str) -> None:
        if self.params["where"] == where:
            await WAYS[self.params["way"]]()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["handler", "filter", "spawn"])
def test_handler_that_cancels_its_own_task_crashes_the_channel(
    where: str, way: str, log: Log
) -> None:
    async def main() -> None:
        app = App(Cancelling)
        Cancelling.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join(f"{way}:{where}")
            if where == "filter":
                await app.socket.broadcast(room.topic, "news", {})
            else:
                await room.push("handle" if where == "handler" else "spawn")
            assert await room.expect("phx_error") == {}
            await until(lambda: Cancelling.ends == ["crashed"])
            assert app.presence.topics() == []
            assert len(log.lines) == 1
            assert "cancelled" in log.everything
            again = await ann.join(f"{way}:elsewhere")
            assert await again.ask("handle") == {}

    run(main())


@pytest.mark.parametrize("way", sorted({*WAYS} - {"returns"}))
def test_join_that_cancels_its_own_task_is_answered_as_crash(way: str, log: Log) -> None:
    async def main() -> None:
        app = App(Cancelling)
        Cancelling.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            with pytest.raises(RefusedByServerError, match="join crashed"):
                await ann.join(f"{way}:join")
            assert (app.presence.topics(), Cancelling.ends) == ([], [])
            assert len(log.lines) == 1
            await ann.join(f"{way}:elsewhere")

    run(main())


def test_join_that_returns_with_its_task_cancelled_succeeds_then_crashes(log: Log) -> None:
    async def main() -> None:
        app = App(Cancelling)
        Cancelling.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("returns:join")
            assert await room.expect("phx_error") == {}
            await until(lambda: Cancelling.ends == ["crashed"])
            assert app.presence.topics() == []
            assert ITSELF in log.everything

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_terminate_that_cancels_its_own_task_is_logged(way: str, log: Log) -> None:
    async def main() -> None:
        app = App(Cancelling)
        Cancelling.ends.clear()
        async with app.node, Browser(app.socket) as ann:
            await (await ann.join(f"{way}:terminate")).leave()
            await ann.close()
            assert Cancelling.ends == ["left"]
            assert len(log.lines) == 1
            assert "cancelled" in log.everything

    run(main())


def test_handler_that_cancels_its_task_and_swallows_that_goes_on(log: Log) -> None:
    class Swallowing(Channel, topic="room"):
        @on("swallow")
        async def swallow(self, payload: Any) -> dict[str, Any]:
            with contextlib.suppress(asyncio.CancelledError):
                await cancel_and_wait()
            return {"swallowed": True}

        @on("await")
        async def waits(self, payload: Any) -> None:
            await awaiting_what_is_cancelled()

    async def main() -> None:
        app = App(Swallowing)
        async with app.node, Browser(app.socket) as ann:
            room = await ann.join("room")
            assert await room.ask("swallow") == {"swallowed": True}
            assert log.lines == []
            await room.push("await")
            assert await room.expect("phx_error") == {}
            assert len(log.lines) == 1

    run(main())


def test_terminate_timeout_is_distinguished_from_cancellation(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Channel, topic="room"):
        async def terminate(self, reason: str) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        app = App(Slow)
        async with app.node, Browser(app.socket) as ann:
            await (await ann.join("room")).leave()
            await until(lambda: log.lines)
            (said,) = log.lines
            assert "terminate took longer than" in said

    monkeypatch.setattr("adsum.channels.process.GRACE", 0.05)
    run(main())


@pytest.mark.parametrize("way", ["raises", "awaits"])
def test_cancelled_awaitable_in_connect_refuses_the_client(way: str, log: Log) -> None:
    async def connect(client: Client) -> None:
        await (raise_a_cancellation() if way == "raises" else awaiting_what_is_cancelled())

    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node:
            ann = AsgiClient(app.socket)
            await ann.open()
            await ann.served()
            assert ann.closed == 403
            assert "connect crashed" in log.lines[0]

    run(main())


def cancel_all(runner: asyncio.Runner) -> set["asyncio.Task[Any]"]:
    """Cancel everything, as `asyncio.run` does at its end; returns what does not end."""
    tasks = asyncio.all_tasks(runner.get_loop())
    for task in tasks:
        task.cancel()
    return runner.run(asyncio.wait(tasks, timeout=DEADLINE))[1]


@pytest.mark.parametrize("turns", range(6))
def test_closing_loop_does_not_wait_for_queued_events(turns: int) -> None:
    """Whatever turn it is: the frame is not read yet, or its handling has not begun, or has."""

    async def main() -> None:
        app = App(Tracking)
        await app.node.start()
        ann = AsgiClient(app.socket)
        await ann.open()
        await ann.join("room")
        ann.push("1", "2", "room", "track", {"key": "ann"})
        for _ in range(turns):
            await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        runner.run(main())
        assert cancel_all(runner) == set()


def test_cancellation_by_a_closing_loop_is_no_channel_crash(log: Log) -> None:
    class Hanging(Channel, topic="room"):
        @on("hang")
        async def hang(self, payload: Any) -> None:
            self.spawn(self.wait())
            await self.wait()

        async def wait(self) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        app = App(Hanging)
        await app.node.start()
        ann = AsgiClient(app.socket)
        await ann.open()
        await ann.join("room")
        ann.push("1", "2", "room", "hang", {})
        await until(lambda: not ann.unread)
        await ann.is_alive()

    asyncio.run(main())
    assert log.lines == []
