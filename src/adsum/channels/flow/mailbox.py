"""`Mailbox`: a queue of jobs, run one at a time by a task that exists only while jobs are queued.

The owner of a mailbox is as sequential as a process, and costs little while it is idle.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from adsum.tasks import is_closing, start_task

from .fairshare import WORK, FairShare

T = TypeVar("T")

#: A coroutine function that does one piece of work.
Job = Callable[[], Awaitable[None]]

#: Error of code that was cancelled, but not by adsum and not with its event loop.
CANCELLED = "cancelled by itself or by other code of the application"


class MailboxOwner(Protocol):
    """The owner of a mailbox, called back with its progress."""

    #: Budget for the jobs in each turn of the event loop, needed as handlers may never suspend.
    share: FairShare

    def freed(self, size: int) -> None:
        """Called after jobs of `size` bytes were run or dropped."""

    def idle(self) -> None:
        """Called when the queue is empty and no job is running."""

    def broken(self, error: BaseException | None) -> None:
        """Called after a job raised `error`, or was cancelled (None). Queued jobs still run."""


class Mailbox:
    """Runs queued jobs one at a time, in order.

    Args:
        owner: Called back after each job, when the mailbox is idle, and when a job fails.
    """

    __slots__ = ("_jobs", "_owner", "_task", "cancelling")

    def __init__(self, owner: MailboxOwner) -> None:
        self._owner = owner
        # Each job with the size in bytes of its frame. A list: it is short, and a deque is large.
        self._jobs: list[tuple[int, Job]] = []
        self._task: asyncio.Task[None] | None = None
        #: Whether the running job was cancelled by `cancel`, or with its event loop.
        self.cancelling = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job, size: int = 0) -> None:
        """Queue a job after all others; `size` is the bytes that it accounts for."""
        self._jobs.append((size, job))
        self._start()

    def put_first(self, job: Job) -> None:
        """Queue a job before all others; it runs after the one that is running."""
        self._jobs.insert(0, (0, job))
        self._start()

    def clear(self) -> None:
        """Drop all queued jobs; the running one goes on."""
        jobs, self._jobs = self._jobs, []
        self._owner.freed(sum(size for size, _ in jobs))

    def cancel(self) -> None:
        """Cancel the running job."""
        if self._task is not None:
            self.cancelling = True
            self._task.cancel()

    async def call(self, handling: Awaitable[T], limit: asyncio.Timeout | None = None) -> T:
        """Await code of the application in a job; a cancellation not requested here is a crash.

        The code may cancel its own task, or await a future that is cancelled. If it cancels its
        task and then returns without another await, the task ends as cancelled; see
        `MailboxOwner.broken`.

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
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise RuntimeError("an awaitable of the application was cancelled") from error
            if self.cancelling or is_closing():
                self.cancelling = True
                raise
            while task.uncancel():
                pass
            raise RuntimeError(CANCELLED) from error

    def _start(self) -> None:
        if self._task is None:
            self._task = start_task(self._run())
            self._task.add_done_callback(self._stopped)

    async def _run(self) -> None:
        share = self._owner.share
        while self._jobs:
            if not share.spend(WORK):
                await share.turn(WORK)
            if not self._jobs:
                return  # dropped in between
            size, job = self._jobs.pop(0)
            began = time.monotonic()
            try:
                await job()
            finally:
                share.charge_time(time.monotonic() - began)
                self._owner.freed(size)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        """Handle the end of the task, which may have been cancelled before it began."""
        self._task = None
        if task.cancelled() or task.exception() is not None:
            self._owner.broken(None if task.cancelled() else task.exception())
        self.cancelling = False
        if self._jobs:
            self._start()
        else:
            self._owner.idle()
