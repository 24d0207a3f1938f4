"""Payloads that other code of the cluster publishes: the backends pass each on, and log nothing."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from broadcaster import Broadcast
from hypothesis import given
from hypothesis import strategies as st
from litestar.channels import ChannelsPlugin

import adsum
from adsum.integrations.broadcaster import AdsumBroadcastBackend
from adsum.integrations.litestar import AdsumChannelsBackend
from tests.support.effort import examples
from tests.support.json_values import json_values
from tests.support.nodes import running
from tests.support.waiting import DEADLINE

values = json_values(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
)
payloads = st.binary(max_size=50) | st.dictionaries(st.text(max_size=5), values)
batches = st.lists(payloads, max_size=20)
Check = Callable[[list[Any]], Coroutine[Any, Any, None]]


def bytes_of(payload: Any) -> bytes:
    """A payload as it arrives."""
    if isinstance(payload, bytes):
        return payload
    text = json.dumps(payload, ensure_ascii=False)
    return text.encode(errors="backslashreplace")


async def publish(node: adsum.Node, topic: str, batch: list[Any]) -> list[Any]:
    """Publish what can be published; returns it."""
    sent = list[Any]()
    for payload in batch:
        try:
            await adsum.PubSub(node).publish(topic, payload)
        except ValueError:  # an infinite number
            continue
        sent.append(payload)
    return sent


def with_each_batch(runner: asyncio.Runner, check: Check) -> None:
    """Run a check with many batches, each the next one in the same event loop."""

    @given(batches)
    @examples(100)
    def attack(batch: list[Any]) -> None:
        runner.run(check(batch))

    attack()


def test_each_foreign_payload_reaches_a_subscriber_of_litestar(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        nodes = runner.run(stack.enter_async_context(running(2, cluster=cluster_name)))
        plugin = ChannelsPlugin(AdsumChannelsBackend(nodes[1]), channels=["a"])
        channels = runner.run(stack.enter_async_context(plugin))
        events = runner.run(channels.subscribe("a")).iter_events()

        async def check(batch: list[Any]) -> None:
            async with asyncio.timeout(DEADLINE):
                for payload in await publish(nodes[0], "litestar:a", batch):
                    assert await anext(events) == bytes_of(payload)

        with_each_batch(runner, check)
        runner.run(stack.aclose())
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_each_foreign_payload_reaches_a_subscriber_of_broadcaster(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        nodes = runner.run(stack.enter_async_context(running(2, cluster=cluster_name)))
        made = Broadcast(backend=AdsumBroadcastBackend(nodes[1]))
        broadcast = runner.run(stack.enter_async_context(made))
        subscriber = runner.run(stack.enter_async_context(broadcast.subscribe("a")))

        async def check(batch: list[Any]) -> None:
            async with asyncio.timeout(DEADLINE):
                for payload in await publish(nodes[0], "broadcaster:a", batch):
                    event = await subscriber.get()
                    assert event.message == bytes_of(payload).decode(errors="replace")

        with_each_batch(runner, check)
        runner.run(stack.aclose())
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
