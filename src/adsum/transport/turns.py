"""Fair delivery: how much of what has arrived is handed over in one turn of the event loop.

A node that joins receives megabytes from every peer at once. Handing them over as they come would
keep the event loop from everything else, so each turn has a budget, shared by all links and spent
round-robin, one frame a link. What is beyond waits as raw bytes in the link's `FrameReader`.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

#: What a frame costs beside its bytes, so that a flood of empty ones is bounded as well.
FRAME_COST: Final = 128


class Source(Protocol):
    """Something that hands over one frame when told."""

    #: Whether it stands in line; belongs to `TurnBudget`.
    waiting: bool

    def deliver(self) -> int | None:
        """Hand over one frame; returns its cost, or None when no whole frame is there."""

    def caught_up(self) -> None:
        """Its turns have emptied it."""


class TurnBudget:
    """Shares the turns of one event loop among links.

    An idle transport hands a frame over in the very turn that received it. To save scheduling a
    callback for each of them, the budget is not renewed turn by turn but when it is spent: then
    one frame waits one turn. No turn exceeds the budget by more than a frame.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._left = budget
        self._line: deque[Source] = deque()
        self._scheduled = False

    def offer(self, source: Source) -> None:
        """Hand over what `source` holds, now as far as the budget allows, the rest in its turn."""
        if source.waiting:
            return
        if not self._line:
            while self._left > 0:
                cost = source.deliver()
                if cost is None:
                    source.caught_up()
                    return
                self._left -= cost
        source.waiting = True
        self._line.append(source)
        self._schedule()

    def charge(self, cost: int) -> None:
        """Take from the budget what the frame that is being handed over costs beside its bytes."""
        self._left -= cost

    def _turn(self) -> None:
        self._scheduled = False
        self._left = self._budget
        line = self._line
        while line and self._left > 0:
            source = line.popleft()
            cost = source.deliver()
            if cost is None:
                source.waiting = False
                source.caught_up()
            else:
                line.append(source)
                self._left -= cost
        if line:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)
