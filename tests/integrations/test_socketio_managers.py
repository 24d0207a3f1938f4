"""The client managers in one process: arguments, texts, losses, and the end of the node."""

import asyncio
import json
import logging
import os
import pickle
import signal
import socket
import threading
from functools import partial
from typing import Any

import flask
import flask_socketio
import pytest
import socketio

import adsum
from adsum.integrations import socketio as managers
from adsum.integrations.socketio import AdsumManager, AsyncAdsumManager
from adsum.pubsub import DEFAULT_LIMIT
from adsum.sparselog import SparseLogger
from tests.support.forked_child import in_child
from tests.support.nodes import run, running
from tests.support.waiting import DEADLINE, eventually, until
from tests.support.worker_processes import Workers

from .socketio_worker import TOPIC, Site, sites


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "adsum.integrations.socketio"
    ]


def test_emit_reaches_client_of_another_node(cluster_name: str) -> None:
    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            other = AsyncAdsumManager(nodes[0], write_only=True)
            await other.emit("said", {"text": "tea", "raw": b"\x00\xff"})
            await until(lambda: site.received == [{"text": "tea", "raw": b"\x00\xff"}])

    run(main())


def test_channels_are_apart(cluster_name: str) -> None:
    async def main() -> None:
        async with sites(cluster_name, channel="here") as (nodes, site):
            for channel in ("there", "here"):
                other = AsyncAdsumManager(nodes[0], channel, write_only=True)
                await other.emit("said", channel)
            await until(lambda: site.received)
            assert site.received == ["here"]

    run(main())


def test_text_that_is_no_json_object_is_dropped_and_logged(
    cluster_name: str, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "unpickled"),)

    texts = [pickle.dumps(Hostile()), b"\xff", b"[1]", b'{"method": "emit"', b"[" * 100_000]
    answer = {"method": "callback", "binary": True, "args": [[{"_placeholder": True, "num": 9}]]}

    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            for text in [*texts, json.dumps(answer).encode()]:
                await adsum.PubSub(nodes[0]).publish(TOPIC, text)
            await adsum.PubSub(nodes[0]).publish(TOPIC, {"method": "emit"})  # an object, no bytes
            await AsyncAdsumManager(nodes[0], write_only=True).emit("said", 1)
            await until(lambda: site.received == [1])
            first, *_ = lines(caplog)
            assert first.startswith(f"an operation of node {nodes[0].name!r} was dropped: ")

    run(main())
    assert not (tmp_path / "unpickled").exists()


def test_dropped_texts_are_logged_with_their_number(
    cluster_name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managers, "MAX_UNREAD", 2)

    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            released, entered = asyncio.Event(), asyncio.Event()
            arrived = adsum.PubSub(nodes[1]).subscribe(TOPIC)

            @site.server.on("disconnect")
            async def left(sid: str, reason: str) -> None:
                entered.set()
                await released.wait()

            other = AsyncAdsumManager(nodes[0], write_only=True)
            await other.disconnect(site.client.get_sid(), "/")
            await entered.wait()
            for number in range(5):
                await other.emit("said", number)
            for _ in range(6):
                await anext(arrived)
            released.set()
            await until(lambda: lines(caplog))
            assert lines(caplog) == [
                "3 messages were dropped unread so far: at most 2 with 268435456 bytes may wait in "
                "this process"
            ]

    run(main())


def test_emits_arrive_after_a_handler_that_blocks(cluster_name: str) -> None:
    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            released = asyncio.Event()

            @site.server.on("disconnect")
            async def left(sid: str, reason: str) -> None:
                await released.wait()

            other = AsyncAdsumManager(nodes[0], write_only=True)
            await other.disconnect(site.client.get_sid(), "/")
            for number in range(3 * DEFAULT_LIMIT):
                await other.emit("said", number)
            await until(lambda: not site.client.connected)
            await site.connect()
            released.set()
            await until(lambda: site.received == list(range(3 * DEFAULT_LIMIT)))

    run(main())


