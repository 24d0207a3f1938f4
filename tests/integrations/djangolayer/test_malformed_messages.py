"""Malformed messages of another member are logged, and end no task of the channel layer."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from channels.exceptions import ChannelFull

import adsum
from adsum.integrations.django import ChannelLayer
from adsum.integrations.django.layerlimits import OVERSHOOT
from adsum.integrations.django.layernode import _GROUP, _INBOX, _MAX_NAME, _REQUESTS
from tests.support.waiting import DEADLINE, until

#: Seconds of an expiry; every tenth of it, channels that have ended are swept.
EXPIRY = 2.0
FORGED = "a\nERROR forged"
TOO_LONG = "x" * (_MAX_NAME + 1)


async def send_malformed(cluster: str, channel: str) -> None:
    """Send messages that no layer sends, as another member can."""
    node = adsum.Node(cluster=cluster)
    pubsub = adsum.PubSub(node)
    requests: list[Any] = [
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

    def errors() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]

    layer = ChannelLayer(cluster=cluster_name, expiry=EXPIRY)
    with layer.portal:
        asyncio.run(main())
    assert any("could not be delivered" in line for line in errors())
    assert any("could not be decoded, it was dropped" in line for line in errors())
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
