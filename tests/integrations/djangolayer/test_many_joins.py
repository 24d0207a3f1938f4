"""Joins, leaves and connections of a long time leave nothing behind in the layer and its nodes.

`TEST_EFFORT=50` makes 100,000 of them, as many as a busy day.
"""

import asyncio
import gc
import resource
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import channel_layers
from django.conf import settings

from adsum.integrations.django import ChannelLayer, PresenceMixin
from tests.support.effort import scaled
from tests.support.waiting import until

from .layers import two_layers

if not settings.configured:
    settings.configure()

#: Consumers that come and go, one group of their own and one common group each.
CONSUMERS = scaled(1_000)
#: Consumers at the same time.
AT_ONCE = 20
#: Seconds after which a consumer that has crashed is forgotten; longer than any message waits.
EXPIRY = 4.0
#: Bytes that the process may grow by; 100,000 mailboxes would have tens of megabytes.
GROWTH = 8 * 1024 * 1024
#: Containers of a layer that are never empty.
BOUNDED = ("LayerNode._nodes", "LayerNode._tasks")


async def consumer(layer: ChannelLayer, number: int) -> None:
    """Join two groups, receive a message, and leave; every second one leaves by a crash.

    Every fifth one also receives on a normal channel, which is a member of a group.
    """
    if not number % 5:
        work = f"work.{number}"
        await layer.group_add("workers", work)
        await layer.send(work, {"number": number})
        assert (await layer.receive(work))["number"] == number
        await layer.group_discard("workers", work)
    channel = await layer.new_channel()
    await layer.group_add("everybody", channel)
    await layer.group_add(f"user.{number}", channel)
    await layer.group_send(f"user.{number}", {"number": number})
    assert (await layer.receive(channel))["number"] == number
    if number % 2:
        raise RuntimeError("crash")
    reading = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    reading.cancel()
    await layer.group_discard("everybody", channel)
    await layer.group_discard(f"user.{number}", channel)


class Room(PresenceMixin, AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """A consumer in two groups, in a room with the consumers of other batches."""

    groups = ("everybody",)

    def presence_topic(self) -> str:
        return f"room:{self.scope['number'] % AT_ONCE}"

    def presence_key(self) -> str:
        return str(self.scope["number"])

    def presence_meta(self) -> dict[str, Any]:
        return {}

    async def connect(self) -> None:
        await self.scope["other"].group_add(f"user.{self.scope['number']}", self.channel_name)
        await self.accept()

    async def receive_json(self, content: Any, **_: Any) -> None:
        name = f"user.{self.scope['number']}"
        await self.scope["other"].group_send(name, {"type": "greeting"})

    async def greeting(self, event: dict[str, Any]) -> None:
        if self.scope["number"] % 3 == 0:
            raise RuntimeError("crash")
        await self.send_json("greeted")

    async def presence_changed(self, event: dict[str, Any]) -> None:
        await self.send_json("changed")


async def connection(number: int, other: ChannelLayer) -> None:
    """Connect to the room, receive a message, and end by a crash, a kill or a disconnect.

    Args:
        number: The number of the user.
        other: A layer in another process, which adds the consumer to a group and sends to it.
    """
    incoming, outgoing = asyncio.Queue[dict[str, Any]](), asyncio.Queue[dict[str, Any]]()
    scope = {"type": "websocket", "number": number, "other": other}
    consuming = asyncio.create_task(run(scope, incoming.get, outgoing.put))
    incoming.put_nowait({"type": "websocket.connect"})
    assert (await outgoing.get())["type"] == "websocket.accept"
    incoming.put_nowait({"type": "websocket.receive", "text": "{}"})
    if number % 3:
        while "greeted" not in (await outgoing.get())["text"]:
            continue
    if number % 3 == 1:
        consuming.cancel()
    elif number % 3 == 2:
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await asyncio.wait([consuming])
    with suppress(RuntimeError, asyncio.CancelledError):
        await consuming


async def run(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    await Room.as_asgi()(scope, receive, send)


def sizes(layer: ChannelLayer) -> dict[str, int]:
    """The sizes of all containers of a layer that are not empty, besides two that are bounded."""
    parts = (layer, layer.local, layer.visits, layer._traffic)
    found = {
        f"{type(part).__name__}.{name}": len(value)
        for part in parts
        for name, value in vars(part).items()
        if isinstance(value, dict | set | list | deque) and value
    }
    # One name for each node, and three tasks.
    return {name: size for name, size in found.items() if name not in BOUNDED}


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def in_batches(work: Callable[[int], Awaitable[None]], numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, AT_ONCE):
        batch = range(start, min(start + AT_ONCE, numbers.stop))
        await asyncio.gather(*[work(number) for number in batch])


async def check_growth(
    work: Callable[[int], Awaitable[None]], layers: tuple[ChannelLayer, ChannelLayer]
) -> None:
    """Do work many times; it must leave nothing behind."""
    await in_batches(work, range(CONSUMERS // 2))
    before = resident()
    await in_batches(work, range(CONSUMERS // 2, CONSUMERS))
    gc.collect()
    await until(lambda: [sizes(layer) for layer in layers] == [{}, {}], "all is forgotten")
    assert resident() - before < GROWTH
    for layer in layers:
        stats = layer.portal.call(layer.portal.node.stats)
        assert stats["presences"] == stats["topics"] == 0


@pytest.mark.slow
def test_joins_and_leaves_leave_nothing_behind(cluster_name: str) -> None:
    async def one(number: int) -> None:
        with suppress(RuntimeError):
            await consumer((first, second)[number % 4 > 1], number)

    with two_layers(cluster_name, expiry=EXPIRY) as (first, second):
        asyncio.run(check_growth(one, (first, second)))


@pytest.mark.slow
def test_connections_of_consumers_leave_nothing_behind(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one(number: int) -> None:
        await connection(number, second)

    with two_layers(cluster_name, expiry=EXPIRY) as (first, second):
        monkeypatch.setitem(channel_layers.backends, "default", first)
        asyncio.run(check_growth(one, (first, second)))
