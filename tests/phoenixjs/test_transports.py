"""phoenix.js over WebSockets and long polling, in both versions of the protocol."""

import asyncio
import base64
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.waiting import until

from .clients import NodeClients
from .scenario import ROOM, is_refused, joined_times, received, run
from .servers import Server
from .site_cluster import SiteCluster, comparable, contents

pytestmark = pytest.mark.processes

BYTES = bytes([0, 1, 2, 255, 128, 10, 13])
TRANSPORTS = ("websocket", "longpoll")


async def everything(site: SiteCluster, **how: Any) -> None:
    """What most applications do: come, see others, speak, change, crash, go."""
    for name in ("ann", "bob"):
        await site.connect(name, name, **how)
        await site.join(name, ROOM, {"of": name})
    await site.agree(ROOM, {"ann": [{"of": "ann"}], "bob": [{"of": "bob"}]})
    await push(site, "ann", "shout", {"text": "häßlich 😀"})
    for name in ("ann", "bob"):
        heard = [["shout", {"text": "häßlich 😀"}]]
        await until(partial(received, site, name, heard), f"{name} hears")
    await site.clients.ask("update", client="ann", topic=ROOM, meta={"of": "ann", "away": True})
    await site.agree(ROOM, {"ann": [{"of": "ann", "away": True}], "bob": [{"of": "bob"}]})
    await push(site, "bob", "crash", {}, waits=False)
    await until(partial(joined_times, site, "bob", 2), "bob joins again")
    await site.agree(ROOM, {"ann": [{"of": "ann", "away": True}], "bob": [{"of": "bob"}]})
    assert await push(site, "bob", "echo", {"n": 1}) == {"status": "ok", "response": {"n": 1}}
    left = await site.clients.ask("leave", client="bob", topic=ROOM)
    assert left["status"] == "ok"
    await site.agree(ROOM, {"ann": [{"of": "ann", "away": True}]})


async def push(site: SiteCluster, client: str, event: str, payload: Any, **how: Any) -> Any:
    return await site.clients.ask(
        "push", client=client, topic=ROOM, event=event, payload=payload, **how
    )


async def transport_of(site: SiteCluster, client: str) -> str:
    name: str = (await site.look())[client]["transport"]
    return name


@pytest.mark.parametrize(
    ("server", "transport"),
    # uvicorn's own WebSockets carry the other tests.
    [
        ("direct", "websocket"),
        ("uvicorn", "longpoll"),
        ("hypercorn", "websocket"),
        ("hypercorn", "longpoll"),
    ],
)
def test_every_feature_works_on_each_transport(server: str, transport: str) -> None:
    async def scenario(site: SiteCluster) -> None:
        await everything(site, transport=transport)
        assert (
            await transport_of(site, "ann")
            == {
                "websocket": "WebSocket",
                "longpoll": "LongPoll",
            }[transport]
        )

    # Each request of its own connection, and so to either node.
    run(scenario, server=server, keep_alive=transport == "websocket")


def test_every_feature_works_with_v1() -> None:
    run(partial(everything, version1=True))


def test_every_feature_works_for_v1_and_v2_in_one_room() -> None:
    async def scenario(site: SiteCluster) -> None:
        await site.connect("old", "old", version1=True)
        await site.join("old", ROOM)
        await site.connect("polling", "polling", transport="longpoll")
        await site.join("polling", ROOM)
        await everything(site)

    run(scenario)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_blocked_websocket_falls_back_to_longpoll(server: str) -> None:
    async def scenario(site: SiteCluster) -> None:
        await everything(site, longPollFallbackMs=500)
        assert await transport_of(site, "ann") == "LongPoll"

    run(scenario, server=server, upgrades=False, keep_alive=False)


def test_websocket_blocked_by_a_proxy_falls_back_and_is_remembered() -> None:
    async def scenario(site: SiteCluster) -> None:
        site.balancer.upgrades = False
        await everything(site, longPollFallbackMs=500)
        refused = site.balancer.refused
        await site.clients.ask("disconnect", client="ann")
        await site.clients.ask("reconnect", client="ann")
        await until(partial(joined_times, site, "ann", 2), "ann is back")
        assert (await transport_of(site, "ann"), site.balancer.refused) == ("LongPoll", refused)

    run(scenario, keep_alive=False)


def test_working_websocket_never_falls_back() -> None:
    async def scenario(site: SiteCluster) -> None:
        await everything(site, longPollFallbackMs=2000)
        assert await transport_of(site, "ann") == "WebSocket"

    run(scenario)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_auth_token_is_sent_outside_the_url(transport: str) -> None:
    async def scenario(site: SiteCluster) -> None:
        # Its base64 has a "+", where base64url has a "-". A "/" phoenix.js cannot even send.
        token = "token of ann ~~~ >>>"
        await site.connect("ann", "ann", transport=transport, authToken=token)
        joined = await site.join("ann", ROOM, {})
        assert (joined["response"]["token"], joined["response"]["transport"]) == (token, transport)
        await site.connect("bob", "bob", transport=transport, authToken="token of nobody"[9:])
        await until(partial(is_refused, site, "bob"), "bob is refused")

    run(scenario, keep_alive=False)


def encoded(data: bytes) -> dict[str, str]:
    return {"bytes": base64.b64encode(data).decode()}


