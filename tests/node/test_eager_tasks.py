"""Tasks that a task factory begins at once: nothing that adsum starts depends on a later turn."""

import asyncio
import gc
from typing import Any

import pytest

import adsum
from adsum import tasks
from tests.support.eager_tasks import fetch_names, needs_eager, run_eagerly
from tests.support.waiting import until


@needs_eager
def test_watch_with_fetch_on_an_empty_topic_receives_later_changes() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node, fetch=fetch_names)
        async with node:
            watch = presence.watch("room")
            assert await anext(watch) == adsum.Diff()
            for key in ("ann", "bob"):
                presence.track("room", key)
                assert (await anext(watch)).joins[key]["user"] == key.title()

    run_eagerly(main())


@needs_eager
def test_nodes_replicate_and_stop() -> None:
    async def main() -> None:
        tcp: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0", "cluster": "eager"}
        async with (
            adsum.Node(**tcp) as one,
            adsum.Node(**tcp, peers=one.address) as two,
            adsum.Node(**tcp, peers="127.0.0.1:1"),  # a dial that fails at once
        ):
            adsum.Presence(one).track("room", "ann", owner=None)
            presence = adsum.Presence(two)
            await until(lambda: presence.count("room") == 1)

    run_eagerly(main())


@needs_eager
def test_start_task_begins_in_a_later_turn() -> None:
    async def main() -> None:
        began = asyncio.Event()

        async def work() -> int:
            began.set()
            return 5

        task = tasks.start_task(work())
        assert not began.is_set()
        assert await task == 5

    run_eagerly(main())


@needs_eager
@pytest.mark.filterwarnings("error")
def test_task_that_is_cancelled_before_it_begins_never_runs() -> None:
    async def main() -> None:
        async def work() -> None:
            raise AssertionError("it ran")

        task = tasks.start_task(work())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run_eagerly(main())


def test_cancelled_task_of_another_task_factory_leaves_no_coroutine_behind(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, work, **more: asyncio.Task(work, loop=loop, **more))

        async def work() -> None:
            raise AssertionError("it ran")

        task = tasks.start_task(work())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    gc.collect()
    assert not recwarn.list
