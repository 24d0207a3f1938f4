"""Lifespans of ASGI applications: functions that return the context of a running app."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from adsum.arguments import refuse

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def wrapped(
    lifespan: Lifespan, outer: AbstractAsyncContextManager[object], ending: Callable[[], None]
) -> Lifespan:
    """Run a lifespan inside of another context.

    Args:
        lifespan: The lifespan of the application.
        outer: Entered before it and left after it, on errors too.
        ending: Called when the server ends the lifespan, before its end runs.

    Raises:
        ConfigurationError: `lifespan` is not a function that returns a context manager.
    """
    _check(lifespan)

    @asynccontextmanager
    async def combined(app: Any) -> AsyncIterator[Any]:
        async with outer, lifespan(app) as state:
            try:
                yield state
            finally:
                ending()

    return combined


def _check(lifespan: Any) -> None:
    is_bare = inspect.isasyncgenfunction(lifespan) or asyncio.iscoroutinefunction(lifespan)
    if not callable(lifespan) or is_bare:
        refuse("lifespan", lifespan, "a function that @asynccontextmanager decorates")
