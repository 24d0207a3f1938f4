"""A server that was itself stopped closes no client that went on sending meanwhile."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from .http_poller import http_poller
from .leak_check import run
from .served_process import Port, served_process
from .short_timeout_app import TIMEOUT
from .test_processes import serves
from .ws_client import WsClient, ws_client

pytestmark = pytest.mark.processes

BEAT = '[null,"beat","phoenix","heartbeat",{}]'
#: Seconds for which it is stopped, and between two frames of a client.
STOPPED, PERIOD = 1.5 * TIMEOUT, TIMEOUT / 30


@pytest.fixture
def server(cluster_name: str) -> Iterator[tuple[Port, int]]:
    """A server in a process of its own."""
    with served_process("short_timeout_app:make", cluster_name, "--factory") as (port, process):
        yield port, process.pid
        process.send_signal(signal.SIGCONT)


async def beats(client: WsClient) -> None:
    """Send all the time."""
    while True:
        await client.send(BEAT)
        await asyncio.sleep(PERIOD)


def test_paused_server_closes_no_client_that_kept_sending(
    server: tuple[Port, int],
) -> None:
    async def main() -> None:
        port, pid = server
        while not await serves(port.port):
            pass
        async with ws_client(port) as ann:
            await ann.present("room:1", "ann")
            beating = asyncio.create_task(beats(ann))
            for number in range(2):
                async with http_poller(port) as bob:
                    os.kill(pid, signal.SIGSTOP)
                    asking = asyncio.create_task(bob.get())
                    await asyncio.sleep(STOPPED)
                    os.kill(pid, signal.SIGCONT)
                    last = f"last {number}"
                    await ann.send(f'[null,"{last}","phoenix","heartbeat",{{}}]')
                    while last not in str(await ann.read()):
                        pass
                    assert await bob.post(BEAT) == {"status": 200}
                    assert (await asking)["status"] == 200
            assert not beating.done()
            beating.cancel()
            await asyncio.wait([beating])

    run(main())
