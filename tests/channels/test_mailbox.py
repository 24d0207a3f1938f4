"""Mailboxes: work in order, in a task that exists while there is some, whatever ends it."""

import asyncio
from functools import partial

from adsum.channels.flow.fairshare import FairShare
from adsum.channels.flow.mailbox import Mailbox
from tests.support.waiting import until

from .leak_check import run


class Story:
    """An owner that writes down what it is told, and what is done."""

    def __init__(self) -> None:
        self.share = FairShare()
        self.ended = True
        self.told: list[object] = []

    def freed(self, size: int) -> None:
        self.told.append(size)

    def idle(self) -> None:
        self.told.append("idle")

    def broken(self, error: BaseException | None) -> None:
        self.told.append(error)

    async def do(self, what: str) -> None:
        await asyncio.sleep(0)
        self.told.append(what)

    async def hang(self) -> None:
        self.told.append("hangs")
        await asyncio.Event().wait()

    async def fail(self, error: Exception) -> None:
        raise error


async def until_idle(story: Story) -> None:
    await until(lambda: story.told[-1:] == ["idle"])


def test_mailbox_runs_in_order_and_urgent_work_after_the_current_one() -> None:
    async def main() -> None:
        story = Story()
        mailbox = Mailbox(story)
        mailbox.put(partial(story.do, "one"), 1)
        await asyncio.sleep(0)
        mailbox.put(partial(story.do, "two"), 2)
        mailbox.put_first(partial(story.do, "first"))
        assert len(mailbox) == 2
        await until_idle(story)
        assert story.told == ["one", 1, "first", 0, "two", 2, "idle"]

    run(main())


def test_mailbox_work_that_raises_is_reported_and_the_next_runs() -> None:
    async def main() -> None:
        story, error = Story(), RuntimeError("it fails")
        mailbox = Mailbox(story)
        mailbox.put(partial(story.fail, error), 1)
        mailbox.put(partial(story.do, "two"), 2)
        await until_idle(story)
        assert story.told == [1, error, "two", 2, "idle"]

    run(main())


def test_cancelled_mailbox_work_is_reported_and_the_next_runs() -> None:
    async def main() -> None:
        story = Story()
        mailbox = Mailbox(story)
        mailbox.cancel()  # there is nothing yet
        mailbox.put(story.hang, 1)
        mailbox.put(partial(story.do, "two"), 2)
        await until(lambda: story.told)
        mailbox.cancel()
        await until_idle(story)
        assert story.told == ["hangs", 1, None, "two", 2, "idle"]

    run(main())


def test_cancellation_before_the_first_step_is_reported_and_the_work_runs() -> None:
    async def main() -> None:
        story = Story()
        mailbox = Mailbox(story)
        mailbox.put(partial(story.do, "one"), 1)
        mailbox.cancel()
        await until_idle(story)
        assert story.told == [None, "one", 1, "idle"]

    run(main())


def test_dropped_mailbox_work_is_freed_and_not_run() -> None:
    async def main() -> None:
        story = Story()
        mailbox = Mailbox(story)
        for size in 3, 4:
            mailbox.put(story.hang, size)
        mailbox.clear()
        assert len(mailbox) == 0
        await until_idle(story)
        assert story.told == [7, "idle"]

    run(main())
