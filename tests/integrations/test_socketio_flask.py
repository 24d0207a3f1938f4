"""Flask-SocketIO in threads of two gunicorn workers, with python-socketio's client at each."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import engineio
import pytest
import socketio

from tests.support.waiting import DEADLINE, eventually

from .socketio_processes import SocketIOWorkers

pytestmark = pytest.mark.processes

WORKERS = 2
#: Both are forked from a process that has imported the application.
GUNICORN = (
    *("-m", "gunicorn", "socketio_flask_site:app", "-b", "127.0.0.1:{port}"),
    *("--workers", str(WORKERS), "--threads", "20", "--preload"),
    *("--graceful-timeout", "1", "--no-control-socket", "--log-level", "error"),
)
MEGABYTE = 1024 * 1024


class OrderedTransport(engineio.Client):  # type: ignore[misc]  # it has no types
    """Handles messages in order; the base class gives each a thread, and one may overtake another.

    The method is private to python-engineio: if it is renamed, the order is lost again.
    """

    def _trigger_event(self, event: str, *args: Any, **options: Any) -> Any:
        return super()._trigger_event(event, *args, **{**options, "run_async": False})


class OrderedClient(socketio.Client):  # type: ignore[misc]  # it has no types
    """A client of python-socketio that handles events in the order in which they arrive."""

    def _engineio_client_class(self) -> type[engineio.Client]:
        return OrderedTransport


class ThreadedClient:
    """A connected client, and the values that it has received, in order."""

    def __init__(self, port: int) -> None:
        self.said: list[Any] = []
        self.counted: list[int] = []
        self.ended = threading.Event()
        self._client = OrderedClient(reconnection=False)
        self._client.on("said", self.said.append)
        self._client.on("counted", self.counted.append)
        self._client.on("question", lambda value: [value, b"\x00\xff"])
        self._client.on("disconnect", lambda reason: self.ended.set())
        url = f"http://127.0.0.1:{port}"
        self._client.connect(url, transports=["websocket"], wait_timeout=DEADLINE)
        self.worker: int = self.call("worker")
        self.sid: str = self.call("whoami")

    def call(self, event: str, *values: Any) -> Any:
        """Send an event, and wait for its acknowledgement."""
        return self._client.call(event, values, timeout=DEADLINE)

    def has_counted_to(self, end: int) -> bool:
        """Whether it has received all numbers below the end, in order."""
        return self.counted == list(range(end))

    def close(self) -> None:
        self._client.disconnect()


@pytest.fixture(scope="module")
def workers() -> Iterator[SocketIOWorkers]:
    with SocketIOWorkers() as started:
        yield started


@pytest.fixture(scope="module")
def port(workers: SocketIOWorkers) -> Iterator[int]:
    [port] = workers.start(1, *GUNICORN)
    yield port
    workers.stop(port)
    lines = [line for line in workers.log(port).splitlines() if "was sent SIGKILL" not in line]
    # The killed worker missed the operations until its end was noticed.
    assert [line for line in lines if "other nodes missed it" not in line] == []


@pytest.fixture
def clients(port: int) -> Iterator[list[ThreadedClient]]:
    """One client at each worker."""
    with ExitStack() as stack:
        found: dict[int, ThreadedClient] = {}
        while len(found) < WORKERS:
            client = ThreadedClient(port)
            if client.worker in found:
                client.close()  # each of them takes a thread of its worker, of which it has 20
            else:
                found[client.worker] = client
                stack.callback(client.close)
        yield list(found.values())


def test_rooms_acknowledgements_and_binary_data_span_workers(clients: list[ThreadedClient]) -> None:
    here, there = clients
    there.call("enter", "tea")
    here.call("enter", "milk", there.sid)
    here.call("shout", "tea", bytes(MEGABYTE))
    here.call("shout", "milk", "milk?")
    eventually(lambda: there.said == [bytes(MEGABYTE), "milk?"])
    assert here.said == []
    assert here.call("ask", there.sid, b"\x01") == [b"\x01", b"\x00\xff"]
    here.call("leave", "milk", there.sid)
    here.call("close", "tea")
    for room in ("milk", "tea", None):
        here.call("shout", room, f"to {room}")
    eventually(lambda: there.said[2:] == ["to None"])


def test_burst_of_threads_arrives_complete_and_in_order(clients: list[ThreadedClient]) -> None:
    here, there = clients
    there.call("enter", "tea")
    here.call("count", "tea", 1000)
    eventually(partial(there.has_counted_to, 1000))


def test_client_of_another_worker_is_disconnected(clients: list[ThreadedClient]) -> None:
    here, there = clients
    here.call("kick", there.sid)
    assert there.ended.wait(DEADLINE)
    assert not here.ended.is_set()


def test_successor_of_a_killed_worker_takes_part(port: int, clients: list[ThreadedClient]) -> None:
    here, there = clients
    os.kill(there.worker, signal.SIGKILL)
    assert there.ended.wait(DEADLINE)
    here.call("enter", "tea")
    with ExitStack() as stack:
        while (successor := ThreadedClient(port)).worker == here.worker:
            successor.close()
        stack.callback(successor.close)
        successor.call("shout", "tea", "back")
        eventually(lambda: here.said == ["back"])
        assert successor.call("ask", here.sid, 1) == [1, b"\x00\xff"]


def test_script_beside_the_workers_loses_no_emit(
    workers: SocketIOWorkers, clients: list[ThreadedClient]
) -> None:
    script = """
import adsum
from adsum.integrations.socketio import AdsumManager
manager = AdsumManager(adsum.Portal(), write_only=True)
for number in range(1000):
    manager.emit("counted", number)
"""
    command = [sys.executable, "-W", "error", "-c", script]
    subprocess.run(command, env=workers.environment, check=True, timeout=DEADLINE)
    for client in clients:
        eventually(partial(client.has_counted_to, 1000))
