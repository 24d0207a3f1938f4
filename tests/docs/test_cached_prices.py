"""The caches of docs/how-to/from-redis-pubsub.md, in two workers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from adsum.testing import MakeCluster
from tests.support.http_json import fetch_json
from tests.support.waiting import DEADLINE, eventually, until

from .cluster_programs import ClusterPrograms
from .worker_server import WorkerServer, kill, worker_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerServer]:
    database = tmp_path_factory.mktemp("prices") / "prices.db"
    with worker_server("cached_prices:app", PRICES=str(database)) as running:
        yield running


def change(server: WorkerServer, item: str, price: int) -> None:
    header = {"content-type": "application/json"}
    url = server.url(f"/prices/{item}")
    urlopen(Request(url, b"%d" % price, header, method="PUT"), timeout=DEADLINE).close()


def answers_of_both(server: WorkerServer, item: str, remembered: bool) -> dict[int, int]:
    """The price that each of two workers answers with, once both do or do not remember it."""
    found: dict[int, int] = {}

    def ask() -> bool:
        answer: Any = fetch_json(server.url(f"/prices/{item}"))
        if answer and answer["remembered"] is remembered:
            found[answer["worker"]] = answer["price"]
        return len(found) == 2

    eventually(ask, "both workers have answered")
    return found


@pytest.mark.processes
def test_changed_price_is_read_again_by_both_workers(
    server: WorkerServer,
) -> None:
    change(server, "tea", 450)
    assert {*answers_of_both(server, "tea", remembered=True).values()} == {450}
    change(server, "tea", 470)
    assert {*answers_of_both(server, "tea", remembered=False).values()} == {470}


@pytest.mark.processes
def test_worker_that_was_started_after_a_crash_is_told_of_changes(server: WorkerServer) -> None:
    change(server, "milk", 120)
    before = answers_of_both(server, "milk", remembered=True)
    kill(min(before))
    eventually(lambda: min(before) not in answers_of_both(server, "milk", True), "a successor")
    change(server, "milk", 130)
    assert {*answers_of_both(server, "milk", remembered=False).values()} == {130}


def test_all_prices_are_forgotten_if_messages_were_dropped(
    cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "cached_prices.py")
        (program,) = await running.start(1)
        program.cache["tea"] = 450, float("inf")
        publish = program.pubsub.publish
        await asyncio.gather(*[publish("prices", {"item": str(n)}) for n in range(1100)])
        await until(lambda: not program.cache, "the price is forgotten")
        await running.stop([program])

    monkeypatch.setenv("PRICES", str(tmp_path / "prices.db"))
    asyncio.run(main())
