"""Messages reach whom they are for, in order, and slow readers cost bounded memory."""

import asyncio
import gc
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

import adsum
from adsum.singlereader import ReaderSet
from adsum.testing import MakeCluster
from tests.support.nodes import run, running
from tests.support.waiting import until


def texts(subscription: adsum.Subscription) -> list[Any]:
    return [message.payload["n"] for message, _ in subscription._messages]


def all_left(topics: Any) -> bool:
    """Whether no subscription is left, nor a topic."""
    return not topics._readers and not topics.all


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


@pytest.mark.parametrize("size", [0, 1, 200_000, 8 * 1024 * 1024])
def test_bytes_reach_every_subscriber_as_they_are(cluster_name: str, size: int) -> None:
    data = os.urandom(size)

    async def main() -> None:
        async with running(3, cluster=cluster_name) as nodes:
            pubsubs, inboxes = await everywhere(nodes)
            assert await pubsubs[0].publish("room", data, event="photo") == 0
            for inbox in inboxes:
                message = await anext(inbox)
                assert type(message.payload) is bytes
                assert message == adsum.Message("room", "photo", data, nodes[0].name)

    run(main())


def test_local_subscribers_share_the_published_bytes() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            one, two = pubsub.subscribe("room"), pubsub.subscribe("room")
            data = bytes(1000)
            await pubsub.publish("room", data)
            assert (await anext(one)).payload is data
            assert (await anext(two)).payload is data

    run(main())


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))[::2]])
def test_mutable_bytes_are_copied_at_once(kind: Callable[[bytes], Any]) -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            inbox, data = pubsub.subscribe("room"), kind(b"abcdef")
            before = bytes(data)
            await pubsub.publish("room", data)
            data[0] = 0
            payload = (await anext(inbox)).payload
            assert (type(payload), payload) == (bytes, before)

    run(main())


