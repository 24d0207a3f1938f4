"""A node starts and stops cleanly, again and again, in any event loop, under any framework."""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import adsum
from adsum.driver import linkdriver, newreplica, socketdriver
from adsum.values.limits import MAX_NODE_NAME
from tests.support.nodes import run, running
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until


def test_duplicate_start_and_stop_do_nothing() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        await node.stop()
        await node.start()
        name = node.name
        await node.start()
        assert node.name == name
        await node.stop()
        await node.stop()
        assert not node.running

    run(main())


def test_concurrent_start_waits_for_the_first() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False, listen="127.0.0.1:0")
        first = asyncio.create_task(node.start())
        await asyncio.sleep(0)
        await node.start()
        assert node.address is not None
        await first
        await asyncio.gather(node.stop(), node.stop())
        assert not node.running

    run(main())


def test_start_during_stop_waits_for_its_end() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        await node.start()
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        await node.start()
        presence.track("room", "ann", owner="me")
        await stopping
        assert presence.untrack_all("me") == 1
        await node.stop()

    run(main())


def test_node_of_an_ended_loop_starts_again_in_another() -> None:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)

    async def forget() -> None:
        await node.start()
        presence.track("room", "ann", owner=None)

    async def again() -> None:
        async with node:
            assert presence.topics() == []

    asyncio.run(forget())
    asyncio.run(again())


def test_node_that_runs_in_another_loop_is_refused() -> None:
    async def elsewhere() -> None:
        with pytest.raises((adsum.UsageError, adsum.WrongThreadError)):
            await node.start()

    node = adsum.Node(siblings=False)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(node.start())
        asyncio.run(elsewhere())
        loop.run_until_complete(node.stop())
    finally:
        loop.close()


def test_each_run_is_a_new_incarnation(cluster_name: str) -> None:
    node = adsum.Node(cluster=cluster_name, name="me")
    presence = adsum.Presence(node)
    lives = set[int]()

    async def main() -> None:
        async with node:
            assert presence.topics() == []
            presence.track("room", "ann", owner=None)
            lives.add(node.members()[0].incarnation)

    for _ in range(3):
        asyncio.run(main())
    assert len(lives) == 3


def test_failed_start_leaks_nothing_and_can_be_retried() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False, listen="127.0.0.1:0") as first:
            address = first.address
            assert address is not None
            second = adsum.Node(siblings=False, listen=["127.0.0.1:0", address])
            with pytest.raises(adsum.ListenError, match=address):
                await second.start()
            assert not second.running
        await second.start()
        await second.stop()

    run(main())


def test_address_names_the_bound_port() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False, listen="127.0.0.1:0") as node:
            assert node.address is not None
            host, _, port = node.address.rpartition(":")
            assert host == "127.0.0.1"
            assert int(port) > 0
        async with adsum.Node(siblings=False) as node:
            assert node.address is None

    run(main())


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_node_listens_on_one_port_over_both_address_families(cluster_name: str) -> None:
    async def main() -> None:
        shared: dict[str, Any] = {"cluster": cluster_name, "siblings": False, "secret": "x" * 16}
        async with adsum.Node(**shared, listen=["0.0.0.0:0", "[::]:0"]) as both:
            ports = [address.rpartition(":")[2] for address in both.addresses]
            assert len(set(ports)) == 1
            for host in ("127.0.0.1", "[::1]"):
                peer = f"{host}:{ports[0]}"
                async with adsum.Node(**shared, listen="127.0.0.1:0", peers=peer) as node:
                    await until(lambda node=node: node.stats()["links"] == 1)  # type: ignore[misc]  # mypy infers no lambda with defaults
                    assert {m.address for m in node.members()} == {peer, node.address}

    run(main())


def test_one_seed_is_enough_because_digests_spread_addresses() -> None:
    async def main() -> None:
        tcp: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0", "cluster": "spread"}
        async with adsum.Node(**tcp) as first:
            others = [adsum.Node(**tcp, peers=first.address) for _ in range(4)]
            for node in others:
                await node.start()
            everybody = [first, *others]
            await until(lambda: all(node.stats()["links"] == 4 for node in everybody))
            for node in others:
                await node.stop()

    run(main())


def test_nodes_of_different_clusters_never_merge(cluster_name: str) -> None:
    async def main() -> None:
        async with (
            running(2, cluster=cluster_name) as [one, _],
            running(2, cluster=cluster_name + "x") as [two, _],
        ):
            await asyncio.sleep(0.2)
            assert {m.name for m in one.members()}.isdisjoint(m.name for m in two.members())
            assert len(one.members()) == len(two.members()) == 2

    run(main())


