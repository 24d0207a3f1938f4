"""`Pace`: the time of the next cut of a feed.

On a quiet topic a change is cut at once, on a busy one at intervals: after a cut was sent to all
clients, the feed pauses for as long as the CPU time of its work on it. So the presences of one
topic use at most half of the event loop, if it has a core to itself. Time in which other programs
had the core is no work: if it counted, a busy machine would delay changes by pauses too.

The work on clients that were written their frame at once is known. The others are sent it in later
turns of the loop, and all CPU time of the loop until then counts.
"""

import asyncio
import time
from collections.abc import Callable

from adsum.channels.flow.fairshare import WORK, FairShare

#: Seconds between two cuts of a feed, at least and at most.
PAUSE, LONGEST_PAUSE = 0.005, 1.0


class Pace:
    """The timer of one feed.

    Args:
        cut: Makes a cut; calls `begun` once it has collected all changes so far.
        cpu_time: The CPU time of the thread of the event loop, in seconds.
    """

    def __init__(
        self, cut: Callable[[], None], cpu_time: Callable[[], float] = time.thread_time
    ) -> None:
        self._cut = cut
        #: The CPU time of the thread of the event loop, in seconds; work on cuts is measured by it.
        self.cpu_time = cpu_time
        self._loop = asyncio.get_running_loop()
        self._next_cut_at = 0.0
        # Set from `schedule` until the cut has begun.
        self._timer: asyncio.Handle | None = None
        # While a cut is sent to the clients: whether another one is due, the CPU time at which
        # work on it began, that of the work, and whether a client is sent it later.
        self._held = self._due = False
        self._began = self._worked = 0.0
        self._queued = False
        #: Pays for sending the cuts.
        self.share = FairShare()

    def now(self) -> float:
        """The current time, in seconds of the event loop."""
        return self._loop.time()

    def schedule(self) -> None:
        """Make a cut as soon as the pause allows. Idempotent until that cut has begun."""
        if self._held:
            self._due = True
        elif self._timer is None:
            delay = self._next_cut_at - self.now()
            self._timer = (
                self._loop.call_later(delay, self._cut)
                if delay > 0
                else self._loop.call_soon(self._cut)
            )

    def begun(self) -> None:
        """Record that the scheduled cut has begun: changes from now on need another one."""
        self._timer, self._due = None, False

    def flush(self) -> None:
        """Make the scheduled cut now, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._timer is not None or self._due:
            self._cut()

    def cancel(self) -> None:
        """Cancel the scheduled cut."""
        self._due = False
        if self._timer is not None:
            self._timer.cancel()

    def hold(self, worked: float) -> None:
        """Make no cut until `release`: one is being sent.

        Args:
            worked: CPU seconds of work on it so far.
        """
        self._held, self._queued = True, False
        self._began, self._worked = self.cpu_time() - worked, worked

    def note(self, worked: float, *, queued: bool) -> None:
        """Add to the work on the cut that is being sent.

        Args:
            worked: CPU seconds of work.
            queued: Whether any client was not written its frame at once.
        """
        self._worked += worked
        self._queued = self._queued or queued

    def release(self) -> None:
        """Begin the pause: the pass over the clients is finished.

        Each notified client starts to send at once or queues for its turn, and sends in a later
        turn of the loop. Their work is measured in a callback that runs after all of them.
        """
        if self._queued:
            self._loop.call_soon(self._queue_behind)
        else:
            self._pause(self._worked)

    def _queue_behind(self) -> None:
        def sent() -> None:
            self._loop.call_soon(self._all_sent)

        self.share.call(WORK, sent)

    def _all_sent(self) -> None:
        self._pause(self.cpu_time() - self._began)

    def _pause(self, seconds: float) -> None:
        self._held = False
        self._next_cut_at = self.now() + min(max(PAUSE, seconds), LONGEST_PAUSE)
        if self._due:
            self._due = False
            self.schedule()
