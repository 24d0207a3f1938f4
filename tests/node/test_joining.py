"""`start` returns once the node has joined: it lists all presences, and its messages reach all."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum.driver import joinlog
from tests.support.environment import clean_environment
from tests.support.measurements import Measured
from tests.support.nodes import run, running
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, eventually, until
from tests.support.worker_processes import Worker, Workers, python

PUBLISHER = Path(__file__).with_name("publisher.py")
TCP: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0"}


@contextmanager
def silent_peer() -> Iterator[tuple[socket.socket, str]]:
    """A peer that accepts connections and never answers, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


@asynccontextmanager
async def joining(cluster: str, **settings: Any) -> AsyncIterator[tuple[adsum.Node, Any]]:
    """A node, and the `start` of it that waits for a peer that never answers."""
    with silent_peer() as (_, address):
        node = adsum.Node(**TCP | settings, cluster=cluster, peers=address)
        start = asyncio.create_task(node.start())
        await until(lambda: node.running and node.addresses)
        yield node, start
        await node.stop()


# A node that joins.


@pytest.mark.slow
def test_start_lists_all_presences_of_a_cluster_of_three(cluster_name: str) -> None:
    async def main() -> None:
        async with running(3, cluster=cluster_name) as [one, two, replaced]:
            for number in range(20_000):
                owner = adsum.Presence(one if number % 2 else two)
                owner.track(f"room:{number % 7}", f"user:{number}", {"n": number}, owner=None)
            await replaced.stop()
            async with adsum.Node(cluster=cluster_name) as respawned:
                assert respawned.joined
                here, there = adsum.Presence(respawned), adsum.Presence(one)
                await until(lambda: there.count("room:0") == 2858)
                for room in (f"room:{number}" for number in range(7)):
                    assert here.list(room) == there.list(room)

    run(main())


