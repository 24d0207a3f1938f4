"""A timeout in active time waits for its peer and not for its own process."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable

import pytest

from adsum.activetime import TICK, ActiveTimer, active_timeout

from .support.waiting import until

STEPS = round(5.0 / TICK)


def nothing() -> None:
    """A function of a timer of which only the existence matters."""


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


def test_infinite_timer_never_fires() -> None:
    rounds, fired = Rounds(), list[float]()
    timer = ActiveTimer(float("inf"), lambda: fired.append(rounds.now), rounds)

    for _ in range(100):
        rounds.pass_by(3600.0)
    timer.cancel()

    assert fired == []
    assert rounds.calls == []


def test_infinite_timeout_lets_its_block_end() -> None:
    async def main() -> str:
        async with active_timeout(float("inf")):
            await asyncio.sleep(0)
            return "ended"

    assert asyncio.run(main()) == "ended"


def test_timer_fires_in_the_context_of_its_creator() -> None:
    client = contextvars.ContextVar[str]("client")
    rounds, fired = Rounds(), list[str]()

    def admit(name: str) -> None:
        client.set(name)
        ActiveTimer(1.0, lambda: fired.append(client.get()), rounds)

    contextvars.Context().run(admit, "ann")
    contextvars.Context().run(admit, "bob")
    for _ in range(30):
        rounds.pass_by(TICK)

    assert fired == ["ann", "bob"]


class Request:
    """A large object of a caller."""


def test_context_of_a_caller_lives_no_longer_than_its_timer() -> None:
    request = contextvars.ContextVar[Request]("request")

    async def handle() -> "weakref.ref[Request]":
        made = Request()
        request.set(made)
        ActiveTimer(TICK, nothing).cancel()
        return weakref.ref(made)

    async def main() -> None:
        made = await asyncio.create_task(handle())
        ActiveTimer(60.0, nothing)  # keeps the clock ticking
        await until(lambda: gc.collect() >= 0 and made() is None, "the request is forgotten")

    asyncio.run(main())


def test_timers_do_not_keep_a_closed_loop_alive() -> None:
    class Link:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()
            self.timer = ActiveTimer(60.0, self.give_up)

        def give_up(self) -> None:
            raise AssertionError("its loop is closed")

    async def main() -> "weakref.ref[Link]":
        return weakref.ref(Link())

    link = asyncio.run(main())
    gc.collect()

    assert link() is None


def test_function_that_raises_stops_no_other_timer() -> None:
    rounds, fired = Rounds(), list[float]()
    ActiveTimer(60.0, nothing, rounds)  # with a clock that ticks, the next two fire in one tick
    ActiveTimer(1.0, lambda: [].pop(), rounds)
    ActiveTimer(1.0, lambda: fired.append(rounds.now), rounds)

    raised = 0
    for _ in range(30):
        try:
            rounds.pass_by(TICK)
        except IndexError:
            raised += 1

    assert (raised, len(fired)) == (1, 1)
