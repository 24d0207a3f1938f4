"""A node in a daemon thread of its own, with an event loop of its own."""

import asyncio
import threading
from contextlib import suppress

from adsum.errors import NodeNotRunningError
from adsum.node import Node

from .answer import Answer
from .callqueue import STOPPED, CallQueue


class NodeThread:
    """Runs a node in a new thread, from `start` to `stop`.

    Args:
        node: A node that does not run.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._loop = asyncio.new_event_loop()
        self._serving: asyncio.Task[None] | None = None
        self._stopping = False
        #: Calls for the event loop.
        self.queue = CallQueue(self._loop, 0)
        #: Done once the node has started, or could not be started.
        self.started = Answer()
        #: Whether the node was started, perhaps to stop later.
        self.has_started = False
        self._thread = threading.Thread(target=self._run, name="adsum portal", daemon=True)

    def start(self) -> None:
        """Start the thread. If `stop` was called before, the thread ends at once."""
        try:
            self._thread.start()
        except BaseException:  # at the exit of the interpreter, for example
            self.discard()
            raise

    def discard(self) -> None:
        """Give up a thread that was not started."""
        self.started.fail(NodeNotRunningError(STOPPED))
        self.queue.close()
        self._loop.close()

    @property
    def is_starting(self) -> bool:
        """Whether the start is under way: it has neither succeeded nor failed."""
        return not self.started.done

    def queue_of_guest(self) -> CallQueue:
        """Make another queue for the same event loop, which ends without ending this thread."""
        return CallQueue(self._loop, self._thread.ident or 0)

    def stop(self, timeout: float) -> None:
        """Stop the node and wait for the end of the thread. Idempotent.

        Raises:
            TimeoutError: The node has not stopped after so many seconds.
        """
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end)
        if not self._thread.is_alive():  # ended, or not begun: a signal handler interrupts `start`
            return
        self._thread.join(min(timeout, threading.TIMEOUT_MAX))
        if self._thread.is_alive():
            raise TimeoutError(
                f"the node has not stopped within {timeout:g} s; it goes on stopping"
            )

    def _end(self) -> None:
        self._stopping = True
        if self._serving is not None:
            self._serving.cancel()
            self._serving = None

    def _run(self) -> None:
        self.queue.thread = threading.get_ident()
        try:
            self._loop.run_until_complete(self._serve())
        except asyncio.CancelledError:
            self.started.fail(NodeNotRunningError(STOPPED))
        except BaseException as error:  # noqa: BLE001, RUF100  # it belongs to the callers
            self.started.fail(error)
        finally:
            # The executor of the loop is not joined: no thread can be started at the exit of the
            # interpreter, and joining it takes one.
            self.queue.close()
            self._cancel_tasks()
            self._loop.close()

    async def _serve(self) -> None:
        if self._stopping:  # before this began
            raise asyncio.CancelledError
        self._serving = asyncio.current_task()
        async with self._node:
            self.has_started = True
            self.started.deliver(None)
            await asyncio.Event().wait()

    def _cancel_tasks(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=1))
