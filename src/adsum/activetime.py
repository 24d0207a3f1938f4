"""Timeouts in active time: time that passes only while this process runs.

A process that was stopped, starved of its share of a core, or blocked by its own work has read
nothing meanwhile, so its absence says nothing about a peer that it waits for. A timeout in real
time blames the peer as soon as the process comes back. Worse, under load such timeouts lead to
repeated attempts, which sustain the load.

So a timeout is divided into steps. Each step is scheduled when the previous one has run, and a
step that runs late counts as planned. The replication engine counts the silence of members by the
same rule.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

#: Steps of one timeout. More steps count lateness more strictly, and cost as many wake-ups.
STEPS = 50


class Cancellable(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Do not make the call."""


class Scheduler(Protocol):
    """The part of an event loop that a timer needs."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call `callback` once, after `delay` seconds."""


class ActiveTimer:
    """Calls a function once, after some seconds of active time.

    On an idle process this is real time, plus at most a few milliseconds a step. A process that is
    stopped, blocked or overloaded calls the function after `STEPS` rounds of its event loop at the
    earliest, however long they take.

    Args:
        seconds: Seconds of active time, above 0.
        callback: The function to call.
        scheduler: The event loop to run in; the running one by default.
    """

    def __init__(
        self, seconds: float, callback: Callable[[], None], scheduler: Scheduler | None = None
    ) -> None:
        self._scheduler: Scheduler = scheduler or asyncio.get_running_loop()
        self._callback = callback
        self._step = seconds / STEPS
        self._steps_left = STEPS
        self._call = self._scheduler.call_later(self._step, self._on_step)

    def cancel(self) -> None:
        """Do not call the function. Idempotent; does nothing after the call."""
        self._call.cancel()

    def _on_step(self) -> None:
        self._steps_left -= 1
        if self._steps_left:
            self._call = self._scheduler.call_later(self._step, self._on_step)
        else:
            self._callback()


@asynccontextmanager
async def active_timeout(seconds: float) -> AsyncIterator[None]:
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
            yield
        finally:
            timer.cancel()
