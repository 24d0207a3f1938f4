"""The connection of a portal to its node: the first use in a process starts or finds the node.

Invariants:

- Portals of one node start it at most once in a process, also if their first uses are at one time.
- A forked child never uses the thread, the queue or the event loop of its parent.
- A node that the portal found running is never stopped by it.
"""

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from adsum.driver.observer import Observer
from adsum.errors import NodeNotRunningError
from adsum.forks import call_after_fork
from adsum.node import Node
from adsum.processexit import call_at_exit

from .callqueue import STOPPED, CallQueue
from .nodethread import NodeThread

_CLOSED = "the node is not running: the portal is closed"


class PortalConnection(Observer):
    """Executes calls of any thread in the event loop of a node.

    Args:
        node: The node; it is observed for its end.
        timeout: Seconds that a call waits at most, and the first one for the start; may be
            infinite.
    """

    def __init__(self, node: Node, timeout: float) -> None:
        self._node = node
        #: Seconds that a call waits at most.
        self.timeout = timeout
        node.observe(self)
        # Guards the five below. A signal handler may use the portal in the thread that holds it.
        self._lock = threading.RLock()
        self._thread: NodeThread | None = None
        self._queue: CallQueue | None = None
        # The thread in which another portal started the node at the first use of this one.
        self._host: NodeThread | None = None
        # Whether the node ran already at the first use.
        self._guest = False
        self._closed = False
        # The thread and the queue of the parent. Collecting an event loop would close descriptors
        # that the child shares with the parent.
        self._inherited: list[object] = []
        with _first_uses:
            _connections.add(self)

    @property
    def queue(self) -> CallQueue:
        """The queue of calls; valid within a call that it executes."""
        queue = self._queue
        if queue is None:
            raise NodeNotRunningError(STOPPED)
        return queue

    def call(self, call: Callable[[], Any]) -> Any:
        """Execute a call and wait for its result; see `Portal.call`."""
        queue, thread = self._connected()
        queue.check_thread()
        if thread is not None and not thread.has_started:
            queue.wait(thread.started, self.timeout)
        return queue.wait(queue.submit(call), self.timeout)

    async def acall(self, call: Callable[[], Any]) -> Any:
        """Execute a call and wait for its result in another event loop; see `Portal.acall`."""
        queue, thread = self._connected()
        queue.check_thread()
        async with asyncio.timeout(None if math.isinf(self.timeout) else self.timeout):
            if thread is not None and not thread.has_started:
                await queue.wait_shared(thread.started)
            return await queue.wait_async(queue.submit(call))

    def close(self, leave: Callable[[], None]) -> None:
        """Refuse calls from now on, and stop the node if this started it. Idempotent.

        Args:
            leave: Ends all that the portal has at the node. Executed in the event loop of the node,
                also if the portal was never used, or here if the node does not run.

        Raises:
            TimeoutError: The node has not stopped, or not left, within the timeout.
            UsageError: This is the thread of the event loop.
        """
        queue = self._queue
        if queue is not None and not queue.closed:
            queue.check_thread()
        with self._lock:
            self._closed = True
            thread, queue = self._thread, self._queue
        if thread is not None:
            thread.stop(self.timeout)
        self._leave(queue, leave)

    def _leave(self, queue: CallQueue | None, leave: Callable[[], None]) -> None:
        """Leave the node where it runs, because events iterate over its observers there."""
        place = self._node.event_loop
        if place is None or (queue is None and place[1] == threading.get_ident()):
            leave()
            return
        if queue is None or queue.closed:  # never used, or the node runs again
            queue = CallQueue(*place)
            queue.check_thread()
        with suppress(NodeNotRunningError):
            queue.wait(queue.submit(leave), self.timeout)
        queue.close()

    def _connected(self) -> tuple[CallQueue, NodeThread | None]:
        """The queue of the node that runs, which this starts at the first use in a process."""
        with self._lock:
            if self._closed:
                raise NodeNotRunningError(_CLOSED)
            if self._queue is None or self._queue.closed:
                self._queue = self._connect()
                if self._closed:  # by a signal handler that interrupted this
                    raise NodeNotRunningError(_CLOSED)
            return self._queue, self._thread or self._host

    def _connect(self) -> CallQueue:
        with _first_uses:
            return self._connect_once()

    def _connect_once(self) -> CallQueue:
        before, self._host = self._host, self._starting_thread()
        if self._thread is None and self._host is not None:
            return self._host.queue_of_guest()
        place = self._node.event_loop
        if self._thread is None and place is not None:
            self._guest = True
            return CallQueue(*place)
        if self._thread is not None and self._thread.is_starting:
            return self._thread.queue  # closed already if the start is about to fail
        used = self._thread or before
        if self._guest or (used is not None and used.has_started):
            raise NodeNotRunningError(STOPPED)
        return self._start(self._thread).queue

    def _start(self, before: NodeThread | None) -> NodeThread:
        """Start the node in a thread, unless a signal handler that interrupts this has done so."""
        call_at_exit(close_all)
        thread = NodeThread(self._node)
        if self._thread is not None and self._thread is not before:
            thread.discard()
            return self._thread
        self._thread = thread
        thread.start()
        return thread

    def _starting_thread(self) -> NodeThread | None:
        """The thread in which a portal starts the node at this moment."""
        threads = [one._thread for one in list(_connections) if one._node is self._node]
        return next((one for one in threads if one is not None and one.is_starting), None)

    # Called by the node, at the exit of the process, and after a fork.

    def closed(self) -> None:
        """The node has stopped: waiting calls raise."""
        if self._queue is not None:
            self._queue.close()

    def _close_own(self) -> None:
        if self._thread is not None:
            with suppress(TimeoutError):  # the other nodes take it for a crash
                self.close(lambda: None)

    def _forked(self) -> None:
        # Another thread of the parent may have held the lock.
        self._lock = threading.RLock()
        self._inherited += [self._thread, self._host, self._queue]
        self._thread = self._host = self._queue = None
        self._guest = False


_connections: WeakSet[PortalConnection] = WeakSet()
# Guards the connections, and each first use: two portals of one node do not start it twice.
_first_uses = threading.RLock()


def close_all(**_: object) -> None:
    """Say goodbye at the normal end of the process."""
    for connection in list(_connections):
        connection._close_own()


def _after_fork() -> None:
    global _first_uses  # another thread of the parent may have held it
    _first_uses = threading.RLock()
    for connection in list(_connections):
        connection._forked()


call_after_fork(_after_fork)
