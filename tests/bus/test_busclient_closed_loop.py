"""Clients of the bus whose event loop was closed before they were."""

import asyncio

import pytest

from adsum.bus.busreconnector import BusReconnector
from tests.support.bus_servers import BusServer
from tests.support.closed_loops import closed_loop_warnings, collect_closed_loops, run_and_close
from tests.support.waiting import until

from .recorder import Recorder, connected, make

__all__ = ["collect_closed_loops"]

pytestmark = [pytest.mark.processes, *closed_loop_warnings]


def test_abandon_after_the_loop_was_closed_ends_the_connection(server: BusServer) -> None:
    clients: list[BusReconnector] = []

    async def leave() -> None:
        clients.append(make(server.url, Recorder()))
        await clients[0].connect(["inbox"])
        await asyncio.sleep(0.01)

    async def ask() -> None:
        async with connected(server.url) as (sender, refusals):

            async def refused() -> bool:
                sender.publish("inbox", b"", probe=1)
                return bool(refusals.refused)

            await until(refused, "the refusal")

    run_and_close(leave())
    clients[0].abandon()
    clients[0].abandon()
    asyncio.run(ask())
