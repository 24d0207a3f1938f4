"""Channels of the layer for Django Channels: delivery, capacity, ends, event loops, settings."""

import asyncio
import functools
import gc
import logging
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull, MessageTooLarge

import adsum
from adsum.errors import NodeNotRunningError
from adsum.integrations.django import ChannelLayer
from adsum.integrations.django.layernode import _address
from tests.support.layer_members import members
from tests.support.waiting import DEADLINE, assert_within, until

from .layers import two_layers

#: Messages of a burst that the default capacity accepts.
BURST = 1_000
#: A value that MessagePack does not encode.
DEEP: Any = functools.reduce(lambda inner, _: [inner], range(2000), list[Any]())
#: Seconds of a short expiry, and of one that is long beside a tenth of it.
SHORT, EXPIRY = 0.2, 2.5


async def soon(layer: ChannelLayer, channel: str) -> Any:
    return await asyncio.wait_for(layer.receive(channel), DEADLINE)


async def is_empty(layer: ChannelLayer, channel: str) -> bool:
    """Whether no message follows those that a layer has sent to itself before."""
    await layer.send(channel, {"type": "last"})
    return bool((await soon(layer, channel))["type"] == "last")


def test_message_with_a_megabyte_of_bytes_arrives_in_another_process(cluster_name: str) -> None:
    async def main() -> None:
        message = {"type": "file", "data": bytes(range(256)) * 4096, "parts": [1, None, {"a": 0.5}]}
        channel = await second.new_channel()
        await first.send(channel, message)
        assert await soon(second, channel) == message

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_message_of_more_than_8_mebibytes_is_refused(cluster_name: str) -> None:
    layer = ChannelLayer(cluster=cluster_name)
    with pytest.raises(MessageTooLarge, match="must have at most 8388608"):
        asyncio.run(layer.send("work", {"data": bytes(8 * 1024 * 1024)}))


@pytest.mark.parametrize(
    "value", [2**64, "\ud800", {1}, DEEP], ids=["number", "surrogate", "set", "deep"]
)
def test_message_that_cannot_be_encoded_is_a_type_error(value: Any, cluster_name: str) -> None:
    layer = ChannelLayer(cluster=cluster_name)
    for call in (layer.send, layer.group_send):
        with pytest.raises(TypeError, match=r"serialize|cannot be encoded"):
            asyncio.run(call("news", {"value": value}))


