"""`StandingTask`: a task that rests between pieces of work, and begins them in place.

Work that is begun in place runs inside the call of its caller, up to its first wait. If it ends
without a wait, it has cost no turn of the event loop. If it waits, the task takes it over in the
same call, and goes on as if it had begun it. So the work sees one task from beginning to end: the
current task, its context, its timeouts and its cancellation are those of the standing task.

Invariants:
- While work runs in place, the standing task is the current task of the event loop, and the code
  runs in its context. Afterwards the caller's task is the current one again.
- Work has no more than one beginning in place at a time: the task begins it only while it rests.
- A cancellation of the task during work in place reaches the work at its first wait, as in any
  task. If the work ends before, the task ends as cancelled.
- An exception of the work ends the task, as if the task had begun the work.

A resting task waits for this object, which is compatible with futures. `asyncio.Task` passes a
function that continues it to `add_done_callback`. A future would let the event loop call that in
its next turn; this object calls it at once when work that was begun in place waits. The functions
that set the current task are those that asyncio documents for other implementations of tasks.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from adsum.tasks import start_task

_Resume = Callable[["StandingTask"], object]


class StandingTask:
    """A task whose coroutine awaits this object to rest.

    Args:
        main: The coroutine function of the task, called with this object. The task begins in a
            later turn. When it rests, it completes work that was begun in place; the rest ends
            with that work, or with `wake`.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_context",
        "_error",
        "_loop",
        "_resume",
        "_wait",
        "_work",
        "cancelled_at_rest",
        "task",
    )

    def __init__(self, main: Callable[["StandingTask"], Coroutine[Any, Any, None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._asyncio_future_blocking = False
        # While the task rests: the function that continues it, to be called once, and its context.
        self._resume: _Resume | None = None
        self._context = Context()
        # The exception with which the rest ends, if any.
        self._error: BaseException | None = None
        # Work that was begun in place and waits, and the object that it waits for.
        self._work: Coroutine[Any, Any, None] | None = None
        self._wait: Any = None
        #: Whether the task was cancelled while it rested, so that no work was affected.
        self.cancelled_at_rest = False
        #: The task.
        self.task: asyncio.Task[None] = start_task(main(self))

    @property
    def resting(self) -> bool:
        """Whether the task rests."""
        return self._resume is not None

    def wake(self) -> None:
        """End the rest in a later turn. Does nothing if the task does not rest."""
        resume, self._resume = self._resume, None
        if resume is not None:
            self._loop.call_soon(resume, self, context=self._context)

    def begin(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run work in the task, which must rest: up to its first wait before this returns.

        Returns whether the work has ended without a wait and without an error. Then the rest
        continues; otherwise it ends with the work. Call it in the event loop of the task.
        Exceptions of the work are raised in the task.
        """
        loop, caller = self._loop, asyncio.current_task(self._loop)
        if caller is not None:
            asyncio._leave_task(loop, caller)
        try:
            return self._advance(work)
        finally:
            if caller is not None:
                asyncio._enter_task(loop, caller)

    def _advance(self, work: Coroutine[Any, Any, None]) -> bool:
        resume, self._resume = self._resume, None
        if resume is None:
            raise RuntimeError("a standing task can begin work in place only while it rests")
        loop, task = self._loop, self.task
        asyncio._enter_task(loop, task)
        try:
            self._wait = self._context.run(work.send, None)
            self._work = work
        except StopIteration:
            if not task.cancelling():
                self._resume = resume
                return True
        except BaseException as error:
            self._error = error
        finally:
            asyncio._leave_task(loop, task)
        self._context.run(resume, self)
        return False

    def __await__(self) -> Generator[Any, Any, None]:
        """Rest; only the coroutine of the task may await this."""
        error: BaseException | None = None
        self._asyncio_future_blocking = True
        try:
            yield self
        except BaseException as raised:
            if self._work is None:
                raise
            error = raised
        if self._work is None:
            return
        work, self._work = self._work, None
        wait, self._wait = self._wait, None
        if error is not None and asyncio.isfuture(wait) and wait.cancel():
            error = None  # as `asyncio.Task` does: the error comes from the cancelled future
        yield from _completed(work, wait, error)

    # Called by the task; see `asyncio.Future`.

    def add_done_callback(self, resume: _Resume, *, context: Context) -> None:
        """Begin a rest."""
        self._resume, self._context = resume, context

    def cancel(self, msg: object = None) -> bool:
        """End a rest with an error; False if there is no rest, so that the task keeps the error."""
        if self._resume is None:
            return False
        self.cancelled_at_rest = True
        self._error = asyncio.CancelledError()
        self.wake()
        return True

    def result(self) -> None:
        """Raise the exception with which the rest ends, if any."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the task."""
        return self._loop


def _completed(
    work: Coroutine[Any, Any, None], wait: Any, error: BaseException | None
) -> Generator[Any, Any, None]:
    """Complete work that waits, as ``yield from`` would if the work had not begun.

    Args:
        work: The coroutine.
        wait: The object that it has yielded.
        error: Raised in the coroutine instead of its wait, if given.
    """
    try:
        if error is not None:
            wait = work.throw(error)
        while True:
            try:
                value = yield wait
            except BaseException as raised:
                wait = work.throw(raised)
            else:
                wait = work.send(value)
    except StopIteration:
        return