@pytest.mark.parametrize("server", ["uvicorn", "direct"])
def test_binary_payloads_go_both_ways_over_websockets(server: str) -> None:
    async def scenario(site: SiteCluster) -> None:
        for name in ("ann", "bob"):
            await site.connect(name, name)
            await site.join(name, ROOM, {})
        ask = partial(site.clients.ask, "push", client="ann", topic=ROOM, **encoded(BYTES))
        assert await ask(event="echo") == {"status": "ok", "response": encoded(BYTES)}
        await ask(event="bytes", waits=False)
        both = [["pushed", encoded(BYTES)], ["broadcast", encoded(BYTES)]]
        await until(partial(received, site, "ann", both), "ann gets them")
        await until(partial(received, site, "bob", both[1:]), "bob gets them")

    run(scenario, server=server)


def test_binary_payloads_reach_the_server_by_longpoll_only() -> None:
    async def scenario(site: SiteCluster) -> None:
        for name, transport in (("ann", "longpoll"), ("bob", "websocket")):
            await site.connect(name, name, transport=transport)
            await site.join(name, ROOM, {})
        ask = partial(site.clients.ask, "push", client="ann", topic=ROOM, **encoded(BYTES))
        assert await ask(event="echo") == {
            "status": "error",
            "response": {"reason": "this connection carries no binary payloads"},
        }
        await ask(event="bytes", waits=False)
        await until(
            partial(received, site, "bob", [["broadcast", encoded(BYTES)]]), "bob gets them"
        )
        assert await push(site, "ann", "echo", {}) == {"status": "ok", "response": {}}

    run(scenario, keep_alive=False, complaint="cannot receive binary payloads")


def test_longpoll_client_reconnects_after_crash_or_restart() -> None:
    async def scenario(site: SiteCluster) -> None:
        for name in ("ann", "bob"):
            await site.connect(name, name, transport="longpoll")
            await site.join(name, ROOM, {"of": name})
        both = {"ann": [{"of": "ann"}], "bob": [{"of": "bob"}]}
        await site.agree(ROOM, both)
        await site.kill("n1")
        await site.agree(ROOM, both)
        await site.start("n1")
        await site.terminate("n2")
        await site.agree(ROOM, both)

    # uvicorn complains of requests that it ends when it stops.
    run(scenario, keep_alive=False, complaint=None)


def test_longpoll_client_that_goes_leaves() -> None:
    async def scenario(site: SiteCluster) -> None:
        for name in ("ann", "bob"):
            await site.connect(name, name, transport="longpoll")
            await site.join(name, ROOM, {"of": name})
        await site.clients.ask("leave", client="ann", topic=ROOM)
        await site.agree(ROOM, {"bob": [{"of": "bob"}]})

    run(scenario, keep_alive=False)


# One server with four workers on one port: nothing decides which of them gets a request.


@asynccontextmanager
async def workers(count: int) -> AsyncIterator[tuple[Server, NodeClients]]:
    with tempfile.TemporaryDirectory(prefix="ph-") as directory:
        cluster = {"ADSUM_CLUSTER": f"phoenixjs-workers-{os.getpid()}"}
        server, clients = Server(Path(directory, "log"), cluster, keep_alive=False), NodeClients()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.terminate)
            stack.push_async_callback(clients.stop)
            await server.start_workers(count, free_port())
            await clients.start()
            await until(partial(has_members, server, count), "all workers are there")
            yield server, clients
            assert server.complaints() == []


@contextmanager
def stopped(node: str) -> Iterator[None]:
    """Stop the process of a node, which its name tells, so that another worker accepts."""
    process = int(node.rsplit("-", 2)[1])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def has_members(server: Server, count: int) -> bool:
    answer = await server.get("members")
    return answer is not None and len(answer) == count


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_workers_behind_one_port_act_as_one(transport: str) -> None:
    people = [f"user{number}" for number in range(8)]
    expected = {name: [{"of": name}] for name in people}

    async def play() -> None:
        async with workers(4) as (server, clients):
            url = f"ws://127.0.0.1:{server.port}/socket"
            nodes = list[str]()
            for name in people:
                # On a quiet machine one worker may accept all: it is not the one for the second.
                with stopped(nodes[0]) if len(nodes) == 1 else nullcontext():
                    params = {"user": name}
                    how = {"url": url, "params": params, "transport": transport}
                    await clients.ask("connect", client=name, **how)
                    payload = {"meta": {"of": name}}
                    joined = await clients.ask("join", client=name, topic=ROOM, payload=payload)
                nodes.append(joined["response"]["node"])
            assert nodes[0] != nodes[1]
            await until(partial(all_show, server, clients, expected), "all show all")
            for name in people[::2]:
                await clients.ask("leave", client=name, topic=ROOM)
            rest = {name: expected[name] for name in people[1::2]}
            await until(partial(all_show, server, clients, rest), "all show the rest")

    asyncio.run(play())


async def all_show(server: Server, clients: NodeClients, expected: dict[str, Any]) -> bool:
    lists = [await server.presences(ROOM) for _ in range(8)]
    looks = await clients.look()
    shown = [look["rooms"][ROOM]["state"] for look in looks.values() if look["rooms"]]
    return all(contents(comparable(one)) == expected for one in [*lists, *shown])