@pytest.mark.slow
def test_handshake_of_another_cluster_is_refused_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        tcp: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0"}
        async with (
            adsum.Node(**tcp, cluster="chat") as chat,
            adsum.Node(**tcp, cluster="mail", peers=chat.address) as mail,
        ):
            await until(lambda: "'mail'" in caplog.text and "'chat'" in caplog.text)
            await asyncio.sleep(0.5)
            assert len(mail.members()) == len(chat.members()) == 1

    with caplog.at_level(logging.WARNING):
        run(main())
    lines = [r for r in caplog.records if r.name == "adsum.node" and "no link to" in r.getMessage()]
    assert len(lines) == 1


def test_log_lines_for_many_failing_addresses_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linkdriver, "MAX_REJECTIONS", 3)

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        servers = [await asyncio.start_server(answer, "127.0.0.1", 0) for _ in range(8)]
        peers = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        async with adsum.Node(siblings=False, peers=peers, join_timeout=DEADLINE) as node:
            assert all(f"no link to {peer}" in caplog.text for peer in peers)
            assert isinstance(node.driver, socketdriver.SocketDriver)
            assert len(node.driver._rejections) == 3
        for server in servers:
            server.close()

    run(main())


def test_handshake_without_the_secret_is_refused() -> None:
    async def main() -> None:
        tcp: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0", "cluster": "secret"}
        async with (
            adsum.Node(**tcp, secret="s" * 16) as inside,
            adsum.Node(**tcp, secret="s" * 16, peers=inside.address) as friend,
            adsum.Node(**tcp, secret="x" * 16, peers=inside.address) as stranger,
            adsum.Node(**tcp, peers=inside.address) as nobody,
        ):
            await until(lambda: len(inside.members()) == len(friend.members()) == 2)
            await asyncio.sleep(0.3)
            assert len(stranger.members()) == len(nobody.members()) == 1
            assert len(inside.members()) == 2

    run(main())


@pytest.mark.slow
def test_stop_says_goodbye_at_once_or_after_linger(cluster_name: str) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as [stays]:
            presence = adsum.Presence(stays)
            for linger in (0.0, 0.5):
                async with adsum.Node(cluster=cluster_name, linger=linger) as leaves:
                    adsum.Presence(leaves).track("room", "ann", owner=None)
                    await until(lambda: presence.count("room") == 1)
                assert presence.count("room") == 1 or not linger
                started = asyncio.get_running_loop().time()
                await until(lambda: presence.count("room") == 0)
                took = asyncio.get_running_loop().time() - started
                assert (took > 0.3) is (linger > 0)

    run(main())


def test_name_is_reusable_right_after_goodbye(cluster_name: str) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as [stays]:
            presence = adsum.Presence(stays)
            for life in range(5):
                async with adsum.Node(cluster=cluster_name, name="worker") as node:
                    key = f"life {life}"
                    adsum.Presence(node).track("room", key, owner=None)
                    await until(lambda key=key: list(presence.list("room")) == [key])  # type: ignore[misc]  # mypy infers no lambda with defaults
            await until(lambda: presence.count("room") == 0)

    run(main())


@pytest.mark.slow
def test_duplicate_name_of_a_live_node_is_refused_and_logged(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with (
            adsum.Node(cluster=cluster_name, name="worker") as first,
            adsum.Node(cluster=cluster_name) as witness,
        ):
            await until(lambda: len(witness.members()) == 2)
            async with adsum.Node(cluster=cluster_name, name="worker") as second:
                adsum.Presence(second).track("room", "impostor", owner=None)
                await until(lambda: "in use by" in caplog.text)
                await asyncio.sleep(0.5)
                assert adsum.Presence(witness).list("room") == {}
                assert {m.status for m in witness.members()} <= {"self", "up", "suspect"}
            assert len(first.members()) == 2

    run(main())


node = adsum.Node(siblings=False)
presence = adsum.Presence(node)


async def show(request: Request) -> JSONResponse:
    with presence.track("room", request.path_params["user"]):
        return JSONResponse(presence.list("room"))


def test_automatic_names_differ_although_host_and_pid_are_equal() -> None:
    names = [newreplica.unique_name() for _ in range(300)]
    assert all(re.fullmatch(r".+-\d+-[0-9a-f]{16}", name) for name in names)
    assert len(set(names)) == len(names)


def test_long_host_name_is_cut_so_the_automatic_name_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 300)
    name = newreplica.unique_name()
    assert len(name) == MAX_NODE_NAME
    assert re.fullmatch(r"h+-\d+-[0-9a-f]{16}", name)