def test_message_with_a_tuple_as_a_key_is_dropped_by_receive_with_a_warning(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        await layer.send(channel, {"positions": {(1, 2): "rook"}})
        await layer.send(channel, {"positions": {1: "rook", b"a": None}})
        assert await soon(layer, channel) == {"positions": {1: "rook", b"a": None}}

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal:
        asyncio.run(main())
    dropped = [one for one in caplog.records if "could not be decoded" in one.getMessage()]
    assert [one.levelname for one in dropped] == ["WARNING"]


@pytest.mark.parametrize("prefix", [None, 5, "a b", "a!", "x" * 100])
def test_wrong_prefix_of_a_new_channel_is_a_type_error(prefix: Any, cluster_name: str) -> None:
    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal, pytest.raises(TypeError):
        asyncio.run(layer.new_channel(prefix))


def test_burst_of_a_thousand_messages_arrives_complete_and_in_order(cluster_name: str) -> None:
    async def main() -> None:
        channels = await first.new_channel(), await second.new_channel()
        for layer, channel in zip((first, second), channels, strict=True):
            await layer.group_add("news", channel)
        for number in range(BURST):
            await first.group_send("news", {"number": number})
        for layer, channel in zip((first, second), channels, strict=True):
            found = [(await soon(layer, channel))["number"] for _ in range(BURST)]
            assert found == list(range(BURST))

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_each_message_of_a_normal_channel_is_received_once(cluster_name: str) -> None:
    async def worker(layer: ChannelLayer, received: list[int]) -> None:
        while True:
            received.append((await layer.receive("thumbnails"))["number"])

    async def main() -> None:
        received: tuple[list[int], list[int]] = ([], [])
        workers = [
            asyncio.create_task(worker(layer, numbers))
            for layer, numbers in zip((first, second), received, strict=True)
        ]
        await until(lambda: receivers(first, "thumbnails") == 2)
        for number in range(200):
            await first.send("thumbnails", {"number": number})
        await until(lambda: len(received[0]) + len(received[1]) >= 200)
        for task in workers:
            task.cancel()
        assert Counter(received[0] + received[1]) == dict.fromkeys(range(200), 1)
        assert received[0]
        assert received[1]

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def receivers(layer: ChannelLayer, channel: str) -> int:
    return layer.portal.count(f"django.channels:receivers:{channel}")


def test_messages_wait_for_the_first_receiver_in_order(cluster_name: str) -> None:
    async def main() -> None:
        for number in range(50):
            await first.send("work", {"number": number})
        reading = asyncio.create_task(read_all())
        for number in range(50, BURST):
            await first.send("work", {"number": number})
        assert await reading == list(range(BURST))

    async def read_all() -> list[int]:
        return [(await soon(second, "work"))["number"] for _ in range(BURST)]

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_messages_of_a_receiver_that_ends_go_to_another_one(cluster_name: str) -> None:
    async def main() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(first.receive("work"), 0.01)
        await until(lambda: receivers(first, "work") == 0)
        await first.send("work", {"number": 1})
        assert await soon(second, "work") == {"number": 1}

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_full_receiver_refuses_senders_of_other_processes_until_it_has_read(
    cluster_name: str,
) -> None:
    async def main() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(second.receive("work"), SHORT)  # as a worker that is busy
        task = asyncio.create_task(second.receive("work"))
        await until(lambda: receivers(first, "work") == 1)
        sent = await sent_until_full("work")
        assert capacity <= sent < 3 * capacity
        assert (await task)["number"] == 0
        received = [(await soon(second, "work"))["number"] for _ in range(sent - 1)]
        assert received == list(range(1, sent))
        await until(accepted)

    async def sent_until_full(channel: str) -> int:
        for number in range(10 * capacity):
            try:
                await first.send(channel, {"number": number})
            except ChannelFull:
                return number
        raise AssertionError("the channel was never full")

    async def accepted() -> bool:
        try:
            await first.send("work", {"type": "again"})
        except ChannelFull:
            return False
        return True

    capacity = 50
    with two_layers(cluster_name, capacity=capacity) as (first, second):
        asyncio.run(main())


def test_full_channel_refuses_senders_of_its_own_process(cluster_name: str) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        for _ in range(3):
            await layer.send(channel, {})
        with pytest.raises(ChannelFull):
            await layer.send(channel, {})
        await layer.receive(channel)
        await layer.send(channel, {})

    layer = ChannelLayer(cluster=cluster_name, channel_capacity={"specific.*": 3})
    with layer.portal:
        asyncio.run(main())


def test_group_message_that_a_full_channel_misses_is_logged(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        channel = await second.new_channel()
        await second.group_add("news", channel)
        for _ in range(2):
            await first.group_send("news", {})
        await until(warnings)
        assert warnings() == ["1 of 1 channels over capacity in group news"]

    def warnings() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]

    with two_layers(cluster_name, capacity=1) as (first, second):
        asyncio.run(main())


def test_cancelled_receive_loses_no_message(cluster_name: str) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        received = []
        for number in range(100):
            task = asyncio.create_task(layer.receive(channel))
            await asyncio.sleep(0)
            await layer.send(channel, {"number": number})
            if number % 3:
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                received.append(await task)
        while len(received) < 100:
            received.append(await soon(layer, channel))
        assert [message["number"] for message in received] == list(range(100))

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal:
        asyncio.run(main())


def test_message_of_a_cancelled_reader_is_taken_by_the_next_one(cluster_name: str) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        first, second = (asyncio.create_task(layer.receive(channel)) for _ in range(2))
        await until(lambda: layer.local.waiting(channel) == 2)
        await layer.send(channel, {"number": 1})
        first.cancel()
        assert await asyncio.wait_for(second, DEADLINE) == {"number": 1}

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal:
        asyncio.run(main())


def test_layers_of_other_clusters_in_one_process_are_apart(cluster_name: str) -> None:
    async def main() -> None:
        channels = [await layer.new_channel() for layer in layers]
        for layer, channel in zip(layers, channels, strict=True):
            await layer.group_add("news", channel)
        await layers[0].group_send("news", {"number": 1})
        assert await soon(layers[0], channels[0]) == {"number": 1}
        assert await is_empty(layers[1], channels[1])

    layers = [ChannelLayer(cluster=f"{cluster_name}-{number}") for number in range(2)]
    with layers[0].portal, layers[1].portal:
        asyncio.run(main())


def test_membership_ends_with_the_consumer_without_a_discard(cluster_name: str) -> None:
    async def consumer() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        raise RuntimeError("crash")

    async def main() -> None:
        with suppress(RuntimeError):
            await consumer()
        gc.collect()
        await until(lambda: len(layer.local) == 0)
        assert layer.local.deliver_group("news", b"") == (0, 0)

    layer = ChannelLayer(cluster=cluster_name, expiry=SHORT)
    with layer.portal:
        asyncio.run(main())


def test_membership_of_a_busy_consumer_lasts_longer_than_the_expiry(cluster_name: str) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        other = await layer.new_channel()
        await layer.group_add("other", other)
        del other
        gc.collect()
        await until(lambda: len(layer.local) == 1)
        await layer.group_send("news", {"type": "still here"})
        assert await soon(layer, channel) == {"type": "still here"}

    layer = ChannelLayer(cluster=cluster_name, expiry=SHORT)
    with layer.portal:
        asyncio.run(main())


async def ended_channel(layer: ChannelLayer) -> str:
    """The name of a channel whose consumer has ended, as at the end of its connection."""
    channel = await layer.new_channel()
    await layer.group_add("old", channel)
    with suppress(TimeoutError):
        await asyncio.wait_for(layer.receive(channel), 0.01)
    copy = "".join(channel)
    del channel
    gc.collect()
    await until(lambda: len(layer.local) == 0, "the channel is forgotten")
    return copy


def test_group_add_after_the_end_of_a_consumer_adds_nothing(cluster_name: str) -> None:
    async def main() -> None:
        channel = await ended_channel(first)
        for layer in (first, second):
            await layer.group_add("news", channel)
            await layer.group_send("news", {})
        assert len(first.local) == len(second.local) == 0
        assert first.local.followed == second.local.followed == frozenset()

    with two_layers(cluster_name, expiry=SHORT) as (first, second):
        asyncio.run(main())


def test_channel_that_is_received_on_again_joins_groups(cluster_name: str) -> None:
    async def main() -> None:
        channel = await ended_channel(layer)
        reading = asyncio.create_task(layer.receive(channel))
        await until(lambda: layer.local.waiting(channel) == 1)
        await layer.group_add("news", channel)
        await layer.group_send("news", {"type": "still here"})
        assert await asyncio.wait_for(reading, DEADLINE) == {"type": "still here"}

    layer = ChannelLayer(cluster=cluster_name, expiry=SHORT)
    with layer.portal:
        asyncio.run(main())


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Collections in the test pass over the objects of other tests, which can take a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("small_heap")
def test_membership_outlives_a_consumer_by_a_tenth_of_the_expiry(cluster_name: str) -> None:
    async def attempt() -> float:
        ended_at = time.monotonic()
        await ended_channel(layer)
        await until(lambda: not layer.local.followed)
        return time.monotonic() - ended_at

    layer = ChannelLayer(cluster=cluster_name, expiry=EXPIRY)
    with layer.portal:
        assert_within(0.5 * EXPIRY, lambda: asyncio.run(attempt()))


@pytest.mark.slow
@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize(("crashes", "is_kept"), [(True, False), (False, True), (True, True)])
def test_membership_outlives_a_crash_or_a_kept_name_by_the_expiry_and_both_by_the_name(
    cluster_name: str, crashes: bool, is_kept: bool
) -> None:
    kept = list[str]()

    async def consumer() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        if is_kept:
            kept.append(channel)
        await layer.send(channel, {})
        await layer.receive(channel)
        if not crashes:
            await layer.receive(channel)

    async def main() -> None:
        consuming = asyncio.create_task(consumer())
        await asyncio.wait([consuming], timeout=0.2)
        consuming.cancel()
        await asyncio.wait([consuming])
        ended_at = time.monotonic()
        del consuming
        gc.collect()
        if crashes and is_kept:
            await asyncio.sleep(1.5 * layer.expiry)
            assert layer.local.followed == {"news"}
            kept.clear()
        await until(lambda: not layer.local.followed)
        assert 0.5 < (time.monotonic() - ended_at) / layer.expiry < 3.0  # on a busy machine

    layer = ChannelLayer(cluster=cluster_name, expiry=1.5)
    with layer.portal:
        asyncio.run(main())


def test_group_add_of_a_channel_whose_process_has_ended_leaves_nothing(cluster_name: str) -> None:
    async def main() -> None:
        channel = await second.new_channel()
        await first.group_add("news", channel)
        await second.close()
        await first.group_add("news", channel)
        await until(lambda: members(first) == 1)
        await first.group_add("news", channel)
        assert len(first.local) == 0
        assert first.local.followed == frozenset()
        assert first.portal.call(first.portal.node.stats)["presences"] == 0

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_group_is_followed_no_longer_after_a_discard_that_was_cancelled(cluster_name: str) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        busy, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            busy.set()
            go_on.wait(DEADLINE)

        holding = asyncio.create_task(layer.portal.acall(hold))
        await until(busy.is_set)
        discarding = asyncio.create_task(layer.group_discard("news", channel))
        await asyncio.sleep(0)
        discarding.cancel()
        await asyncio.wait([discarding])
        go_on.set()
        await holding
        await until(lambda: not layer.local.followed, "the group is followed no longer")

    layer = ChannelLayer(cluster=cluster_name, expiry=SHORT)
    with layer.portal:
        asyncio.run(main())


def test_channel_of_another_process_joins_and_leaves_a_group(cluster_name: str) -> None:
    async def main() -> None:
        channel = await second.new_channel()
        await first.group_add("news", channel)
        await first.group_send("news", {"number": 1})
        assert await soon(second, channel) == {"number": 1}
        await first.group_discard("news", channel)
        await first.group_send("news", {"number": 2})
        await first.send(channel, {"number": 3})
        assert await soon(second, channel) == {"number": 3}

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_join_without_an_answer_is_logged(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with adsum.Node(cluster=cluster_name) as silent:
            await layer.new_channel()  # starts the node of the layer
            await until(lambda: len(silent.members()) == 2)
            await layer.group_add("news", f"specific.{_address(silent.name)}!1")

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal:
        asyncio.run(main())
    assert "no answer to a request to join group news within 1 s" in caplog.text


def test_normal_channel_in_a_group_receives_a_message_once(cluster_name: str) -> None:
    async def main() -> None:
        for layer in (first, second):
            await layer.group_add("news", "work")
        await until(lambda: first.portal.get("django.channels:members:news", "work")[1:])
        await first.group_send("news", {"number": 1})
        assert await soon(first, "work") == {"number": 1}
        assert await is_empty(first, "work")
        await first.group_discard("news", "work")
        await until(lambda: first.portal.count("django.channels:members:news") == 0)

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_flush_empties_the_layers_of_all_processes(cluster_name: str) -> None:
    async def main() -> None:
        channel = await second.new_channel()
        await second.group_add("news", channel)
        await second.send(channel, {"number": 1})
        await first.send("work", {"number": 2})
        await first.flush()
        await until(lambda: not second.local.followed, "the other process has flushed")
        await first.group_send("news", {"number": 3})
        await first.send(channel, {"number": 4})
        assert await soon(second, channel) == {"number": 4}
        await first.send("work", {"number": 5})
        assert await soon(first, "work") == {"number": 5}

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


def test_threads_send_from_event_loops_of_their_own(cluster_name: str) -> None:
    async def main() -> None:
        channel = await second.new_channel()
        threads = [threading.Thread(target=send_all, args=(channel,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        found = Counter([(await soon(second, channel))["thread"] for _ in range(100)])
        assert sorted(found.values()) == [25, 25, 25, 25]

    def send_all(channel: str) -> None:
        for _ in range(25):
            async_to_sync(first.send)(channel, {"thread": threading.get_ident()})

    with two_layers(cluster_name) as (first, second):
        asyncio.run(main())


@pytest.mark.processes
def test_layer_that_was_used_before_a_fork_is_used_in_the_child(cluster_name: str) -> None:
    code = f"""
import asyncio, gc, os
from asgiref.sync import async_to_sync
from adsum.integrations.django import ChannelLayer

layer = ChannelLayer(cluster={cluster_name!r})
channel = async_to_sync(layer.new_channel)()
async_to_sync(layer.group_add)("news", channel)
if not (child := os.fork()):
    other = async_to_sync(layer.new_channel)()
    assert other.partition("!")[0] != channel.partition("!")[0]
    async_to_sync(layer.group_send)("news", {{"from": "child"}})
    layer.end()
    gc.collect()
    os._exit(0)
print(asyncio.run(asyncio.wait_for(layer.receive(channel), 20)))
assert os.waitpid(child, 0)[1] == 0
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=DEADLINE, capture_output=True, text=True
    )
    assert ended.stdout == "{'from': 'child'}\n", ended.stderr
    assert not ended.stderr


@pytest.mark.processes
@pytest.mark.parametrize("receivers", [0, 1])
def test_process_that_ends_passes_unread_messages_on_or_logs_them(
    cluster_name: str, receivers: int
) -> None:
    code = f"""
import asyncio, contextlib
from asgiref.sync import async_to_sync
from adsum.integrations.django import ChannelLayer

async def main():
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(layer.receive("work"), 0.05)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await layer.receive("other")
    for number in range(3):
        layer.local.put("work", layer.serialize({{"number": number}}))
    await layer.send(await layer.new_channel(), {{}})

layer = ChannelLayer(cluster={cluster_name!r})
asyncio.run(main())
"""

    async def main() -> None:
        reading = [asyncio.create_task(layer.receive("work")) for _ in range(receivers)]
        await layer.new_channel()
        ended = await asyncio.to_thread(run, code)
        assert not ended.returncode
        lost = "channel work: 3 messages are lost, nobody receives\n"
        assert ended.stderr == ("" if receivers else lost)
        for task in reading:
            assert (await task)["number"] == 0
            assert [(await soon(layer, "work"))["number"] for _ in range(2)] == [1, 2]

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal:
        asyncio.run(main())


def run(code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code]
    return subprocess.run(command, timeout=DEADLINE, capture_output=True, text=True)


@pytest.mark.parametrize("close", [ChannelLayer.end, lambda layer: layer.portal.close()])
def test_closed_layer_refuses_waiting_and_later_calls(
    close: Callable[[ChannelLayer], None], cluster_name: str
) -> None:
    async def main() -> None:
        own = await layer.new_channel()
        await layer.group_add("news", own)
        reads = [asyncio.create_task(layer.receive(channel)) for channel in (own, "work")]
        await until(lambda: all(layer.local.waiting(channel) for channel in (own, "work")))
        await asyncio.to_thread(close, layer)
        later = [
            layer.new_channel(),
            layer.send(own, {}),
            layer.send("work", {}),
            layer.receive(own),
            layer.receive("work"),
            layer.group_add("news", own),
            layer.group_discard("news", own),
            layer.group_send("news", {}),
            layer.flush(),
        ]
        for call in (*reads, *later):
            with pytest.raises(NodeNotRunningError):
                await asyncio.wait_for(call, DEADLINE)

    layer = ChannelLayer(cluster=cluster_name)
    asyncio.run(main())


def test_reader_of_a_closed_event_loop_delays_no_other_reader(cluster_name: str) -> None:
    async def main() -> None:
        read = asyncio.create_task(soon(layer, "work"))
        await until(lambda: layer.local.waiting("work") == 2)
        await layer.send("work", {"type": "job"})
        assert await read == {"type": "job"}

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal, lost_reader(layer, "work"):
        asyncio.run(main())


def test_channel_of_a_closed_event_loop_is_forgotten(cluster_name: str) -> None:
    def is_forgotten() -> bool:
        gc.collect()  # the lost reader refers to itself
        return len(layer.local) == 0

    layer = ChannelLayer(cluster=cluster_name, expiry=SHORT)
    with layer.portal:
        with lost_reader(layer, asyncio.run(layer.new_channel())):
            pass
        asyncio.run(until(is_forgotten))


@contextmanager
def lost_reader(layer: ChannelLayer, channel: str) -> Iterator[None]:
    """A reader whose event loop was closed without a cancel."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # the task is destroyed
    task = loop.create_task(layer.receive(channel))
    loop.run_until_complete(until(lambda: layer.local.waiting(channel) == 1))
    loop.close()
    yield
    del task


@pytest.mark.parametrize("turns", range(4))
def test_receiver_that_joins_while_the_node_stops_is_no_error(
    cluster_name: str, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    async def join_and_stop() -> None:
        layer.presence.track("django.channels:receivers:work", "another node", {}, owner=None)
        for _ in range(turns):  # of the event loop, on the way of the diff to the layer
            await asyncio.sleep(0)
        await node.stop()

    async def main() -> None:
        await layer.new_channel()
        layer.local.put("work", layer.serialize({}))  # waits for a receiver
        with suppress(adsum.NodeNotRunningError):
            await layer.portal.acall(join_and_stop)

    layer = ChannelLayer(cluster=cluster_name)
    node = layer.portal.node
    with layer.portal:
        asyncio.run(main())
    gc.collect()
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_layer_without_references_stops_its_node(cluster_name: str) -> None:
    async def main() -> None:
        layer = ChannelLayer(cluster=cluster_name)
        await layer.new_channel()
        node = layer.portal.node
        assert node.running
        del layer
        gc.collect()
        await until(lambda: not node.running)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "cluster: must be set in CONFIG"),
        (
            {"cluster": "shop", "capacity": 0},
            "capacity=0: must be a whole number from 1 to 1,000,000,000",
        ),
        (
            {"cluster": "shop", "capacity": 10**400},
            "capacity=.*: must be a whole number from 1 to 1,000,000,000",
        ),
        *[
            (
                {"cluster": "shop", "expiry": seconds},
                f"expiry={seconds}: must be a number of seconds from 0.1 to 31,536,000",
            )
            for seconds in (0, 1e-9, 0.0999, float("inf"))
        ],
        (
            {"cluster": "shop", "channel_capacity": {"a": 10**400}},
            r"channel_capacity\['a'\]=.*: must be a whole number from 1 to 1,000,000,000",
        ),
        (
            {"cluster": "shop", "channel_capacity": {"a": "many"}},
            r"channel_capacity\['a'\]='many': must be a whole number from 1",
        ),
        ({"cluster": "shop", "channel_capacity": 3}, "channel_capacity=3: must be a dict"),
        (
            {"cluster": "shop", "channel_capacity": {5: 3}},
            "channel_capacity=5: must be a dict whose keys are glob patterns",
        ),
        (
            {"cluster": "shop", "channel_capacity": {re.compile(b"a"): 3}},
            "channel_capacity=.*: must be a dict whose keys are .* expressions of str",
        ),
        ({"cluster": "shop", "hosts": ["redis:6379"]}, "hosts=.*: remove it; .*carrier="),
        ({"cluster": "shop", "peer": "10.0.0.1:7400"}, "peer=.*: must be one of .*peers"),
        ({"cluster": "shop", "heartbeat_interval": -1}, "heartbeat_interval=-1: must be between"),
    ],
)
def test_wrong_setting_is_named_with_the_accepted_values(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(adsum.ConfigurationError, match=message):
        ChannelLayer(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["channels", "msgpack"])
def test_missing_package_is_named_with_the_command_that_installs_it(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nimport adsum.integrations.django"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f'needs {package}: pip install "adsum[django]"' in ended.stderr
