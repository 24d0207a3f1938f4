"""Scenes that tests let play on a site of their own, and what they look for in them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .site_cluster import SiteCluster

ROOM = "room:lobby"


def run(
    scenario: Callable[[SiteCluster], Coroutine[Any, Any, None]],
    nodes: int = 2,
    complaint: str | None = "",
    **options: Any,
) -> None:
    """Let a scenario play; well-behaved clients leave no line in the logs of the servers.

    Args:
        scenario: Gets the site.
        nodes: How many there are.
        complaint: What has to be in the logs all the same, once; None if they are not looked at.
        options: See `SiteCluster`.
    """

    async def play() -> None:
        async with SiteCluster(nodes, **options) as site:
            await scenario(site)
            if complaint is not None:
                lines = site.complaints()
                assert len(lines) == bool(complaint), "\n".join(lines)
                assert complaint in "\n".join(lines)

    asyncio.run(play())


async def room_of(site: SiteCluster, client: str, topic: str = ROOM) -> Any:
    """What a client shows of a room, and what it heard there."""
    return (await site.look())[client]["rooms"][topic]


async def joins_of(site: SiteCluster, client: str) -> int:
    """How often a client's channel has joined."""
    joins: int = (await room_of(site, client))["joins"]
    return joins


async def joined_times(site: SiteCluster, client: str, times: int) -> bool:
    return await joins_of(site, client) == times


async def received(site: SiteCluster, client: str, expected: list[Any]) -> bool:
    """Whether these events reached a client, and no others."""
    return bool((await room_of(site, client))["received"] == expected)


async def is_refused(site: SiteCluster, client: str) -> bool:
    """Whether a client has tried to connect again and again, and never was let in."""
    look = (await site.look())[client]
    return bool(look["errors"] > 1 and look["opens"] == 0)