def test_emit_beyond_the_limit_of_a_message_is_refused(cluster_name: str) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as nodes:
            manager = AsyncAdsumManager(nodes[0], write_only=True)
            with pytest.raises(ValueError, match=r"8,?388,?608"):
                await manager.emit("said", bytes(7 * 1024 * 1024))

    run(main())


def test_worker_without_a_client_receives_the_answer_to_its_callback(cluster_name: str) -> None:
    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            manager = AsyncAdsumManager(nodes[0])
            asking = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
            site.client.on("question", lambda value: (value, b"\x01"))
            answer = await asking.call("question", "tea?", to=site.client.get_sid(), timeout=20)
            assert tuple(answer) == ("tea?", b"\x01")
            manager.thread.cancel()

    run(main())


def test_node_that_was_never_started_is_logged_at_the_first_client(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        site = Site(adsum.Node(cluster=cluster_name))
        async with site.served():
            await site.connect()
            await until(lambda: lines(caplog))
            [line] = lines(caplog)
            assert "receive nothing from other processes: the node is not running" in line
            assert "lifespan=node.lifespan" in line
            assert "exited unexpectedly" not in caplog.text
            with pytest.raises(adsum.NodeNotRunningError):
                await site.server.emit("said", 1)

    run(main())


def test_node_of_another_thread_is_logged_and_blocks_no_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        manager = AsyncAdsumManager(portal.node)
        server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
        server.manager_initialized = True  # as the server does before the call
        manager.initialize()
        await manager.thread
        assert not server.manager_initialized
        managers._log.flush()  # the line is held back if another test has just logged one
        assert "receive nothing from other processes: a node must be used in" in caplog.text

    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        assert portal.count("room") == 0
        run(main())


def test_stopped_node_ends_the_task_in_silence_and_a_later_client_begins_it_again(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            await nodes[1].stop()
            await asyncio.wait_for(site.manager.thread, 20)
            assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
            await nodes[1].start()
            await site.client.disconnect()
            await site.connect()
            await AsyncAdsumManager(nodes[0], write_only=True).emit("said", 1)
            await until(lambda: site.received == [1])

    run(main())


@pytest.mark.processes
def test_operations_that_a_stopped_process_misses_are_logged(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with Workers() as workers:
            stopped = workers.start(cluster=cluster_name)
            async with adsum.Node(cluster=cluster_name) as node:
                manager = AsyncAdsumManager(node, write_only=True)
                stopped.signal(signal.SIGSTOP)
                while not lines(caplog):
                    await manager.emit("said", bytes(1024 * 1024))
        assert lines(caplog)[0] == "operation 'emit': 1 of the other nodes missed it"

    run(main())


@pytest.mark.parametrize("manager", [AdsumManager, AsyncAdsumManager])
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"channel": ""}, "channel='': must be a Unicode text of 1 to 1,000 characters"),
        ({"channel": "x" * 1001}, "must be a Unicode text of 1 to 1,000 characters"),
        ({"channel": None}, "channel=None: must be a Unicode text of 1 to 1,000 characters"),
        ({"channel": "\ud800"}, r"channel='\\ud800': must be a Unicode text of 1 to"),
        ({"write_only": "yes"}, "write_only='yes': must be True or False"),
        ({"logger": True}, "logger=True: must be None, or an object with the functions debug, "),
    ],
)
def test_wrong_argument_is_refused(manager: Any, settings: Any, text: str) -> None:
    over: Any = adsum.Node() if manager is AsyncAdsumManager else adsum.Portal()
    with pytest.raises(adsum.ConfigurationError, match=text):
        manager(over, **settings)


