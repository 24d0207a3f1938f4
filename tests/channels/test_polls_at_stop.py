"""Polls that wait while their worker is about to stop: answered soon, and no frame is lost."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx2
import pytest

from adsum.channels.carriers import session
from tests.support.effort import scaled
from tests.support.http_json import fetch_json
from tests.support.waiting import DEADLINE, eventually, until

from .heartbeat import BEAT, BEATEN
from .http_poller import HttpPoller, http_poller
from .leak_check import run
from .served_app import ServedApp, served_app, two_served_apps
from .served_process import ROOT, Port, served_process


@pytest.fixture
def endless_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll waits for longer than any test."""
    monkeypatch.setattr("adsum.channels.carriers.session.WINDOW", 10 * DEADLINE)
    monkeypatch.setattr("adsum.channels.carriers.sessions.WINDOW", 10 * DEADLINE)


@asynccontextmanager
async def waiting(poller: HttpPoller, served: ServedApp) -> AsyncIterator["asyncio.Task[Any]"]:
    """A poll that waits at its session, which the worker `served` has."""
    (session,) = served.socket._longpoll._sessions._sessions.values()
    poll = asyncio.create_task(poller.get())
    await until(lambda: session._poll is not None and not session._poll.done(), "the poll waits")
    yield poll


@pytest.mark.usefixtures("endless_window")
def test_waiting_poll_is_answered_204_when_the_node_is_about_to_stop() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            before = ann.token
            async with waiting(ann, made) as poll:
                made.node.begin_stop()
                assert await poll == {"status": 204, "token": before, "messages": []}
            assert (await ann.get())["status"] == 204  # and so is the next one
            await ann.post(BEAT)
            await ann.receives(BEATEN)

    run(main())


@pytest.mark.usefixtures("endless_window")
def test_forwarded_poll_is_answered_204_when_the_worker_that_holds_it_is_about_to_stop(
    cluster_name: str,
) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            before = ann.token
            ann.app = two
            async with waiting(ann, one) as poll:
                two.node.begin_stop()
                assert await poll == {"status": 204, "token": before, "messages": []}
            assert (await ann.get())["status"] == 204
            ann.app = one
            await ann.post(BEAT)
            await ann.receives(BEATEN)

    run(main())


@pytest.mark.usefixtures("endless_window")
@pytest.mark.parametrize("of_session", [True, False])
def test_no_frame_is_lost_or_repeated_while_a_worker_is_about_to_stop(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch, of_session: bool
) -> None:
    monkeypatch.setattr("adsum.channels.carriers.session.STOP_WINDOW", 0.003)
    monkeypatch.setattr("adsum.channels.carriers.sessions.STOP_WINDOW", 0.003)
    count = scaled(200)

    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            await ann.join("room:1")
            ann.app = two
            (one if of_session else two).node.begin_stop()
            sending = asyncio.create_task(send(one))
            received = [json.loads(frame)[4]["n"] for frame in await ann.frames(count)]
            assert received == list(range(count))
            await sending

    async def send(one: ServedApp) -> None:
        for number in range(count):
            await one.socket.broadcast("room:1", "shout", {"n": number})
            await asyncio.sleep(0.001 * (number % 7))

    run(main())


@contextmanager
def serving(cluster: str) -> Iterator[tuple[Port, "subprocess.Popen[bytes]"]]:
    """A worker in a process of its own, whose polls wait for longer than any test."""
    with served_process("endless_polls_app:make", cluster, "--factory") as (port, process):
        eventually(lambda: polls(port.port) is not None, "the server starts")
        yield port, process


def polls(port: int) -> Any:
    """The waiting polls of a worker; None if it does not answer."""
    return fetch_json(f"http://127.0.0.1:{port}/polls")


@asynccontextmanager
async def polling(poller: HttpPoller, kind: str) -> AsyncIterator["asyncio.Task[Any]"]:
    """A poll that waits at a worker in a process of its own."""
    poll = asyncio.create_task(poller.get())

    async def is_waiting() -> bool:
        assert not poll.done()
        counts = await asyncio.to_thread(polls, poller.app.port)
        return counts is not None and counts[kind] == 1

    await until(is_waiting, "the poll waits")
    yield poll


@pytest.mark.processes
def test_uvicorn_with_a_waiting_poll_answers_it_at_sigterm_and_exits(cluster_name: str) -> None:
    async def main(port: Port, process: "subprocess.Popen[bytes]") -> None:
        async with http_poller(port) as ann, polling(ann, "own") as poll:
            before = ann.token
            process.terminate()
            assert await poll == {"status": 204, "token": before, "messages": []}
            await asyncio.to_thread(process.wait, DEADLINE)
            with pytest.raises(httpx2.ConnectError):
                await ann.get()

    with serving(cluster_name) as (port, process):
        run(main(port, process))


@pytest.mark.processes
def test_client_of_a_worker_that_stops_goes_on_at_another_with_its_session(
    cluster_name: str,
) -> None:
    async def main(of_session: Port, other: Port, process: "subprocess.Popen[bytes]") -> None:
        async with http_poller(of_session) as ann:
            ann.app = other
            async with polling(ann, "forwarded") as poll:
                process.terminate()
                assert (await poll)["status"] == 204
            ann.app = of_session
            await ann.post(BEAT)
            await ann.receives(BEATEN)
            await asyncio.to_thread(process.wait, DEADLINE)

    with ExitStack() as stack:
        of_session, _ = stack.enter_context(serving(cluster_name))
        other, process = stack.enter_context(serving(cluster_name))
        run(main(of_session, other, process))


def test_page_states_how_long_a_poll_waits() -> None:
    page = (ROOT / "docs" / "channels.md").read_text()
    assert f"| {session.WINDOW:g} s; {session.STOP_WINDOW:g} s | status 204;" in page
