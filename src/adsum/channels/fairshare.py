"""Fair turns: how much the clients of one event loop have done for them in one turn of it.

A server returns queued frames without suspending, and a client may queue as many as it likes: half
a million lines in one request, or sixty thousand small frames. A loop over them would keep the
event loop from everybody else, and from sending this client its own replies. So all work that a
client causes costs a share of one budget, which is renewed in each turn of the event loop and
shared by all clients of all sockets in it: its frames, their handling, the sending of each frame,
a broadcast to many, and the ends of its channels.

As long as nobody waits and the budget lasts, work is done at once. Beyond, clients take turns, and
each gets one piece of work done in a round, whatever it has waiting. So a hundred hostile clients
together use one budget a turn, and a bystander waits for one round: a hundred pieces of work.

Invariant: the pieces of one client begin in the order in which they were asked for.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from adsum.tasks import resolve

#: The budget of one turn, in bytes. A turn costs the event loop microseconds, so it is small.
BUDGET: Final = 64 * 1024
#: Bytes that a piece of work costs beside those that it is about: 32 pieces in one turn.
WORK: Final = 2048
#: Bytes that a broadcast costs for each client on the topic.
RECIPIENT: Final = 128


class FairShare:
    """The share of one client. It belongs to the running event loop."""

    __slots__ = ("_turns", "_waiting")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._turns = _turns.get(loop) or _turns.setdefault(loop, _Turns())
        # A list: it is short, and a deque is large.
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def spend(self, cost: int) -> bool:
        """Take a cost from the budget of this turn; False if it is spent or others wait."""
        return self._turns.spend(cost)

    def charge(self, cost: int) -> None:
        """Take the cost of work that is being done, now that it is known."""
        self._turns.left -= cost

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

    def _wait(self, cost: int, work: Callable[[], None]) -> None:
        self._waiting.append((cost, work))
        if len(self._waiting) == 1:
            self._turns.join(self)

    def take(self) -> tuple[int, Callable[[], None]]:
        """The piece of work that has waited longest; there is one while the client is in line."""
        return self._waiting.pop(0)

    def __bool__(self) -> bool:
        """Whether work waits."""
        return bool(self._waiting)


class _Turns:
    """The budget of one event loop, and the clients in line for it.

    To save a callback in each turn, the budget is renewed when it is spent, and not turn by turn:
    then one piece of work waits one turn. No turn exceeds the budget by more than one piece.
    """

    def __init__(self) -> None:
        self.left = BUDGET
        # Each client whose work waits, once.
        self._line: deque[FairShare] = deque()
        self._scheduled = False

    def spend(self, cost: int) -> bool:
        if self._line or self.left <= 0:
            return False
        self.left -= cost
        return True

    def join(self, share: FairShare) -> None:
        self._line.append(share)
        self._schedule()

    def _turn(self) -> None:
        self._scheduled = False
        self.left = BUDGET
        try:
            while self._line and self.left > 0:
                share = self._line.popleft()
                cost, work = share.take()
                if share:
                    self._line.append(share)
                self.left -= cost
                work()
        finally:  # if work raises, the event loop reports it, and the others go on
            if self._line:
                self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
