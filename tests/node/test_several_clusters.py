"""Nodes of several clusters in one process share nothing: names, sockets, signals, forks, logs."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import adsum
from adsum.channels import Channel, Socket
from tests.support.forked_child import collect, descriptors, fork
from tests.support.nodes import run, running
from tests.support.waiting import until
from tests.support.worker_processes import sibling_sockets


@pytest.fixture
def clusters(cluster_name: str) -> tuple[str, str]:
    return f"{cluster_name}-a", f"{cluster_name}-b"


@asynccontextmanager
async def of_each(clusters: tuple[str, str]) -> AsyncIterator[list[list[adsum.Node]]]:
    """Two nodes in each cluster, whose names are the same in both."""
    async with AsyncExitStack() as stack:
        pairs = []
        for cluster in clusters:
            nodes = [adsum.Node(name=f"web-{number}", cluster=cluster) for number in (1, 2)]
            pairs.append([await stack.enter_async_context(node) for node in nodes])
        everyone = [node for pair in pairs for node in pair]
        await until(lambda: all(linked_to_one(node) for node in everyone))
        yield pairs


def linked_to_one(node: adsum.Node) -> bool:
    """Whether a node has one link, and lists itself and the other one of its cluster."""
    statuses = sorted(member.status for member in node.members())
    return node.stats()["links"] == 1 and statuses == ["self", "up"]


def sockets() -> set[str]:
    """The sockets that this process holds."""
    return {name for name in descriptors().values() if name.startswith("socket:")}


@contextmanager
def server_handling(number: signal.Signals) -> Iterator[list[int]]:
    """A server that handles a signal; yields the signals that it has received."""
    received = list[int]()
    before = signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(number, before)


def test_equal_names_topics_and_owners_in_two_clusters_do_not_meet(
    clusters: tuple[str, str],
) -> None:
    async def main() -> None:
        async with of_each(clusters) as ((a1, a2), (b1, b2)):
            here, there = adsum.Presence(a1), adsum.Presence(b1)
            here.track("room", "ann", owner="tab")
            there.track("room", "bob", owner="tab")
            await until(lambda: list(adsum.Presence(a2).list("room")) == ["ann"])
            await until(lambda: list(adsum.Presence(b2).list("room")) == ["bob"])
            assert here.untrack_all("tab") == 1
            await until(lambda: adsum.Presence(a2).count("room") == 0)
            assert there.count("room") == adsum.Presence(b2).count("room") == 1

    run(main())


def test_message_stays_in_its_cluster(clusters: tuple[str, str]) -> None:
    async def main() -> None:
        async with of_each(clusters) as ((a1, _), (b1, b2)):
            subscription = adsum.PubSub(b2).subscribe("room")
            await adsum.PubSub(a1).publish("room", {"cluster": "a"})
            await adsum.PubSub(a1).publish("room", {"cluster": "a"}, to="web-2")
            await adsum.PubSub(b1).publish("room", {"cluster": "b"}, to="web-2")
            assert (await anext(subscription)).payload == {"cluster": "b"}

    run(main())


@pytest.mark.parametrize("first", [0, 1])
def test_stop_in_either_order_leaves_the_other_cluster_alone(
    clusters: tuple[str, str], first: int
) -> None:
    async def main() -> None:
        async with of_each(clusters) as pairs:
            (stopping, its_peer), (lasting, other_peer) = pairs[first], pairs[1 - first]
            diffs = adsum.Presence(other_peer).watch("room")
            await anext(diffs)
            ann = adsum.Presence(lasting).track("room", "ann", owner=None)
            assert list((await anext(diffs)).joins) == ["ann"]
            changes = asyncio.ensure_future(anext(diffs))
            await stopping.stop()
            await until(lambda: len(its_peer.members()) == 1 or not its_peer.stats()["links"])
            await its_peer.stop()
            assert not sibling_sockets(clusters[first])
            assert len(sibling_sockets(clusters[1 - first])) == 2
            assert linked_to_one(lasting)
            assert linked_to_one(other_peer)
            assert not changes.done()
            ann.untrack()
            assert list((await changes).leaves) == ["ann"]

    run(main())


@pytest.mark.parametrize("first", [0, 1])
def test_signal_begins_the_stop_in_each_cluster_and_last_node_restores_the_handler(
    clusters: tuple[str, str], first: int
) -> None:
    async def main() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        nodes = [adsum.Node(cluster=cluster, linger=30.0) for cluster in clusters]
        for node in nodes:
            await node.start()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: all(node.stopping for node in nodes))
        await nodes[first].stop()
        assert signal.getsignal(signal.SIGTERM) is not handler
        await nodes[1 - first].stop()
        assert signal.getsignal(signal.SIGTERM) is handler

    with server_handling(signal.SIGTERM) as received:
        run(main())
    assert received == [signal.SIGTERM]


def test_child_holds_no_socket_of_any_cluster_and_starts_in_one_of_them(
    clusters: tuple[str, str],
) -> None:
    async def main() -> None:
        before = sockets()
        async with of_each(clusters) as ((a1, a2), (b1, b2)):
            spare = adsum.Node(cluster=clusters[1], name="child")
            of_nodes = sockets() - before

            async def live() -> Any:
                async with spare:
                    await until(lambda: spare.stats()["links"] == 2)
                    return [node.running for node in (a1, a2, b1, b2)]

            def act() -> Any:
                held = sorted(of_nodes & sockets())
                return held, asyncio.run(live())

            held, running = await asyncio.to_thread(collect, fork(act))
            assert held == []
            assert running == [False] * 4
            assert linked_to_one(a1)
            assert linked_to_one(a2)
            assert all(node.running for node in (a1, a2, b1, b2))
            await until(lambda: all(node.stats()["links"] == 1 for node in (b1, b2)))

    run(main())


def test_peer_of_another_cluster_is_refused_and_own_peers_are_linked(
    clusters: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> str:
        alone: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0"}
        async with (
            adsum.Node(cluster=clusters[0], **alone) as a1,
            adsum.Node(cluster=clusters[1], **alone) as b1,
            adsum.Node(
                cluster=clusters[1], siblings=False, peers=[str(a1.address), str(b1.address)]
            ) as b2,
        ):
            await until(lambda: b2.stats()["links"] == b1.stats()["links"] == 1)
            await until(lambda: "the clusters differ" in caplog.text)
            assert a1.stats()["links"] == 0
            assert {member.status for member in b2.members()} == {"self", "up"}
            return repr_of(a1)

    with caplog.at_level(logging.WARNING, "adsum.transport"):
        refusing = run(main())
    lines = [line for line in caplog.messages if "an inbound connection was refused" in line]
    assert lines
    assert all(line.startswith(f"{refusing}: ") for line in lines)


def test_removed_socket_of_one_cluster_is_not_renewed_in_the_other(
    clusters: tuple[str, str], short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_RUNTIME_DIR", str(short_path))
    monkeypatch.setattr("adsum.driver.socketdriver.CHECK_INTERVAL", 0.01)

    async def main() -> None:
        async with (
            running(1, cluster=clusters[0]) as [a],
            running(1, cluster=clusters[1]) as [b],
        ):
            before = a.addresses, b.addresses
            os.unlink(str(a.address).removeprefix("unix:"))
            await until(lambda: a.addresses != before[0])
            assert b.addresses == before[1]
            async with adsum.Node(cluster=clusters[0]) as newcomer:
                await until(lambda: newcomer.stats()["links"] == a.stats()["links"] == 1)
                assert b.stats()["links"] == 0

    run(main())


def test_log_line_tells_nodes_of_equal_names_apart(
    clusters: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[str]:
        async with of_each(clusters) as ((a1, _), (b1, _)):
            await until(lambda: sum("new members" in line for line in caplog.messages) >= 2)
            return [repr_of(node) for node in (a1, b1)]

    with caplog.at_level(logging.INFO):
        own = run(main())
    lines = [line for line in caplog.messages if "new members" in line]
    assert {line.partition(":")[0] for line in lines} == set(own)
    joined = [line for line in caplog.messages if line.startswith("joined")]
    assert len({line.partition(" as ")[0] for line in joined}) == 2


def repr_of(node: adsum.Node) -> str:
    """The name of a node with its incarnation, as log lines have it."""
    [me] = [member for member in node.members() if member.status == "self"]
    return f"{me.name}@{me.incarnation:x}"


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An application without a lifespan, as those of Django."""
    if scope["type"] == "lifespan":
        raise ValueError("only HTTP")
    await send(scope["type"])


