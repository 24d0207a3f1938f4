"""Work that is done one piece after the other, by a task that exists only while there is some.

So what has a mailbox is as sequential as a process, and costs little while it is idle.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from adsum.tasks import start_task

from .fairshare import WORK, FairShare

#: One piece of work.
Job = Callable[[], Awaitable[None]]


class Owner(Protocol):
    """Whose mailbox it is."""

    #: What its work costs in each turn of the event loop; handlers need not suspend.
    share: FairShare

    def freed(self, size: int) -> None:
        """A piece of work of so many bytes is done, or dropped."""

    def idle(self) -> None:
        """Nothing is left to be done."""

    def broken(self, error: BaseException | None) -> None:
        """A piece of work raised, or was cancelled (None). What waits is done nonetheless."""


class Mailbox:
    """See the module.

    Args:
        owner: Told of what happens.
    """

    __slots__ = ("_jobs", "_owner", "_task", "cancelling")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        # With what each keeps waiting, in bytes. A list: it is short, and a deque is large.
        self._jobs: list[tuple[int, Job]] = []
        self._task: asyncio.Task[None] | None = None
        #: Whether what is under way was cancelled by `cancel`, or with its event loop.
        self.cancelling = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job, size: int = 0) -> None:
        """Do something after all that waits."""
        self._jobs.append((size, job))
        self._start()

    def put_first(self, job: Job) -> None:
        """Do something before all that waits, and after what is under way."""
        self._jobs.insert(0, (0, job))
        self._start()

    def clear(self) -> None:
        """Drop what waits."""
        jobs, self._jobs = self._jobs, []
        self._owner.freed(sum(size for size, _ in jobs))

    def cancel(self) -> None:
        """Cancel what is under way."""
        if self._task is not None:
            self.cancelling = True
            self._task.cancel()

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
                return  # dropped meanwhile
            size, job = self._jobs.pop(0)
            began = time.monotonic()
            try:
                await job()
            finally:
                share.charge_time(time.monotonic() - began)
                self._owner.freed(size)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        """The task has ended, be it that it never began because it was cancelled before."""
        self._task = None
        if task.cancelled() or task.exception() is not None:
            self._owner.broken(None if task.cancelled() else task.exception())
        self.cancelling = False
        if self._jobs:
            self._start()
        else:
            self._owner.idle()
