"""`Pace`: the time of the next cut of a feed.

On a quiet topic a change is cut at once, on a busy one at intervals: after a cut the feed pauses
for as long as it took to send that cut to all clients. So the presences of one topic use at most
half of the event loop.
"""

import asyncio
from collections.abc import Callable

from adsum.channels.flow.fairshare import WORK, FairShare

#: Seconds between two cuts of a feed, at least and at most.
PAUSE, LONGEST_PAUSE = 0.005, 1.0
#: Seconds by which timers of the event loop may fire early.
_CLOCK_RESOLUTION = 0.0005


class Pace:
    """The timer of one feed.

    Args:
        cut: Makes a cut; calls `begun` once it has collected all changes so far.
    """

    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._next_cut_at = 0.0
        # Set from `schedule` until the cut has begun.
        self._timer: asyncio.Handle | None = None
        self._share = FairShare()

    def now(self) -> float:
        """The current time, in seconds of the event loop."""
        return self._loop.time()

    def schedule(self) -> None:
        """Make a cut as soon as the pause allows. Idempotent until that cut has begun."""
        if self._timer is None:
            delay = self._next_cut_at - self.now()
            self._timer = (
                self._loop.call_later(delay, self._on_timer)
                if delay > 0
                else self._loop.call_soon(self._on_timer)
            )

    def begun(self) -> None:
        """Record that the scheduled cut has begun: changes from now on need another one."""
        self._timer = None

    def flush(self) -> None:
        """Make the scheduled cut now, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._cut()

    def cancel(self) -> None:
        """Cancel the scheduled cut."""
        if self._timer is not None:
            self._timer.cancel()

    def pause(self) -> None:
        """Begin the shortest pause: a cut was made."""
        self._next_cut_at = self.now() + PAUSE

    def pause_until_sent(self, began: float) -> None:
        """Extend the pause once all clients were sent the cut.

        Each notified client starts to send at once or queues for its turn, and sends in a later
        turn of the loop. The pause is measured in a callback that runs after all of them.

        Args:
            began: When work on the cut began, in seconds of the event loop.
        """
        self._loop.call_soon(self._queue_behind, began)

    def _queue_behind(self, began: float) -> None:
        def sent() -> None:
            self._loop.call_soon(self._extend, began)

        self._share.call(WORK, sent)

    def _extend(self, began: float) -> None:
        now = self.now()
        self._next_cut_at = now + min(max(PAUSE, now - began), LONGEST_PAUSE)

    def _on_timer(self) -> None:
        if self._next_cut_at - self.now() > _CLOCK_RESOLUTION:
            self._timer = None
            self.schedule()  # sending took longer than was known when the timer was set
        else:
            self._cut()
