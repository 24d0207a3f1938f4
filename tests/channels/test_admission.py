"""Clients about which `connect` has not decided: counted, and for a bounded time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus

from adsum.channels import Client, Limits, admission
from tests.channels.app import App
from tests.support.waiting import until

from .line import Line
from .logged import Log
from .polling import browser
from .raw import raw
from .running import run
from .site import Site, site

TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "longpoll"])


class Doorman:
    """A `connect` that takes its time."""

    def __init__(self) -> None:
        self.asked = self.cancelled = 0
        self.decides = asyncio.Event()

    async def __call__(self, client: Client) -> None:
        self.asked += 1
        try:
            await self.decides.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        client.assigns["ends"] = []


@asynccontextmanager
async def guarded(**settings: Any) -> AsyncIterator[tuple[Site, Doorman]]:
    """A served site with a doorman."""
    async with site(**settings) as made:
        doorman = Doorman()
        made.socket._admission._connect = doorman
        yield made, doorman


async def connect(made: Site, transport: str) -> int:
    """Connect, and go at once; returns the status."""
    if transport == "longpoll":
        async with browser(made) as client:
            return int((await client.get())["status"])
    try:
        async with raw(made):
            return 101
    except InvalidStatus as error:
        return error.response.status_code
    except InvalidMessage:
        return 0


@pytest.mark.slow
@TRANSPORTS
def test_a_client_is_refused_if_connect_takes_too_long(
    transport: str, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(admission, "CONNECT_TIMEOUT", 0.2)

    async def main() -> None:
        async with guarded(limits=Limits(connections=1)) as (made, doorman):
            statuses = [await connect(made, transport) for _ in range(3)]
            # A client that polls is told the status of the server in the body.
            assert set(statuses) == {503 if transport == "websocket" else 500}
            assert (doorman.asked, doorman.cancelled) == (3, 3)
            doorman.decides.set()
            assert await connect(made, transport) == (101 if transport == "websocket" else 410)
        assert log.lines[0].endswith("was refused: connect took longer than 0.2 s")
        assert len(log.lines) < 4

    run(main())


@TRANSPORTS
def test_clients_that_wait_for_connect_count_as_connections(transport: str) -> None:
    async def main() -> None:
        async with guarded(limits=Limits(connections=2)) as (made, doorman):
            waiting = [asyncio.create_task(connect(made, transport)) for _ in range(2)]
            await until(lambda: doorman.asked == 2)
            refused = [await connect(made, each) for each in ("websocket", "longpoll")]
            assert refused == [503, 500]
            assert doorman.asked == 2
            doorman.decides.set()
            assert await asyncio.gather(*waiting) == [101 if transport == "websocket" else 410] * 2

    run(main())


@TRANSPORTS
def test_a_client_that_goes_while_connect_decides_gives_its_place_away(transport: str) -> None:
    async def main() -> None:
        async with guarded(limits=Limits(connections=1)) as (made, doorman):
            for number in range(1, 4):
                waiting = asyncio.create_task(connect(made, transport))
                await until(lambda number=number: doorman.asked == number)  # type: ignore[misc]
                waiting.cancel()
                await asyncio.wait([waiting])
                await until(lambda number=number: doorman.cancelled == number)  # type: ignore[misc]
            await until(lambda: not made.socket._shared.registry.is_full)
            doorman.decides.set()
            assert await connect(made, transport) != 503

    run(main())


def test_a_server_that_stops_while_connect_decides_gives_the_place_away() -> None:
    async def main() -> None:
        doorman = Doorman()
        app = App(connect=doorman, limits=Limits(connections=1))
        async with app.node:
            ann = Line(app.socket)
            opening = asyncio.create_task(ann.open())
            await until(lambda: doorman.asked)
            await ann.cancel()
            opening.cancel()
            assert doorman.cancelled == 1
            assert not app.socket._shared.registry.is_full

    run(main())


def test_a_timeout_of_the_application_is_its_own(log: Log) -> None:
    async def impatient(client: Client) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async def main() -> None:
        async with site() as made:
            made.socket._admission._connect = impatient
            assert await connect(made, "websocket") == 403
        assert len(log.lines) == 1
        assert "connect crashed" in log.lines[0]

    run(main())
