"""Fair turns: how much the clients of one event loop have done for them in one turn of it.

A server returns queued frames without suspending, and a client may queue as many as it likes: half
a million lines in one request, or sixty thousand small frames. A loop over them would keep the
event loop from everybody else, and from sending this client its own replies. So all work that a
client causes costs a share of one budget, which is renewed in each turn of the event loop and
shared by all clients of all sockets in it: its frames, their handling, the sending of each frame,
a broadcast to many, and the ends of its channels.

As long as nobody waits and the budget lasts, work is done at once. Beyond, clients take turns, and
each gets a few pieces of work done in a round: some frames, their handling and the replies. So a
hundred hostile clients together use one budget a turn, and a bystander waits for one round of
some milliseconds, whatever the others have waiting.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from adsum.tasks import resolve

#: The budget of one turn, in bytes: about a millisecond of small frames.
BUDGET: Final = 256 * 1024
#: Bytes that a piece of work costs beside those that it is about: 128 pieces in one turn.
WORK: Final = 2048
#: Bytes that a second of handling costs: a budget is five milliseconds of it.
_SECOND: Final = 200 * BUDGET
#: Bytes that a client which waited may spend in one round, and turns of the event loop in which it
#: may spend them: a frame is read, handled and replied to in several turns.
ROUND: Final = 8 * WORK
_ROUND_TURNS: Final = 4
#: Bytes that a broadcast costs for each client on the topic.
RECIPIENT: Final = 128


class FairShare:
    """The share of one client. It belongs to the running event loop."""

    __slots__ = ("_credit", "_in_line", "_turns", "_until", "_waiting")

    def __init__(self) -> None:
        self._turns = _turns_of(asyncio.get_running_loop())
        # A list: it is short, and a deque is large.
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._in_line = False
        # What is left of its round, and until which turn.
        self._credit = self._until = 0

    def spend(self, cost: int) -> bool:
        """Take a cost from the turn or from this client's round; False if neither has it."""
        turns = self._turns
        if turns.left > 0 and not turns.line:
            turns.left -= cost
            return True
        if cost <= self._credit and turns.number <= self._until:
            self._credit -= cost
            return True
        return False

    def charge(self, cost: int) -> None:
        """Take the cost of work that is done or under way, now that it is known."""
        self._turns.left -= cost
        self._credit -= cost

    def charge_time(self, seconds: float) -> None:
        """Take the cost of work that took so long.

        Time in which it waited need not be left out: no debt outlasts the turn.
        """
        cost = int(seconds * _SECOND)
        self._turns.left -= cost
        self._credit -= cost

    def call(self, cost: int, work: Callable[[], None]) -> None:
        """Call a function, at once if there is a budget for it, otherwise in this client's turn."""
        if self.spend(cost):
            work()
        else:
            self._wait(cost, work)

    async def turn(self, cost: int) -> None:
        """Wait for this client's turn, if it has to."""
        if not self.spend(cost):
            future = asyncio.get_running_loop().create_future()
            self._wait(cost, partial(resolve, future))
            await future

    def serve(self, number: int) -> int:
        """Begin a round in the turn of this number: do what waits; returns the cost."""
        self._in_line = False
        self._credit, self._until = ROUND, number + _ROUND_TURNS
        spent = 0
        try:
            while self._waiting and (not spent or self._waiting[0][0] <= self._credit):
                cost, work = self._waiting.pop(0)
                self._credit -= cost
                spent += cost
                work()
        finally:
            if self._waiting:
                self._join()
        return max(spent, ROUND)

    def _wait(self, cost: int, work: Callable[[], None]) -> None:
        self._waiting.append((cost, work))
        self._join()

    def _join(self) -> None:
        if not self._in_line:
            self._in_line = True
            self._turns.join(self)


class _Turns:
    """The budget of one event loop, and the clients in line for it.

    To save a callback in each turn, the budget is renewed when it is spent, and not turn by turn:
    then one piece of work waits one turn. No turn exceeds the budget by more than one piece, and
    by what clients have left of a round.
    """

    def __init__(self) -> None:
        self.left = BUDGET
        #: Turns until now in which somebody waited.
        self.number = 0
        #: Each client whose work waits, once.
        self.line: deque[FairShare] = deque()
        self._scheduled = False

    def join(self, share: FairShare) -> None:
        self.line.append(share)
        self._schedule()

    def _turn(self) -> None:
        self._scheduled = False
        self.number += 1
        self.left = BUDGET
        try:
            while self.line and self.left > 0:
                cost = self.line.popleft().serve(self.number)
                self.left -= cost  # in a line of its own: meanwhile work may have charged more
        finally:  # if work raises, the event loop reports it, and the others go on
            if self.line:
                self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)


# By event loop. Shares keep them: work that waits refers to its loop, and would keep a closed one.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[_Turns]] = WeakKeyDictionary()


def _turns_of(loop: asyncio.AbstractEventLoop) -> _Turns:
    found = _turns.get(loop)
    turns = None if found is None else found()
    if turns is None:
        turns = _Turns()
        _turns[loop] = ref(turns)
    return turns
