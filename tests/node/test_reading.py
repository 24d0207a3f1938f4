"""Readers of a topic: closed ones are forgotten, collected ones too, and awaited ones are kept."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import adsum
from tests.support.nodes import run
from tests.support.waiting import until

Open = Callable[[adsum.Presence, adsum.PubSub, str], AsyncIterator[Any]]


def watch(presence: adsum.Presence, pubsub: adsum.PubSub, topic: str) -> adsum.Watch:
    return presence.watch(topic)


def subscribe(presence: adsum.Presence, pubsub: adsum.PubSub, topic: str) -> adsum.Subscription:
    return pubsub.subscribe(topic)


@pytest.fixture(params=[watch, subscribe])
def opened(request: pytest.FixtureRequest) -> Open:
    function: Open = request.param
    return function


def topics(presence: adsum.Presence, pubsub: adsum.PubSub) -> list[str]:
    """The topics that a node keeps for their readers."""
    return [
        *presence._feeds._by_topic,
        *(pubsub._topics._readers if pubsub._topics is not None else ()),
    ]


def test_closed_reader_leaks_nothing(opened: Open) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, pubsub = adsum.Presence(node), adsum.PubSub(node)
        async with node:
            for number in range(100):
                reader: Any = opened(presence, pubsub, f"reply:{number}")
                other: Any = opened(presence, pubsub, f"reply:{number}")
                with reader, other:
                    assert topics(presence, pubsub) == [f"reply:{number}"]
            assert topics(presence, pubsub) == []

    run(main())


def test_collected_reader_leaks_nothing(opened: Open) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, pubsub = adsum.Presence(node), adsum.PubSub(node)
        async with node:
            for number in range(100):
                opened(presence, pubsub, f"reply:{number}")
            gc.collect()
            await until(lambda: topics(presence, pubsub) == [])

    run(main())


def test_reader_that_a_task_awaits_survives_a_collection(opened: Open) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, pubsub = adsum.Presence(node), adsum.PubSub(node)
        read: list[Any] = []

        async def read_on() -> None:
            async for item in opened(presence, pubsub, "room"):
                read.append(item)

        async with node:
            asyncio.create_task(read_on())  # noqa: RUF006  # without a reference, as users do
            await asyncio.sleep(0)
            gc.collect()
            before = len(read)
            presence.track("room", "ann")
            await pubsub.publish("room", {"n": 1})
            await until(lambda: len(read) > before, "the reader was collected")
        assert topics(presence, pubsub) == []

    run(main())
