"""Watching a service, and waiting for its instances."""

import asyncio
import gc

import pytest

import adsum
from adsum.testing import MakeCluster
from tests.support.nodes import run
from tests.support.waiting import DEADLINE, until

from .crew import NAME, Crew


def next_of(watch: adsum.InstancesWatch) -> adsum.InstancesDiff | None:
    """The diff that is there to be read, in a test without an event loop."""
    return watch._take() if watch._has_more() else None


def addresses(instances: tuple[adsum.Instance, ...]) -> list[str]:
    return [instance.address for instance in instances]


def test_first_diff_comes_at_once_with_all_instances(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    empty = crew[0].watch(NAME)
    assert next_of(empty) == adsum.InstancesDiff()
    assert next_of(empty) is None
    crew.register_each()
    watch = crew[1].watch(NAME)
    for one in (empty, watch):
        diff = next_of(one)
        assert diff is not None
        assert addresses(diff.arrived) == ["n1:80", "n2:80"]
        assert (diff.departed, diff.changed) == ((), ())
        assert next_of(one) is None


def test_diffs_have_arrived_departed_and_changed_instances(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    _, second, _ = crew.register_each()
    watch = crew[0].watch(NAME)
    next_of(watch)
    second.update(meta={"load": 3})
    crew[0].register(NAME, "new:80")
    crew.cluster.kill(2)
    crew.cluster.settle()
    diff = next_of(watch)
    assert diff is not None
    assert (addresses(diff.arrived), addresses(diff.departed)) == (["new:80"], ["n3:80"])
    assert [(one.address, one.meta) for one in diff.changed] == [("n2:80", {"load": 3})]
    assert next_of(watch) is None


def test_changes_that_were_undone_are_in_no_diff(cluster: MakeCluster) -> None:
    crew = Crew(cluster(1))
    watch = crew[0].watch(NAME)
    next_of(watch)
    crew[0].register(NAME, "one:80").withdraw()
    assert next_of(watch) is None


def test_partition_and_heal_are_seen_by_a_watch(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew.register_each()
    watch = crew[0].watch(NAME)
    next_of(watch)
    crew.cluster.partition([0], [1])
    crew.cluster.settle()
    diff = next_of(watch)
    assert diff is not None
    assert addresses(diff.departed) == ["n2:80"]
    crew.cluster.heal()
    crew.cluster.settle()
    diff = next_of(watch)
    assert diff is not None
    assert addresses(diff.arrived) == ["n2:80"]


def test_watch_ends_with_its_node_and_unused_watches_are_forgotten() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        services = adsum.Services(node)
        await node.start()
        run_of_node = services._current()
        async for _ in services.watch(NAME):
            break
        gc.collect()
        await until(lambda: not run_of_node.feeds._watches)
        watch = services.watch(NAME)
        assert await anext(watch) == adsum.InstancesDiff()
        reading = asyncio.create_task(anext(watch, None))
        await asyncio.sleep(0)
        await node.stop()
        assert await reading is None
        assert "closed" in repr(watch)
        with pytest.raises(adsum.NodeNotRunningError):
            services.watch(NAME)

    run(main())


def test_wait_for_returns_once_there_are_enough() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        services = adsum.Services(node)
        async with node:
            waiting = asyncio.create_task(services.wait_for(NAME, 2, tag="eu", timeout=DEADLINE))
            services.register(NAME, "one:80", tags=["eu"])
            services.register(NAME, "two:80", tags=["us"])
            drained = services.register(NAME, "three:80", tags=["eu"], weight=0)
            await asyncio.sleep(0)
            assert not waiting.done()
            drained.update(weight=1)
            assert addresses(await waiting) == ["one:80", "three:80"]
            assert len(await services.wait_for(NAME, 3)) == 3

    run(main())


def test_wait_for_names_both_numbers_when_time_is_up() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        services = adsum.Services(node)
        async with node:
            services.register(NAME, "one:80", tags=["eu"])
            text = "1 of 2 instances of 'users' with the tag 'eu' after 0.01 s"
            with pytest.raises(TimeoutError, match=text):
                await services.wait_for(NAME, 2, tag="eu", timeout=0.01)
            with pytest.raises(TimeoutError, match="0 of 1 instances of 'mail' after 0 s"):
                await services.wait_for("mail", timeout=0)
            assert services._current().feeds._watches == {}

    run(main())


def test_wait_for_raises_when_the_node_stops() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        services = adsum.Services(node)
        await node.start()
        waiting = asyncio.create_task(services.wait_for(NAME, timeout=float("inf")))
        await asyncio.sleep(0)
        await node.stop()
        with pytest.raises(adsum.NodeNotRunningError, match="stopped while waiting"):
            await waiting

    run(main())