async def never(*_: Any) -> Any:
    raise AssertionError("nothing is received")


def test_application_wrapped_twice_starts_both_nodes_at_the_first_request(
    clusters: tuple[str, str],
) -> None:
    async def main() -> None:
        nodes = [adsum.Node(cluster=cluster) for cluster in clusters]
        app = nodes[0].wrap_app(nodes[1].wrap_app(bare))
        answers = list[Any]()

        async def send(message: Any) -> None:
            answers.append(message)

        await asyncio.gather(*[app({"type": "http"}, never, send) for _ in range(3)])
        assert answers == ["http"] * 3
        assert [node.cluster for node in nodes] == [*clusters]
        for node in nodes:
            await node.stop()

    run(main())


def test_lifespan_of_an_application_wrapped_twice_runs_both_nodes(
    clusters: tuple[str, str],
) -> None:
    nodes = [adsum.Node(cluster=cluster) for cluster in clusters]
    stopped = list[list[bool]]()

    async def main() -> None:
        app = nodes[0].wrap_app(nodes[1].wrap_app(bare))
        messages = asyncio.Queue[dict[str, str]]()
        messages.put_nowait({"type": "lifespan.startup"})

        async def send(message: Any) -> None:
            stopped.append([not node.running for node in nodes])
            if message["type"] == "lifespan.startup.complete":
                messages.put_nowait({"type": "lifespan.shutdown"})

        await app({"type": "lifespan"}, messages.get, send)

    run(main())
    assert stopped == [[False, False], [True, True]]


