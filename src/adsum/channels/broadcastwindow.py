"""How far the broadcasts of one node may run ahead of the other nodes, and their acknowledgements.

A link and the buffers of its socket hold thousands of small broadcasts, and each may cost a node
milliseconds for its clients. So after every `MARK_INTERVAL` broadcasts a node sends a mark with the
number of its last one. Each node that has clients acknowledges a mark once it has passed all
broadcasts before it to its clients. Each member has a window: a publisher waits while the member is
more broadcasts than that behind, at most `PATIENCE` in each call. So a slow member delays it in
each call, and a stuck one once.

A fixed window is wrong for most members: a broadcast may cost a member microseconds or many
milliseconds, and a distant one acknowledges late. So the bound is a time, `LAG`, and each window
follows the delay of the acknowledgements. A window that is full should take `LAG`. So if the
publisher has used more than half of it, it becomes `LAG / delay` times as large, but no more than
twice; it shrinks so in any case after a later acknowledgement. If the publisher has used less than
a quarter of it, it halves. Then it stays until a mark is acknowledged that was sent when the new
window was in use, because the delays of earlier marks show the effect of the former size. Only an
acknowledgement after more than twice `LAG` always counts: the cost of a broadcast has risen.

A member is known from its first acknowledgement on. A publisher without other members waits for
nobody. One that knows no member when it has sent `SMALLEST` broadcasts waits for `FIRST_PATIENCE`,
once in a run.

Invariants:
- Only messages about broadcasts wait. Deltas and heartbeats pass, as do messages to other members,
  whose queues the engine keeps.
- A window has at least `SMALLEST` broadcasts and at most `LARGEST`. A broadcast is passed to the
  clients of a member within about `LAG`, or the time that it needs for `SMALLEST` of them if that
  is longer. If the cost of a broadcast rises at once, those in the window take longer, once.
- A prompt member limits a publisher only while its window grows, and to `LARGEST` broadcasts in a
  round trip. If a round trip takes longer than `LAG`, it limits it to `SMALLEST` in each.
- A member that never acknowledges, such as one of an earlier release, is never waited for. One
  that acknowledges nothing within `PATIENCE` is waited for again only after its next
  acknowledgement. One that has left or is down is forgotten at once.
- Numbers grow, and an acknowledgement counts for all earlier ones. So a lost mark or
  acknowledgement costs nothing once a later one arrives. Numbers that were not sent yet are
  ignored, and one that is no mark is late. So false acknowledgements of a member change at most
  its own window, within its bounds.
"""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Container
from typing import Final

from adsum.activetime import active_timeout
from adsum.tasks import resolve

#: Broadcasts that a member may be behind before its publishers wait: at first and at least, and at
#: most.
SMALLEST: Final = 16
LARGEST: Final = 4096
#: Broadcasts between two marks.
MARK_INTERVAL: Final = 8
#: Seconds from a mark to its acknowledgement beyond which the window shrinks.
LAG: Final = 0.25
#: Seconds of active time that a publisher waits for members that are behind.
PATIENCE: Final = 1.0
#: Seconds of active time that the first burst of a node waits for an acknowledgement.
FIRST_PATIENCE: Final = 0.1
#: Marks that a publisher knows the times of; beyond it, the oldest is forgotten, and so late.
_MAX_SENT_MARKS: Final = 2 * LARGEST // MARK_INTERVAL
#: Marks of one member that wait to be acknowledged; beyond it, the last one is replaced.
_MAX_MARKS: Final = LARGEST // MARK_INTERVAL


class _MemberWindow:
    """The window of one member.

    Args:
        number: The first number that it has acknowledged.
    """

    __slots__ = ("_settled", "acknowledged", "size")

    def __init__(self, number: int) -> None:
        #: The last acknowledged number.
        self.acknowledged = number
        #: Broadcasts that it may be behind.
        self.size = SMALLEST
        # The size stays until a mark with a higher number than this is acknowledged.
        self._settled = number + SMALLEST

    def acknowledge(self, number: int, published: int, delay: float) -> None:
        """Note an acknowledgement, and adapt the size.

        Args:
            number: The acknowledged number, above the last one.
            published: The number of the last broadcast published.
            delay: Seconds since the mark was sent; infinite if it is not known.
        """
        used = published - self.acknowledged
        self.acknowledged = number
        if number <= self._settled and delay <= 2 * LAG:
            return
        size = self.size
        if delay > LAG or 2 * used > size:
            size = int(size * LAG / max(delay, LAG / 2))
        elif 4 * used < size:
            size //= 2
        self.size = min(max(size, SMALLEST), LARGEST)
        self._settled = max(published, number + self.size)


