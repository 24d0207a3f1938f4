"""Calls from other threads: run functions in an event loop, and deliver results to the callers.

Invariants:

- Each call is executed at most once, in the event loop, in the order of submission for each thread.
- Its result or its error is delivered to its caller, and to nobody else.
- No call is lost silently: after the end of the queue, waiting calls raise `NodeNotRunningError`.
- The queue never blocks the event loop, and a turn of the loop executes a bounded number of calls.
- A signal handler may interrupt a call at any step, and call as well or raise. So there is no lock
  that the event loop could wait for, and no call relies on the wake-up of another thread.
"""

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from adsum.errors import NodeNotRunningError, UsageError
from adsum.tasks import is_closing, resolve, start_task

from .answer import Answer

STOPPED = "the node is not running: it has stopped"
#: Calls that one turn of the event loop executes at most.
SLICE = 100
#: Seconds between two checks of a waiting caller that the event loop is not closed.
CHECK_INTERVAL = 1.0


class CallQueue:
    """Executes calls of other threads in one event loop.

    Args:
        loop: The event loop, which runs in another thread or will run.
        thread: The id of its thread; calls from it are refused, because they would wait for
            themselves.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        self.loop = loop
        self.thread = thread
        # Appended by any thread, taken by the event loop and by `close`.
        self._queued: deque[tuple[Answer, Callable[[], Any]]] = deque()
        # Whether `_execute` is due to run and will take each call that is queued by now. Only the
        # event loop sets it: another thread may be interrupted before it wakes the loop.
        self._is_due = False
        self._closed = False
        # Calls of async functions under way, with their tasks; used in the loop only.
        self._running: dict[Answer, asyncio.Task[None]] = {}

    @property
    def closed(self) -> bool:
        """Whether calls are refused."""
        return self._closed or self.loop.is_closed()

    def check_thread(self) -> None:
        """Raise in the thread of the event loop.

        Raises:
            UsageError: This is that thread.
        """
        if threading.get_ident() == self.thread:
            raise UsageError(
                "this thread runs the event loop of the node, and the call would wait for itself; "
                "use the node's Presence and PubSub here, which do not wait"
            )

    def submit(self, call: Callable[[], Any]) -> Answer:
        """Queue a call, and return without waiting for it.

        Args:
            call: A function without arguments, plain or async.

        Raises:
            NodeNotRunningError: The queue is closed, or its event loop is.
        """
        if self._closed:
            raise NodeNotRunningError(STOPPED)
        answer = Answer()
        self._queued.append((answer, call))
        if not self._is_due:
            try:
                self.loop.call_soon_threadsafe(self._execute)
            except RuntimeError:  # the loop is closed
                self.close()
        if self._closed:  # meanwhile; `close` may have missed this call
            self._fail_queued()
        return answer

    def wait(self, answer: Answer, timeout: float | None) -> Any:
        """Wait for the result of a call, in its caller's thread.

        Args:
            answer: The call, as `submit` returned it.
            timeout: Seconds to wait at most; None waits without a bound.

        Raises:
            NodeNotRunningError: The node has stopped, or its event loop was closed.
            TimeoutError: The call takes longer. It is not cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = CHECK_INTERVAL if deadline is None else deadline - time.monotonic()
            if answer.wait(max(0.0, min(left, CHECK_INTERVAL))):
                return answer.result()
            if not self._fail_if_closed(answer) and _is_over(deadline):
                raise TimeoutError(
                    f"no result from the event loop of the node within {timeout:g} s; the call is "
                    f"not cancelled"
                )

    async def wait_async(self, answer: Answer) -> Any:
        """As `wait` without a bound, in another event loop.

        Cancelling this does not cancel a call that has begun; one that has not is not executed.

        Raises:
            NodeNotRunningError: The node has stopped, or its event loop was closed.
        """
        try:
            return await self.wait_shared(answer)
        except asyncio.CancelledError as error:
            answer.fail(error)
            raise

    async def wait_shared(self, answer: Answer) -> Any:
        """As `wait_async`, but cancelling this leaves the call to others that wait for it."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.then = _all(answer.then, partial(_wake, ended))
        while not answer.done:
            await asyncio.wait([ended], timeout=CHECK_INTERVAL)
            self._fail_if_closed(answer)
        return answer.result()

    def close(self) -> None:
        """Refuse further calls; those that wait raise `NodeNotRunningError`. Idempotent."""
        self._closed = True
        self._fail_queued()
        for answer in list(self._running):
            answer.fail(NodeNotRunningError(STOPPED))

    def _fail_queued(self) -> None:
        with suppress(IndexError):  # the queue is empty
            while True:
                self._queued.popleft()[0].fail(NodeNotRunningError(STOPPED))

    def _fail_if_closed(self, answer: Answer) -> bool:
        """Fail a call if the event loop was closed without a stop of the node; returns whether."""
        if not self.loop.is_closed():
            return False
        self.close()
        answer.fail(NodeNotRunningError(STOPPED))  # if it is queued no longer
        return True

    def _execute(self) -> None:
        self._is_due = False
        for _ in range(SLICE):
            try:
                answer, call = self._queued.popleft()
            except IndexError:
                return
            if not answer.done:  # it was not cancelled
                self._call(answer, call)
        self._is_due = True
        self.loop.call_soon(self._execute)

    def _call(self, answer: Answer, call: Callable[[], Any]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001, RUF100  # it belongs to the caller
            answer.fail(error)
            return
        if inspect.isawaitable(result):
            task = self._running[answer] = start_task(self._finish(answer, result))
            task.add_done_callback(lambda _: self._ended(answer))
        else:
            answer.deliver(result)

    async def _finish(self, answer: Answer, result: Awaitable[Any]) -> None:
        try:
            answer.deliver(await result)
        except asyncio.CancelledError as error:
            # `asyncio.run` cancels all tasks at its end, perhaps without a stop of the node.
            ended = self.closed or is_closing()
            answer.fail(NodeNotRunningError(STOPPED) if ended else error)
            raise
        except BaseException as error:  # noqa: BLE001, RUF100  # it belongs to the caller
            answer.fail(error)

    def _ended(self, answer: Answer) -> None:
        self._running.pop(answer, None)
        answer.fail(NodeNotRunningError(STOPPED))  # has an effect if it was cancelled unbegun


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _wake(ended: "asyncio.Future[None]") -> None:
    with suppress(RuntimeError):  # the waiting loop is closed
        ended.get_loop().call_soon_threadsafe(resolve, ended)


def _all(first: Callable[[], None] | None, second: Callable[[], None]) -> Callable[[], None]:
    """A function that calls both."""

    def call() -> None:
        if first is not None:
            first()
        second()

    return call