def test_objects_and_bytes_arrive_in_the_order_of_publication(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as nodes:
            pubsubs, (_, inbox) = await everywhere(nodes)
            payloads: list[Any] = [{"n": 1}, os.urandom(300_000), {"n": 2}, b"", os.urandom(70_000)]
            await asyncio.gather(*(pubsubs[0].publish("room", one) for one in payloads))
            assert [(await anext(inbox)).payload for _ in payloads] == payloads

    run(main())


def test_slow_consumer_holds_bounded_bytes_and_the_newest_message() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            subscription = pubsub.subscribe("room", limit_bytes=1000)
            for number in range(10):
                await pubsub.publish("room", bytes([number]) * 300)
            assert subscription.dropped == 7
            await pubsub.publish("room", {"text": "x" * 385})  # 396 characters
            assert subscription.dropped == 8
            payloads = [(await anext(subscription)).payload for _ in range(3)]
            assert payloads == [b"\x08" * 300, b"\x09" * 300, {"text": "x" * 385}]
            for size in (900, 100, 5000):
                await pubsub.publish("room", bytes(size))
            assert subscription.dropped == 10
            assert len((await anext(subscription)).payload) == 5000
            await pubsub.publish("room", bytes(1000))
            await pubsub.publish("room", bytes(1))
            assert subscription.dropped == 11
            assert len((await anext(subscription)).payload) == 1

    run(main())


def test_default_limit_of_bytes_holds_two_of_the_largest_messages() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub, largest = adsum.PubSub(node), bytes(8 * 1024 * 1024)
            subscription = pubsub.subscribe("room")
            for _ in range(3):
                await pubsub.publish("room", largest)
            assert subscription.dropped == 1

    run(main())


# Several topics.


def test_one_subscription_reads_several_topics_in_order() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            subscription = pubsub.subscribe("b")
            for topic in ("a", "c", "a"):
                subscription.add(topic)
            assert subscription.topics == ("a", "b", "c")
            for topic in ("c", "a", "x", "b"):
                await pubsub.publish(topic, {})
            assert [(await anext(subscription)).topic for _ in range(3)] == ["c", "a", "b"]

    run(main())


def test_removed_topic_is_read_up_to_its_removal() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            subscription = pubsub.subscribe("a")
            subscription.add("b")
            await pubsub.publish("a", {"n": 1})
            for _ in range(2):
                subscription.remove("a")
            await pubsub.publish("a", {"n": 2})
            await pubsub.publish("b", {"n": 3})
            assert texts(subscription) == [1, 3]
            assert subscription.topics == ("b",)

    run(main())


def test_subscription_without_a_topic_stays_open_until_the_node_stops() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        pubsub = adsum.PubSub(node)
        async with node:
            subscription = pubsub.subscribe("a")
            subscription.remove("a")
            reading = asyncio.create_task(subscription.__anext__())
            await asyncio.sleep(0)
            assert not subscription.closed
            subscription.add("b")
            await pubsub.publish("b", {"n": 1})
            assert (await reading).payload == {"n": 1}
            subscription.remove("b")
        assert subscription.closed

    run(main())


def test_topic_added_while_a_task_reads_wakes_it() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            subscription = pubsub.subscribe("a")
            reading = asyncio.create_task(subscription.__anext__())
            await asyncio.sleep(0)
            subscription.add("b")
            await pubsub.publish("b", {})
            assert (await reading).topic == "b"

    run(main())


def test_closed_subscription_leaves_every_topic() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            subscription = pubsub.subscribe("a")
            subscription.add("b")
            subscription.close()
            assert all_left(pubsub._topics)

    run(main())


def test_collected_subscription_leaves_every_topic() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            pubsub.subscribe("a").add("b")
            gc.collect()
            await until(partial(all_left, pubsub._topics))

    run(main())


def test_awaited_subscription_without_a_topic_survives_a_collection() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        pubsub, ended = adsum.PubSub(node), asyncio.Event()

        async def read_on() -> None:
            subscription = pubsub.subscribe("a")
            subscription.remove("a")
            async for _ in subscription:
                raise AssertionError
            ended.set()

        async with node:
            asyncio.create_task(read_on())  # noqa: RUF006  # without a reference, as users do
            await asyncio.sleep(0)
            gc.collect()
        await asyncio.wait_for(ended.wait(), 30)

    run(main())


def test_topic_is_not_added_to_a_closed_subscription() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            subscription = adsum.PubSub(node).subscribe("a")
            for wrong in ("", "x" * 1025, "\0reserved"):
                with pytest.raises(ValueError, match="topic"):
                    subscription.add(wrong)
            subscription.close()
            with pytest.raises(adsum.NodeNotRunningError, match="closed"):
                subscription.add("b")
            subscription.remove("a")

    run(main())


def test_excluded_subscription_of_several_topics_gets_the_message_of_none() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            pubsub = adsum.PubSub(node)
            own, other = pubsub.subscribe("a"), pubsub.subscribe("a")
            own.add("b")
            await pubsub.publish("a", {"n": 1}, exclude=own)
            await pubsub.publish("a", {"n": 2})
            assert texts(own) == [2]
            assert texts(other) == [1, 2]

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
        (("room", bytes(8 * 1024 * 1024 + 1)), ValueError),
        (("room", memoryview(bytes(2 * 1024 * 1024 + 1)).cast("B")), None),
        (("room", memoryview(bytes(16 * 1024 * 1024)).cast("Q")), ValueError),
        (("room", "text"), TypeError),
    ],
)
def test_invalid_publish_is_refused(arguments: Any, error: type[Exception] | None) -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            with pytest.raises(error) if error is not None else nullcontext():
                await adsum.PubSub(node).publish(*arguments)

    run(main())


def test_error_for_a_large_object_names_bytes_as_the_remedy() -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            with pytest.raises(ValueError, match=r"at most 196608, .* publish bytes, .* 8388608$"):
                await adsum.PubSub(node).publish("room", {"a": "x" * 300_000})

    run(main())


@pytest.mark.parametrize("limit", [{"limit": 0}, {"limit_bytes": 0}, {"limit_bytes": 1.5}])
def test_invalid_limit_of_a_subscription_is_refused(limit: dict[str, Any]) -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            with pytest.raises(adsum.ConfigurationError, match=next(iter(limit))):
                adsum.PubSub(node).subscribe("room", **limit)

    run(main())


def test_subscription_stays_although_the_last_other_one_is_collected_while_it_joins(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an event loop a topic is forgotten in the midst of any other call."""
    pubsub = cluster(1)[0].pubsub
    earlier = [pubsub.subscribe("room")]
    add = ReaderSet.add

    def collect_and_add(readers: ReaderSet[Any], reader: Any) -> None:
        earlier.clear()
        add(readers, reader)

    later = pubsub.subscribe("other")
    monkeypatch.setattr(ReaderSet, "add", collect_and_add)
    later.add("room")
    asyncio.run(pubsub.publish("room", {}))
    assert later._has_more()