class PublishWindow:
    """Counts the broadcasts of this node, and waits for members that are far behind.

    Args:
        clock: Returns the current time, in monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        #: Number of broadcasts published in this run.
        self.published = 0
        self._clock = clock
        # The time of each of the last marks, by its number.
        self._marks: OrderedDict[int, float] = OrderedDict()
        # The members that acknowledge, by name.
        self._members: dict[str, _MemberWindow] = {}
        self._change: asyncio.Future[None] | None = None
        # Whether no burst of this run has waited for an acknowledgement yet.
        self._first = True

    def count(self) -> bool:
        """Count a broadcast; returns whether a mark must follow it, as it does the first one."""
        self.published += 1
        return self.published == 1 or self.published % MARK_INTERVAL == 0

    def mark(self) -> int:
        """Note that a mark is sent now; returns its number, that of the last broadcast."""
        self._marks.setdefault(self.published, self._clock())
        if len(self._marks) > _MAX_SENT_MARKS:
            self._marks.popitem(last=False)
        return self.published

    def acknowledge(self, member: str, number: int) -> None:
        """Note that a member has passed the broadcasts up to a number to its clients.

        Args:
            member: The name of the member.
            number: The number, as the member states it.
        """
        if not 0 < number <= self.published:
            return
        known = self._members.get(member)
        if known is None:
            self._members[member] = _MemberWindow(number)
        elif number > known.acknowledged:
            delay = self._clock() - self._marks.get(number, -math.inf)
            known.acknowledge(number, self.published, delay)
        resolve(self._change)

    def keep(self, members: Container[str]) -> None:
        """Forget all members but these."""
        for member in [name for name in self._members if name not in members]:
            del self._members[member]
        resolve(self._change)

    @property
    def is_first_burst(self) -> bool:
        """Whether to call `known`: `SMALLEST` broadcasts were sent, and nobody acknowledges."""
        return self._first and self.published >= SMALLEST and not self._members

    async def known(self) -> None:
        """Wait until a member acknowledges a mark, for `FIRST_PATIENCE`; once in a run."""
        self._first = False
        with contextlib.suppress(TimeoutError):
            async with active_timeout(FIRST_PATIENCE):
                while not self._members:
                    await self._changed()

    async def room(self) -> None:
        """Wait until no member is further behind than its window, at most `PATIENCE`."""
        before = self._behind()
        if not before:
            return
        try:
            async with active_timeout(PATIENCE):
                while self._behind():
                    await self._changed()
        except TimeoutError:
            for name, number in before.items():
                member = self._members.get(name)
                if member is not None and member.acknowledged == number:
                    del self._members[name]  # it acknowledged nothing within `PATIENCE`

    def reset(self) -> None:
        """Begin a new run of the node: nobody has acknowledged anything."""
        self.published = 0
        self._marks.clear()
        self._members.clear()
        self._first = True
        resolve(self._change)

    def _behind(self) -> dict[str, int]:
        """The members that are too far behind, with their last acknowledged numbers."""
        return {
            name: member.acknowledged
            for name, member in self._members.items()
            if self.published - member.acknowledged > member.size
        }

    async def _changed(self) -> None:
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._change])  # several may wait


class Acknowledgements:
    """The marks of other nodes that wait for the passes of earlier broadcasts."""

    def __init__(self) -> None:
        # By member: numbers of marks, each with that of the last broadcast received before it.
        self._marks: dict[str, deque[tuple[int, int]]] = {}

    def mark(self, member: str, number: int, received: int) -> None:
        """Note a mark.

        Args:
            member: The name of its sender.
            number: The number to acknowledge.
            received: The number of the last broadcast received before it, counted here.
        """
        marks = self._marks.setdefault(member, deque())
        if len(marks) >= _MAX_MARKS:
            marks.pop()
        marks.append((number, received))

    def due(self, passed: int) -> list[tuple[str, int]]:
        """Remove and return the members and numbers to acknowledge.

        Args:
            passed: All broadcasts up to this number have been passed to the clients.
        """
        due = list[tuple[str, int]]()
        for member, marks in list(self._marks.items()):
            number = 0
            while marks and marks[0][1] <= passed:
                number = marks.popleft()[0]
            if number:
                due.append((member, number))
            if not marks:
                del self._marks[member]
        return due

    def drop(self) -> None:
        """Drop all marks: the run of the node has ended."""
        self._marks.clear()