@pytest.mark.slow
def test_publish_after_joining_through_one_seed_reaches_thirty_nodes(cluster_name: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            seed = adsum.Node(**TCP, cluster=cluster_name)
            await stack.enter_async_context(seed)
            nodes = [seed]
            for _ in range(29):
                node = adsum.Node(**TCP, cluster=cluster_name, peers=seed.address)
                nodes.append(await stack.enter_async_context(node))
            inboxes = [adsum.PubSub(node).subscribe("news") for node in nodes]
            publisher = adsum.Node(**TCP, cluster=cluster_name, peers=seed.address)
            await stack.enter_async_context(publisher)
            assert await adsum.PubSub(publisher).publish("news", {"n": 1}) == 0
            for inbox in inboxes:
                assert (await anext(inbox)).payload == {"n": 1}

    run(main())


def test_two_nodes_that_are_each_others_only_seeds_join_at_once(cluster_name: str) -> None:
    async def main() -> None:
        for _ in range(10):
            ports = free_port(), free_port()
            one, two = (
                adsum.Node(
                    siblings=False,
                    cluster=cluster_name,
                    listen=f"127.0.0.1:{mine}",
                    peers=f"127.0.0.1:{other}",
                    join_timeout=DEADLINE,
                )
                for mine, other in (ports, ports[::-1])
            )
            await asyncio.gather(one.start(), two.start())
            assert one.joined
            assert two.joined
            await asyncio.gather(one.stop(), two.stop())

    run(main())


@pytest.mark.parametrize("other", [{"secret": "x" * 16}, {"cluster": "mail"}])
def test_peer_that_rejects_the_handshake_counts_as_answered(
    other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        shared = {**TCP, "cluster": "chat", "secret": "s" * 16, "join_timeout": DEADLINE}
        async with (
            adsum.Node(**shared | other) as stranger,
            adsum.Node(**shared, peers=stranger.address) as node,
        ):
            assert node.joined
            assert len(node.members()) == 1

    run(main())
    assert "no link to 127.0.0.1" in caplog.text


def test_own_address_among_the_peers_counts_as_answered(cluster_name: str) -> None:
    async def main() -> None:
        address = f"127.0.0.1:{free_port()}"
        alone: dict[str, Any] = {"siblings": False, "cluster": cluster_name}
        async with adsum.Node(
            **alone, listen=address, peers=address, join_timeout=DEADLINE
        ) as node:
            assert node.joined

    run(main())


@pytest.mark.parametrize("fails", [True, False], ids=["unresolvable", "resolved"])
def test_host_name_counts_as_answered_with_lookup_and_all_addresses(
    cluster_name: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "peer.invalid":
                return await real(host, *args, **kwargs)
            await asyncio.sleep(0.05)
            if fails:
                raise OSError("no such name")
            return await real("127.0.0.1", *args, **kwargs)

        monkeypatch.setattr(loop, "getaddrinfo", look_up)
        shared = {**TCP, "cluster": cluster_name, "secret": "s" * 16, "join_timeout": DEADLINE}
        async with adsum.Node(**shared) as peer:
            adsum.Presence(peer).track("room", "ann", owner=None)
            port = str(peer.address).rpartition(":")[2]
            async with adsum.Node(**shared, peers=f"peer.invalid:{port}") as node:
                assert node.joined
                assert adsum.Presence(node).count("room") == (0 if fails else 1)

    run(main())


def test_lifespan_starts_with_the_complete_list(cluster_name: str) -> None:
    async def main() -> None:
        async with adsum.Node(cluster=cluster_name) as first:
            for number in range(1000):
                adsum.Presence(first).track("room", f"user:{number}", owner=None)
            node = adsum.Node(cluster=cluster_name)
            async with node.lifespan(None):
                assert adsum.Presence(node).count("room") == 1000

    run(main())


# A node that does not join in time.


def test_start_returns_after_join_timeout_and_the_node_joins_later(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with silent_peer() as (server, address):
            shared: dict[str, Any] = {"siblings": False, "cluster": cluster_name}
            async with adsum.Node(**shared, peers=address, join_timeout=0.1) as node:
                assert node.running
                assert not node.joined
                assert not await node.wait_joined(0.01)
                assert f"starting without: {address}" in caplog.text
                server.close()
                async with adsum.Node(**shared, listen=address):
                    assert await node.wait_joined(DEADLINE)
                    assert node.joined
                assert node.joined
            assert not node.joined

    run(main())


def test_start_does_not_wait_with_a_join_timeout_of_zero(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with joining(cluster_name, join_timeout=0) as (node, start):
            await start
            assert not node.joined

    run(main())
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.slow
def test_start_returns_at_five_join_timeouts_while_catch_up_progresses(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with joining(cluster_name, join_timeout=0.1) as (node, start):
            engine = node.driver.engine
            began = asyncio.get_running_loop().time()
            while not start.done():
                engine._joining.advance()
                await asyncio.sleep(0.002)
            assert asyncio.get_running_loop().time() - began > 0.4

    run(main())


@pytest.mark.slow
def test_node_with_refused_duplicate_name_has_not_joined(cluster_name: str) -> None:
    async def main() -> None:
        async with (
            adsum.Node(cluster=cluster_name, name="worker") as first,
            adsum.Node(cluster=cluster_name, name="witness") as witness,
            adsum.Node(cluster=cluster_name, name="worker", join_timeout=0.2) as second,
        ):
            assert first.joined
            assert witness.joined
            assert not second.joined
            await first.stop()
            assert await second.wait_joined(DEADLINE)

    run(main())


# Ends of a start.


def test_stop_while_joining_makes_every_start_raise(cluster_name: str) -> None:
    async def main() -> None:
        async with joining(cluster_name) as (node, first):
            second = asyncio.create_task(node.start())
            waiting = asyncio.create_task(node.wait_joined())
            await asyncio.sleep(0.01)
            await node.stop()
            for task in (first, second, waiting):
                with pytest.raises(adsum.NodeNotRunningError, match="stopped while joining"):
                    await task
            assert not node.running

    run(main())


def test_start_after_a_stop_while_joining_begins_another_run(cluster_name: str) -> None:
    async def main() -> None:
        async with joining(cluster_name, join_timeout=0.1) as (node, first):
            former = node.members()[0].incarnation
            stopping = asyncio.create_task(node.stop())
            await asyncio.sleep(0)
            await node.start()
            assert node.members()[0].incarnation != former
            await stopping
            with pytest.raises(adsum.NodeNotRunningError):
                await first

    run(main())


def test_cancelled_start_stops_the_node(cluster_name: str) -> None:
    async def main() -> None:
        async with joining(cluster_name) as (node, start):
            port = int(str(node.address).rpartition(":")[2])
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
            assert not node.running
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))

    run(main())


def test_second_start_begins_a_run_when_the_first_is_cancelled(cluster_name: str) -> None:
    async def main() -> None:
        async with joining(cluster_name, join_timeout=0.1) as (node, first):
            others = [asyncio.create_task(node.start()) for _ in range(2)]
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(*others)
            assert node.running

    run(main())


def test_second_start_returns_with_the_first(cluster_name: str) -> None:
    async def main() -> None:
        async with joining(cluster_name, join_timeout=0.1) as (node, first):
            second = asyncio.create_task(node.start())
            await asyncio.sleep(0.02)
            assert not second.done()
            await first
            await second
            assert node.running

    run(main())


def test_stop_while_the_address_is_resolved_makes_start_raise(cluster_name: str) -> None:
    async def main() -> None:
        for turns in range(6):
            node = adsum.Node(**TCP, cluster=cluster_name)
            start = asyncio.create_task(node.start())
            for _ in range(1 + turns):
                await asyncio.sleep(0)
            await node.stop()
            await asyncio.wait([start])
            assert start.exception() is None or isinstance(
                start.exception(), adsum.NodeNotRunningError
            )
            assert not node.running

    run(main())


def test_wait_joined_raises_on_a_node_that_does_not_run_and_on_a_wrong_timeout() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        assert not node.joined
        with pytest.raises(adsum.NodeNotRunningError):
            await node.wait_joined()
        for wrong in (-1, float("nan")):
            with pytest.raises(adsum.ConfigurationError, match="timeout="):
                await node.wait_joined(wrong)
        async with node:
            assert await node.wait_joined()
            assert await node.wait_joined(0)

    run(main())


# The log.


def test_result_of_joining_is_logged_in_one_line(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with adsum.Node(cluster=cluster_name, name="web-1") as first:
            for number in range(1204):
                adsum.Presence(first).track("room", f"user:{number}", owner=None)
            async with adsum.Node(cluster=cluster_name, name="web-2"):
                pass

    with caplog.at_level(logging.INFO, logger="adsum"):
        run(main())
    alone, other = (line for line in caplog.messages if line.startswith("joined"))
    assert alone == f"joined '{cluster_name}' as web-1: alone"
    line = rf"joined '{cluster_name}' as web-2: 2 nodes, 1,204 presences, \d+\.\d\d s"
    assert re.fullmatch(line, other)


@pytest.mark.slow
def test_later_members_are_logged_once_an_interval_and_counted(
    cluster_name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joinlog, "INTERVAL", 0.5)

    def lines() -> list[str]:
        return [line for line in caplog.messages if re.match("web-1@.*: new members: ", line)]

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for number in range(1, 10):
                node = adsum.Node(cluster=cluster_name, name=f"web-{number}")
                await stack.enter_async_context(node)
            await until(lambda: "(9 nodes)" in "".join(lines()))

    began = time.monotonic()
    with caplog.at_level(logging.INFO, logger="adsum"):
        run(main())
    assert len(lines()) <= 2 + (time.monotonic() - began) / joinlog.INTERVAL
    assert all(line.count("web-") <= 1 + joinlog.MAX_NAMED for line in lines())


def test_names_beyond_the_first_few_are_counted() -> None:
    assert joinlog._some([f"web-{number}" for number in range(1, 8)]) == (
        "web-1, web-2, web-3, web-4, web-5 and 2 more"
    )


# A process that publishes and stops.


@asynccontextmanager
async def receivers(
    cluster: str, transport: str
) -> AsyncIterator[tuple[dict[str, Any], list[adsum.Subscription]]]:
    """The settings of one more node, and the inboxes of three."""
    settings: dict[str, Any] = {"cluster": cluster, "siblings": transport == "unix"}
    async with AsyncExitStack() as stack:
        inboxes = []
        for _ in range(3):
            listen = TCP if transport == "tcp" else {}
            node = await stack.enter_async_context(adsum.Node(**settings | listen))
            inboxes.append(adsum.PubSub(node).subscribe("jobs"))
            if transport == "tcp":
                settings["peers"] = settings.get("peers", node.address)
        yield settings, inboxes


async def senders(inbox: adsum.Subscription, count: int) -> set[str]:
    """The senders of the next messages; of fewer, if fewer arrive in time."""
    received = set[str]()
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            while len(received) < count:
                received.add((await anext(inbox)).payload["from"])
    return received


def assert_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert not [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_message_of_a_node_that_starts_publishes_and_stops_reaches_all(
    cluster_name: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with receivers(cluster_name, transport) as (settings, inboxes):
            for number in range(50):
                async with adsum.Node(**settings) as publisher:
                    pubsub = adsum.PubSub(publisher)
                    assert await pubsub.publish("jobs", {"n": number}) == 0
            for inbox in inboxes:
                received = [(await anext(inbox)).payload["n"] for _ in range(50)]
                assert received == list(range(50))

    run(main())
    assert_no_warning(caplog)


@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_messages_of_fifty_short_lived_processes_reach_all_without_a_warning(
    cluster_name: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def publish(settings: dict[str, Any], number: int) -> tuple[bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            *python(PUBLISHER, json.dumps(settings), str(number)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment(),
        )
        return await process.communicate()

    async def main() -> None:
        async with receivers(cluster_name, transport) as (settings, inboxes):
            for first in range(0, 50, 5):  # five at a time, which also join one another
                work = (publish(settings, number) for number in range(first, first + 5))
                async with asyncio.timeout(DEADLINE):
                    ended = await asyncio.gather(*work)
                for missed, log in ended:
                    assert int(missed) < 5  # the others of the five, which are only relayed
                    assert log == b""
            for inbox in inboxes:
                assert await senders(inbox, 50) == {str(number) for number in range(50)}

    asyncio.run(main())  # each five processes have a deadline
    assert_no_warning(caplog)


@pytest.mark.processes
def test_respawned_worker_lists_all_presences_when_ready(
    cluster_name: str, measured: Measured
) -> None:
    count = 50_000
    with Workers() as workers:
        started = [workers.start(cluster=cluster_name) for _ in range(3)]
        for number, worker in enumerate(started[:2]):
            worker.ask("track_many", f"room:{number}", count)
        for number in range(2):
            for worker in started:
                eventually(partial(lists, worker, f"room:{number}", count), "all is listed")
        started[2].end()
        began = time.monotonic()
        respawned = workers.start(cluster=cluster_name)
        seconds = time.monotonic() - began
        for number in range(2):
            assert lists(respawned, f"room:{number}", count)
            room = f"room:{number}"
            assert respawned.ask("fingerprint", room) == started[0].ask("fingerprint", room)
    measured(fault="respawned among three", sees="ready with 100,000 presences", seconds=[seconds])
    print(f"ready after {seconds:.2f} s")


def lists(worker: Worker, topic: str, count: int) -> bool:
    return bool(worker.ask("count", topic) == count)
