"""Malformed messages and presences of another member end no task and no call of the layer."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from channels.exceptions import ChannelFull
from hypothesis import given
from hypothesis import strategies as st

import adsum
from adsum.integrations.django import ChannelLayer
from adsum.integrations.django.layerlimits import OVERSHOOT
from adsum.integrations.django.layernode import (
    _FULL,
    _GROUP,
    _INBOX,
    _MAX_NAME,
    _MEMBERS,
    _RECEIVERS,
    _REQUESTS,
)
from adsum.integrations.django.presencemixin import _users
from adsum.values.limits import MAX_NAME
from tests.integrations.short_log import short_log
from tests.support.effort import examples
from tests.support.json_values import json_values
from tests.support.waiting import DEADLINE, eventually, until

#: Seconds of an expiry; every tenth of it, channels that have ended are swept.
EXPIRY = 2.0
FORGED = "a\nERROR forged"
TOO_LONG = "x" * (_MAX_NAME + 1)
#: Lines of all kinds about one node within a minute, see `adsum.sparselog`.
FEW = 24


@contextmanager
def few_lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check the lines of the layer."""
    with short_log(caplog, "adsum.integrations.django", FEW):
        yield


async def send_malformed(cluster: str, channel: str) -> None:
    """Send messages that no layer sends, as another member can."""
    node = adsum.Node(cluster=cluster)
    pubsub = adsum.PubSub(node)
    requests: list[Any] = [
        {"do": "other", "group": "news", "channel": "work"},
        b"\xff",
        {"do": "join", "group": TOO_LONG, "channel": "work"},
        {"do": "join", "group": "news", "channel": TOO_LONG},
        {"do": "join", "group": [1], "channel": {}},
        {"do": "leave", "group": 5, "channel": channel},
        {"line\nbreak": 1},
    ]
    async with node:
        await until(lambda: len(node.members()) == 2)
        for request in requests:
            await pubsub.publish(_REQUESTS, request)
        for payload in ({"a": 1}, b"\xc1", b"\x05"):
            await pubsub.publish(_INBOX, payload, event=channel)
            await pubsub.publish(f"{_GROUP}news", payload)
        await pubsub.publish(_INBOX, b"", event=TOO_LONG)


