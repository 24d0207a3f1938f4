"""Real worker processes behind one port: what one worker's clients do, those of all see."""

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .http_poller import unasked_http_poller
from .leak_check import run
from .served_process import Port, served_process
from .ws_client import WsClient, ws_client

pytestmark = pytest.mark.processes

WORKERS = 2


@pytest.fixture
def workers(cluster_name: str) -> Iterator[Port]:
    """Workers of one application, which serve one port."""
    with served_process("multi_worker_app:app", cluster_name, "--workers", str(WORKERS)) as (
        port,
        _,
    ):
        yield port


async def serves(port: int) -> bool:
    try:
        async with connect(f"ws://127.0.0.1:{port}/socket/websocket?vsn=2.0.0", proxy=None):
            return True
    except (OSError, ConnectionClosed):
        return False


async def joined(client: WsClient, key: str) -> dict[str, Any]:
    """Join as somebody; returns the response."""
    await client.send(json.dumps(["3", "3", "room:1", "phx_join", {"track": key}]))
    return dict((await client.payload('["3","3","room:1","phx_reply",'))["response"])


@asynccontextmanager
async def everywhere(workers: Port) -> AsyncIterator[dict[int, tuple[str, WsClient]]]:
    """A client on each worker, by the worker's process."""
    found: dict[int, tuple[str, WsClient]] = {}
    async with AsyncExitStack() as stack:
        while not await serves(workers.port):
            pass
        number = 0
        while len(found) < WORKERS:
            async with ws_client(workers) as probe:  # until there are as many nodes
                response = await joined(probe, "probe")
            if response["members"] < WORKERS:
                continue
            client = await stack.enter_async_context(ws_client(workers))
            key = f"user:{number}"
            process = (await joined(client, key))["process"]
            if process in found:
                await client.connection.close()
            else:
                found[process] = key, client
            number += 1
        yield found


async def following(client: WsClient, event: str) -> Any:
    """The payload of the next such event, after others."""
    while True:
        frame = json.loads(await client.read())
        if frame[3] == event:
            return frame[4]


async def knows(client: WsClient, *keys: str) -> None:
    """Read until these, and no others, are present."""
    present: set[str] = set()
    while present != set(keys):
        frame = json.loads(await client.read())
        match frame[3]:
            case "presence_state":
                present = set(frame[4])
            case "presence_diff":
                present = (present | set(frame[4]["joins"])) - set(frame[4]["leaves"])


def test_clients_of_all_workers_share_presences_and_a_killed_worker_leaves(
    workers: Port,
) -> None:
    async def main() -> None:
        async with everywhere(workers) as found:
            keys = [key for key, _ in found.values()]
            for _, client in found.values():
                await knows(client, *keys)
            (victim, (_, gone)), (_, (key, client)) = found.items()
            await client.send('["3","9","room:1","shout",{"a":1}]')
            for _, each in found.values():
                assert (await following(each, "shout")) == {"a": 1}
            os.kill(victim, signal.SIGKILL)
            assert await gone.closed() == 1006
            while keys[0] not in (await following(client, "presence_diff"))["leaves"]:
                pass
            async with ws_client(workers) as again:
                await joined(again, "again")
                await knows(again, key, "again")

    run(main())


def test_longpoll_needs_no_sticky_sessions(workers: Port) -> None:
    async def main() -> None:
        async with everywhere(workers) as found, unasked_http_poller(workers) as ann:
            ann.http.headers["connection"] = "close"  # each request may reach another worker
            await ann.begin()
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            reply = json.loads((await ann.get())["messages"][0])
            assert reply[4]["response"]["process"] in found
            for n in range(5):
                assert await ann.post(f'["3","9","room:1","shout",{{"n":{n}}}]') == {"status": 200}
            shouts: list[int] = []
            while len(shouts) < 5:
                for frame in map(json.loads, (await ann.get())["messages"]):
                    shouts += [frame[4]["n"]] if frame[3] == "shout" else []
            assert shouts == list(range(5))

    run(main())
