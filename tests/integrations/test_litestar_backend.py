"""The backend for Litestar, against the contract of its base class and of its plugin."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from litestar import Litestar
from litestar.channels import ChannelsPlugin
from litestar.testing import TestClient

import adsum
from adsum.integrations import namedchannels
from adsum.integrations.litestar import PREFIX, AdsumChannelsBackend
from adsum.integrations.namedchannels import MAX_UNREAD
from adsum.values.limits import MAX_DATA, MAX_NAME
from tests.support.nodes import run, running

#: The longest name of a channel.
LONGEST = MAX_NAME - len(PREFIX)


@asynccontextmanager
async def started(node: adsum.Node | None = None) -> AsyncIterator[AdsumChannelsBackend]:
    """A backend between startup and shutdown."""
    backend = AdsumChannelsBackend(node or adsum.Node(siblings=False))
    await backend.on_startup()
    try:
        yield backend
    finally:
        await backend.on_shutdown()


@asynccontextmanager
async def on_two_nodes(cluster: str) -> AsyncIterator[list[AdsumChannelsBackend]]:
    """Backends on two nodes of one cluster."""
    async with running(2, cluster=cluster) as nodes, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(started(node)) for node in nodes]


async def events(backend: AdsumChannelsBackend, count: int) -> list[tuple[str, bytes]]:
    """The next events of a stream."""
    stream = backend.stream_events()
    return [await anext(stream) for _ in range(count)]


def test_event_is_received_on_each_subscribed_channel_of_both_nodes(cluster_name: str) -> None:
    async def work() -> None:
        async with on_two_nodes(cluster_name) as backends:
            for backend in backends:
                await backend.subscribe({"a", "b"})
            await backends[0].publish(b"\x00\xff", ["a", "b", "other", "a"])
            await backends[0].publish(b"end", ["a"])
            once = [("a", b"\x00\xff"), ("b", b"\x00\xff"), ("a", b"end")]
            for backend in backends:
                assert await events(backend, 3) == once

    run(work())


def test_events_of_one_worker_keep_their_order_across_channels(cluster_name: str) -> None:
    async def work() -> None:
        async with on_two_nodes(cluster_name) as (sender, receiver):
            await receiver.subscribe(["a", "b", "c"])
            sent = [("abc"[number % 3], b"%d" % number) for number in range(300)]
            for channel, data in sent:
                await sender.publish(data, [channel])
            assert await events(receiver, len(sent)) == sent

    run(work())


def test_burst_of_a_thousand_events_loses_none_while_nothing_reads(cluster_name: str) -> None:
    async def work() -> None:
        async with on_two_nodes(cluster_name) as backends:
            for backend in backends:
                await backend.subscribe(["a"])
            sent = [b"%d" % number for number in range(1000)]
            await asyncio.gather(*[backends[0].publish(data, ["a"]) for data in sent])
            await backends[0].publish(b"x" * MAX_DATA, ["a"])
            for backend in backends:
                received = [data for _, data in await events(backend, 1001)]
                assert received == [*sent, b"x" * MAX_DATA]

    run(work())


def test_oldest_events_beyond_the_limit_are_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        async with started() as backend:
            await backend.subscribe(["a"])
            for number in range(MAX_UNREAD + 5):
                await backend.publish(b"%d" % number, ["a"])
            received = await events(backend, MAX_UNREAD)
            assert received[0] == ("a", b"5")
            assert received[-1] == ("a", b"%d" % (MAX_UNREAD + 4))

    run(work())
    assert "5 messages were dropped unread so far" in caplog.text


def test_event_of_an_unsubscribed_channel_is_not_received_even_if_it_has_arrived() -> None:
    async def work() -> None:
        async with started() as backend:
            await backend.unsubscribe(["a"])
            await backend.subscribe(["a", "b"])
            await backend.subscribe(["a"])
            await backend.publish(b"1", ["a"])
            await backend.unsubscribe(["a", "never subscribed"])
            await backend.publish(b"2", ["a", "b"])
            assert await events(backend, 1) == [("b", b"2")]
            await backend.subscribe(["a"])
            await backend.publish(b"3", ["a"])
            assert await events(backend, 1) == [("a", b"3")]

    run(work())


def test_events_of_an_unsubscribed_channel_crowd_out_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        async with started() as backend:
            await backend.subscribe(["a", "b"])
            await backend.publish(b"1", ["b"])
            await backend.unsubscribe(["a"])
            for _ in range(20):
                await backend.publish(b"2", ["a"])
            assert await events(backend, 1) == [("b", b"1")]

    monkeypatch.setattr(namedchannels, "MAX_UNREAD", 10)
    run(work())


def test_cancelled_read_loses_no_event() -> None:
    async def work() -> None:
        async with started() as backend:
            await backend.subscribe(["a"])
            reading = asyncio.ensure_future(anext(backend.stream_events()))
            await asyncio.sleep(0)
            await backend.publish(b"1", ["a"])
            reading.cancel()
            await asyncio.wait([reading])
            received = reading.cancelled() or reading.result()
            assert received == ("a", b"1") or await events(backend, 1) == [("a", b"1")]

    run(work())


def test_startup_starts_the_node_and_shutdown_stops_it_again_and_again() -> None:
    async def work() -> None:
        node = adsum.Node(siblings=False)
        backend = AdsumChannelsBackend(node)
        await backend.on_shutdown()
        for _ in range(2):
            async with ChannelsPlugin(backend, channels=["a"]) as plugin:
                assert node.running
                subscriber = await plugin.subscribe("a")
                await plugin.wait_published("x", "a")
                assert await anext(subscriber.iter_events()) == b"x"
            assert not node.running

    run(work())


def test_channel_that_is_subscribed_to_before_startup_is_received_from_startup_on() -> None:
    async def work() -> None:
        backend = AdsumChannelsBackend(adsum.Node(siblings=False))
        await backend.subscribe(["a", "b"])
        await backend.unsubscribe(["b"])
        await backend.on_startup()
        await backend.publish(b"1", ["b", "a"])
        assert await events(backend, 1) == [("a", b"1")]
        await backend.on_shutdown()

    run(work())


def test_node_that_runs_before_startup_runs_after_shutdown() -> None:
    async def work() -> None:
        async with adsum.Node(siblings=False) as node:
            async with started(node) as backend:
                await backend.on_startup()
            assert node.running

    run(work())


def test_stream_ends_with_a_node_that_is_stopped_and_shutdown_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        node = adsum.Node(siblings=False)
        async with ChannelsPlugin(AdsumChannelsBackend(node), channels=["a"]) as plugin:
            await node.stop()
            plugin.publish("x", "a")
            with pytest.raises(adsum.NodeNotRunningError):
                await plugin._backend.subscribe(["b"])

    run(work())
    assert "a Litestar event was not published: the node is not running" in caplog.text


def test_fault_of_one_event_stops_no_other_one(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        backend = AdsumChannelsBackend(adsum.Node(siblings=False))
        async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as plugin:
            subscriber = await plugin.subscribe("a")
            plugin.publish(b"x" * (MAX_DATA + 1), "a")
            plugin.publish(b"1", ["x" * (LONGEST + 1), "a"])
            plugin.publish(b"2", ["\ud800", "a"])
            plugin.publish(b"3", [5, "a"])  # type: ignore[list-item]
            plugin.publish(b"4", [["a"], "a", "a"])  # type: ignore[list-item]  # from JSON
            plugin.publish(b"5", "a")
            stream = subscriber.iter_events()
            assert [await anext(stream) for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]

    run(work())
    (first, *_) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"message of {MAX_DATA + 1} bytes: must have at most {MAX_DATA}" in first.getMessage()


@pytest.mark.parametrize("data", [None, "text", {"a": 1}])
def test_event_that_is_not_bytes_is_dropped_and_logged(
    data: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with started() as backend:
            await backend.subscribe(["a"])
            await backend.publish(data, ["a"])
            await backend.publish(b"1", ["a"])
            assert await events(backend, 1) == [("a", b"1")]

    run(work())
    assert f"message must be bytes, not {type(data).__name__}" in caplog.text


@pytest.mark.parametrize(
    ("channel", "error", "text"),
    [
        ("x" * (LONGEST + 1), ValueError, f"channel must have 1 to {LONGEST} characters"),
        ("\ud800", ValueError, "lone surrogate"),
        (1, TypeError, "channel must be a str, not int 1"),
    ],
)
def test_wrong_name_of_a_channel_is_refused(
    channel: Any, error: type[Exception], text: str
) -> None:
    async def work() -> None:
        async with started() as backend:
            with pytest.raises(error, match=text):
                await backend.subscribe([channel])

    run(work())


@pytest.mark.parametrize("channel", ["", "\0", "x" * LONGEST, "müßig"])
def test_any_other_name_is_a_channel(channel: str) -> None:
    async def work() -> None:
        async with started() as backend:
            await backend.subscribe([channel])
            await backend.publish(b"1", [channel])
            assert await events(backend, 1) == [(channel, b"1")]

    run(work())


def test_client_that_names_a_channel_reads_no_other_topic() -> None:
    async def work() -> None:
        async with adsum.Node(siblings=False) as node, started(node) as backend:
            pubsub = adsum.PubSub(node)
            await backend.subscribe(["secret", "news"])
            await pubsub.publish("secret", b"secret")
            await pubsub.publish("litestar:news", {"text": "für alle"})
            await pubsub.publish("litestar:news", b"bytes")
            both = [("news", '{"text": "für alle"}'.encode()), ("news", b"bytes")]
            assert await events(backend, 2) == both

    run(work())


def test_object_with_a_lone_surrogate_arrives_as_its_json_text() -> None:
    async def work() -> None:
        async with adsum.Node(siblings=False) as node, started(node) as backend:
            await backend.subscribe(["news"])
            await adsum.PubSub(node).publish("litestar:news", {"text": "\ud800ü"})
            ((_, data),) = await events(backend, 1)
            assert json.loads(data) == {"text": "\ud800ü"}

    run(work())


def test_use_before_startup_is_a_runtime_error_that_names_the_call() -> None:
    backend = AdsumChannelsBackend(adsum.Node(siblings=False))
    for use in (
        lambda: backend.publish(b"x", ["a"]),
        lambda: anext(backend.stream_events()),
    ):
        with pytest.raises(RuntimeError, match=r"call `AdsumChannelsBackend.on_startup` first"):
            run(use())


def test_history_is_refused_with_the_remedy() -> None:
    backend = AdsumChannelsBackend(adsum.Node(siblings=False))
    with pytest.raises(NotImplementedError, match="store events to be read later in a database"):
        run(backend.get_history("a", 10))


def test_argument_that_is_no_node_is_refused() -> None:
    with pytest.raises(adsum.ConfigurationError, match=r"node='redis://': must be an adsum.Node"):
        AdsumChannelsBackend("redis://")  # type: ignore[arg-type]


def test_generated_websocket_handlers_send_events_of_their_channels() -> None:
    backend = AdsumChannelsBackend(adsum.Node(siblings=False))
    plugin = ChannelsPlugin(backend, channels=["a", "b"], create_ws_route_handlers=True)
    with (
        TestClient(Litestar(plugins=[plugin], logging_config=None)) as client,
        client.websocket_connect("/a") as a,
        client.websocket_connect("/b") as b,
    ):
        plugin.publish({"n": 1}, ["a", "b"])
        assert a.receive_json(timeout=10) == b.receive_json(timeout=10) == {"n": 1}
