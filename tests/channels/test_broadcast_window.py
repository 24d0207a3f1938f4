"""A publisher waits for members whose clients are far behind with its broadcasts."""

import asyncio
import heapq
import math
from collections.abc import Callable
from itertools import pairwise

import pytest

import adsum
from adsum.channels import Socket, broadcastwindow
from adsum.channels.broadcasts import Broadcasts
from adsum.channels.broadcastwindow import (
    LAG,
    LARGEST,
    MARK_INTERVAL,
    SMALLEST,
    Acknowledgements,
    PublishWindow,
)
from tests.support.waiting import until

from .leak_check import leak_checked
from .test_broadcast_pass import MANY, Room, joined, said


def full(member: str = "b") -> PublishWindow:
    """A window that has no room for a member, which has acknowledged the first mark."""
    window = PublishWindow()
    window.count()
    window.mark()
    window.acknowledge(member, 1)
    while not window._behind():
        window.count()
    return window


#: Broadcasts of a flood between nodes.
COUNT = 100


class Flood:
    """A publisher that floods a distant member, in virtual time.

    Args:
        delay: Seconds that a message takes in each direction.
        cost: Seconds of the member for one broadcast, at a time.
        publishing: Seconds of the publisher for one broadcast.
    """

    def __init__(
        self, delay: float, cost: Callable[[float], float], publishing: float = 0.0001
    ) -> None:
        self.now = 0.0
        self.window = PublishWindow(lambda: self.now)
        #: For each broadcast, the time at which it was sent, and seconds until it was passed.
        self.ages: list[tuple[float, float]] = []
        self._delay, self._cost, self._publishing = delay, cost, publishing
        self._free_at = 0.0
        # Acknowledgements under way: the time of each arrival, and the number.
        self._arrivals: list[tuple[float, int]] = []

    @property
    def size(self) -> int:
        return self.window._members["b"].size

    def run(self, until: float) -> "Flood":
        while self.now < until:
            if self.window._behind() or self.window.is_first_burst:
                self.now = max(self.now, self._arrivals[0][0])
            while self._arrivals and self._arrivals[0][0] <= self.now:
                self.window.acknowledge("b", heapq.heappop(self._arrivals)[1])
            if not self.window._behind():
                self._publish()
        return self

    def _publish(self) -> None:
        marked = self.window.count()
        self._free_at = max(self._free_at, self.now + self._delay) + self._cost(self.now)
        self.ages.append((self.now, self._free_at - self.now))
        if marked:
            heapq.heappush(self._arrivals, (self._free_at + self._delay, self.window.mark()))
        self.now += self._publishing

    def rate(self, since: float) -> float:
        """Broadcasts per second since a time."""
        return sum(at >= since for at, _ in self.ages) / (self.now - since)

    def oldest(self, since: float) -> float:
        """The largest age since a time."""
        return max(age for at, age in self.ages if at >= since)


def test_first_broadcast_and_each_interval_are_marked() -> None:
    window = PublishWindow()
    marked = [n for n in range(1, 3 * MARK_INTERVAL) if window.count()]
    assert marked == [1, MARK_INTERVAL, 2 * MARK_INTERVAL]


def test_distance_of_a_prompt_member_limits_no_publisher() -> None:
    """10,000 a second, over 50 ms in both directions together."""
    flood = Flood(0.025, lambda _: 0.0).run(2.0)
    assert flood.rate(since=1.0) > 9_900


@pytest.mark.parametrize("cost", [0.0005, 0.001, 0.002, 0.005, 0.01, 0.015])
@pytest.mark.parametrize("delay", [0.0001, 0.025])
def test_slow_member_is_behind_by_a_bounded_time_and_never_idle(cost: float, delay: float) -> None:
    flood = Flood(delay, lambda _: cost).run(20.0)
    assert flood.oldest(since=0.0) < 1.1 * LAG + 2 * MARK_INTERVAL * cost
    assert flood.rate(since=5.0) > 0.95 / cost


def test_window_follows_a_member_that_becomes_slow() -> None:
    flood = Flood(0.025, lambda now: 0.0 if now < 2.0 else 0.01).run(2.0)
    size = flood.size
    assert size > 4 * SMALLEST
    flood.run(20.0)
    assert flood.oldest(since=2.0) < size * 0.01 + LAG
    # Acknowledgements that are very late shrink it before the rest of the window is passed.
    assert flood.oldest(since=3.0) < 2 * LAG


def test_window_grows_only_if_it_is_used() -> None:
    flood = Flood(0.025, lambda _: 0.0, publishing=0.01).run(20.0)
    assert flood.size <= 2 * SMALLEST


def test_unused_window_shrinks() -> None:
    flood = Flood(0.025, lambda _: 0.0).run(2.0)
    assert flood.size > 8 * SMALLEST
    flood._publishing = 0.01
    flood.run(100.0)
    assert flood.size <= 2 * SMALLEST


def test_window_doubles_once_for_each_time_that_it_was_filled() -> None:
    flood = Flood(0.05, lambda _: 0.0)
    sizes = [SMALLEST]
    while flood.now < 2.0:
        flood.run(flood.now + 0.1)
        sizes.append(flood.size)
    assert all(after <= 2 * before for before, after in pairwise(sizes))
    assert sizes[-1] > 8 * SMALLEST


@leak_checked
async def test_publisher_waits_for_an_acknowledgement_within_the_window() -> None:
    window = full()
    waiting = asyncio.ensure_future(window.room())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    window.acknowledge("b", MARK_INTERVAL)
    await waiting
    await window.room()


