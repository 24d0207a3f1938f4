"""The recipes of docs/recipes.md, in clusters of nodes that each run the code of the page."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from adsum.testing import Browser, Cluster, MakeCluster
from tests.support.markdown_pages import ROOT, blocks
from tests.support.waiting import until

PAGE = ROOT / "docs/recipes.md"


def program(**settings: Any) -> SimpleNamespace:
    """The program of the page, in a process of its own as far as it can tell."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(PAGE):
        text = block.text.replace("adsum.Node()", f"adsum.Node(**{settings!r})")
        exec(compile(text, str(PAGE), "exec"), namespace)
    return SimpleNamespace(**namespace)


async def started(workers: Cluster, count: int, **settings: Any) -> list[SimpleNamespace]:
    """So many nodes with the program, each with its task."""
    programs = [program(**settings) for _ in range(count)]
    for one in programs:
        workers.adopt(one.node)
        await one.node.start()
        one.task = asyncio.create_task(one.write_for_the_dead())
    await settled(workers)
    return programs


async def settled(workers: Cluster) -> None:
    """Let time pass in the cluster, and then the tasks read what they have received."""
    workers.settle()
    for _ in range(10):
        await asyncio.sleep(0)


async def ended(programs: list[SimpleNamespace]) -> None:
    for one in programs:
        await one.node.stop()
        await one.task


def test_one_member_acts_and_each_side_of_a_partition_has_one(cluster: MakeCluster) -> None:
    async def main() -> None:
        workers = cluster(0)
        programs = await started(workers, 3)
        acting = [one.is_acting() for one in programs]
        assert acting == [True, False, False]
        workers.partition([0], [1, 2])
        await settled(workers)
        assert [one.is_acting() for one in programs] == [True, True, False]
        workers.heal()
        await settled(workers)
        workers.kill(0)
        await settled(workers)
        assert [one.is_acting() for one in programs[1:]] == [True, False]
        await ended(programs[1:])

    asyncio.run(main())


def test_last_seen_is_written_for_users_of_a_node_that_died(cluster: MakeCluster) -> None:
    async def main() -> None:
        workers = cluster(0)
        programs = await started(workers, 3)
        dying, *others = programs
        async with Browser(dying.socket, {"user": "ann"}) as ann:
            await ann.join("room:1")
            await settled(workers)
            dying.LAST_SEEN.clear()
            workers.kill(0)
            await settled(workers)
            await until(lambda: any(one.LAST_SEEN for one in others), "ann is written")
        assert [list(one.LAST_SEEN) for one in others] == [["ann"], []]
        await ended(others)

    asyncio.run(main())


@pytest.mark.parametrize("linger", [0.0, 30.0])
def test_last_seen_is_written_when_all_nodes_stop(cluster: MakeCluster, linger: float) -> None:
    async def main() -> None:
        workers = cluster(0)
        programs = await started(workers, 2, linger=linger)
        async with Browser(programs[0].socket, {"user": "ann"}) as ann:
            await ann.join("room:1")
            await settled(workers)
            for one in programs:
                one.LAST_SEEN.clear()
            await ended(programs)
            await until(lambda: "ann" in programs[0].LAST_SEEN, "ann is written")

    asyncio.run(main())


def test_last_seen_is_not_written_while_another_connection_is_open(cluster: MakeCluster) -> None:
    async def main() -> None:
        workers = cluster(0)
        programs = await started(workers, 2)
        async with Browser(programs[1].socket, {"user": "ann"}) as tablet:
            await tablet.join("room:1")
            async with Browser(programs[1].socket, {"user": "ann"}) as phone:
                await phone.join("room:1")
                await settled(workers)
            await settled(workers)
            left = programs[0].presence.get("online", "ann")
            assert len(left) == 1
            assert programs[0].LAST_SEEN == {}
        await ended(programs)

    asyncio.run(main())