@pytest.mark.parametrize("round_trip", range(2))
def test_lifespan_runs_the_node_in_every_test_client(round_trip: int) -> None:
    app = Starlette(routes=[Route("/{user}", show)], lifespan=node.lifespan)
    with TestClient(app) as client:
        body = client.get("/ann").json()
        assert list(body) == ["ann"]
        assert isinstance(body["ann"]["metas"][0]["phx_ref"], str)
        assert node.running
    assert not node.running


def test_lifespan_composes_with_the_users_own() -> None:
    events = list[str]()

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, int]]:
        events.append(f"begins with the node running: {node.running}")
        yield {"answer": 42}
        events.append(f"ends with the node running: {node.running}")

    async def state(request: Request) -> JSONResponse:
        return JSONResponse(request.state.answer)

    routes = [Route("/state", state)]
    with TestClient(Starlette(routes=routes, lifespan=node.wrap_lifespan(own))) as client:
        assert client.get("/state").json() == 42
    assert events == ["begins with the node running: True", "ends with the node running: True"]
    assert not node.running


def test_stats_and_members_report_the_state_of_the_node(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as [one, two]:
            adsum.Presence(one).track("room", "ann", owner=None)
            await until(lambda: two.stats()["presences"] == 1)
            stats = two.stats()
            assert (stats["members_up"], stats["links"], stats["own_presences"]) == (2, 1, 0)
            assert stats["lag_changes"] == 0
            assert stats["received_bytes_total"] > 0
            [other] = [m for m in two.members() if m.name == one.name]
            assert (other.status, other.linked, other.entries) == ("up", True, 1)
            assert other.address == one.address

    run(main())


def test_unresolved_host_name_is_resolved_again(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the links that exist go on while it is not known."""
    monkeypatch.setattr(socketdriver, "RESOLVE_INTERVAL", 0.02)
    known = asyncio.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def flaky(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "late.invalid":
                return await real(host, *args, **kwargs)
            if not known.is_set():
                raise OSError("no such name")
            return await real("127.0.0.1", *args, **kwargs)

        monkeypatch.setattr(loop, "getaddrinfo", flaky)
        shared: dict[str, Any] = {"cluster": cluster_name, "siblings": False, "secret": "x" * 16}
        async with adsum.Node(**shared, listen="127.0.0.1:0") as late:
            port = str(late.address).rpartition(":")[2]
            async with adsum.Node(**shared, listen="127.0.0.1:0") as friend:
                peers = [f"late.invalid:{port}", str(friend.address)]
                async with adsum.Node(**shared, peers=peers) as node:
                    friends = adsum.Presence(friend)
                    friends.track("room", "ann", owner=None)
                    presence = adsum.Presence(node)
                    await until(lambda: presence.count("room") == 1)
                    assert len(node.members()) == 2
                    known.set()
                    await until(lambda: len(node.members()) == 3)
                    assert presence.count("room") == 1

    run(main())


def test_configured_address_is_dialled_although_a_name_no_longer_stands_for_it(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socketdriver, "RESOLVE_INTERVAL", 0.02)
    looked_up = list[str]()

    async def main() -> None:
        port = free_port()

        async def resolve(address: str) -> list[str]:
            looked_up.append(address)
            return [f"127.0.0.1:{port}"] if len(looked_up) == 1 else []

        monkeypatch.setattr("adsum.transport.discovery.resolve", resolve)
        shared: dict[str, Any] = {"cluster": cluster_name, "siblings": False, "secret": "x" * 16}
        peers = [f"moves.invalid:{port}", f"127.0.0.1:{port}"]
        async with adsum.Node(**shared, peers=peers) as node:
            await until(lambda: len(looked_up) > 2)
            async with adsum.Node(**shared, listen=peers[1]):
                await until(lambda: node.stats()["links"] == 1)

    run(main())


def test_cancelled_stop_frees_the_addresses_and_the_node_starts_again() -> None:
    async def main() -> None:
        port = free_port()
        node = adsum.Node(siblings=False, listen=[f"127.0.0.1:{port}", "127.0.0.1:0"])
        others = asyncio.all_tasks()
        await node.start()
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - others:  # as some frameworks do
            task.cancel()
        await asyncio.wait([stopping])
        await node.stop()
        async with node:
            assert node.address == f"127.0.0.1:{port}"

    run(main())


def test_start_that_waits_for_a_start_waits_for_its_stop_too() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False, listen=f"127.0.0.1:{free_port()}")

        async def start_and_stop() -> None:
            await node.start()
            await node.stop()

        visit, start = asyncio.create_task(start_and_stop()), asyncio.create_task(node.start())
        await visit
        await start
        assert node.running
        await node.stop()

    run(main())
