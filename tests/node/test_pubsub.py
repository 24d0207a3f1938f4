"""Messages reach whom they are for, in order, and slow readers cost bounded memory."""

import asyncio
from typing import Any

import pytest

import adsum
from tests.support.nodes import run, running


def texts(subscription: adsum.Subscription) -> list[Any]:
    return [message.payload["n"] for message, _ in subscription._messages]


async def everywhere(
    nodes: list[adsum.Node],
) -> tuple[list[adsum.PubSub], list[adsum.Subscription]]:
    pubsubs = [adsum.PubSub(node) for node in nodes]
    return pubsubs, [pubsub.subscribe("room") for pubsub in pubsubs]


def test_message_reaches_every_subscriber_in_order(cluster_name: str) -> None:
    async def main() -> None:
        async with running(3, cluster=cluster_name) as nodes:
            pubsubs, subscriptions = await everywhere(nodes)
            for number in range(100):
                assert await pubsubs[0].publish("room", {"n": number}, event="count") == 0
            for subscription in subscriptions:
                for number in range(100):
                    message = await anext(subscription)
                    assert (message.payload, message.event) == ({"n": number}, "count")
                    assert message.sender == nodes[0].name

    run(main())


def test_message_reaches_subscribers_of_every_pubsub_of_the_node() -> None:
    async def main() -> None:
        async with running(1, siblings=False) as [node]:
            one, two = adsum.PubSub(node), adsum.PubSub(node)
            subscriptions = [one.subscribe("room"), two.subscribe("room"), two.subscribe("room")]
            await one.publish("room", {"n": 1}, exclude=subscriptions[1])
            await two.publish("room", {"n": 2}, local=True)
            assert [texts(subscription) for subscription in subscriptions] == [[1, 2], [2], [1, 2]]

    run(main())


def test_publish_local_to_one_node_and_excluding_a_subscriber(cluster_name: str) -> None:
    async def main() -> None:
        async with running(3, cluster=cluster_name) as nodes:
            pubsubs, subscriptions = await everywhere(nodes)
            extra = pubsubs[0].subscribe("room")
            await pubsubs[0].publish("room", {"n": "local"}, local=True)
            await pubsubs[0].publish("room", {"n": "to"}, to=nodes[1].name)
            await pubsubs[0].publish("room", {"n": "self"}, to=nodes[0].name)
            await pubsubs[0].publish("room", {"n": "others"}, exclude=subscriptions[0])
            await pubsubs[0].publish("room", {"n": "end"})

            async def received(subscription: adsum.Subscription) -> list[str]:
                got: list[str] = []
                while "end" not in got:
                    got.append((await anext(subscription)).payload["n"])
                return got

            assert await received(subscriptions[0]) == ["local", "self", "end"]
            assert await received(extra) == ["local", "self", "others", "end"]
            assert await received(subscriptions[1]) == ["to", "others", "end"]
            assert await received(subscriptions[2]) == ["others", "end"]

    run(main())


def test_publish_counts_members_without_a_link_as_missed(cluster_name: str) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as [node]:
            assert await adsum.PubSub(node).publish("room", {}, to="nobody") == 1
            assert node.stats()["missed_messages_total"] == 1

    run(main())


def test_slow_consumer_loses_the_oldest_messages_and_gets_their_count() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            subscription = pubsub.subscribe("room", limit=10)
            for number in range(25):
                await pubsub.publish("room", {"n": number})
            assert subscription.dropped == 15
            assert texts(subscription) == list(range(15, 25))

    run(main())


def test_subscriber_cannot_alter_a_payload_for_another() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            one = pubsub.subscribe("room")
            payload = {"list": [1]}
            await pubsub.publish("room", payload)
            payload["list"].append(2)
            received = (await anext(one)).payload
            assert received == {"list": [1]}
            with pytest.raises(TypeError):
                received["list"].append(3)

    run(main())


def test_closing_the_subscription_or_the_node_ends_the_iteration() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        pubsub = adsum.PubSub(node)
        await node.start()
        one, two = pubsub.subscribe("room"), pubsub.subscribe("room")
        waiting = asyncio.create_task(two.__anext__())
        await asyncio.sleep(0)
        with one:
            await pubsub.publish("room", {"n": 1})
        assert [message async for message in one] == []
        assert (await waiting).payload == {"n": 1}
        last = asyncio.create_task(two.__anext__())
        await asyncio.sleep(0)
        await node.stop()
        with pytest.raises(StopAsyncIteration):
            await last
        assert pubsub._topics is None

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", {}), ValueError),
        (("room", []), TypeError),
        (("room", {"a": {1}}), TypeError),
        (("room", {"a": "x" * 300_000}), ValueError),
    ],
)
def test_invalid_publish_is_refused(arguments: Any, error: type[Exception]) -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            with pytest.raises(error):
                await adsum.PubSub(node).publish(*arguments)

    run(main())
