"""Processes that are stopped by SIGTERM: the command `runworker`, and commands of applications."""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from adsum.integrations.django import ChannelLayer
from adsum.integrations.django.management.commands.runworker import StoppableWorker
from tests.support.environment import clean_environment
from tests.support.layer_members import UNNOTICED, members
from tests.support.markdown_pages import ROOT
from tests.support.waiting import DEADLINE, until

from .layers import two_layers

#: Messages that wait for a consumer.
QUEUED = 5
#: A capacity of the channel that is below.
CAPACITY = 2


@asynccontextmanager
async def stopped_worker(layer: ChannelLayer, handled: list[int]) -> AsyncIterator[None]:
    """A worker that stops with `QUEUED` messages, and ends before the block does."""

    async def busy_consumer(scope: Any, receive: Any, send: Any) -> None:
        handled.append((await receive())["number"])
        await asyncio.sleep(DEADLINE)

    def is_queued(count: int) -> bool:
        instances = worker.application_instances
        return bool(instances) and instances["work"]["input_queue"].qsize() == count

    worker = StoppableWorker(busy_consumer, ["work"], layer)
    working = asyncio.create_task(worker.arun())
    await until(lambda: layer.local.is_receiving("work"))
    for number in range(1 + QUEUED):
        await layer.send("work", {"type": "one", "number": number})
        await until(partial(is_queued, number))
    worker.stop()
    yield
    await asyncio.wait_for(working, DEADLINE)


@pytest.mark.parametrize("capacity", [QUEUED, CAPACITY])
def test_stopped_worker_sends_queued_messages_again_or_logs_them(
    cluster_name: str, caplog: pytest.LogCaptureFixture, capacity: int
) -> None:
    handled = list[int]()

    async def main() -> None:
        async with stopped_worker(layer, handled):
            pass
        assert handled == [0]
        left = range(1, 1 + capacity)
        assert [(await layer.receive("work"))["number"] for _ in left] == list(left)

    layer = ChannelLayer(cluster=cluster_name, capacity=capacity)
    with layer.portal:
        asyncio.run(main())
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    lost = QUEUED - capacity
    assert warnings == ([f"channel work is full, {lost} messages are lost"] if lost else [])


def test_stopped_worker_waits_while_the_other_receiver_is_full(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def is_full() -> bool:
        receivers = layer.portal.list("django.channels:receivers:work").values()
        return any(meta["full"] for entry in receivers for meta in entry["metas"])

    async def main() -> None:
        for each in (layer, other):
            await each.new_channel()
        other.local.begin_receiving("work")
        for _ in range(QUEUED):
            other.local.put("work", other.serialize({"number": 0}))
        await until(is_full)
        async with stopped_worker(layer, []):
            await asyncio.sleep(0.1)  # longer than it takes to send a message
            found = [(await other.receive("work"))["number"] for _ in range(2 * QUEUED)]
        assert found == [0] * QUEUED + list(range(1, 1 + QUEUED))

    # All that are sent again fit beside those that are unread when the channel is ready again, as
    # they may all come before the sender knows that it is full.
    with two_layers(cluster_name, capacity=QUEUED) as (layer, other):
        asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert "messages are lost" not in caplog.text


@contextmanager
def site(cluster: str, *command: str, seconds: float = 0.0) -> Iterator[Any]:
    """A process of `worker_site.py`, which is killed at the end of the block if it still runs."""
    settings = {"ADSUM_CLUSTER": cluster, "SECONDS": str(seconds)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integrations.djangolayer.worker_site", *command],
        env={**clean_environment(), **settings},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.processes
def test_message_that_a_synchronous_consumer_handles_is_finished(cluster_name: str) -> None:
    async def main() -> None:
        await layer.send("work", {"type": "work"})
        assert process.stdout.readline() == "begins\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "has finished\n"
        assert process.wait(DEADLINE) == 0

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal, site(cluster_name, "runworker", "work", seconds=1.0) as process:
        asyncio.run(main())


@pytest.mark.processes
def test_second_sigterm_ends_a_worker_at_once(cluster_name: str) -> None:
    async def main() -> None:
        await layer.send("work", {"type": "work"})
        assert process.stdout.readline() == "begins\n"
        process.send_signal(signal.SIGTERM)
        await until(lambda: layer.portal.count("django.channels:receivers:work") == 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == -signal.SIGTERM

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal, site(cluster_name, "runworker", "work", seconds=600.0) as process:
        asyncio.run(main())


@pytest.mark.processes
def test_command_with_a_handler_of_its_own_says_goodbye(cluster_name: str) -> None:
    async def main() -> None:
        await layer.new_channel()
        await until(lambda: members(layer) == 2)
        process.send_signal(signal.SIGTERM)
        await until(lambda: members(layer) == 1)
        assert process.wait(DEADLINE) == 0

    layer = ChannelLayer(cluster=cluster_name, **UNNOTICED)
    with layer.portal, site(cluster_name, "wait") as process:
        asyncio.run(main())
