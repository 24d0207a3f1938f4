"""Clients about which `connect` has not decided: counted, and for a bounded time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus

from adsum.channels import Client, Limits, clientadmission
from tests.support.waiting import until

from .app import App
from .asgi_client import AsgiClient
from .captured_log import Log
from .http_poller import unasked_http_poller
from .leak_check import run
from .served_app import ServedApp, served_app
from .ws_client import ws_client

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
async def guarded(**settings: Any) -> AsyncIterator[tuple[ServedApp, Doorman]]:
    """A served site with a doorman."""
    async with served_app(**settings) as made:
        doorman = Doorman()
        made.socket._admission._connect = doorman
        yield made, doorman


async def connect(made: ServedApp, transport: str) -> int:
    """Connect, and go at once; returns the status."""
    if transport == "longpoll":
        async with unasked_http_poller(made) as client:
            return int((await client.get())["status"])
    try:
        async with ws_client(made):
            return 101
    except InvalidStatus as error:
        return error.response.status_code
    except InvalidMessage:
        return 0


@pytest.mark.slow
@TRANSPORTS
def test_connect_timeout_refuses_the_client(
    transport: str, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(clientadmission, "CONNECT_TIMEOUT", 0.2)

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
def test_pending_connects_count_towards_the_connection_limit(transport: str) -> None:
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
def test_disconnect_during_connect_leaks_no_connection_slot(transport: str) -> None:
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


def test_server_stop_during_connect_leaks_no_connection_slot() -> None:
    async def main() -> None:
        doorman = Doorman()
        app = App(connect=doorman, limits=Limits(connections=1))
        async with app.node:
            ann = AsgiClient(app.socket)
            opening = asyncio.create_task(ann.open())
            await until(lambda: doorman.asked)
            await ann.cancel()
            opening.cancel()
            assert doorman.cancelled == 1
            assert not app.socket._shared.registry.is_full

    run(main())


def test_timeout_error_of_the_application_is_not_the_connect_timeout(log: Log) -> None:
    async def impatient(client: Client) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async def main() -> None:
        async with served_app() as made:
            made.socket._admission._connect = impatient
            assert await connect(made, "websocket") == 403
        assert len(log.lines) == 1
        assert "connect crashed" in log.lines[0]

    run(main())


def test_node_that_stops_while_connect_decides_refuses_the_client() -> None:
    async def main() -> None:
        doorman = Doorman()
        app = App(connect=doorman)
        ann = AsgiClient(app.socket)
        async with app.node:
            opening = asyncio.create_task(ann.open())
            await until(lambda: doorman.asked)
            await app.node.stop()
            doorman.decides.set()
            await opening
        assert not ann.accepted
        assert app.socket.stats()["refused_connections_total"] == 1
        await ann.served()

    run(main())
