"""Timeouts in active time: time that passes only while this process runs.

A process that was stopped, starved of its share of a core, or blocked by its own work has read
nothing in that time, so its pause is no evidence against the peer that it waits for. A timeout in
real time blames the peer as soon as the process resumes. Worse, under load such timeouts lead to
retries, which sustain the load.

So active time advances in ticks. Each tick is scheduled when the previous one has run, and a tick
that runs late counts as one tick. The failure detector of the replication engine counts the silence
of members by the same rule. All timers of one event loop share its ticks, so thousands of them cost
no more than one.
"""

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from itertools import count
from typing import Protocol
from weakref import WeakKeyDictionary, ref

#: Seconds of one tick. Shorter ticks exclude pauses more exactly, and cost more wake-ups.
TICK = 0.1


class Cancellable(Protocol):
    """A scheduled call that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the call."""


class Scheduler(Protocol):
    """The part of an event loop that a clock needs."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call `callback` once, after `delay` seconds."""


class ActiveTimer:
    """Calls a function once, after some seconds of active time.

    On an idle process this is real time, plus at most two ticks. In a process that is stopped,
    blocked or overloaded, the event loop first makes at least one round for each tick of these
    seconds, however long the rounds take. Like `call_later`, it calls the function in the context
    of its creator.

    Args:
        seconds: Seconds of active time, above 0; infinite for a timer that never fires.
        callback: The function to call.
        scheduler: The event loop to run in; the running one by default.
    """

    def __init__(
        self, seconds: float, callback: Callable[[], None], scheduler: Scheduler | None = None
    ) -> None:
        self._call: tuple[Context, Callable[[], None]] | None = copy_context(), callback
        if math.isinf(seconds):
            return
        scheduler = scheduler or asyncio.get_running_loop()
        _clock_of(scheduler).add(seconds, self, scheduler)

    def cancel(self) -> None:
        """Cancel the timer. Idempotent; does nothing after the call."""
        self._call = None

    def fire(self) -> None:
        """Call the function, unless it was called already or the timer was cancelled."""
        call, self._call = self._call, None
        if call is not None:
            context, callback = call
            context.run(callback)


class _Clock:
    """The ticks of one event loop. It ticks, and exists, only while a timer is pending.

    Its scheduled call is the only reference to it. So when the loop is closed, the clock is
    collected, and with it the timers and all objects that they refer to.
    """

    def __init__(self) -> None:
        # Ticks that have passed.
        self._ticks = 0
        self._ticking = False
        self._serial = count()
        # Timers with the tick at which each fires; the serial number keeps their order.
        self._timers: list[tuple[int, int, ActiveTimer]] = []

    def add(self, seconds: float, timer: ActiveTimer, scheduler: Scheduler) -> None:
        # One tick more, because the current one may be partly over.
        fires_at = self._ticks + round(seconds / TICK + 0.5) + self._ticking
        heapq.heappush(self._timers, (fires_at, next(self._serial), timer))
        self._schedule(scheduler)

    def _schedule(self, scheduler: Scheduler) -> None:
        if self._timers and not self._ticking:
            self._ticking = True
            # An empty context: the context of a timer would be kept as long as the clock ticks.
            Context().run(scheduler.call_later, TICK, partial(self._tick, scheduler))

    def _tick(self, scheduler: Scheduler) -> None:
        self._ticking = False
        self._ticks += 1
        try:
            while self._timers and self._timers[0][0] <= self._ticks:
                heapq.heappop(self._timers)[-1].fire()
        finally:
            self._schedule(scheduler)  # even if a function raised, the others are called


# Clocks by event loop; weak, because timers refer to links and sessions, and these to the loop.
_clocks: WeakKeyDictionary[Scheduler, ref[_Clock]] = WeakKeyDictionary()


def _clock_of(scheduler: Scheduler) -> _Clock:
    """The clock of an event loop."""
    known = _clocks.get(scheduler)
    clock = known() if known is not None else None
    if clock is None:
        clock = _Clock()
        _clocks[scheduler] = ref(clock)
    return clock


@asynccontextmanager
async def active_timeout(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Cancel a block after some seconds of active time, like `asyncio.timeout` in real time.

    Args:
        seconds: Seconds of active time, above 0; infinite for no timeout.

    Raises:
        TimeoutError: The time has expired; the block was cancelled.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        timer = ActiveTimer(seconds, lambda: timeout.reschedule(loop.time()))
        try:
            yield timeout
        finally:
            timer.cancel()
