"""Payloads that other code of the cluster publishes: the backends pass each on, and log nothing."""

import asyncio
import json
import logging
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
from tests.support.nodes import running
from tests.support.waiting import DEADLINE

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
payloads = st.binary(max_size=50) | st.dictionaries(st.text(max_size=5), values)
batches = st.lists(payloads, max_size=20)


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

        @given(batches)
        @examples(100)
        def attack(batch: list[Any]) -> None:
            runner.run(check(batch))

        attack()
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

        @given(batches)
        @examples(100)
        def attack(batch: list[Any]) -> None:
            runner.run(check(batch))

        attack()
        runner.run(stack.aclose())
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
