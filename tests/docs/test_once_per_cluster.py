"""Handled once per cluster: one member acts, and each side of a partition has one."""

import asyncio
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from adsum.testing import MakeCluster
from tests.support.waiting import until

from .cluster_programs import ClusterPrograms
from .worker_server import WorkerServer, kill, worker_server


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("once_per_cluster:app") as running:
        yield running


def test_one_member_acts_and_each_side_of_a_partition_has_one(cluster: MakeCluster) -> None:
    async def main() -> None:
        workers = cluster(0)
        running = ClusterPrograms(workers, "once_per_cluster.py")
        programs = await running.start(3)
        acting = [one.is_acting() for one in programs]
        assert acting == [True, False, False]
        workers.partition([0], [1, 2])
        await running.settle()
        assert [one.is_acting() for one in programs] == [True, True, False]
        workers.heal()
        await running.settle()
        workers.kill(0)
        await running.settle()
        assert [one.is_acting() for one in programs[1:]] == [True, False]
        await running.stop(programs[1:])

    asyncio.run(main())


def test_room_is_closed_by_one_node_after_its_last_visitor_has_left(
    cluster: MakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        workers = cluster(0)
        running = ClusterPrograms(workers, "once_per_cluster.py")
        programs = await running.start(3)
        tabs = [programs[1].presence.track("room:1", "ann", owner=tab) for tab in (1, 2)]
        await running.settle()
        tabs[0].untrack()
        await running.settle()
        assert capsys.readouterr().out == ""
        tabs[1].untrack()
        await running.settle()
        assert capsys.readouterr().out == f"{programs[0].node.name}: room:1 is closed\n"
        await running.stop(programs)

    asyncio.run(main())


@pytest.mark.processes
def test_event_of_a_client_and_death_of_its_worker_are_each_handled_once(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with server.on_two_workers("/rooms/{number}/ann") as (dying, other):
            await dying.send("a visitor")
            # The worker prints it after it has listed the visitor: the kernel has that, and gives
            # it to the other worker even if this one is killed.
            await until(lambda: "'a visitor'" in server.output(), "the visitor is listed")
            await other.send("help")
            await until(lambda: "'help'" in server.output(), "staff is called")
            kill(await server.worker_of(dying))
            died = f"{room_of(dying)} is closed"
            await until(lambda: died in server.output(), "the room is closed")
        left = f"{room_of(other)} is closed"
        await until(lambda: left in server.output(), "the room is closed")
        for once in ("'help'", died, left):
            assert server.output().count(once) == 1

    asyncio.run(main())


def room_of(visitor: ClientConnection) -> str:
    assert visitor.request is not None
    return f"room:{visitor.request.path.split('/')[2]}"


@pytest.mark.processes
@pytest.mark.parametrize("path", [f"/rooms/{'x' * 1100}/ann", f"/rooms/1/{'x' * 1100}"])
def test_name_that_is_too_long_is_refused_at_the_upgrade(server: WorkerServer, path: str) -> None:
    async def main() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url(path, "ws"), proxy=None)
        assert refused.value.response.status_code == 403

    asyncio.run(main())
