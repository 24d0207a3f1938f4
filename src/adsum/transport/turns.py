"""Fair delivery of received frames: a budget for each turn of the event loop.

A node that joins receives megabytes from every peer at once. Delivering all of it immediately would
block the event loop, so each turn has a budget. All links share it round-robin, one frame a link.
Frames beyond the budget wait as raw bytes in the link's `FrameReader`.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

#: Bytes charged for each frame in addition to its body, so that empty frames are bounded, too.
FRAME_COST: Final = 128


class TurnSource(Protocol):
    """A source of received frames, such as a link."""

    #: Whether it is queued for a turn; only `TurnBudget` sets it.
    waiting: bool

    def deliver(self) -> int | None:
        """Deliver one frame; returns its cost, or None if no complete frame is available."""

    def caught_up(self) -> None:
        """Called when all complete frames of the source are delivered."""


class TurnBudget:
    """Shares the turns of one event loop among links.

    An idle transport delivers a frame in the turn that received it. To avoid scheduling a callback
    for each frame, the budget is renewed when it is spent and not every turn: then one frame waits
    one turn. No turn exceeds the budget by more than one frame.

    Args:
        budget: Bytes of payload and of `FRAME_COST` to deliver in one turn.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._left = budget
        self._line: deque[TurnSource] = deque()
        self._scheduled = False

    def offer(self, source: TurnSource) -> None:
        """Deliver the frames of `source` as far as the budget allows, the rest in later turns."""
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
        """Charge the budget for costs of the current frame beyond its bytes."""
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
