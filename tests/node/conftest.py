"""Nodes on real sockets, in one event loop or in processes of their own."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.transport.conftest import certificates

__all__ = ["certificates"]

from .processes import clean_environment

#: How long a test waits for what must happen, at most.
DEADLINE = 15.0
_serial = itertools.count()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine in an event loop of its own."""
    return asyncio.run(asyncio.wait_for(work, 4 * DEADLINE))


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until something is so; look again as soon as the loop has done anything else."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what or "it never came true"
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def cluster_name() -> str:
    """A cluster that nobody else on this host has."""
    return f"test-{os.getpid()}-{next(_serial)}"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for sockets: the system limits their paths to about 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="adsum-") as path:
        yield Path(path)


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
            "the nodes do not find each other",
        )
        yield nodes