def test_portals_of_two_clusters_start_and_close_apart(clusters: tuple[str, str]) -> None:
    nodes = [adsum.Node(cluster=cluster) for cluster in clusters]
    with adsum.Portal(nodes[0]) as first, adsum.Portal(nodes[1]) as second:
        for portal, key in ((first, "ann"), (second, "bob")):
            portal.track("room", key)
        assert list(first.list("room")) == ["ann"]
        first.close()
        assert list(second.list("room")) == ["bob"]
        assert [node.running for node in nodes] == [False, True]


class Room(Channel, topic="room:{room}"):
    """A room whose members are its users."""

    async def join(self, payload: Any) -> None:
        self.track(self.client.params["user"])


def test_sockets_of_two_clusters_serve_one_topic_apart(clusters: tuple[str, str]) -> None:
    nodes = [adsum.Node(cluster=cluster) for cluster in clusters]
    sockets = [Socket(adsum.Presence(node), [Room]) for node in nodes]
    routes = [Mount(f"/{number}", socket) for number, socket in enumerate(sockets)]
    app = Starlette(routes=routes, lifespan=nodes[0].wrap_lifespan(nodes[1].lifespan))
    join = json.dumps(["1", "1", "room:1", "phx_join", {}])
    with TestClient(app) as client, ExitStack() as stack:
        for number, user in enumerate(("ann", "bob")):
            path = f"/{number}/websocket?vsn=2.0.0&user={user}"
            websocket = stack.enter_context(client.websocket_connect(path))
            websocket.send_text(join)
            frames = [json.loads(websocket.receive_text()) for _ in range(2)]
            assert [frame[3] for frame in frames] == ["phx_reply", "presence_state"]
            assert list(frames[1][4]) == [user]
        poll = client.get("/0/longpoll?vsn=2.0.0&user=eve").json()
        assert poll["status"] == 410
        elsewhere = client.get(
            "/1/longpoll", params={"vsn": "2.0.0", "token": poll["token"]}
        ).json()
        assert elsewhere["status"] == 500
    assert not any(node.running for node in nodes)
