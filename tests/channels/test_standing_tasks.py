"""Work that a standing task begins in place: the laws of tasks hold for it, and none is nested."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import uvloop

from adsum.channels.flow.fairshare import BUDGET, WORK, FairShare
from adsum.channels.flow.mailbox import Mailbox
from adsum.channels.flow.standingtask import StandingTask
from tests.support.eager_tasks import EAGER
from tests.support.waiting import until

from .leak_check import others

Work = Callable[[], Coroutine[Any, Any, None]]


class Share(FairShare):
    """Counts the jobs whose time was charged."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = 0

    def charge_time(self, seconds: float) -> None:
        assert 0 <= seconds < 3600
        self.jobs += 1
        super().charge_time(seconds)


class Owner:
    """An owner of a mailbox that records what happens to its jobs."""

    def __init__(self) -> None:
        self.timed = Share()
        self.share: FairShare = self.timed
        #: The sizes that were freed.
        self.sizes: list[int] = []
        self.ended = False
        self.noted: list[object] = []
        self.mailbox = Mailbox(self)

    def freed(self, size: int) -> None:
        self.sizes.append(size)

    def idle(self) -> None:
        self.noted.append("idle")

    def broken(self, error: BaseException | None) -> None:
        self.noted.append(("broken", repr(error)))

    async def rest(self) -> "Owner":
        """Return once the task rests."""
        self.mailbox.put(self.nothing)
        await until(lambda: self.mailbox._standing is not None and self.mailbox._standing.resting)
        return self

    async def nothing(self, _: object = None) -> None:
        """A job that ends at once."""

    def begin(self, work: Work) -> None:
        """Begin a job in place; fails if it was queued instead."""
        assert self.mailbox.begin(lambda _: work(), None)

    @property
    def task(self) -> "asyncio.Task[None]":
        """The standing task."""
        assert self.mailbox._standing is not None
        return self.mailbox._standing.task

    async def end(self) -> None:
        """End the mailbox and its task."""
        self.ended = True
        self.mailbox.put(self.nothing)
        await until(lambda: self.mailbox._standing is None)


