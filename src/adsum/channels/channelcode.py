"""`ChannelCode`: runs the application code of one channel, and logs its crashes."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from adsum.errors import RefusedError
from adsum.sparselog import SparseLogger
from adsum.tasks import is_closing, start_task

from .channel import Channel
from .flow.mailbox import CANCELLED, Mailbox
from .handlers import Answer


class ChannelCode:
    """Awaits the handlers of a channel and runs its tasks.

    Args:
        channel: The channel.
        mailbox: The mailbox whose jobs await the handlers.
        log: The log of the socket.
    """

    __slots__ = ("_channel", "_log", "_mailbox", "_tasks")

    def __init__(self, channel: Channel, mailbox: Mailbox, log: SparseLogger) -> None:
        self._channel = channel
        self._mailbox = mailbox
        self._log = log
        # None until the first `spawn`: most channels have no tasks, and an empty set is large.
        self._tasks: set[asyncio.Task[None]] | None = None

    async def outcome(self, handling: Awaitable[Answer]) -> tuple[str, Answer]:
        """Await a handler; returns the status and the response, ``error`` for a refusal."""
        try:
            return "ok", await handling
        except (RefusedError, asyncio.CancelledError) as error:
            return "error", self.refusal(error)

    def refusal(self, error: RefusedError | asyncio.CancelledError) -> Answer:
        """The response to an event whose handler has refused it.

        Raises:
            asyncio.CancelledError: The handler was cancelled, see `Mailbox.raise_crash`.
            RuntimeError: The application has cancelled it.
        """
        if isinstance(error, asyncio.CancelledError):
            self._mailbox.raise_crash(error)
        return error.response

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task of the channel."""
        task = start_task(coroutine)
        self._tasks = self._tasks or set()
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def cancel_tasks(self) -> None:
        """Cancel the tasks of the channel."""
        for task in self._tasks or ():
            task.cancel()

    def log_crash(self, text: str, error: BaseException, *args: object) -> None:
        """Log an exception of the application; `text` begins with the channel's name."""
        # Events in `args` are declared by the class, so a client cannot choose the log key.
        within = (type(self._channel), *args)
        self._log.crashed(text, repr(self._channel._process), *args, error=error, within=within)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() and not self._channel._process.ending and not is_closing():
            error = RuntimeError(CANCELLED)  # not cancelled by the end of the channel
        if error is not None:
            self.log_crash("%s: a spawned task crashed", error)
            self._channel._process.end_soon("crashed")
