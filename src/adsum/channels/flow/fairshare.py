"""Fair scheduling of clients: a work budget for each turn of the event loop, shared in rounds.

An ASGI server returns queued frames without suspending, and a client may queue any number: half a
million lines in one request, or sixty thousand small frames. A loop over them would starve all
other clients, and would not even send this client its replies. So all work that a client causes is
charged to one budget: its frames, their handling, the sending of each frame, a broadcast to many
clients, and the ends of its channels. The budget is renewed in each turn of the event loop and
shared by all clients of all sockets in it.

While no client waits and the budget lasts, work is done at once. Otherwise clients take turns, and
each round does a few pieces of work of one client: some frames, their handling and the replies. So
a hundred hostile clients together use one budget a turn, and any other client waits for one round
of some milliseconds, however much work the others have queued.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from adsum.tasks import resolve

#: Bytes of work in one turn of the event loop: about a millisecond of small frames.
BUDGET: Final = 256 * 1024
#: Bytes that a piece of work costs besides its own bytes: 128 pieces in one turn.
WORK: Final = 2048
#: Bytes that a second of handling costs: a budget is five milliseconds of it.
_SECOND: Final = 200 * BUDGET
#: Bytes that a client may spend in one round after waiting; turns of the event loop in which it may
#: spend them, several because a frame is read, handled and replied to in different turns.
ROUND: Final = 8 * WORK
_ROUND_TURNS: Final = 4
#: Bytes that a broadcast costs for each client on the topic.
RECIPIENT: Final = 128


class FairShare:
    """The share of one client in the budget of the running event loop."""

    __slots__ = ("_credit", "_in_line", "_turns", "_until", "_waiting")

    def __init__(self) -> None:
        self._turns = _turns_of(asyncio.get_running_loop())
        # A list: it is short, and a deque is large.
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._in_line = False
        # Bytes left in the current round; number of the last turn in which they may be spent.
        self._credit = self._until = 0

    def spend(self, cost: int) -> bool:
        """Charge a cost to the turn or to this client's round; False if neither can afford it."""
        turns = self._turns
        if turns.left > 0 and not turns.line:
            turns.left -= cost
            return True
        if cost <= self._credit and turns.number <= self._until:
            self._credit -= cost
            return True
        return False

    def charge(self, cost: int) -> None:
        """Charge work that is done or under way, once its cost is known."""
        self._turns.left -= cost
        self._credit -= cost

    def charge_time(self, seconds: float) -> None:
        """Charge work by its duration in seconds.

        The duration may include time in which the work waited: no debt outlasts the turn.
        """
        cost = int(seconds * _SECOND)
        self._turns.left -= cost
        self._credit -= cost

    def call(self, cost: int, work: Callable[[], None]) -> None:
        """Call a function: at once if the budget allows, otherwise in this client's next round."""
        if self.spend(cost):
            work()
        else:
            self._wait(cost, work)

    async def turn(self, cost: int) -> None:
        """Wait until the budget allows work of this cost; returns at once if it does already."""
        if not self.spend(cost):
            future = asyncio.get_running_loop().create_future()
            self._wait(cost, partial(resolve, future))
            await future

    def enter(self, cost: int) -> bool:
        """Charge and begin work in place; False if it must wait.

        It must wait if the budget does not allow it, or within other work in place of any client of
        the event loop. So such work is never nested, and the depth of the stack is bounded. The
        caller must call `leave` after the work.
        """
        turns = self._turns
        if turns.in_place or not self.spend(cost):
            return False
        turns.in_place = True
        return True

    def leave(self) -> None:
        """End work in place that `enter` has allowed."""
        self._turns.in_place = False

    def serve(self, number: int) -> int:
        """Run a round of queued work; returns its cost, at least `ROUND`.

        Args:
            number: The number of the current turn.
        """
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
    """The budget of one event loop, and the queue of clients that wait for it.

    To save a callback in each turn, the budget is renewed when it is spent, not turn by turn; then
    one piece of work waits for one turn. No turn exceeds the budget by more than one piece and the
    remaining rounds of clients.
    """

    def __init__(self) -> None:
        self.left = BUDGET
        #: Whether work runs in place, see `FairShare.enter`.
        self.in_place = False
        #: Number of turns so far in which any client waited.
        self.number = 0
        #: The clients with queued work, each once.
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
                self.left -= cost  # a separate statement: `serve` may itself change `left`
        finally:  # if work raises, the event loop reports it, and the other clients go on
            if self.line:
                self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)


# By event loop. Weak, held by the shares: queued work refers to its loop, so that a strong
# reference would keep a closed loop alive.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[_Turns]] = WeakKeyDictionary()


def _turns_of(loop: asyncio.AbstractEventLoop) -> _Turns:
    found = _turns.get(loop)
    turns = None if found is None else found()
    if turns is None:
        turns = _Turns()
        _turns[loop] = ref(turns)
    return turns
