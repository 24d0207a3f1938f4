"""`Outbox`: the bounded queue of frames to one client, in order.

Invariant: a client that does not read costs its queued frames, up to the limit, and one
`FrameSource` for each of its channels. Presences are not queued: a source takes their place and
makes the frame when its turn comes, so changes in between are merged into one frame.

A frame may be written past an outbox that is `idle`: then nothing of the client waits, and the
order of its frames is kept. The outbox only counts such a frame.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from adsum.channels.wire.frames import Wire
from adsum.channels.wire.prepared import Prepared

_FRAME = (str, bytes, Prepared)


class FrameSource(Protocol):
    """A queue entry that makes its frame only when its turn comes."""

    def frame(self) -> Wire | Prepared | None:
        """The frame to send now; None if none is due any more."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a connection.

    Attributes:
        code: The WebSocket close code.
        reason: The close reason, sent to the client.
    """

    code: int
    reason: str


class Outbox:
    """A bounded queue of frames and frame sources.

    Args:
        limit: Bytes of frames that may be queued. A single larger frame is accepted if the queue
            is empty.
        filled: Called when the queue becomes non-empty, or an empty one is closed.
        drained: Called when the queue is no longer more than half full.
    """

    __slots__ = (
        "_drained",
        "_filled",
        "_items",
        "_limit",
        "_size",
        "_taking",
        "closing",
        "frames",
        "half_full",
        "sent",
    )

    def __init__(self, limit: int, filled: Callable[[], None], drained: Callable[[], None]) -> None:
        self._limit = limit
        self._filled = filled
        self._drained = drained
        # None while it is empty, as nearly always: an empty deque takes 0.7 kB.
        self._items: deque[Wire | Prepared | FrameSource] | None = None
        self._size = 0
        # Whether a source makes its frame. That may queue the next frame, which comes after it.
        self._taking = False
        #: Whether the queued frames take more than half of the limit.
        self.half_full = False
        #: Close code and reason, once closed; nothing is added after that.
        self.closing: Closing | None = None
        #: Numbers of frames and of bytes taken out so far, or written past the queue.
        self.frames = self.sent = 0

    @property
    def idle(self) -> bool:
        """Whether a frame may be written past the queue: nothing is in it, and it is open."""
        return not self._items and not self._taking and self.closing is None

    def count(self, size: int) -> None:
        """Count a frame of `size` that was written past the queue."""
        self.frames += 1
        self.sent += size

    def put(self, frame: Wire | Prepared) -> bool:
        """Add a frame, or ignore it if closed; returns False if it exceeds the limit."""
        if self.closing is not None:
            return True
        size = self._size + len(frame)
        if size > self._limit and self._items:
            return False
        self._size = size
        self.half_full = 2 * size > self._limit
        self._add(frame)
        return True

    def put_source(self, source: FrameSource) -> None:
        """Add a source of a frame. The caller must not add one that is already queued."""
        if self.closing is None:
            self._add(source)

    def discard(self, source: FrameSource) -> None:
        """Remove a source from the queue. Idempotent."""
        if self._items is not None:
            with contextlib.suppress(ValueError):  # its turn has already come
                self._items.remove(source)
            self._items = self._items or None

    def take(self) -> Wire | Prepared | None:
        """Remove and return the next frame; None if there is none."""
        while items := self._items:
            item = items.popleft()
            if not items:
                self._items = None
            if isinstance(item, _FRAME):
                self._size -= len(item)
                if self.half_full and 2 * self._size <= self._limit:
                    self.half_full = False
                    self._drained()
                frame: Wire | Prepared | None = item
            else:
                frame = self._made_by(item)
            if frame is not None:
                self.count(len(frame))
                return frame
        return None

    def _made_by(self, source: FrameSource) -> Wire | Prepared | None:
        self._taking = True
        try:
            return source.frame()
        finally:
            self._taking = False

    def close(self, closing: Closing, *, drop: bool = False) -> None:
        """Close the outbox: nothing is added any more. Idempotent.

        Of several calls the first `closing` counts, but a later one may still drop the frames.

        Args:
            closing: Close code and reason.
            drop: Whether to drop the queued frames; otherwise they are sent before the close.
        """
        idle = not self._items
        if drop:
            self._items = None
            self._size, self.half_full = 0, False
        if self.closing is None:
            self.closing = closing
            if idle:
                self._filled()

    def __bool__(self) -> bool:
        """Whether anything is queued."""
        return bool(self._items)

    def _add(self, item: Wire | Prepared | FrameSource) -> None:
        if self._items is None:
            self._items = deque((item,))
            self._filled()
        else:
            self._items.append(item)
