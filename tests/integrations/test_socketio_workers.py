"""Clients of socket.io-client at four workers of an application, and processes that only emit."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.waiting import DEADLINE, eventually

from .socketio_processes import SocketIOClients, SocketIOWorkers, install_client

pytestmark = pytest.mark.processes

SITE = ("-m", "uvicorn", "socketio_site:app", "--port", "{port}", "--log-level", "warning")
#: Bytes of a large message.
MEGABYTE = 1024 * 1024
#: Emits of a burst.
BURST = 1000


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_client(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def workers() -> Iterator[SocketIOWorkers]:
    with SocketIOWorkers() as started:
        yield started


@pytest.fixture(scope="module")
def ports(workers: SocketIOWorkers) -> Iterator[list[int]]:
    """The ports of four workers; no test ends one of them, and they log no failure."""
    ports = workers.start(4, *SITE)
    yield ports
    for port in ports:
        workers.stop(port)
        lines = workers.log(port).splitlines()
        # The killed worker missed the operations until its end was noticed.
        assert [line for line in lines if "other nodes missed it" not in line] == []


@pytest.fixture
def clients(library: Path) -> Iterator[SocketIOClients]:
    started = SocketIOClients(library)
    yield started
    started.end()


def test_message_reaches_the_clients_of_a_room_at_all_workers(
    clients: SocketIOClients, ports: list[int]
) -> None:
    clients.open(*ports, ports[0])
    for client in range(4):
        clients.ask("ask", client, "enter", "tea")
    clients.ask("ask", 1, "shout", "tea", {"text": "milk?"})
    for client in (0, 2, 3):  # messages of two workers have no order
        clients.receives(client, [{"text": "milk?"}])
    clients.ask("ask", 4, "shout", None, "to all")
    for client in (0, 2, 3):
        clients.receives(client, [{"text": "milk?"}, "to all"])
    clients.receives(1, ["to all"])  # its own message was for the others
    assert clients.said(4) == []  # it is not in the room


def test_megabyte_of_binary_data_reaches_all_workers(
    clients: SocketIOClients, ports: list[int]
) -> None:
    clients.open(*ports)
    sent = clients.ask("sendBytes", 0, "shout", None, MEGABYTE)
    assert sent["bytes"] == MEGABYTE
    for client in (1, 2, 3):
        clients.receives(client, [sent])


def test_client_of_another_worker_acknowledges_with_text_and_binary_data(
    clients: SocketIOClients, ports: list[int]
) -> None:
    ids = clients.open(*ports)
    for other in (1, 2, 3):
        answer, data = clients.ask("ask", 0, "ask", ids[other], {"n": other})
        assert answer == {"by": other, "asked": {"n": other}}
        assert data["bytes"] == 2


def test_another_worker_moves_a_client_between_rooms(
    clients: SocketIOClients, ports: list[int]
) -> None:
    ids = clients.open(*ports)
    clients.ask("ask", 0, "enter", "tea", ids[1])
    clients.ask("ask", 0, "shout", "tea", 1)
    clients.ask("ask", 0, "leave", "tea", ids[1])
    clients.ask("ask", 0, "shout", "tea", 2)
    clients.ask("ask", 0, "enter", "tea", ids[1])
    clients.ask("ask", 0, "close", "tea")
    clients.ask("ask", 0, "shout", "tea", 3)
    clients.ask("ask", 0, "shout", None, 4)
    clients.receives(1, [1, 4])


def test_another_worker_disconnects_a_client(clients: SocketIOClients, ports: list[int]) -> None:
    ids = clients.open(*ports)
    clients.ask("ask", 0, "kick", ids[3])
    eventually(lambda: clients.ask("ends", 3) == ["io server disconnect"])
    assert clients.ask("ends", 2) == []


def test_burst_arrives_complete_and_in_order(clients: SocketIOClients, ports: list[int]) -> None:
    clients.open(*ports)
    clients.ask("ask", 3, "enter", "tea")
    clients.ask("ask", 0, "count", "tea", 0, BURST, 0)
    clients.receives(3, list(range(BURST)), "counted")


def received_all(clients: SocketIOClients, client: int) -> bool:
    return len(clients.said(client, "counted")) == BURST


def test_killed_worker_costs_the_others_nothing_and_its_successor_takes_part(
    clients: SocketIOClients, workers: SocketIOWorkers, ports: list[int]
) -> None:
    [doomed] = workers.start(1, *SITE)
    ids = clients.open(*ports, doomed)
    for client in range(5):
        clients.ask("ask", client, "enter", "tea")
    for client in (0, 1):
        clients.ask(
            "ask", client, "begin_count", "tea", 1000 * client, 1000 * client + BURST // 2, 0.001
        )
    eventually(lambda: len(clients.said(4, "counted")) > 100)
    workers.kill(doomed)
    for client in range(4):
        eventually(partial(received_all, clients, client))
        counted = clients.said(client, "counted")
        assert [n for n in counted if n < 1000] == list(range(BURST // 2))
        assert [n for n in counted if n >= 1000] == list(range(1000, 1000 + BURST // 2))
    eventually(lambda: clients.ask("ends", 4))
    [successor] = workers.start(1, *SITE)  # it asks before it has a client
    with urlopen(f"http://127.0.0.1:{successor}/{ids[2]}", timeout=DEADLINE) as answer:
        assert answer.read() == b'{"by": 2, "asked": "http"}'
    newcomer = clients.ask("open", 5, successor)
    clients.ask("ask", 5, "shout", None, "back")
    clients.receives(2, ["back"])
    workers.stop(successor)
    clients.receives(2, [newcomer], "gone")  # emitted while it stopped
    assert workers.log(successor) == ""


THREADED = """
import adsum
from adsum.integrations.socketio import AdsumManager
manager = AdsumManager(adsum.Portal(), write_only=True)
for number in range(1000):
    manager.emit("counted", number, room="tea")
"""
ASYNCHRONOUS = """
import asyncio, adsum
from adsum.integrations.socketio import AsyncAdsumManager
async def main():
    async with adsum.Node() as node:
        manager = AsyncAdsumManager(node, write_only=True)
        for number in range(1000):
            await manager.emit("counted", number, room="tea")
asyncio.run(main())
"""


@pytest.mark.parametrize("script", [THREADED, ASYNCHRONOUS], ids=["threaded", "asynchronous"])
def test_script_that_ends_after_its_emits_loses_none(
    clients: SocketIOClients, workers: SocketIOWorkers, ports: list[int], script: str
) -> None:
    clients.open(*ports)
    for client in (0, 3):
        clients.ask("ask", client, "enter", "tea")
    command = [sys.executable, "-W", "error", "-c", script]
    subprocess.run(command, env=workers.environment, check=True, timeout=DEADLINE)
    for client in (0, 3):
        clients.receives(client, list(range(1000)), "counted")
