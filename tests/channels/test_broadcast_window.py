"""A publisher waits for members whose clients are far behind with its broadcasts."""

import asyncio

import pytest

import adsum
from adsum.channels import Socket, broadcastwindow
from adsum.channels.broadcasts import Broadcasts
from adsum.channels.broadcastwindow import (
    MARK_INTERVAL,
    WINDOW,
    Acknowledgements,
    PublishWindow,
)
from tests.support.waiting import until

from .direct_carrier import Direct
from .leak_check import leak_checked
from .test_broadcast_pass import MANY, Room, joined, said


def full(member: str = "b") -> PublishWindow:
    """A window that a member has greeted, and that has no room."""
    window = PublishWindow()
    window.acknowledge(member, 0)
    for _ in range(WINDOW + 1):
        window.count()
    return window


def test_first_broadcast_and_each_interval_are_marked() -> None:
    window = PublishWindow()
    marked = [n for n in range(1, 3 * MARK_INTERVAL) if window.count()]
    assert marked == [1, MARK_INTERVAL, 2 * MARK_INTERVAL]


@leak_checked
async def test_publisher_waits_for_an_acknowledgement_within_the_window() -> None:
    window = full()
    waiting = asyncio.ensure_future(window.room())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    window.acknowledge("b", 1)
    await waiting
    await window.room()


@leak_checked
async def test_members_that_never_acknowledge_are_not_waited_for() -> None:
    window = PublishWindow()
    for _ in range(3 * WINDOW):
        window.count()
    assert window.is_first_burst
    await window.greeted()
    assert not window.is_first_burst
    await window.room()


@pytest.mark.slow
@leak_checked
async def test_publisher_waits_once_for_a_member_that_is_stuck() -> None:
    window = full()
    await window.room()  # for `PATIENCE`
    assert not window._behind()
    window.acknowledge("b", 0)  # it goes on
    for _ in range(WINDOW + 1):
        window.count()
    assert window._behind()


def test_wrong_acknowledgements_change_nothing() -> None:
    window = full()
    before = dict(window._acknowledged)
    window.acknowledge("b", window.published + 1)
    window.acknowledge("b", 0)
    assert window._acknowledged == before


def test_mark_is_due_once_all_earlier_broadcasts_have_passed() -> None:
    marks = Acknowledgements()
    marks.mark("a", 8, 5)
    marks.mark("a", 16, 9)
    marks.mark("b", 8, 9)
    assert marks.due(4) == []
    assert marks.due(5) == [("a", 8)]
    assert marks.due(9) == [("a", 16), ("b", 8)]
    assert marks.due(9) == []


def test_marks_of_a_member_are_bounded_and_the_last_one_is_kept() -> None:
    marks = Acknowledgements()
    for n in range(1, 1000):
        marks.mark("a", n, n)
    assert len(marks._marks["a"]) == broadcastwindow._MAX_MARKS
    assert marks.due(1000) == [("a", 999)]


def test_publisher_is_greeted_once_in_each_of_its_runs() -> None:
    marks = Acknowledgements()
    assert marks.greet("a")
    assert not marks.greet("a")
    assert marks.greet("a", again=True)


@pytest.mark.slow
@leak_checked
async def test_flood_stays_within_the_window_of_a_member_with_many_clients() -> None:
    """Two nodes in one process, so that a message between them takes a few turns of the loop."""
    publisher = adsum.Node(name="a", siblings=False, listen="127.0.0.1:0")
    async with publisher:
        member = adsum.Node(name="b", siblings=False, peers=[publisher.address or ""])
        sockets = [Socket(adsum.Presence(node), [Room]) for node in (publisher, member)]
        async with member:
            clients = await joined(sockets[1], MANY)
            ahead = 0
            last: list[Direct] = clients[-1:]
            for n in range(10 * WINDOW):
                await sockets[0].broadcast("room", "said", {"n": n})
                ahead = max(ahead, n - len(said(last[0])))
            # Those that were sent before the first greeting arrived are some more.
            assert ahead <= 2 * WINDOW
            await until(lambda: len(said(last[0])) == 10 * WINDOW)
            assert said(clients[0]) == list(range(10 * WINDOW))
            await until(lambda: not Broadcasts.of(member)._unfinished)
            for client in clients:
                await client.connection.finish()
