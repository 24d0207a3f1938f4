"""Three processes over a real server: changes, killed processes, and restarts of the server."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bus_servers import BusServer, NatsServer, RedisServer, running
from tests.support.waiting import eventually
from tests.support.worker_processes import Worker, Workers

pytestmark = pytest.mark.processes

SECRET = "a secret of 16 bytes or more"


@pytest.fixture(params=[NatsServer, RedisServer])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BusServer]:
    server: BusServer = request.param(tmp_path)
    with running(server):
        yield server


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def start(workers: Workers, server: BusServer, cluster: str, **settings: Any) -> Worker:
    usual = {"siblings": False, "cluster": cluster, "secret": SECRET, "carrier": server.url}
    return workers.start(**{**usual, **settings})


def everybody_lists(workers: list[Worker], *keys: str) -> bool:
    return all(worker.lists(*keys) for worker in workers)


def three(workers: Workers, server: BusServer, cluster: str, **settings: Any) -> list[Worker]:
    """Three linked processes, each with one presence."""
    all_of_them = [start(workers, server, cluster, **settings) for _ in range(3)]
    for worker, key in zip(all_of_them, ("ann", "bob", "cid"), strict=True):
        worker.ask("track", "room", key, {})
    eventually(lambda: everybody_lists(all_of_them, "ann", "bob", "cid"))
    return all_of_them


def test_process_alone_on_its_server_joins_at_once(
    server: BusServer, workers: Workers, cluster_name: str
) -> None:
    # Without the refusal of its announcement it would wait longer than the test.
    start(workers, server, cluster_name, join_timeout=3600)


def test_change_in_one_process_is_seen_by_the_others(
    server: BusServer, workers: Workers, cluster_name: str
) -> None:
    one, *others = three(workers, server, cluster_name)
    one.ask("track", "room", "dan", {})
    eventually(lambda: everybody_lists([one, *others], "ann", "bob", "cid", "dan"))
    one.ask("untrack", "room", "dan")
    eventually(lambda: everybody_lists([one, *others], "ann", "bob", "cid"))


def test_killed_process_is_detected_by_the_others(
    server: BusServer, workers: Workers, cluster_name: str
) -> None:
    # Silence alone would take longer than the test.
    one, *others = three(workers, server, cluster_name, down_after=600.0, forget_after=600.0)
    one.signal(signal.SIGKILL)
    eventually(lambda: everybody_lists(others, "bob", "cid"))


def test_process_that_stops_says_goodbye(
    server: BusServer, workers: Workers, cluster_name: str
) -> None:
    one, *others = three(workers, server, cluster_name, down_after=600.0, link_grace=600.0)
    one.signal(signal.SIGTERM)
    eventually(lambda: everybody_lists(others, "bob", "cid"))
    assert one.process.wait(30) == 0


def test_killed_server_that_returns_keeps_everybody_listed_everywhere(
    server: BusServer, workers: Workers, cluster_name: str
) -> None:
    settings = {"heartbeat_interval": 0.2, "down_after": 3.0, "forget_after": 60.0}
    all_of_them = three(workers, server, cluster_name, **settings)
    server.kill()
    all_of_them[0].ask("track", "room", "dan", {})
    time.sleep(4.5)  # longer than `down_after`
    for worker in all_of_them[1:]:
        assert worker.lists("ann", "bob", "cid")
    server.start()
    eventually(lambda: everybody_lists(all_of_them, "ann", "bob", "cid", "dan"))
    all_of_them[1].ask("track", "room", "eve", {})
    eventually(lambda: everybody_lists(all_of_them, "ann", "bob", "cid", "dan", "eve"))
    time.sleep(3.5)
    for worker in all_of_them:
        assert not [leaves for _, (_, _, leaves) in worker.diffs if leaves]


def test_siblings_and_other_processes_list_each_other_once(
    server: BusServer, workers: Workers, cluster_name: str, short_path: Path
) -> None:
    here = {"siblings": True, "runtime_dir": str(short_path)}
    pair = [start(workers, server, cluster_name, **here) for _ in range(2)]
    other = start(workers, server, cluster_name)
    everybody = [*pair, other]
    for worker, key in zip(everybody, ("ann", "bob", "cid"), strict=True):
        worker.ask("track", "room", key, {})
    eventually(lambda: everybody_lists(everybody, "ann", "bob", "cid"))
    names = [worker.name for worker in everybody]
    for worker in everybody:
        rest = [name for name in names if name != worker.name]
        eventually(lambda worker=worker, rest=rest: worker.is_linked_to(*rest))  # type: ignore[misc]  # bound now
    server.kill()
    pair[0].ask("track", "room", "dan", {})
    eventually(lambda: pair[1].lists("ann", "bob", "cid", "dan"))
