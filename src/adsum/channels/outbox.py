"""What waits to be sent to one client: bounded, in order, and partly made only when it is sent.

Invariant: what a client costs while it does not read is its texts, up to the limit, and one mark
for each of its channels. Presences are not in here: a mark stands for them, and what it stands for
is asked for when its turn has come, so what changed meanwhile is in it, once.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .frames import Wire

_FRAME = (str, bytes)


class Source(Protocol):
    """Makes a frame when its turn has come."""

    def frame(self) -> Wire | None:
        """What to send now; None if there is nothing any more."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a connection.

    Attributes:
        code: The WebSocket close code.
        reason: For the client.
    """

    code: int
    reason: str


class Outbox:
    """See the module.

    Args:
        limit: The most bytes of frames that may wait.
        filled: Called when something is there to be sent, and nothing was.
        drained: Called when it is no longer more than half full.
    """

    __slots__ = (
        "_drained",
        "_filled",
        "_items",
        "_limit",
        "_size",
        "closing",
        "frames",
        "half_full",
        "sent",
    )

    def __init__(self, limit: int, filled: Callable[[], None], drained: Callable[[], None]) -> None:
        self._limit = limit
        self._filled = filled
        self._drained = drained
        self._items: deque[Wire | Source] = deque()
        self._size = 0
        #: Whether the frames that wait take more than half of the room there is for them.
        self.half_full = False
        #: How the connection ends, once it does; nothing is added any more.
        self.closing: Closing | None = None
        #: How many frames and bytes have been taken out.
        self.frames = self.sent = 0

    def put(self, frame: Wire) -> bool:
        """Add a frame; returns False if there is no room for it."""
        if self.closing is not None:
            return True
        size = self._size + len(frame)
        if size > self._limit and self._items:
            return False
        self._size = size
        self.half_full = 2 * size > self._limit
        self._add(frame)
        return True

    def put_source(self, source: Source) -> None:
        """Add what makes a frame when its turn has come. The caller sees to it that it is once."""
        if self.closing is None:
            self._add(source)

    def discard(self, source: Source) -> None:
        """Ask a source no more."""
        with contextlib.suppress(ValueError):  # its turn has come already
            self._items.remove(source)

    def take(self) -> Wire | None:
        """What is to be sent next; None if nothing is."""
        while self._items:
            item = self._items.popleft()
            if isinstance(item, _FRAME):
                self._size -= len(item)
                if self.half_full and 2 * self._size <= self._limit:
                    self.half_full = False
                    self._drained()
                frame: Wire | None = item
            else:
                frame = item.frame()
            if frame is not None:
                self.frames += 1
                self.sent += len(frame)
                return frame
        return None

    def close(self, closing: Closing, *, drop: bool = False) -> None:
        """Add nothing any more; the end comes after what waits, or instead of it.

        Of several ends the first counts, but what waits may still be dropped.
        """
        idle = not self._items
        if drop:
            self._items.clear()
            self._size, self.half_full = 0, False
        if self.closing is None:
            self.closing = closing
            if idle:
                self._filled()

    def __bool__(self) -> bool:
        """Whether something is there to be sent."""
        return bool(self._items)

    def _add(self, item: Wire | Source) -> None:
        idle = not self._items
        self._items.append(item)
        if idle:
            self._filled()
