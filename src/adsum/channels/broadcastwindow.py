"""How far the broadcasts of one node may run ahead of the other nodes, and their acknowledgements.

A link and the buffers of its socket hold thousands of small broadcasts, and each may cost a node
milliseconds for its clients. So every `MARK_INTERVAL` broadcasts a node sends a mark with the
number of its last one. Each node that has clients acknowledges a mark once it has passed all
broadcasts before it to its clients. A publisher waits while a member that acknowledges is more than
`WINDOW` behind, at most `PATIENCE`: a slow member delays it, and a stuck one delays it once.

Invariants:
- Only messages about broadcasts wait. Deltas and heartbeats pass, as do messages to other members,
  whose queues the engine keeps.
- A member that never acknowledges, such as one of an earlier release, is never waited for. One
  that does not acknowledge within `PATIENCE` is waited for again only after its next
  acknowledgement.
- Numbers grow, and an acknowledgement counts for all earlier ones. So a lost mark or
  acknowledgement costs nothing once a later one arrives.
"""

import asyncio
from collections import deque
from typing import Final

from adsum.activetime import active_timeout
from adsum.tasks import resolve

#: Broadcasts that a member may be behind before its publishers wait; broadcasts between two marks.
WINDOW: Final = 32
MARK_INTERVAL: Final = 8
#: Seconds of active time that a publisher waits for members that are behind.
PATIENCE: Final = 1.0
#: Marks of one member that wait to be acknowledged; beyond it, the last one is replaced.
_MAX_MARKS: Final = 8


class PublishWindow:
    """Counts the broadcasts of this node, and waits for members that are far behind."""

    def __init__(self) -> None:
        #: Number of broadcasts published in this run.
        self.published = 0
        # Last acknowledged number, by the name of each member that acknowledges.
        self._acknowledged: dict[str, int] = {}
        self._change: asyncio.Future[None] | None = None

    def count(self) -> bool:
        """Count a broadcast; returns whether a mark must follow it.

        The first one is marked, so that members are known to acknowledge from the beginning.
        """
        self.published += 1
        return self.published == 1 or self.published % MARK_INTERVAL == 0

    def acknowledge(self, member: str, number: int) -> None:
        """Note that a member has passed the broadcasts up to a number to its clients."""
        if self._acknowledged.get(member, 0) < number <= self.published:
            self._acknowledged[member] = number
            resolve(self._change)

    async def room(self) -> None:
        """Wait until no member is more than `WINDOW` behind, at most `PATIENCE`."""
        if not self._behind():
            return
        try:
            async with active_timeout(PATIENCE):
                while self._behind():
                    await self._changed()
        except TimeoutError:
            for member in self._behind():
                del self._acknowledged[member]
            resolve(self._change)

    def reset(self) -> None:
        """Begin a new run of the node: nobody has acknowledged anything."""
        self.published = 0
        self._acknowledged.clear()
        resolve(self._change)

    def _behind(self) -> list[str]:
        last = self.published - WINDOW
        return [member for member, number in self._acknowledged.items() if number < last]

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
