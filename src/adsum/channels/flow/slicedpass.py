"""`SlicedPass`: one piece of work for each of many clients, in slices between which others run.

A pass over few clients is done before `run` returns. A larger one charges the budget of each turn
of the event loop, see `fairshare`: for its clients, and for the frames that it wrote to transports.
When the budget is spent, it continues in its round, so a pass over 10,000 clients holds the loop
for a few milliseconds at a time. It counts work and reads no clock.

A pass that left frames to the turns of its clients takes its place behind them before it finishes.
So passes that follow one another do not run ahead of the clients that read.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from .fairshare import RECIPIENT, WORK, FairShare

T = TypeVar("T")

#: Clients in one slice.
SLICE: Final = 128
#: Bytes of the budget that a frame costs that is written to a transport at once, a system call.
WRITTEN: Final = 896


class SlicedPass(Generic[T]):
    """A pass over a sequence of clients. It is finished once, and calls back then.

    Args:
        share: Pays for the pass, and holds its place while it waits.
        items: The clients; must not be changed while the pass is under way.
        serve: Serves a slice of them; returns the number of frames that it wrote.
        finished: Called at the end, also if `serve` raised or the pass was dropped.
    """

    __slots__ = ("_at", "_finished", "_items", "_queued", "_serve", "_share", "done")

    def __init__(
        self,
        share: FairShare,
        items: Sequence[T],
        serve: Callable[[Sequence[T]], int],
        finished: Callable[[], None],
    ) -> None:
        self._share = share
        self._items = items
        self._serve = serve
        self._finished = finished
        self._at = 0
        # Whether any client was not written its frame at once.
        self._queued = False
        #: Whether the pass is finished.
        self.done = False

    def run(self) -> None:
        """Serve slices while the budget lasts, and the others in later turns."""
        while self._serve_slice():
            if not self._share.spend(RECIPIENT * SLICE):
                self._share.call(RECIPIENT * SLICE, self.run)
                return
        if self._queued:
            self._share.call(WORK, self.drop)
        else:
            self.drop()

    def run_to_end(self) -> None:
        """Serve all remaining slices at once, and finish."""
        while self._serve_slice():
            pass
        self.drop()

    def drop(self) -> None:
        """Finish; those not served yet are not served. Idempotent."""
        if not self.done:
            self.done = True
            self._finished()

    def _serve_slice(self) -> bool:
        """Serve the next slice; returns whether there are more."""
        if self.done:
            return False
        part = self._items[self._at : self._at + SLICE]
        self._at += SLICE
        try:
            written = self._serve(part)
        except BaseException:
            self.drop()
            raise
        self._share.charge(WRITTEN * written)
        self._queued = self._queued or written < len(part)
        return self._at < len(self._items) and not self.done
