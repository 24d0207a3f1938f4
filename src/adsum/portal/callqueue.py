"""Calls from other threads: run functions in an event loop, and deliver results to the callers.

Invariants:

- Each call is executed at most once, in the event loop, in the order of submission for each thread.
- Its result or its error is delivered to its caller, and to nobody else.
- No call is lost silently: after the end of the queue, waiting calls raise `NodeNotRunningError`.
- The queue never blocks the event loop. One wake-up serves all calls that are queued meanwhile, and
  a turn of the loop executes a bounded number of them.
"""

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from adsum.errors import NodeNotRunningError, UsageError
from adsum.tasks import is_closing, resolve, start_task

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
        # Guards the three below. Held for a few steps only, so the loop never waits long for it.
        self._lock = threading.Lock()
        self._queued: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._woken = False
        self._closed = False
        # Calls of async functions under way, with their tasks; used in the loop only.
        self._running: dict[Future[Any], asyncio.Task[None]] = {}

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

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue a call, and return without waiting for it.

        Args:
            call: A function without arguments, plain or async.

        Raises:
            NodeNotRunningError: The queue is closed, or its event loop is.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise NodeNotRunningError(STOPPED)
            self._queued.append((future, call))
            wake, self._woken = not self._woken, True
        if wake:
            try:
                self.loop.call_soon_threadsafe(self._execute)
            except RuntimeError:  # the loop is closed
                self.close()
        return future

    def wait(self, future: "Future[Any]", timeout: float | None) -> Any:
        """Wait for the result of a call, in its caller's thread.

        Args:
            future: The call, as `submit` returned it.
            timeout: Seconds to wait at most; None waits without a bound.

        Raises:
            NodeNotRunningError: The node has stopped, or its event loop was closed.
            TimeoutError: The call takes longer. It is not cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = CHECK_INTERVAL if deadline is None else deadline - time.monotonic()
            try:
                return future.result(max(0.0, min(left, CHECK_INTERVAL)))
            except TimeoutError:
                if future.done():
                    return future.result()  # perhaps the function itself raised it
            if not self._fail_if_closed(future) and _is_over(deadline):
                raise TimeoutError(
                    f"no result from the event loop of the node within {timeout:g} s; the call is "
                    f"not cancelled"
                )

    async def wait_async(self, future: "Future[Any]") -> Any:
        """As `wait` without a bound, in another event loop; cancelling this cancels the call.

        Raises:
            NodeNotRunningError: The node has stopped, or its event loop was closed.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The error itself is not passed between the futures: asyncio refuses StopIteration there.
        future.add_done_callback(partial(_wake, ended))
        try:
            while not future.done():
                await asyncio.wait([ended], timeout=CHECK_INTERVAL)
                self._fail_if_closed(future)
        except asyncio.CancelledError:
            future.cancel()
            raise
        return future.result()

    def close(self) -> None:
        """Refuse further calls; those that wait raise `NodeNotRunningError`. Idempotent."""
        with self._lock:
            self._closed = True
            queued, self._queued = self._queued, deque()
        for future in [*(future for future, _ in queued), *list(self._running)]:
            fail(future, NodeNotRunningError(STOPPED))

    def _fail_if_closed(self, future: "Future[Any]") -> bool:
        """Fail a call if the event loop was closed without a stop of the node; returns whether."""
        if not self.loop.is_closed():
            return False
        self.close()
        fail(future, NodeNotRunningError(STOPPED))  # if it is queued no longer
        return True

    def _execute(self) -> None:
        for _ in range(SLICE):
            with self._lock:
                if not self._queued:
                    self._woken = False
                    return
                future, call = self._queued.popleft()
            if future.set_running_or_notify_cancel():
                self._call(future, call)
        self.loop.call_soon(self._execute)

    def _call(self, future: "Future[Any]", call: Callable[[], Any]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001, RUF100  # it belongs to the caller
            fail(future, error)
            return
        if inspect.isawaitable(result):
            task = self._running[future] = start_task(self._finish(future, result))
            task.add_done_callback(lambda _: self._ended(future))
        else:
            deliver(future, result)

    async def _finish(self, future: "Future[Any]", result: Awaitable[Any]) -> None:
        try:
            deliver(future, await result)
        except asyncio.CancelledError as error:
            # `asyncio.run` cancels all tasks at its end, perhaps without a stop of the node.
            ended = self.closed or is_closing()
            fail(future, NodeNotRunningError(STOPPED) if ended else error)
            raise
        except BaseException as error:  # noqa: BLE001, RUF100  # it belongs to the caller
            fail(future, error)

    def _ended(self, future: "Future[Any]") -> None:
        self._running.pop(future, None)
        fail(future, NodeNotRunningError(STOPPED))  # has an effect if it was cancelled unbegun


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _wake(ended: "asyncio.Future[None]", _: "Future[Any]") -> None:
    with suppress(RuntimeError):  # the waiting loop is closed
        ended.get_loop().call_soon_threadsafe(resolve, ended)


def deliver(future: "Future[Any]", result: object) -> None:
    """Deliver a result, unless the call has failed already because the node stopped."""
    with suppress(InvalidStateError):
        future.set_result(result)


def fail(future: "Future[Any]", error: BaseException) -> None:
    """Deliver an error, unless there is a result already."""
    with suppress(InvalidStateError):
        future.set_exception(error)
