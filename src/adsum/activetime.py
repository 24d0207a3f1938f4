"""Timeouts in active time: time that passes only while this process runs.

A process that was stopped, starved of its share of a core, or blocked by its own work has read
nothing meanwhile, so its absence says nothing about a peer that it waits for. A timeout in real
time blames the peer as soon as the process comes back. Worse, under load such timeouts lead to
repeated attempts, which sustain the load.

So active time advances in ticks. Each tick is scheduled when the previous one has run, and a tick
that runs late counts as planned. The replication engine counts the silence of members by the same
rule. All timers of one event loop share its ticks, so thousands of them cost no more than one.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Protocol
from weakref import ReferenceType, WeakKeyDictionary, ref

#: Seconds of one tick. Shorter ticks count lateness more strictly, and cost as many wake-ups.
TICK = 0.1


class Cancellable(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Do not make the call."""


class Scheduler(Protocol):
    """The part of an event loop that a clock needs."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call `callback` once, after `delay` seconds."""


class ActiveTimer:
    """Calls a function once, after some seconds of active time.

    On an idle process this is real time, plus at most two ticks. A process that is stopped, blocked
    or overloaded calls the function after as many rounds of its event loop as the seconds have
    ticks at the earliest, however long those take.

    Args:
        seconds: Seconds of active time, above 0.
        callback: The function to call.
        scheduler: The event loop to run in; the running one by default.
    """

    def __init__(
        self, seconds: float, callback: Callable[[], None], scheduler: Scheduler | None = None
    ) -> None:
        self._callback: Callable[[], None] | None = callback
        scheduler = scheduler or asyncio.get_running_loop()
        _clock_of(scheduler).add(seconds, self, scheduler)

    def cancel(self) -> None:
        """Do not call the function. Idempotent; does nothing after the call."""
        self._callback = None

    def fire(self) -> None:
        """Call the function, unless it was called or the timer cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _Clock:
    """The ticks of one event loop. It ticks only while a timer waits."""

    def __init__(self) -> None:
        # Ticks that have passed.
        self._ticks = 0
        self._ticking = False
        self._serial = count()
        # Timers with the tick at which each fires; the serial number keeps their order.
        self._timers: list[tuple[int, int, ActiveTimer]] = []

    def add(self, seconds: float, timer: ActiveTimer, scheduler: Scheduler) -> None:
        # One tick more: the present one may have run for some time.
        fires_at = self._ticks + round(seconds / TICK + 0.5) + self._ticking
        heapq.heappush(self._timers, (fires_at, next(self._serial), timer))
        self._schedule(scheduler)

    def _schedule(self, scheduler: Scheduler) -> None:
        if self._timers and not self._ticking:
            self._ticking = True
            scheduler.call_later(TICK, partial(self._tick, scheduler))

    def _tick(self, scheduler: Scheduler) -> None:
        self._ticking = False
        self._ticks += 1
        due = []
        while self._timers and self._timers[0][0] <= self._ticks:
            due.append(heapq.heappop(self._timers)[-1])
        self._schedule(scheduler)
        for timer in due:
            timer.fire()


# By event loop. A clock lives as long as the call that it has scheduled there: what its timers call
# may refer to the loop, and would keep one that is closed.
_clocks: WeakKeyDictionary[Scheduler, ReferenceType[_Clock]] = WeakKeyDictionary()


def _clock_of(scheduler: Scheduler) -> _Clock:
    found = _clocks.get(scheduler)
    clock = None if found is None else found()
    if clock is None:
        clock = _Clock()
        _clocks[scheduler] = ref(clock)
    return clock


@asynccontextmanager
async def active_timeout(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Cancel the block after some seconds of active time, as `asyncio.timeout` does in real time.

    Args:
        seconds: Seconds of active time, above 0.

    Raises:
        TimeoutError: The time has passed; the block was cancelled.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        timer = ActiveTimer(seconds, lambda: timeout.reschedule(loop.time()))
        try:
            yield timeout
        finally:
            timer.cancel()
