"""Single-reader asynchronous iterators: the base of watches and subscriptions.

A topic refers to its readers weakly. So a reader without any other reference, as after leaving an
`async for`, is garbage-collected, and its topic is forgotten with its last reader. While a task
awaits a reader, the topic refers to it strongly: task and reader may refer to nothing but each
other then, and the garbage collector would end both without a trace.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import ref

from adsum.errors import UsageError, WrongThreadError
from adsum.forks import process
from adsum.tasks import resolve

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R", bound="SingleReaderIterator[Any]")


class ReaderSet(Generic[R]):
    """The open readers of one topic.

    Args:
        loop: The event loop in which they are read; None where there is no event loop.
        emptied: Called in that loop when the last reader has been closed or collected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None, emptied: Callable[[], None]) -> None:
        #: The event loop in which they are read; None where there is no event loop.
        self.loop = loop
        self._emptied = emptied
        self._generation = process.generation
        self._refs: set[ref[R]] = set()
        #: Readers that a task awaits at this moment.
        self.awaited: set[SingleReaderIterator[Any]] = set()

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[R]:
        """The open readers at this moment."""
        return iter([reader for one in list(self._refs) if (reader := one()) is not None])

    def add(self, reader: R) -> None:
        """Add a new reader, until it is closed or collected."""
        self._refs.add(ref(reader, self._collected))

    def discard(self, reader: R) -> None:
        """Remove a reader that was closed."""
        self._forget(ref(reader))

    def _collected(self, one: "ref[R]") -> None:
        # The garbage collector runs in any thread, and between any two steps of this one.
        if self._generation != process.generation:
            return  # the loop is that of a parent process
        if self.loop is None:
            self._forget(one)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._forget, one)

    def _forget(self, one: "ref[R]") -> None:
        if one in self._refs:
            self._refs.discard(one)
            if not self._refs:
                self._emptied()


class SingleReaderIterator(ABC, Generic[T_co]):
    """An asynchronous iterator that is read by one task at a time.

    A read that is cancelled loses nothing. `close` ends the iteration; so does the end of a `with`
    block, and of the node. In a forked child, an iteration that began in the parent has ended.

    Args:
        readers: The readers of its topic, which it joins.
    """

    def __init__(self, readers: ReaderSet[Any]) -> None:
        self._readers = readers
        readers.add(self)
        # Set while the reader waits; it may belong to an event loop that is closed by now.
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        self._closed = False
        self._generation = process.generation

    @property
    def closed(self) -> bool:
        """Whether the iteration has ended."""
        return self._closed or self._generation != process.generation

    def close(self) -> None:
        """End the iteration; unread items are dropped. Idempotent."""
        if not self.closed:
            self._closed = True
            self._drop()
            self._readers.discard(self)
            self._wake()

    async def aclose(self) -> None:
        """End the iteration as `close` does, for `contextlib.aclosing`."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._reading and not self.closed:
            raise UsageError(f"two tasks read one {type(self).__name__}; each task needs its own")
        loop = self._readers.loop
        if loop not in (None, asyncio.get_running_loop()) and not self.closed:
            # Nothing would wake it here.
            raise WrongThreadError(
                f"a {type(self).__name__} must be read in the event loop of its node"
            )
        self._reading = True
        self._readers.awaited.add(self)
        try:
            # The change that woke this task may have been undone before it ran.
            while not (self.closed or self._has_more()):
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self._reading = False
            self._waiter = None
            self._readers.awaited.discard(self)
        if self.closed:
            raise StopAsyncIteration
        return self._take()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _wake(self) -> None:
        """Wake the waiting reader, so that it checks for more."""
        resolve(self._waiter)

    @abstractmethod
    def _has_more(self) -> bool:
        """Whether there is something to read."""

    @abstractmethod
    def _take(self) -> T_co:
        """Remove and return the next item."""

    @abstractmethod
    def _drop(self) -> None:
        """Drop all unread items."""
