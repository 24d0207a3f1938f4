"""The backend for broadcaster, against the contract of its `Broadcast`."""

import asyncio
from typing import Any

import pytest
from broadcaster import Broadcast, Event

import adsum
from adsum.integrations.broadcaster import PREFIX, AdsumBroadcastBackend
from adsum.integrations.namedchannels import MAX_UNREAD
from adsum.values.limits import MAX_DATA, MAX_NAME
from tests.support.nodes import run, running
from tests.support.waiting import DEADLINE

#: The longest name of a channel.
LONGEST = MAX_NAME - len(PREFIX)


def broadcast_on(node: adsum.Node | None = None) -> Broadcast:
    return Broadcast(backend=AdsumBroadcastBackend(node or adsum.Node(siblings=False)))


def test_message_is_received_by_each_subscriber_on_both_nodes(cluster_name: str) -> None:
    async def work() -> None:
        async with (
            running(2, cluster=cluster_name) as nodes,
            broadcast_on(nodes[0]) as first,
            broadcast_on(nodes[1]) as second,
            first.subscribe("a") as one,
            second.subscribe("a") as two,
            second.subscribe("a") as three,
        ):
            await first.publish("a", "müßig")
            await first.publish("other", "not subscribed to")
            await second.publish("a", b"m\xc3\xbcde")
            for subscriber in (one, two, three):
                received = [await subscriber.get(), await subscriber.get()]
                assert all(event.channel == "a" for event in received)
                texts = sorted(event.message for event in received)
                assert texts == ["müde", "müßig"]

    run(work())


def test_burst_of_a_thousand_messages_loses_none_and_keeps_its_order(cluster_name: str) -> None:
    async def work() -> None:
        async with (
            running(2, cluster=cluster_name) as nodes,
            broadcast_on(nodes[0]) as sender,
            broadcast_on(nodes[1]) as receiver,
            receiver.subscribe("a") as subscriber,
        ):
            sent = [str(number) for number in range(1000)]
            await asyncio.gather(*[sender.publish("a", text) for text in sent])
            await sender.publish("a", "x" * MAX_DATA)
            for text in [*sent, "x" * MAX_DATA]:
                assert await subscriber.get() == Event("a", text)

    run(work())


def test_oldest_messages_beyond_the_limit_are_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        backend = AdsumBroadcastBackend(adsum.Node(siblings=False))
        await backend.connect()
        await backend.subscribe("a")
        for number in range(MAX_UNREAD + 5):
            await backend.publish("a", str(number))
        assert await backend.next_published() == Event("a", "5")
        await backend.disconnect()

    run(work())
    assert "5 messages were dropped unread so far" in caplog.text


def test_channel_without_a_subscriber_is_received_no_more_and_again_after_the_next_one() -> None:
    async def work() -> None:
        async with broadcast_on() as broadcast:
            for text in ("1", "2"):
                async with broadcast.subscribe("a") as subscriber:
                    await broadcast.publish("a", text)
                    assert await subscriber.get() == Event("a", text)
                await broadcast.publish("a", "nobody")

    run(work())


def test_connect_starts_the_node_and_disconnect_stops_it_again_and_again() -> None:
    async def work() -> None:
        node = adsum.Node(siblings=False)
        broadcast = broadcast_on(node)
        for _ in range(2):
            async with broadcast, broadcast.subscribe("a") as subscriber:
                await broadcast.publish("a", "x")
                assert await subscriber.get() == Event("a", "x")
            assert not node.running

    run(work())


def test_concurrent_connects_start_the_node_once_and_disconnect_stops_it() -> None:
    async def work() -> None:
        node = adsum.Node(siblings=False)
        backend = AdsumBroadcastBackend(node)
        await asyncio.gather(*[backend.connect() for _ in range(3)])
        await backend.disconnect()
        assert not node.running

    run(work())


def test_connect_in_a_new_event_loop_receives_although_the_former_one_was_closed() -> None:
    async def work() -> None:
        await broadcast.connect()
        async with broadcast.subscribe("a") as subscriber:
            await broadcast.publish("a", "x")
            assert await asyncio.wait_for(subscriber.get(), DEADLINE) == Event("a", "x")

    async def last() -> None:
        await work()
        await broadcast.disconnect()
        assert not node.running

    node = adsum.Node(siblings=False)
    broadcast = broadcast_on(node)
    run(work())
    run(last())


def test_node_that_runs_before_connect_runs_after_disconnect() -> None:
    async def work() -> None:
        async with adsum.Node(siblings=False) as node:
            async with broadcast_on(node):
                pass
            assert node.running

    run(work())


def test_stopped_node_is_an_error_of_publish_and_of_disconnect() -> None:
    async def work() -> None:
        node = adsum.Node(siblings=False)
        broadcast = broadcast_on(node)
        await broadcast.connect()
        await node.stop()
        with pytest.raises(adsum.NodeNotRunningError):
            await broadcast.publish("a", "x")
        with pytest.raises(adsum.NodeNotRunningError, match="the node has stopped"):
            await broadcast.disconnect()

    run(work())


@pytest.mark.parametrize(
    ("channel", "message", "error", "text"),
    [
        ("x" * (LONGEST + 1), "", ValueError, f"channel must have 1 to {LONGEST} characters"),
        (1, "", TypeError, "channel must be a str, not int 1"),
        ("a", {"a": 1}, TypeError, r"message must be a str or bytes of UTF-8, not dict"),
        ("a", b"\xff", ValueError, r"message b'\\xff': must be Unicode text, as UTF-8"),
        ("a", "\ud800", ValueError, r"message '\\ud800': must be Unicode text, as UTF-8"),
        ("a", "x" * (MAX_DATA + 1), ValueError, f"must have at most {MAX_DATA}"),
    ],
)
def test_wrong_argument_of_publish_is_refused(
    channel: Any, message: Any, error: type[Exception], text: str
) -> None:
    async def work() -> None:
        async with broadcast_on() as broadcast:
            with pytest.raises(error, match=text):
                await broadcast.publish(channel, message)

    run(work())


def test_message_of_other_code_arrives_as_text_and_other_topics_do_not() -> None:
    async def work() -> None:
        async with adsum.Node(siblings=False) as node, broadcast_on(node) as broadcast:
            pubsub = adsum.PubSub(node)
            async with broadcast.subscribe("news") as subscriber:
                await pubsub.publish("news", b"another topic")
                await pubsub.publish("broadcaster:news", {"n": 1})
                await pubsub.publish("broadcaster:news", b"\xff")
                received = [await subscriber.get(), await subscriber.get()]
                assert received == [Event("news", '{"n": 1}'), Event("news", "\ufffd")]

    run(work())


def test_use_before_connect_is_a_runtime_error_that_names_the_call() -> None:
    backend = AdsumBroadcastBackend(adsum.Node(siblings=False))
    for use in (
        lambda: backend.publish("a", "x"),
        backend.next_published,
    ):
        with pytest.raises(RuntimeError, match=r"call `Broadcast.connect` first"):
            run(use())


def test_argument_that_is_no_node_is_refused() -> None:
    with pytest.raises(adsum.ConfigurationError, match=r"node='redis://': must be an adsum.Node"):
        AdsumBroadcastBackend("redis://")  # type: ignore[arg-type]