@pytest.fixture(params=["asyncio", "uvloop", "debug", "eager"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a test in each kind of event loop; it must leave no task and no complaint."""

    def run_in(main: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(debug=request.param == "debug", loop_factory=factory) as runner:
            runner.run(watched(main))

    async def watched(main: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, said: complaints.append(said))
        if request.param == "eager":
            loop.set_task_factory(EAGER)
        async with asyncio.timeout(20):
            await main
            await until(lambda: not others())
        assert not complaints, complaints

    if request.param == "eager" and EAGER is None:
        pytest.skip("asyncio has eager tasks from 3.12")
    return run_in


Run = Callable[[Coroutine[Any, Any, None]], None]
Note = Callable[..., None]


def current() -> "asyncio.Task[Any]":
    """The current task."""
    task = asyncio.current_task()
    assert task is not None
    return task


def test_job_that_never_waits_ends_before_begin_returns(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()
        tasks = asyncio.all_tasks()

        async def job() -> None:
            owner.noted.append(asyncio.current_task())

        for _ in range(3):
            owner.begin(job)
        assert owner.noted == [owner.task] * 3
        assert asyncio.all_tasks() == tasks
        assert asyncio.current_task() is not owner.task
        await owner.end()

    run(main())


def test_job_begun_by_a_callback_has_the_standing_task_and_leaves_none(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job() -> None:
            owner.noted.append(asyncio.current_task())
            await asyncio.sleep(0)
            owner.noted.append(asyncio.current_task())

        def callback() -> None:
            owner.begin(job)
            owner.noted.append(asyncio.current_task())

        asyncio.get_running_loop().call_soon(callback)
        await until(lambda: len(owner.noted) == 3)
        assert owner.noted == [owner.task, None, owner.task]
        await owner.end()

    run(main())


def test_job_that_waits_goes_on_in_the_same_task(run: Run) -> None:
    async def main() -> None:
        owner, event = await Owner().rest(), asyncio.Event()
        task = owner.task

        async def job() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            await event.wait()
            owner.noted.append(asyncio.current_task())
            owner.noted.append(await asyncio.create_task(asyncio.sleep(0, "result")))

        owner.begin(job)
        assert not owner.mailbox.begin(asyncio.sleep, 0)  # one at a time
        event.set()
        await until(lambda: owner.noted == [task, "result"])
        await until(lambda: owner.mailbox._standing is not None and owner.mailbox._standing.resting)
        assert owner.task is task
        await owner.end()

    run(main())


@pytest.mark.parametrize("delay", [0, 0.01])
def test_timeout_around_a_wait_begun_in_place_expires(run: Run, delay: float) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job() -> None:
            try:
                async with asyncio.timeout(delay):
                    await asyncio.Event().wait()
            except TimeoutError:
                owner.noted.append("expired")
            await asyncio.sleep(0)
            owner.noted.append("after")

        owner.begin(job)
        await until(lambda: owner.noted == ["expired", "after"])
        assert owner.task.cancelling() == 0
        await owner.end()

    run(main())


def test_task_group_in_a_job_begun_in_place_waits_and_cancels(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def fail() -> None:
            raise LookupError

        async def job() -> None:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
            owner.noted.append([task.result() for task in tasks])
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.Event().wait()
            except* LookupError:
                owner.noted.append("failed")

        owner.begin(job)
        await until(lambda: owner.noted == [[0, 1, 2], "failed"])
        assert owner.task.cancelling() == 0
        await owner.end()

    run(main())


def test_context_of_the_task_holds_the_variables_of_its_jobs_alone(run: Run) -> None:
    variable = ContextVar("variable", default="none")

    async def main() -> None:
        variable.set("test")
        first, second = await Owner().rest(), await Owner().rest()

        async def job(owner: Owner, value: str) -> None:
            owner.noted.append(variable.get())
            variable.set(value)
            await asyncio.sleep(0)
            owner.noted.append(variable.get())

        first.begin(partial(job, first, "first"))
        second.begin(partial(job, second, "second"))
        await until(lambda: len(second.noted) == 2)
        assert (first.noted, second.noted) == (["test", "first"], ["test", "second"])
        assert variable.get() == "test"
        await first.end()
        await second.end()

    run(main())


async def cancel_and_wait_for_a_task(note: Note) -> None:
    inner = asyncio.create_task(asyncio.Event().wait())
    current().cancel("message")
    try:
        await inner
    except asyncio.CancelledError as error:
        note(type(error), inner.cancelled(), current().cancelling())
        raise


async def cancel_twice(note: Note) -> None:
    for _ in range(2):
        current().cancel()
    for _ in range(2):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            note("cancelled", current().cancelling())
    current().uncancel()


async def cancel_with_a_future_that_is_done(note: Note) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result("result")
    current().cancel()
    note(await future)
    await asyncio.sleep(0)


async def raise_after_a_failed_wait(note: Note) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(LookupError("failed"))
    try:
        await future
    except LookupError as error:
        note(str(error))
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
    raise LookupError("at last")


async def wait_with_limits(note: Note) -> None:
    for wait in asyncio.Event().wait(), asyncio.sleep(0, "in time"):
        try:
            note(await asyncio.wait_for(wait, 0.01))
        except TimeoutError:
            note("too late")
    async with asyncio.timeout(1) as limit:
        limit.reschedule(asyncio.get_running_loop().time())
        try:
            await asyncio.Event().wait()
        finally:
            note(current().cancelling())


async def yield_no_future(note: Note) -> None:
    class Wrong:
        def __await__(self) -> Any:
            yield "no future"

    try:
        await Wrong()
    except RuntimeError:
        note("refused")


@pytest.mark.parametrize(
    "work",
    [
        cancel_and_wait_for_a_task,
        cancel_twice,
        cancel_with_a_future_that_is_done,
        raise_after_a_failed_wait,
        wait_with_limits,
        yield_no_future,
    ],
)
def test_work_begun_in_place_sees_and_does_as_in_a_task_of_its_own(
    run: Run, work: Callable[[Note], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        async def rest(standing: StandingTask) -> None:
            await standing

        standing, notes = StandingTask(rest), list[Any]()
        await until(lambda: standing.resting)
        standing.begin(work(lambda *noted: notes.append(noted)))
        seen = list[Any]()
        own = asyncio.create_task(work(lambda *noted: seen.append(noted)))
        await asyncio.wait([own, standing.task])
        assert notes == seen
        assert outcome(standing.task) == outcome(own)

    def outcome(task: "asyncio.Task[None]") -> str:
        return "cancelled" if task.cancelled() else repr(task.exception())

    run(main())


def test_exception_of_a_job_begun_in_place_is_reported_and_the_next_runs(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job(waits: bool) -> None:
            if waits:
                await asyncio.sleep(0)
            raise LookupError(waits)

        for waits in False, True:
            owner.begin(partial(job, waits))
            await until(lambda: "idle" in owner.noted)
            assert owner.noted == [("broken", repr(LookupError(waits))), "idle"]
            owner.noted.clear()
            await owner.rest()
        await owner.end()

    run(main())


def test_cancel_after_the_part_in_place_reaches_the_wait_of_the_job(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()
        waited = asyncio.get_running_loop().create_future()

        async def job() -> None:
            try:
                await waited
            except asyncio.CancelledError:
                owner.noted.append("cancelled")
                raise

        owner.begin(job)
        owner.mailbox.cancel()
        await until(lambda: "idle" in owner.noted)
        assert owner.noted == ["cancelled", ("broken", "None"), "idle"]
        assert waited.cancelled()

    run(main())


@pytest.mark.parametrize("waits", ["future", "turn"])
def test_cancel_in_the_part_in_place_reaches_the_first_wait(run: Run, waits: str) -> None:
    async def main() -> None:
        owner = await Owner().rest()
        future = asyncio.get_running_loop().create_future()

        async def job() -> None:
            owner.mailbox.cancel()
            owner.noted.append("goes on")
            try:
                await (asyncio.sleep(0) if waits == "turn" else future)
            except asyncio.CancelledError:
                owner.noted.append("cancelled")
                raise

        owner.begin(job)
        await until(lambda: "idle" in owner.noted)
        assert owner.noted == ["goes on", "cancelled", ("broken", "None"), "idle"]
        assert future.cancelled() is (waits == "future")

    run(main())


def test_job_that_cancels_its_task_in_place_and_returns_is_reported(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job() -> None:
            owner.task.cancel()

        async def after() -> None:
            owner.noted.append("next")

        owner.begin(job)
        assert not owner.mailbox.begin(lambda _: after(), None)  # the task is about to end
        await until(lambda: "next" in owner.noted)
        assert owner.noted == [("broken", "None"), "next"]
        await owner.end()

    run(main())


@pytest.mark.parametrize("how", ["begin", "put"])
def test_job_that_swallows_a_cancellation_leaves_no_trace_of_it(run: Run, how: str) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job() -> None:
            current().cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

        async def after() -> None:
            owner.noted.append(current().cancelling())

        owner.begin(job) if how == "begin" else owner.mailbox.put(job)
        owner.mailbox.put(after)
        await until(lambda: owner.noted == [0])
        await owner.end()

    run(main())


def test_job_that_withdraws_its_own_cancellation_goes_on(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job() -> None:
            owner.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            owner.task.uncancel()
            await asyncio.sleep(0)
            owner.noted.append("done")

        owner.begin(job)
        await until(lambda: owner.noted == ["done"])
        await owner.end()

    run(main())


def test_cancellation_at_rest_ends_the_task_and_the_next_job_gets_another(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()
        task = owner.task
        task.cancel()
        owner.mailbox.cancel()  # no job runs, so this has no effect
        await until(task.done)
        assert task.cancelled()
        await owner.rest()
        assert owner.noted == ["idle"]
        assert owner.task is not task
        await owner.end()

    run(main())


def test_jobs_begun_inside_another_wait_for_a_later_turn_in_order(run: Run) -> None:
    async def main() -> None:
        first, second = await Owner().rest(), await Owner().rest()

        async def job(name: str) -> None:
            first.noted.append(f"{name} begins")
            if name == "outer":
                for inner in "inner 1", "inner 2":
                    assert not first.mailbox.begin(job, inner)
                assert not second.mailbox.begin(job, "other")
            first.noted.append(f"{name} ends")

        first.begin(partial(job, "outer"))
        assert first.noted == ["outer begins", "outer ends"]
        await until(lambda: len(first.noted) == 8)
        assert [note for note in first.noted[2:] if "inner" in str(note)] == [
            "inner 1 begins",
            "inner 1 ends",
            "inner 2 begins",
            "inner 2 ends",
        ]
        await first.end()
        await second.end()

    run(main())


def test_jobs_begun_in_place_are_charged_to_the_budget_of_the_turn(run: Run) -> None:
    async def main() -> None:
        owner = await Owner().rest()
        begun = 0
        while owner.mailbox.begin(owner.nothing, None):
            begun += 1
        assert 0 < begun <= BUDGET // WORK
        await until(lambda: not len(owner.mailbox))
        await owner.end()

    run(main())


@pytest.mark.parametrize("ends", ["at once", "after a wait", "by an error", "by a late error"])
def test_job_begun_in_place_is_charged_and_freed_once_when_it_ends(run: Run, ends: str) -> None:
    async def main() -> None:
        owner, go = await Owner().rest(), asyncio.Event()

        async def job(size: int) -> None:
            if ends in ("after a wait", "by a late error"):
                await go.wait()
            if "error" in ends:
                raise RuntimeError

        owner.sizes.clear()
        owner.timed.jobs = 0
        assert owner.mailbox.begin(job, 7, 7)
        assert owner.sizes == ([] if "a " in ends else [7])
        go.set()
        await until(lambda: owner.sizes == [7])
        owner.mailbox.put(owner.nothing, 5)
        await until(lambda: owner.sizes == [7, 5])
        assert owner.timed.jobs == 2
        await owner.end()

    run(main())


def test_closing_loop_ends_resting_and_waiting_tasks() -> None:
    owners: list[Owner] = []

    async def main() -> None:
        owners.extend([await Owner().rest(), await Owner().rest()])
        owners[1].begin(asyncio.Event().wait)  # type: ignore[arg-type]  # its result is ignored
        owners[0].noted.clear()

    asyncio.run(main())
    assert [owner.noted for owner in owners] == [["idle"], [("broken", "None"), "idle"]]


def test_keyboard_interrupt_in_place_reaches_the_event_loop() -> None:
    async def main() -> None:
        owner = await Owner().rest()

        async def job() -> None:
            raise KeyboardInterrupt

        owner.begin(job)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_begin_of_a_task_that_does_not_rest_raises(run: Run) -> None:
    async def main() -> None:
        async def rest(standing: StandingTask) -> None:
            await standing

        standing = StandingTask(rest)
        assert not standing.resting
        work = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="only while it rests"):
            standing.begin(work)
        work.close()
        await until(lambda: standing.resting)
        standing.wake()
        await standing.task

    run(main())