@leak_checked
async def test_members_that_never_acknowledge_are_not_waited_for() -> None:
    window = PublishWindow()
    for _ in range(2 * LARGEST):
        window.count()
    assert window.is_first_burst
    await window.known()
    assert not window.is_first_burst
    await window.room()


@leak_checked
async def test_first_burst_waits_for_the_first_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broadcastwindow, "FIRST_PATIENCE", math.inf)
    window = PublishWindow()
    for _ in range(SMALLEST):
        assert not window.is_first_burst
        window.count()
    waiting = asyncio.ensure_future(window.known())
    await asyncio.sleep(0)
    window.acknowledge("b", 1)
    await waiting
    assert not window.is_first_burst


@leak_checked
async def test_first_burst_waits_only_if_there_are_other_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broadcastwindow, "FIRST_PATIENCE", math.inf)
    publisher = adsum.Node(name="a", siblings=False, listen="127.0.0.1:0")
    async with publisher:
        socket = Socket(adsum.Presence(publisher), [Room])
        window = Broadcasts.of(publisher)._window
        for _ in range(2 * SMALLEST):
            await socket.broadcast("room", "said", {})
        peers = [publisher.address or ""]
        async with adsum.Node(name="b", siblings=False, peers=peers):  # has no channels
            await until(lambda: len(publisher.members()) == 2)
            for _ in range(MARK_INTERVAL - 1):
                await socket.broadcast("room", "said", {})
            waiting = asyncio.ensure_future(socket.broadcast("room", "said", {}))
            await until(lambda: not window._first)
            assert not waiting.done()
            window.acknowledge("b", 1)
            await waiting


@pytest.mark.slow
@leak_checked
async def test_publisher_waits_once_for_a_member_that_is_stuck() -> None:
    window = full()
    await window.room()  # for `PATIENCE`
    for _ in range(2 * LARGEST):
        window.count()
    await window.room()
    assert not window._behind()
    window.acknowledge("b", MARK_INTERVAL)  # it goes on, far behind
    assert window._behind()
    assert window._members["b"].size == SMALLEST


@leak_checked
async def test_departed_member_is_forgotten_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcastwindow, "PATIENCE", math.inf)
    publisher = adsum.Node(name="a", siblings=False, listen="127.0.0.1:0")
    async with publisher:
        peers = [publisher.address or ""]
        # It stays listed after its goodbye, as `left`.
        member = adsum.Node(name="b", siblings=False, peers=peers, linger=60)
        sockets = [Socket(adsum.Presence(node), [Room]) for node in (publisher, member)]
        window = Broadcasts.of(publisher)._window
        async with member:
            await until(lambda: len(publisher.members()) == 2)
            await sockets[0].broadcast("room", "said", {})
            await until(lambda: "b" in window._members)
            window._members["b"].acknowledged -= 2 * SMALLEST
            waiting = asyncio.ensure_future(sockets[0].broadcast("room", "said", {}))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        assert not window._members
        assert [one.status for one in publisher.members()] == ["self", "left"]


def test_wrong_acknowledgements_change_nothing() -> None:
    window = full()
    window.acknowledge("b", MARK_INTERVAL)
    for number in (window.published + 1, 10**18, 0, 1, MARK_INTERVAL, -1):
        window.acknowledge("b", number)
        window.acknowledge("c", window.published + 1)
        assert window._members["b"].acknowledged == MARK_INTERVAL
        assert list(window._members) == ["b"]


def test_acknowledgement_of_an_unmarked_number_is_late() -> None:
    flood = Flood(0.025, lambda _: 0.0).run(2.0)
    assert flood.size > 8 * SMALLEST
    window, member = flood.window, flood.window._members["b"]
    for _ in range(LARGEST):
        window.count()
    unmarked = window.published // MARK_INTERVAL * MARK_INTERVAL - 1
    window.acknowledge("b", unmarked)
    assert (member.acknowledged, member.size) == (unmarked, SMALLEST)


def test_window_and_marks_are_bounded_whatever_is_acknowledged() -> None:
    flood = Flood(0.0, lambda _: 0.0)
    window = flood.window
    for n in range(1, 20 * LARGEST):
        if window.count():
            number = window.mark()
            # At once, and in bursts: the window is used, and no acknowledgement is late.
            if number < LARGEST or number % LARGEST == 0:
                for claim in (number, number, number + 1, 10**18):
                    window.acknowledge("b", claim)
                assert SMALLEST <= flood.size <= LARGEST
                assert window._members["b"].acknowledged == number
        assert len(window._marks) <= broadcastwindow._MAX_SENT_MARKS, n
    assert flood.size == LARGEST


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


@pytest.mark.slow
@leak_checked
async def test_acknowledged_broadcasts_have_been_passed_to_all_clients() -> None:
    """Two nodes in one process, so that a message between them takes a few turns of the loop."""
    publisher = adsum.Node(name="a", siblings=False, listen="127.0.0.1:0")
    async with publisher:
        member = adsum.Node(name="b", siblings=False, peers=[publisher.address or ""])
        sockets = [Socket(adsum.Presence(node), [Room]) for node in (publisher, member)]
        async with member:
            clients = await joined(sockets[1], MANY)
            last = clients[-1]
            known = Broadcasts.of(publisher)._window._members
            for n in range(COUNT):
                await sockets[0].broadcast("room", "said", {"n": n})
                if "b" in known:
                    assert known["b"].acknowledged <= len(said(last))
            assert "b" in known
            await until(lambda: len(said(last)) == COUNT)
            assert said(clients[0]) == list(range(COUNT))
            await until(lambda: not Broadcasts.of(member)._unfinished)
            for client in clients:
                await client.connection.finish()
