"""An event loop whose tasks start eagerly, for one test (see `tests/eager.py` for all of them)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from .waiting import DEADLINE

EAGER: Callable[..., Any] | None = getattr(asyncio, "eager_task_factory", None)
needs_eager = pytest.mark.skipif(EAGER is None, reason="asyncio has eager tasks from 3.12")


def run_eagerly(main: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop whose tasks begin eagerly."""

    async def eagerly() -> None:
        asyncio.get_running_loop().set_task_factory(EAGER)
        await asyncio.wait_for(main, 2 * DEADLINE)

    asyncio.run(eagerly())


async def fetch_names(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    """A `fetch` that adds the name of a user to each key."""
    return {key: {"user": key.title()} for key in entries}
