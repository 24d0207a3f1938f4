"""One task that reads what comes, until it is closed: what watches and subscriptions share."""

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, Self, TypeVar

from adsum.errors import UsageError
from adsum.tasks import resolve

T_co = TypeVar("T_co", covariant=True)


class Reader(ABC, Generic[T_co]):
    """An asynchronous iterator that is read by one task at a time.

    A read that is cancelled loses nothing. `close` ends the iteration; so does the end of a `with`
    block, and of the node.
    """

    def __init__(self) -> None:
        # Set while the reader waits; it may be of an event loop that is closed by now.
        self._waiter: asyncio.Future[None] | None = None
        self._reading = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the iteration has ended."""
        return self._closed

    def close(self) -> None:
        """End the iteration; what was not read is dropped. Idempotent."""
        if not self._closed:
            self._closed = True
            self._drop()
            self._wake()

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._reading:
            raise UsageError(f"two tasks read one {type(self).__name__}; give each one of its own")
        self._reading = True
        try:
            # What woke this may have been undone before it ran.
            while not (self._closed or self._has_more()):
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self._reading = False
            self._waiter = None
        if self._closed:
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
        """Let the reader look again."""
        resolve(self._waiter)

    @abstractmethod
    def _has_more(self) -> bool:
        """Whether there is something to read."""

    @abstractmethod
    def _take(self) -> T_co:
        """What is to be read next."""

    @abstractmethod
    def _drop(self) -> None:
        """Forget what was not read."""