@pytest.mark.parametrize("manager", [AdsumManager, AsyncAdsumManager])
def test_write_only_manager_needs_a_named_cluster(
    manager: Any, cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over: Any = adsum.Node if manager is AsyncAdsumManager else lambda: adsum.Portal(adsum.Node())
    with pytest.raises(adsum.ConfigurationError, match=r"cluster: must be set .*ADSUM_CLUSTER"):
        manager(over(), write_only=True)
    manager(over())  # workers of one command share an automatic cluster
    monkeypatch.setenv("ADSUM_CLUSTER", cluster_name)
    manager(over(), write_only=True)


@pytest.fixture
def _fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that holds back no line because of an earlier test."""
    monkeypatch.setattr(managers, "_log", SparseLogger(managers._logger))


@pytest.mark.usefixtures("_fresh_log")
def test_emit_of_a_write_only_manager_that_is_alone_is_logged(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with adsum.Portal(adsum.Node(cluster=cluster_name)) as script:
        manager = AdsumManager(script, write_only=True)
        manager.emit("said", 1)
        [line] = lines(caplog)
        assert line.startswith("operation 'emit' reached nobody: this process is alone in its")
        assert "need the same `cluster` (ADSUM_CLUSTER)" in line
        manager.emit("said", 2)
        assert lines(caplog) == [line]  # further ones are counted


@pytest.mark.usefixtures("_fresh_log")
def test_emit_of_a_write_only_node_is_logged_only_while_it_is_alone(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as nodes:
            manager = AsyncAdsumManager(nodes[0], write_only=True)
            await manager.emit("said", 1)
            assert lines(caplog) == []
            await nodes[1].stop()
            await until(lambda: len(nodes[0].members()) == 1)
            await AsyncAdsumManager(nodes[0]).emit("said", 2)  # a server may be alone
            assert lines(caplog) == []
            await manager.emit("said", 3)
            [line] = lines(caplog)
            assert "this process is alone in its cluster" in line

    run(main())


def test_node_and_portal_are_not_confused() -> None:
    with pytest.raises(adsum.ConfigurationError, match=r"node=.*: must be an adsum\.Node"):
        AsyncAdsumManager(adsum.Portal())  # type: ignore[arg-type]  # the wrong one
    with pytest.raises(adsum.ConfigurationError, match=r"portal=.*: must be an adsum\.Portal"):
        AdsumManager(adsum.Node())  # type: ignore[arg-type]  # the wrong one


def test_server_of_the_other_kind_is_refused() -> None:
    with pytest.raises(
        adsum.ConfigurationError, match=r"client_manager=.*: must be an AdsumManager"
    ):
        socketio.Server(client_manager=AsyncAdsumManager(adsum.Node()))
    with pytest.raises(adsum.ConfigurationError, match="must be an AsyncAdsumManager"):
        socketio.AsyncServer(client_manager=AdsumManager(adsum.Portal()))


def test_flask_ignores_a_message_queue_beside_the_manager_and_prefers_one_of_init_app() -> None:
    manager = AdsumManager(adsum.Portal())
    settings: Any = {"async_mode": "threading", "client_manager": manager}
    queue = "redis://127.0.0.1:1"
    site = flask_socketio.SocketIO(flask.Flask("site"), message_queue=queue, **settings)
    assert site.server.manager is manager
    site = flask_socketio.SocketIO(**settings)
    site.init_app(flask.Flask("site"), message_queue=queue)
    assert isinstance(site.server.manager, socketio.RedisManager)


def test_green_threads_are_refused() -> None:
    class GreenServer:
        class eio:  # noqa: N801  # the name of an attribute
            async_mode = "gevent"

    with pytest.raises(adsum.ConfigurationError, match="async_mode='gevent': must be 'threading'"):
        AdsumManager(adsum.Portal()).set_server(GreenServer())


def test_forked_child_has_a_host_id_of_its_own() -> None:
    manager = AdsumManager(adsum.Portal())
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, f"{manager.host_id} {manager.host_id}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    first, second = os.read(reading, 1000).decode().split()
    os.close(reading)
    os.close(writing)
    assert len(first) == len(manager.host_id) == 32
    assert first == second != manager.host_id


def test_clients_of_a_child_that_is_forked_while_the_node_starts_connect_and_receive() -> None:
    def connect() -> bool:
        assert not manager._starting.locked()
        assert manager.pre_connect("eio", "/")
        assert not server.manager_initialized
        manager.initialize()
        assert manager._subscription is not None
        return not manager._subscription.closed

    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        manager = AdsumManager(portal)
        server = socketio.Server(async_mode="threading", client_manager=manager)
        server.manager_initialized = True  # as the server does before the call
        manager.initialize()
        with manager._starting:  # as another thread of the parent holds it
            assert in_child(connect)


def test_process_that_only_emits_disconnects_clients_of_others(cluster_name: str) -> None:
    async def main() -> None:
        async with sites(cluster_name) as (nodes, site):
            other = AsyncAdsumManager(nodes[0], write_only=True)
            await other.disconnect(site.client.get_sid(), "/")
            await until(lambda: not site.client.connected, "the client is disconnected")

    run(main())


def test_client_that_connects_while_the_node_starts_waits_for_it(cluster_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # delays the start by `join_timeout`
        peer = f"127.0.0.1:{silent.getsockname()[1]}"
        settings: Any = {"cluster": cluster_name, "siblings": False, "peers": peer}
        with adsum.Portal(adsum.Node(**settings, join_timeout=0.3)) as portal:
            manager = AdsumManager(portal)
            socketio.Server(async_mode="threading", client_manager=manager)
            first = threading.Thread(target=manager.initialize)
            first.start()
            eventually(manager._starting.locked)
            assert manager._subscription is None
            manager.pre_connect("second", "/")
            assert manager._subscription is not None
            first.join()
        manager.thread.join()


def test_two_clients_that_connect_first_at_one_time_begin_one_thread(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []
    nodes = [adsum.Node(cluster=cluster_name) for _ in range(2)]
    with adsum.Portal(nodes[0]) as portal, adsum.Portal(nodes[1]) as other:
        manager = AdsumManager(portal)
        socketio.Server(async_mode="threading", client_manager=manager)
        manager.initialize()
        manager.initialize()  # both threads of the server found that it was not initialized
        answer = {"method": "callback", "host_id": manager.host_id, "sid": "room", "args": []}
        for number in range(2):
            id_ = manager._generate_ack_id("room", partial(called.append, number))
            other.publish(TOPIC, json.dumps(answer | {"id": id_}).encode())
        eventually(lambda: called == [0, 1])
        readers = [one for one in threading.enumerate() if "_thread" in one.name]
        assert len(readers) == 1
    manager.thread.join(DEADLINE)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_failed_start_is_tried_again_for_the_next_client() -> None:
    portal = adsum.Portal(adsum.Node(siblings=False))
    manager = AdsumManager(portal)
    server = socketio.Server(async_mode="threading", client_manager=manager)
    portal.close()
    server.manager_initialized = True  # as the server does before the call
    with pytest.raises(adsum.NodeNotRunningError):
        manager.initialize()
    assert not server.manager_initialized


def test_thread_ends_in_silence_with_its_portal(caplog: pytest.LogCaptureFixture) -> None:
    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        manager = AdsumManager(portal)
        server = socketio.Server(async_mode="threading", client_manager=manager)
        server.manager_initialized = True  # as the server does before the call
        manager.initialize()
    manager.thread.join(DEADLINE)
    assert not manager.thread.is_alive()
    assert not server.manager_initialized
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_threaded_manager_logs_the_number_of_dropped_texts(
    cluster_name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managers, "MAX_UNREAD", 2)
    entered, released = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        released.wait(DEADLINE)

    nodes = [adsum.Node(cluster=cluster_name) for _ in range(2)]
    with adsum.Portal(nodes[0]) as portal, adsum.Portal(nodes[1]) as other:
        manager = AdsumManager(portal)
        socketio.Server(async_mode="threading", client_manager=manager)
        manager.initialize()
        arrived = portal.subscribe(TOPIC)
        answer = {"method": "callback", "host_id": manager.host_id, "sid": "room", "args": []}
        number = manager._generate_ack_id("room", block)
        other.publish(TOPIC, json.dumps(answer | {"id": number}).encode())
        assert entered.wait(DEADLINE)
        sender = AdsumManager(other, write_only=True)
        for value in range(5):
            sender.emit("said", value)
        for _ in range(6):
            next(arrived)
        released.set()
        eventually(lambda: lines(caplog))
        assert lines(caplog)[0].startswith("3 messages were dropped unread so far")
    manager.thread.join(DEADLINE)
