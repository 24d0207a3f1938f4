"""Deploys of the README's program under plain WebSocket clients: nobody is seen to leave."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

import adsum
from tests.support.tcp_balancer import Balancer
from tests.support.waiting import DEADLINE, until

from .servers import COMMANDS, Server
from .ws_clients import WsClient

pytestmark = pytest.mark.processes

#: Seconds for which a server that ends keeps its presences, where a test waits for their end.
LINGER = 3.0
SERVERS = ["web-1", "web-2", "web-3"]
USERS = [f"user-{number:02}" for number in range(30)]
#: Seconds after which the slowest client connects again: longer than a server takes to restart, so
#: that servers stop and start while clients of the one before are away.
SLOWEST = 1.5


@pytest.mark.parametrize("command", COMMANDS)
def test_presences_linger_when_their_server_is_asked_to_stop(
    directory: Path, cluster_name: str, command: str
) -> None:
    async def main() -> None:
        settings = {"ADSUM_CLUSTER": cluster_name, "ADSUM_LINGER": str(LINGER)}
        server = Server(directory, settings, command)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.kill)
            node = await stack.enter_async_context(adsum.Node(cluster=cluster_name))
            witness = adsum.Presence(node)
            await server.start()
            url = f"ws://127.0.0.1:{server.port}/rooms/1/ann"
            await stack.enter_async_context(connect(url, proxy=None))
            await until(lambda: witness.count("1") == 1, "ann is listed")
            present, asked = witness.list("1"), time.monotonic()
            ending = asyncio.create_task(server.terminate())

            def left() -> bool:
                listed = witness.list("1")
                assert listed in (present, {})
                return not listed

            await until(left, "ann leaves")
            assert time.monotonic() - asked >= LINGER
            await ending

    asyncio.run(main())


@pytest.mark.parametrize("names", ["automatic", "fixed"])
def test_rolling_deploy_shows_plain_clients_no_leave_and_no_join(
    directory: Path, cluster_name: str, names: str
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            settings = {"ADSUM_CLUSTER": cluster_name, "ADSUM_LINGER": "10"}
            servers = {
                name: Server(
                    directory, {**settings, **({"ADSUM_NAME": name} if names == "fixed" else {})}
                )
                for name in SERVERS
            }
            balancer = Balancer()
            for name, server in servers.items():
                stack.push_async_callback(server.kill)
                await server.start()
                balancer.ports[name] = server.port
            stack.push_async_callback(balancer.stop)
            await balancer.start()
            visitors = [
                WsClient(balancer.port, user, SLOWEST * number / len(USERS))
                for number, user in enumerate(USERS)
            ]
            for visitor in visitors:
                await stack.enter_async_context(visitor)
            await until(lambda: all(sees_all(visitor) for visitor in visitors), "all see all")
            for visitor in visitors:
                visitor.seen.clear()
                visitor.connections = 0
            for name, server in servers.items():
                del balancer.ports[name]
                await server.terminate()
                await server.start()
                balancer.ports[name] = server.port
            await everybody_once(list(servers.values()), visitors)
            assert all(visitor.connections for visitor in visitors)
            assert {visitor.user: visitor.seen for visitor in visitors if visitor.seen} == {}

    asyncio.run(main())


def sees_all(visitor: WsClient) -> bool:
    return sorted(visitor.present) == USERS


async def everybody_once(servers: list[Server], visitors: list[WsClient]) -> None:
    """Wait until every server and every visitor shows each user once, when linger is over."""
    async with asyncio.timeout(DEADLINE):
        while True:
            lists = [await server.get("rooms/1") for server in servers]
            if all(once(one) for one in lists) and all(
                sees_all(visitor) and all(len(refs) == 1 for refs in visitor.present.values())
                for visitor in visitors
            ):
                return
            await asyncio.sleep(0.1)


def once(listed: dict[str, Any]) -> bool:
    return sorted(listed) == USERS and all(len(one["metas"]) == 1 for one in listed.values())
