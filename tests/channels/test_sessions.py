"""Sessions of clients that poll: requests that wait, come too soon, or break off."""

import asyncio
from typing import Any

import pytest

from adsum.channels import Channel, Limits, Socket, on
from adsum.channels.carriers import session
from adsum.channels.carriers.session import Session
from tests.support.waiting import DEADLINE, until

from .app import App
from .asgi_poller import AsgiPoller
from .leak_check import run


class Slow(Channel, topic="slow"):
    """Tracks, and handles nothing before it may."""

    go: asyncio.Event

    async def join(self, payload: Any) -> None:
        self.track("ann")

    @on("wait")
    async def wait(self, payload: Any) -> dict[str, Any]:
        await self.go.wait()
        return {}


JOIN = ["1", "1", "slow", "phx_join", {}]
#: More than may wait to be handled.
TOO_MUCH = [["1", f"w{n}", "slow", "wait", {}] for n in range(5)]
LIMITS = Limits(waiting=2)


async def joined(app: App) -> AsgiPoller:
    """A client that has read the reply to its join, and the state."""
    Slow.go = asyncio.Event()
    ann = AsgiPoller(app.socket)
    await ann.begin()
    assert await ann.post(JOIN) == 200
    frames: list[str] = []
    while len(frames) < 2:
        frames += (await ann.get())["messages"]
    return ann


def the_session(socket: Socket) -> Session:
    (session,) = socket._longpoll._sessions._sessions.values()
    return session


def test_concurrent_longpoll_post_is_answered_409() -> None:
    async def main() -> None:
        app = App(Slow, limits=LIMITS)
        async with app.node:
            ann = await joined(app)
            first = asyncio.create_task(ann.post(*TOO_MUCH))
            await until(lambda: the_session(app.socket)._sending)
            assert await ann.post(["1", "never", "slow", "wait", {}]) == 409
            Slow.go.set()
            assert await first == 200
            assert await ann.post(["1", "last", "slow", "wait", {}]) == 200
            frames: list[str] = []
            while len(frames) < 6:
                frames += (await ann.get())["messages"]
            assert [frame.split('"')[3] for frame in frames] == [
                *(f"w{n}" for n in range(5)),
                "last",
            ]

    run(main())


def test_longpoll_post_under_backpressure_too_long_ends_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adsum.channels.carriers.session.PATIENCE", 0.05)

    async def main() -> None:
        app = App(Slow, limits=LIMITS)
        async with app.node:
            ann = await joined(app)
            assert await ann.post(*TOO_MUCH) == 410
            assert app.presence.topics() == []
            assert (await ann.get())["status"] == 500
            assert await ann.post(JOIN) == 410
            Slow.go.set()
            await until(lambda: not app.socket._shared.registry.connections)

    run(main())


def test_session_outlives_the_longest_poll_and_no_wait_of_a_test() -> None:
    # A client that polls is never ended; a ghost of a lost poll is gone before a test gives up.
    assert session.WINDOW < session.LIFETIME <= DEADLINE / 2


@pytest.mark.parametrize("how", ["its connection ends", "the server cancels it"])
def test_longpoll_session_with_a_broken_poll_ends_soon(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.channels.carriers.session.LIFETIME_IF_BROKEN", 0.05)

    async def main() -> None:
        app = App(Slow)
        async with app.node:
            ann, gone = await joined(app), asyncio.Event()
            waiting = asyncio.create_task(ann.get(gone))
            await until(lambda: the_session(app.socket)._poll is not None)
            if how == "the server cancels it":
                waiting.cancel()
                await asyncio.wait([waiting])
                assert waiting.cancelled()
            else:
                gone.set()
                assert (await waiting)["status"] == 204
            await until(lambda: not app.socket._shared.registry.connections)
            assert app.presence.topics() == []

    run(main())
