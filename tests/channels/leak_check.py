"""Run a test in an event loop of its own, and fail if it leaks a task or an exception."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from tests.support.waiting import DEADLINE, until

P = ParamSpec("P")


def leak_checked(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function, which runs as `run` does."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return wrapper


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test; fails if a task outlives it, or the exception handler of the loop is called."""
    return asyncio.run(_watched(work))


async def _watched(work: Coroutine[Any, Any, Any]) -> Any:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    async with asyncio.timeout(2 * DEADLINE):
        result = await work
        await until(lambda: not others(), "a task is left behind")
    assert not complaints, complaints
    return result


def others() -> list[str]:
    """The tasks of this loop but for the one that asks."""
    mine = asyncio.current_task()
    return [repr(task) for task in asyncio.all_tasks() if task is not mine]
