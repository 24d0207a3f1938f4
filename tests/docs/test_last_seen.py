"""Last seen: each way in which a presence ends has its writer, as docs/how-to/last-seen.md says."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from adsum.testing import Browser, Cluster, MakeCluster
from tests.support.http_json import fetch_json
from tests.support.waiting import DEADLINE, until

from .channel_client import channel_client
from .cluster_programs import ClusterPrograms
from .worker_server import WorkerServer, kill, worker_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerServer]:
    table = tmp_path_factory.mktemp("last-seen") / "last_seen.db"
    with worker_server("last_seen:app", LAST_SEEN_DATABASE=str(table)) as running:
        yield running


def last_seen(cluster: Cluster) -> ClusterPrograms:
    return ClusterPrograms(cluster, "last_seen.py")


def own_tables(programs: list[Any], folder: Path) -> None:
    """Give each program an empty table of its own."""
    for number, program in enumerate(programs):
        program.DATABASE = str(folder / f"{number}.db")


def written(program: Any) -> list[str]:
    """The users that a program has written."""
    return [user for (user,) in program.query("SELECT user FROM seen")]


def test_last_seen_is_written_for_users_of_a_node_that_died(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    async def main() -> None:
        running = last_seen(workers := cluster(0))
        programs = await running.start(3)
        own_tables(programs, tmp_path)
        dying, *others = programs
        async with Browser(dying.socket, {"user": "ann"}) as ann:
            await ann.join("room:1")
            await running.settle()
            workers.kill(0)
            await running.settle()
            await until(lambda: any(map(written, others)), "ann is written")
        await running.stop(others)
        assert [written(one) for one in others] == [["ann"], []]

    asyncio.run(main())


@pytest.mark.parametrize("linger", [0.0, 30.0])
def test_last_seen_is_written_when_all_nodes_stop(
    cluster: MakeCluster, tmp_path: Path, linger: float
) -> None:
    async def main() -> None:
        running = last_seen(cluster(0))
        programs = await running.start(2, linger=linger)
        own_tables(programs, tmp_path / "before")
        (tmp_path / "before").mkdir()
        async with Browser(programs[0].socket, {"user": "ann"}) as ann:
            await ann.join("room:1")
            await running.settle()
            own_tables(programs, tmp_path)
            await running.stop(programs)
            await until(lambda: written(programs[0]) == ["ann"], "ann is written")

    asyncio.run(main())


def test_last_seen_is_not_written_while_another_connection_is_open(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    async def main() -> None:
        running = last_seen(cluster(0))
        programs = await running.start(2)
        own_tables(programs, tmp_path)
        async with Browser(programs[1].socket, {"user": "ann"}) as tablet:
            await tablet.join("room:1")
            async with Browser(programs[1].socket, {"user": "ann"}) as phone:
                await phone.join("room:1")
                await running.settle()
            await running.settle()
            assert len(programs[0].presence.get("room:1", "ann")) == 1
            with programs[1].presence.track("room:1", "bob"):
                await running.settle()
            await running.settle()
            # The task handles one diff after the other, so ann would have been written before.
            await until(lambda: written(programs[0]), "bob is written")
            assert written(programs[0]) == ["bob"]
        await running.stop(programs)

    asyncio.run(main())


def test_later_time_wins(cluster: MakeCluster, tmp_path: Path) -> None:
    async def main() -> None:
        program = last_seen(cluster(0)).load()
        own_tables([program], tmp_path)
        for now in (5.0, 7.0, 6.0):
            program.time = SimpleNamespace(time=lambda now=now: now)
            await program.write_last_seen("room:1", "ann")
        assert program.query("SELECT * FROM seen") == [("room:1", "ann", 7.0)]

    asyncio.run(main())


@pytest.mark.processes
def test_user_is_present_and_then_last_seen_after_her_worker_was_killed(
    server: WorkerServer,
) -> None:
    def users() -> dict[str, float | None]:
        return dict(fetch_json(server.url("/rooms/room:1")) or {})

    async def main() -> None:
        async with channel_client(server.port, {"user": "ann"}) as ann:
            await ann.join("room:1")
            await until(lambda: users() == {"ann": None}, "ann is present")
            joined = time.time()
            kill(await server.worker_of(ann.connection))
            await ann.connection.wait_closed()
            await until(lambda: (users().get("ann") or 0) > joined, "her leave is written")

    asyncio.run(main())


@pytest.mark.processes
@pytest.mark.parametrize("params", [{}, {"user": ""}, {"user": "x" * 1100}])
def test_join_without_a_user_is_refused(server: WorkerServer, params: dict[str, str]) -> None:
    async def main() -> None:
        async with channel_client(server.port, params) as nobody:
            reply = await nobody.ask("room:1", "phx_join", {})
            assert reply["status"] == "error"
            assert "1 to 100 characters" in str(reply["response"])

    asyncio.run(main())


@pytest.mark.processes
@pytest.mark.parametrize("topic", ["room", "room:" + "x" * 1100, "%00"])
def test_list_of_a_wrong_topic_is_answered_with_422(server: WorkerServer, topic: str) -> None:
    answer = httpx2.get(server.url(f"/rooms/{topic}"), trust_env=False, timeout=DEADLINE)
    assert answer.status_code == 422
