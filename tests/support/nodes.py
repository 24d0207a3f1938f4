"""Nodes of one cluster in one event loop."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import adsum

from .waiting import DEADLINE, until


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine in an event loop of its own."""
    return asyncio.run(asyncio.wait_for(work, 2 * DEADLINE))


@asynccontextmanager
async def running(count: int, **settings: Any) -> AsyncIterator[list[adsum.Node]]:
    """Nodes of one cluster that know each other."""
    async with AsyncExitStack() as stack:
        nodes = [adsum.Node(**settings) for _ in range(count)]
        for node in nodes:
            await stack.enter_async_context(node)
        everybody = {"self", "up"}
        await until(
            lambda: all(
                len(node.members()) == count
                and {member.status for member in node.members()} <= everybody
                for node in nodes
            ),
            "the nodes find each other",
        )
        yield nodes
