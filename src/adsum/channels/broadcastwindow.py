"""How far the broadcasts of one node may run ahead of the other nodes, and their acknowledgements.

A link and the buffers of its socket hold thousands of small broadcasts, and each may cost a node
milliseconds for its clients. So every `MARK_INTERVAL` broadcasts a node sends a mark with the
number of its last one. Each node that has clients acknowledges a mark once it has passed all
broadcasts before it to its clients. A publisher waits while a member that acknowledges is more than
`WINDOW` behind, at most `PATIENCE` in each call: so a slow member delays it in each call, and a
stuck one once.

A node greets each publisher with an acknowledgement of number 0. From then on it is waited for. A
publisher without other members waits for nobody. One that has not been greeted when it has sent
`WINDOW` broadcasts waits for `FIRST_PATIENCE`, once in a run, and then runs ahead of all members
until one greets it.

Invariants:
- Only messages about broadcasts wait. Deltas and heartbeats pass, as do messages to other members,
  whose queues the engine keeps.
- A member that never acknowledges, such as one of an earlier release, is never waited for. One
  that acknowledges nothing within `PATIENCE` is waited for again only after its next
  acknowledgement.
- Numbers grow, and an acknowledgement counts for all earlier ones. So a lost mark or
  acknowledgement costs nothing once a later one arrives.
"""

import asyncio
import contextlib
from collections import deque
from typing import Final

from adsum.activetime import active_timeout
from adsum.tasks import resolve

#: Broadcasts that a member may be behind before its publishers wait; broadcasts between two marks.
WINDOW: Final = 16
MARK_INTERVAL: Final = 8
#: Seconds of active time that a publisher waits for members that are behind.
PATIENCE: Final = 1.0
#: Seconds of active time that the first burst of a node waits to be greeted.
FIRST_PATIENCE: Final = 0.1
#: Marks of one member that wait to be acknowledged; beyond it, the last one is replaced.
_MAX_MARKS: Final = 8
#: Publishers that are known to be greeted; beyond it, all are greeted again.
_MAX_GREETED: Final = 4096


class PublishWindow:
    """Counts the broadcasts of this node, and waits for members that are far behind."""

    def __init__(self) -> None:
        #: Number of broadcasts published in this run.
        self.published = 0
        # Last acknowledged number, by the name of each member that acknowledges.
        self._acknowledged: dict[str, int] = {}
        self._change: asyncio.Future[None] | None = None
        # Whether no burst of this run has waited to be greeted yet.
        self._first = True

    def count(self) -> bool:
        """Count a broadcast; returns whether a mark must follow it, as it does the first one."""
        self.published += 1
        return self.published == 1 or self.published % MARK_INTERVAL == 0

    def acknowledge(self, member: str, number: int) -> None:
        """Note that a member has passed the broadcasts up to a number to its clients.

        Args:
            member: The name of the member.
            number: The number; 0 for a greeting.
        """
        if not number:
            self._acknowledged.setdefault(member, self.published)
        elif self._acknowledged.get(member, 0) < number <= self.published:
            self._acknowledged[member] = number
        resolve(self._change)

    @property
    def is_first_burst(self) -> bool:
        """Whether to call `greeted`: `WINDOW` broadcasts were sent, and nobody acknowledges."""
        return self._first and self.published >= WINDOW and not self._acknowledged

    async def greeted(self) -> None:
        """Wait to be greeted, for `FIRST_PATIENCE`; once in a run."""
        self._first = False
        with contextlib.suppress(TimeoutError):
            async with active_timeout(FIRST_PATIENCE):
                while not self._acknowledged:
                    await self._changed()

    async def room(self) -> None:
        """Wait until no member is more than `WINDOW` behind, at most `PATIENCE`."""
        before = self._behind()
        if not before:
            return
        try:
            async with active_timeout(PATIENCE):
                while self._behind():
                    await self._changed()
        except TimeoutError:
            for member, number in before.items():
                if self._acknowledged.get(member) == number:  # nothing within `PATIENCE`
                    del self._acknowledged[member]

    def reset(self) -> None:
        """Begin a new run of the node: nobody has acknowledged anything."""
        self.published = 0
        self._acknowledged.clear()
        self._first = True
        resolve(self._change)

    def _behind(self) -> dict[str, int]:
        """The members that are too far behind, with their last acknowledged numbers."""
        last = self.published - WINDOW
        return {member: number for member, number in self._acknowledged.items() if number < last}

    async def _changed(self) -> None:
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._change])  # several may wait


class Acknowledgements:
    """The marks of other nodes that wait for the passes of earlier broadcasts."""

    def __init__(self) -> None:
        # By member: numbers of marks, each with that of the last broadcast received before it.
        self._marks: dict[str, deque[tuple[int, int]]] = {}
        self._greeted: set[str] = set()

    def greet(self, member: str, *, again: bool = False) -> bool:
        """Note that a member publishes; returns whether it must be greeted.

        Args:
            member: The name of the member.
            again: Whether it has begun a new run.
        """
        if member in self._greeted and not again:
            return False
        if len(self._greeted) >= _MAX_GREETED:
            self._greeted.clear()
        self._greeted.add(member)
        return True

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
        self._greeted.clear()
