"""`LayerMailbox`: the unread messages of one channel in one process, and the calls that wait.

Not thread-safe by itself: `LocalChannels` guards it with its lock.

Invariants:

- A message is in the mailbox until a reader takes it, so cancelling a reader loses nothing.
- While there are messages, a waiting reader has been woken or there is none.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple
from weakref import ref

from adsum.tasks import resolve

from .layerlimits import MAX_UNREAD_BYTES, OVERSHOOT, READY_AGAIN


class ChannelName(str):
    """The name of a new channel. A consumer that is collected releases the name of its channel."""

    __slots__ = ("__weakref__",)


class Unread(NamedTuple):
    """An unread message: the monotonic time at which it expires, and its bytes."""

    expires_at: float
    data: bytes


class LayerMailbox:
    """The unread messages of one channel.

    Args:
        capacity: Unread messages at most.
        now: The monotonic time.
        name: The name that was handed out for a new channel; it is referred to weakly.
    """

    __slots__ = (
        "_size",
        "_unread",
        "cancelled",
        "capacity",
        "groups",
        "is_announced_full",
        "is_receiving",
        "name",
        "used_at",
        "waiting",
    )

    def __init__(self, capacity: int, now: float, name: ChannelName | None = None) -> None:
        self.capacity = capacity
        self.name = None if name is None else ref(name)
        #: Futures of the readers that wait, the first one first; there is seldom more than one.
        self.waiting: list[asyncio.Future[None]] = []
        #: The groups of the channel.
        self.groups: set[str] = set()
        #: The time of the last use by a reader.
        self.used_at = now
        #: Whether the last reader was cancelled, as by the end of its consumer.
        self.cancelled = False
        #: Whether this process receives on the channel: other processes send to it.
        self.is_receiving = False
        #: Whether other processes know that the channel is full.
        self.is_announced_full = False
        self._unread: deque[Unread] = deque()
        # Bytes of the unread messages.
        self._size = 0

    def __len__(self) -> int:
        return len(self._unread)

    @property
    def is_full(self) -> bool:
        """Whether senders in this process are refused."""
        return len(self._unread) >= self.capacity or self._size >= MAX_UNREAD_BYTES

    @property
    def is_ready_again(self) -> bool:
        """Whether so much was read that other processes may send again."""
        messages, size = self.capacity * READY_AGAIN, MAX_UNREAD_BYTES * READY_AGAIN
        return len(self._unread) <= messages and self._size <= size

    @property
    def is_overrun(self) -> bool:
        """Whether messages of other processes are dropped too."""
        most = self.capacity * OVERSHOOT, MAX_UNREAD_BYTES * OVERSHOOT
        return len(self._unread) >= most[0] or self._size >= most[1]

    def put(self, message: Unread) -> "asyncio.Future[None] | None":
        """Add a message; returns the future of a reader to wake."""
        self._unread.append(message)
        self._size += len(message.data)
        return self.next_reader()

    def next_reader(self) -> "asyncio.Future[None] | None":
        """Remove and return the future of the reader that has waited longest."""
        self.forget_lost_readers()
        return self.waiting.pop(0) if self.waiting else None

    def forget_lost_readers(self) -> None:
        """Remove the readers whose event loop was closed while they waited: none runs again."""
        self.waiting = [one for one in self.waiting if not one.get_loop().is_closed()]

    def put_back(self, message: Unread) -> None:
        """Add a message again, as the oldest."""
        self._unread.appendleft(message)
        self._size += len(message.data)

    def is_read_by(self, name: str) -> None:
        """Note the name that a reader uses: it may keep a copy, and not the name handed out."""
        if self.name is not None and self.name() is not name:
            self.name = None

    def take(self) -> Unread | None:
        """Remove and return the oldest message, if there is one."""
        if not self._unread:
            return None
        message = self._unread.popleft()
        self._size -= len(message.data)
        return message

    def expire(self, now: float) -> int:
        """Drop the messages that have expired; returns their number."""
        count = 0
        while self._unread and self._unread[0].expires_at <= now:
            self.take()
            count += 1
        return count

    def clear(self) -> None:
        """Drop all messages and groups."""
        self._unread.clear()
        self.groups.clear()
        self._size = 0

    def is_unused(self, since: float) -> bool:
        """Whether no reader has used the channel since a time, or none ever will again.

        A consumer that is busy with a message keeps the name of its channel. One that has ended
        has cancelled its read, and keeps no name. Any other reader may come back.
        """
        if self.waiting:
            return False
        has_ended = self.name is not None and self.name() is None
        if has_ended and self.cancelled:
            return True
        return self.used_at <= since and (has_ended or self.cancelled or self.name is None)


def wake(readers: Iterable["asyncio.Future[None]"]) -> None:
    """Wake readers in whichever event loops: one call for each loop."""
    for loop, futures in groupby(sorted(readers, key=_loop_id), asyncio.Future.get_loop):
        with suppress(RuntimeError):  # the loop is closed, and its readers are gone
            loop.call_soon_threadsafe(_resolve_all, list(futures))


def _loop_id(future: "asyncio.Future[None]") -> int:
    return id(future.get_loop())


def _resolve_all(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        resolve(future)
