"""A timeout in active time waits for its peer and not for its own process."""

import asyncio
import gc
from collections.abc import Callable
from weakref import ref

import pytest

from adsum.activetime import TICK, ActiveTimer, active_timeout

STEPS = round(5.0 / TICK)


class Call:
    """A call that `Rounds` will make."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback

    def cancel(self) -> None:
        self.at = float("inf")


class Rounds:
    """An event loop in virtual time whose rounds take as long as the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Call] = []

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Call:
        self.calls.append(Call(self.now + delay, callback))
        return self.calls[-1]

    def pass_by(self, seconds: float) -> None:
        """One round that takes some seconds, and then the calls that are due."""
        self.now += seconds
        due = [call for call in self.calls if call.at <= self.now + 1e-9]
        self.calls = [call for call in self.calls if call not in due]
        for call in due:
            call.callback()


def test_timer_of_an_idle_process_fires_once_after_its_seconds() -> None:
    rounds, fired = Rounds(), list[float]()
    ActiveTimer(5.0, lambda: fired.append(rounds.now), rounds)

    for _ in range(1000):
        rounds.pass_by(0.01)

    assert fired == [pytest.approx(5.0, rel=0.1)]


def test_stopped_process_does_not_time_out_for_its_own_absence() -> None:
    rounds, fired = Rounds(), list[float]()
    ActiveTimer(5.0, lambda: fired.append(rounds.now), rounds)

    rounds.pass_by(3600.0)
    for _ in range(100):
        rounds.pass_by(0.04)
    assert fired == []
    for _ in range(100):
        rounds.pass_by(0.04)

    assert len(fired) == 1


def test_starved_process_times_out_after_as_many_rounds_as_a_timeout_has_steps() -> None:
    rounds, fired = Rounds(), list[float]()
    ActiveTimer(5.0, lambda: fired.append(rounds.now), rounds)

    for _ in range(STEPS - 1):
        rounds.pass_by(2.0)
    assert fired == []
    rounds.pass_by(2.0)
    rounds.pass_by(2.0)

    assert len(fired) == 1


def test_thousand_timers_wake_the_process_as_often_as_one() -> None:
    rounds, fired = Rounds(), list[float]()
    timers = [
        ActiveTimer(1.0 + number / 1000, lambda: fired.append(rounds.now), rounds)
        for number in range(1000)
    ]
    for _ in range(30):
        assert len(rounds.calls) <= 1
        rounds.pass_by(TICK)

    assert len(fired) == len(timers)
    assert rounds.calls == []


def test_cancelled_timer_never_fires() -> None:
    rounds, fired = Rounds(), list[float]()
    timer = ActiveTimer(5.0, lambda: fired.append(rounds.now), rounds)

    for _ in range(3):
        rounds.pass_by(1.0)
    timer.cancel()
    timer.cancel()
    for _ in range(1000):
        rounds.pass_by(1.0)

    assert fired == []


def test_timeout_cancels_its_block_and_no_later_one() -> None:
    cancelled = list[bool]()

    async def wait() -> None:
        async with active_timeout(0.01):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await wait()
        assert cancelled
        async with active_timeout(0.01):
            pass
        await asyncio.sleep(0.1)

    asyncio.run(main())


def test_cancellation_from_outside_is_no_timeout() -> None:
    async def main() -> None:
        async def wait() -> None:
            async with active_timeout(60.0):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_timer_does_not_keep_a_closed_loop() -> None:
    async def start() -> None:
        ActiveTimer(60.0, asyncio.get_running_loop().stop)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    loop.close()
    found = ref(loop)
    del loop
    gc.collect()

    assert found() is None
