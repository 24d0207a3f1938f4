"""Joins and leaves of a long time leave nothing behind in the layer, the node and its cluster.

`TEST_EFFORT=50` makes 100,000 of them, as many as a busy day.
"""

import asyncio
import gc
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from adsum.integrations.django import ChannelLayer
from tests.support.effort import scaled
from tests.support.waiting import until

from .layers import two_layers

#: Consumers that come and go, one group of their own and one common group each.
CONSUMERS = scaled(1_000)
#: Consumers at the same time.
AT_ONCE = 20
#: Seconds after which a consumer that has crashed is forgotten; longer than any message waits.
EXPIRY = 4.0
#: Bytes that the process may grow by; 100,000 mailboxes would have tens of megabytes.
GROWTH = 8 * 1024 * 1024


async def consumer(layer: ChannelLayer, number: int) -> None:
    """Join two groups, receive a message, and leave; every second one leaves by a crash."""
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


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_joins_and_leaves_leave_nothing_behind(cluster_name: str) -> None:
    async def one(number: int) -> None:
        with suppress(RuntimeError):
            await consumer((first, second)[number % 4 > 1], number)

    async def some(numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, AT_ONCE):
            batch = range(start, min(start + AT_ONCE, numbers.stop))
            await asyncio.gather(*[one(number) for number in batch])

    async def main() -> None:
        await some(range(CONSUMERS // 2))
        before = resident()
        await some(range(CONSUMERS // 2, CONSUMERS))
        await until(lambda: len(first.local) + len(second.local) == 0, "channels are forgotten")
        assert resident() - before < GROWTH
        for layer in (first, second):
            assert layer.local.deliver_group("everybody", b"") == (0, 0)
            stats = layer.portal.call(layer.portal.node.stats)
            assert stats["presences"] == stats["topics"] == 0
            assert layer.local.followed == frozenset()

    with two_layers(cluster_name, expiry=EXPIRY) as (first, second):
        asyncio.run(main())
