"""Tasks that begin in a later turn of the event loop, and long work in slices.

An eager task factory (`asyncio.eager_task_factory`) runs a new task up to its first wait inside
`create_task`. So the task may have ended before its creator stores it, and its effects happen
inside a caller that does not expect them yet. adsum creates all its tasks here, which prevents
both.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: Items of long work to handle in one turn of the event loop.
SLICE = 1000


def start_task(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Create a task in the running loop; with any task factory, it begins in a later turn."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        return loop.create_task(work)
    task = loop.create_task(_after_a_turn(work))  # the factory may begin tasks at once
    task.add_done_callback(lambda _: work.close())  # has an effect if it was cancelled before
    return task


def cancel_task(task: "asyncio.Future[Any] | None") -> None:
    """Cancel a task; does nothing if its event loop is closed, because it never runs again."""
    if task is not None and not task.get_loop().is_closed():
        task.cancel()


def resolve(future: "asyncio.Future[Any] | None", result: object = None) -> None:
    """Wake the task that waits for a future, if there is one and its event loop is open."""
    if future is not None and not future.done() and not future.get_loop().is_closed():
        future.set_result(result)


def has_failed(task: "asyncio.Task[Any]") -> bool:
    """Whether a task that is done was cancelled or raised an exception."""
    # `task.exception()` would count as its retrieval, and a crash that nobody retrieves is logged.
    return task.cancelled() or task._exception is not None


def is_closing() -> bool:
    """Whether all tasks of the running loop are cancelled, as `asyncio.run` does at its end.

    Tasks that have not begun are ignored, because cancelled tasks may start new ones.
    """
    return all(task.cancelling() for task in asyncio.all_tasks() if _has_begun(task))


def _has_begun(task: "asyncio.Task[Any]") -> bool:
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine):
        return True
    return inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED


async def in_slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Yield items in slices, and let the event loop run between two of them."""
    for at in range(0, len(items), SLICE):
        if at:
            await asyncio.sleep(0)
        yield items[at : at + SLICE]


async def _after_a_turn(work: Coroutine[Any, Any, T]) -> T:
    await asyncio.sleep(0)
    return await work
