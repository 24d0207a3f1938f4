"""`Mailbox`: a queue of jobs, run one at a time by a standing task.

The owner of a mailbox is as sequential as a process. All of its jobs run in one task, which rests
while no job is queued and ends with the owner. A job that is put into an idle mailbox with `begin`
runs at once, up to its first wait; see `standingtask`.

Invariants:
- One job runs at a time, in order.
- No job begins inside a call of another job: a handler that sends a message to another channel has
  continued before that channel handles the message.
- Each job is charged to the budget of the turn, whether it begins in place or not.
- A job that raises or leaves its task cancelled ends the task, and the next job gets a new one. So
  does a cancellation while the mailbox is idle. No cancellation reaches a later job.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

from adsum.tasks import is_closing

from .fairshare import WORK, FairShare
from .standingtask import StandingTask

T = TypeVar("T")
_Argument = TypeVar("_Argument")

#: A coroutine function that does one piece of work.
Job = Callable[[], Awaitable[None]]

#: Error of code that was cancelled, but not by adsum and not with its event loop.
CANCELLED = "cancelled by itself or by other code of the application"


class MailboxOwner(Protocol):
    """The owner of a mailbox, called back with its progress."""

    #: Budget for the jobs in each turn of the event loop, needed as handlers may never suspend.
    share: FairShare

    @property
    def ended(self) -> bool:
        """Whether the task should end, rather than rest, once the queue is empty."""

    def freed(self, size: int) -> None:
        """Called after jobs of `size` bytes were run or dropped."""

    def idle(self) -> None:
        """Called when the queue is empty and the task has ended."""

    def broken(self, error: BaseException | None) -> None:
        """Called after a job raised `error`, or was cancelled (None). Queued jobs still run."""


class Mailbox:
    """Runs queued jobs one at a time, in order.

    Args:
        owner: Called back after each job, when the task has ended, and when a job fails.
    """

    __slots__ = ("_began", "_jobs", "_owner", "_size", "_standing", "cancelling")

    def __init__(self, owner: MailboxOwner) -> None:
        self._owner = owner
        # Each job with the size in bytes of its frame. A list: it is short, and a deque is large.
        self._jobs: list[tuple[int, Job]] = []
        # When the running job began, in monotonic seconds, and its size; None while none runs.
        self._began: float | None = None
        self._size = 0
        # None before the first job, and after an end of the task until the next job.
        self._standing: StandingTask | None = None
        #: Whether the running job was cancelled by `cancel`, or with its event loop.
        self.cancelling = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job, size: int = 0) -> None:
        """Queue a job after all others; `size` is the bytes that it accounts for."""
        self._jobs.append((size, job))
        self._wake()

    def begin(
        self,
        job: Callable[[_Argument], Coroutine[Any, Any, None]],
        argument: _Argument,
        size: int = 0,
    ) -> bool:
        """Run ``job(argument)`` now, up to its first wait, or queue it as `put` does.

        Returns whether it began.

        It is queued if another job precedes it, if the budget of the turn does not allow it, and
        inside another job that was begun in place, of any mailbox of the event loop.
        """
        standing, share = self._standing, self._owner.share
        if standing is None or not standing.resting or not share.enter(WORK):
            self.put(partial(job, argument), size)
            return False
        self._began, self._size = time.monotonic(), size
        try:
            if standing.begin(job(argument)):
                self._account()  # otherwise the task does, once the job has ended
        finally:
            share.leave()
        if self._jobs or self._owner.ended:
            standing.wake()
        return True

    def put_first(self, job: Job) -> None:
        """Queue a job before all others; it runs after the one that is running."""
        self._jobs.insert(0, (0, job))
        self._wake()

    def clear(self) -> None:
        """Drop all queued jobs; the running one goes on."""
        jobs, self._jobs = self._jobs, []
        self._owner.freed(sum(size for size, _ in jobs))

    def cancel(self) -> None:
        """Cancel the running job."""
        if self._standing is not None and not self._standing.resting:
            self.cancelling = True
            self._standing.task.cancel()

    async def call(self, handling: Awaitable[T], limit: asyncio.Timeout | None = None) -> T:
        """Await code of the application in a job; a cancellation not requested here is a crash.

        Args:
            handling: The awaitable of the application.
            limit: The timeout around this call, if any.

        Raises:
            RuntimeError: The code was cancelled by the application.
        """
        try:
            return await handling
        except asyncio.CancelledError as error:
            if limit is not None and limit.expired():
                raise
            self.raise_crash(error)

    def raise_crash(self, error: asyncio.CancelledError) -> NoReturn:
        """Raise the error of application code in a job that was cancelled.

        The code may cancel its own task, or await a future that is cancelled. If it cancels its
        task and then returns without another await, the task ends as cancelled; see
        `MailboxOwner.broken`.

        Raises:
            asyncio.CancelledError: Adsum or the end of the event loop requested it.
            RuntimeError: The application requested it.
        """
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            raise RuntimeError("an awaitable of the application was cancelled") from error
        if self.cancelling or is_closing():
            self.cancelling = True
            raise error
        while task.uncancel():
            pass
        raise RuntimeError(CANCELLED) from error

    def _wake(self) -> None:
        if self._standing is None:
            self._standing = StandingTask(self._run)
            self._standing.task.add_done_callback(self._stopped)
        else:
            self._standing.wake()

    async def _run(self, standing: StandingTask) -> None:
        share = self._owner.share
        while True:
            while self._jobs:
                if not share.spend(WORK):
                    await share.turn(WORK)
                    if not self._jobs:
                        break  # dropped in between
                self._size, job = self._jobs.pop(0)
                self._began = time.monotonic()
                try:
                    await job()
                finally:
                    self._account()
                del job  # a resting task keeps none
                if standing.task.cancelling():
                    return
            if self._owner.ended:
                return
            try:
                await standing
            finally:
                self._account()
            if standing.task.cancelling():
                return

    def _account(self) -> None:
        """Charge the time of the job that has ended, if one ran, and free its size."""
        began, self._began = self._began, None
        if began is not None:
            self._owner.share.charge_time(time.monotonic() - began)
            self._owner.freed(self._size)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        """Handle the end of the task, which may have been cancelled before it began."""
        at_rest = self._standing is not None and self._standing.cancelled_at_rest
        self._standing = None
        if task.cancelled():
            if not at_rest:
                self._owner.broken(None)
        elif task.exception() is not None:
            self._owner.broken(task.exception())
        self.cancelling = False
        if self._jobs:
            self._wake()
        else:
            self._owner.idle()
