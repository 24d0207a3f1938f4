"""Watches and subscriptions of a portal: iterators that block a thread.

Each `next` passes one read to the event loop. A read that takes longer than the timeout goes on,
and the following `next` takes its result, so a timeout loses nothing and reads nothing twice.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from adsum.errors import NodeNotRunningError, UsageError
from adsum.forks import process
from adsum.pubsub import Message, Subscription
from adsum.singlereader import SingleReaderIterator
from adsum.watch import Diff, Watch

from .answer import Answer
from .callqueue import CallQueue

T_co = TypeVar("T_co", covariant=True)
_END = object()


class PortalReader(Iterator[T_co], Generic[T_co]):
    """Base of the blocking iterators; read by one thread at a time, and closed by any.

    Args:
        queue: Passes calls to the event loop.
        inner: The iterator to read, in that loop.
        timeout: Seconds that `next` waits at most; None waits without a bound.
    """

    def __init__(
        self, queue: CallQueue, inner: SingleReaderIterator[T_co], timeout: float | None
    ) -> None:
        self._queue = queue
        self._inner = inner
        self._timeout = timeout
        self._generation = process.generation
        self._closed = False
        self._reading = threading.Lock()
        # The read under way; it outlives a `next` that has timed out.
        self._pending: Answer | None = None

    @property
    def closed(self) -> bool:
        """Whether the iteration has ended."""
        return self._closed or self._inner.closed or self._queue.closed

    def close(self) -> None:
        """End the iteration; a thread that waits for the next item stops waiting. Idempotent.

        Does not wait for the event loop, so it may be called in any thread.
        """
        if self._generation != process.generation or self.closed:
            return
        self._closed = True
        if threading.get_ident() == self._queue.thread:
            self._inner.close()
            return
        with suppress(NodeNotRunningError):  # the iteration has ended with the node
            self._queue.submit(self._inner.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        if self._generation != process.generation or self._closed:
            raise StopIteration
        if not self._queue.closed:  # a later thread may have the id of one that has ended
            self._queue.check_thread()
        if not self._reading.acquire(blocking=False):
            raise UsageError(
                f"two threads read one {type(self).__name__}; give each one of its own"
            )
        try:
            item = self._next()
        except NodeNotRunningError:
            item = _END
        finally:
            self._reading.release()
        if item is _END:
            raise StopIteration
        return cast(T_co, item)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # The garbage collector runs in any thread and between any two steps, also of the queue.
        if hasattr(self, "_reading") and self._generation == process.generation:
            try:
                self._queue.loop.call_soon_threadsafe(self._inner.close)
            except RuntimeError:  # the loop is closed, and the iteration has ended with it
                return

    def _next(self) -> Any:
        inner = self._inner
        if self._pending is None:
            self._pending = self._queue.submit(lambda: _read(inner))
        try:
            item = self._queue.wait(self._pending, self._timeout)
        except TimeoutError:
            raise TimeoutError(
                f"nothing to read within {self._timeout:g} s; the iteration may go on"
            ) from None
        except Exception:
            self._pending = None
            raise
        self._pending = None
        return item


class PortalWatch(PortalReader[Diff]):
    """A blocking iterator of the diffs of one topic, as `Watch`; made by `Portal.watch`.

    One thread reads at a time, and any thread closes it. Ends with `close`, with the node, and in a
    forked child.
    """

    def __init__(self, queue: CallQueue, inner: Watch, timeout: float | None) -> None:
        super().__init__(queue, inner, timeout)
        self.topic = inner.topic


class PortalSubscription(PortalReader[Message]):
    """A blocking iterator of messages, as `Subscription`; made by `Portal.subscribe`.

    One thread reads at a time, and any thread closes it. Ends with `close`, with the node, and in a
    forked child.
    """

    def __init__(
        self, queue: CallQueue, inner: Subscription, timeout: float | None, call_timeout: float
    ) -> None:
        super().__init__(queue, inner, timeout)
        # Seconds that `add` and `remove` wait for the event loop.
        self._call_timeout = call_timeout
        #: The subscription that is read in the event loop, for `Portal.publish`.
        self.inner = inner

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it receives messages of, sorted."""
        return self.inner.topics

    def add(self, topic: str) -> None:
        """Receive the messages of one more topic, as `Subscription.add`.

        Raises:
            NodeNotRunningError: The subscription is closed, or the node has stopped.
            TimeoutError: It took longer than the timeout of the portal; it is done later.
            UsageError: This is the thread of the event loop.
        """
        self._call(partial(self.inner.add, topic))

    def remove(self, topic: str) -> None:
        """Receive no more messages of a topic, as `Subscription.remove`.

        Raises:
            NodeNotRunningError: The node has stopped.
            TimeoutError: It took longer than the timeout of the portal; it is done later.
            UsageError: This is the thread of the event loop.
        """
        self._call(partial(self.inner.remove, topic))

    def _call(self, change: Callable[[], None]) -> None:
        if self._generation != process.generation:
            raise NodeNotRunningError("the subscription belongs to the parent of this process")
        if not self._queue.closed:
            self._queue.check_thread()
        self._queue.wait(self._queue.submit(change), self._call_timeout)

    @property
    def dropped(self) -> int:
        """Number of messages dropped because the reader was too slow."""
        return self.inner.dropped


async def _read(inner: SingleReaderIterator[Any]) -> object:
    try:
        return await anext(inner)
    except StopAsyncIteration:
        return _END