def test_malformed_messages_of_another_member_are_logged_and_change_nothing(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        reading = asyncio.create_task(layer.receive(channel))
        await send_malformed(cluster_name, channel)
        await layer.send(channel, {"type": "last"})
        assert await asyncio.wait_for(reading, DEADLINE) == {"type": "last"}
        await end_channel()
        await until(lambda: len(layer.local) == 1, "channels that have ended are still swept")

    async def end_channel() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        with suppress(TimeoutError):
            await asyncio.wait_for(layer.receive(channel), 0.01)
        assert len(layer.local) == 2

    layer = ChannelLayer(cluster=cluster_name, expiry=EXPIRY)
    with layer.portal, few_lines(caplog):
        asyncio.run(main())
    assert "was dropped: ValueError: do='other': no such request" in caplog.text
    assert "could not be decoded, it was dropped" in caplog.text
    assert not any("line\nbreak" in line for line in caplog.text.splitlines())


def test_names_that_another_member_chooses_forge_no_log_line(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def is_logged(text: str) -> bool:
        return any(text in one.getMessage() for one in caplog.records)

    async def main() -> None:
        channel = await layer.new_channel()
        while await is_accepted(channel):
            continue
        async with adsum.Node(cluster=cluster_name) as node:
            pubsub = adsum.PubSub(node)
            await until(lambda: len(node.members()) == 2)
            join = {"do": "join", "group": FORGED, "channel": channel}
            await pubsub.publish(_REQUESTS, join)
            await pubsub.publish(f"{_INBOX}", b"", event=FORGED)
            await until(lambda: layer.local.followed)
            await pubsub.publish(f"{_GROUP}{FORGED}", b"")
            await until(lambda: is_logged("over capacity"))
            await until(lambda: is_logged("nobody receives on channel"))
            layer.local.begin_receiving(FORGED)
            for _ in range(OVERSHOOT + 1):
                await pubsub.publish(_INBOX, b"", event=FORGED)
            await until(lambda: is_logged("a message to it was dropped"))
            await until(lambda: is_logged("have expired unread"))

    async def is_accepted(channel: str) -> bool:
        try:
            await layer.send(channel, {})
        except ChannelFull:
            return False
        return True

    layer = ChannelLayer(cluster=cluster_name, expiry=EXPIRY, capacity=1)
    with layer.portal:
        asyncio.run(main())
    assert not any(line.startswith("ERROR forged") for line in caplog.text.splitlines())
    assert not any("\n" in one.getMessage() for one in caplog.records)


def test_messages_to_channels_without_a_receiver_make_no_channels(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        async with adsum.Node(cluster=cluster_name) as node:
            pubsub = adsum.PubSub(node)
            await until(lambda: len(node.members()) == 2)
            for number in range(1000):
                await pubsub.publish(_INBOX, b"", event=f"work{number}")
            await pubsub.publish(_INBOX, layer.serialize({"type": "last"}), event=channel)
            assert await asyncio.wait_for(layer.receive(channel), DEADLINE) == {"type": "last"}
        assert len(layer.local) == 1

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal, few_lines(caplog):
        asyncio.run(main())
    assert "nobody receives on channel 'work0' in this process" in caplog.text


def test_presences_of_another_program_on_topics_of_the_layer_are_skipped_with_one_line(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    strange = ["x" * MAX_NAME, "a!b", "\n", "é" * MAX_NAME]

    async def main() -> None:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)
        async with adsum.Node(cluster=cluster_name) as node:
            presence = adsum.Presence(node)
            for topic in (f"{_MEMBERS}news", f"{_RECEIVERS}work", _RECEIVERS, _FULL):
                for key in strange:
                    presence.track(topic, key, {"full": [key]}, owner=None)
            await until(lambda: len(layer.portal.list(_FULL)) == len(strange))
            for number in range(20):
                message = {"type": "last", "number": number}
                await layer.group_send("news", message)
                await layer.send("work", {"type": "work"})
                assert await asyncio.wait_for(layer.receive(channel), DEADLINE) == message
            assert await asyncio.wait_for(layer.receive("work"), DEADLINE) == {"type": "work"}

    layer = ChannelLayer(cluster=cluster_name)
    with layer.portal, few_lines(caplog):
        asyncio.run(main())
    assert "a presence of another program was skipped: " in caplog.text


values = json_values(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
)
requests = st.fixed_dictionaries(
    {"do": st.sampled_from(["join", "leave", "joined", "flush", "other"]) | values},
    optional={
        "group": st.just("news") | values,
        "channel": st.just("work") | values,
        "number": st.integers(0, 3) | values,
        "other": values,
    },
)
payloads = st.binary(max_size=50) | requests | st.dictionaries(st.text(max_size=5), values)
topics = st.sampled_from([_REQUESTS, _REQUESTS, _INBOX, f"{_GROUP}news"])
events = st.sampled_from(["work", "specific.a!b"]) | st.text(min_size=1, max_size=5)


def test_no_message_of_another_member_ends_the_reader_or_fills_the_log(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    layer = ChannelLayer(cluster=cluster_name)
    last = layer.serialize({"type": "last"})
    node = adsum.Node(cluster=cluster_name)
    with layer.portal, adsum.Portal(node) as peer, asyncio.Runner() as runner, few_lines(caplog):
        channel = runner.run(layer.new_channel())
        runner.run(layer.group_add("news", channel))

        async def read_until_last() -> None:
            async with asyncio.timeout(DEADLINE):
                while await layer.receive(channel) != {"type": "last"}:
                    continue

        @given(st.lists(st.tuples(topics, events, payloads), max_size=20))
        @examples(100)
        def attack(messages: list[tuple[str, str, Any]]) -> None:
            for topic, event, payload in messages:
                with suppress(ValueError, TypeError):  # no peer can send it either
                    peer.publish(topic, payload, event=event)
            peer.publish(_INBOX, last, event=channel)
            runner.run(read_until_last())

        attack()


def test_presences_of_any_form_break_no_list_of_users(cluster_name: str) -> None:
    layer = ChannelLayer(cluster=cluster_name)
    metas = st.fixed_dictionaries({}, optional={"name": values, "metas": values, "": values})
    with layer.portal, adsum.Portal(adsum.Node(cluster=cluster_name)) as peer:

        @given(st.lists(st.tuples(st.text(min_size=1, max_size=9), metas), max_size=5))
        @examples(50)
        def attack(entries: list[tuple[str, dict[str, Any]]]) -> None:
            with ExitStack() as stack:
                for key, meta in entries:
                    with suppress(ValueError, adsum.AlreadyTrackedError):
                        stack.enter_context(peer.track("room", key, meta))
                listed = peer.list("room")
                eventually(lambda: layer.portal.list("room").keys() == listed.keys())
                users = _users(layer.portal.list("room"))
                assert [user.key for user in users] == sorted(listed)
                assert all(str(user) == user.name for user in users)
            eventually(lambda: not layer.portal.list("room"))  # none is left for the next one

        attack()
