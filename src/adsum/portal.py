"""Portal: presence and messages from threads and synchronous code.

Invariants:

- Each call is executed at most once, and its result is delivered to its caller, see `callqueue`.
- No call is lost silently: if the node stops, waiting calls raise `NodeNotRunningError`.
- Nothing here blocks the event loop of the node.
- A process starts at most one node for a portal. A forked child never uses that of its parent.
"""

import asyncio
import math
import os
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from adsum.arguments import instance, refuse, seconds_above_zero, whole
from adsum.callqueue import STOPPED, CallQueue
from adsum.driver.observer import Observer
from adsum.enrichment import Fetch
from adsum.errors import NodeNotRunningError, NotTrackedError, UsageError
from adsum.forks import process
from adsum.node import Node
from adsum.nodethread import NodeThread
from adsum.owners import CURRENT_TASK, resolve_owner
from adsum.portalreaders import PortalReader, PortalSubscription, PortalWatch
from adsum.presence import Meta, Metas, Names, Presence, Tracked
from adsum.processexit import call_at_exit
from adsum.pubsub import DEFAULT_LIMIT, PubSub
from adsum.values.limits import MAX_NAME
from adsum.values.names import checked_name, checked_topic
from adsum.watch import Entries

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=PortalReader[Any])

_CLOSED = "the node is not running: the portal is closed"


class _Owner(Enum):
    HANDLE = "the handle"

    def __repr__(self) -> str:
        return "<the handle>"  # in the signatures that `help` and the reference show


class PortalTracked:
    """A handle to one tracked presence, returned by `Portal.track`; safe in any thread.

    As a context manager it untracks the presence at the end of the block. Dropping the handle does
    not end the presence.
    """

    __slots__ = ("_generation", "_portal", "_tracked")

    def __init__(self, portal: "Portal", tracked: Tracked) -> None:
        self._portal = portal
        self._tracked = tracked
        self._generation = process.generation

    @property
    def active(self) -> bool:
        """Whether the presence is still tracked."""
        if self._generation != process.generation:
            return False
        try:
            return self._portal.call(lambda: self._tracked.active)
        except NodeNotRunningError:
            return False

    def update(self, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        """Replace the meta in place, as `Tracked.update` does.

        Args:
            meta: The new meta, or a function from a copy of the old meta to the new one. The
                function runs in the event loop of the node and must not wait.

        Raises:
            NotTrackedError: The presence has ended.
        """
        if self._generation != process.generation:
            raise NotTrackedError("the presence belongs to the parent of this process")
        self._portal.call(self._tracked.update, meta)

    def untrack(self) -> None:
        """End the presence. Idempotent; in a forked child this does nothing."""
        if self._generation == process.generation:
            try:
                self._portal.call(self._tracked.untrack)
            except NodeNotRunningError:  # it has ended with the node
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.untrack()

    def __repr__(self) -> str:
        return f"<PortalTracked {self._tracked!r}>"


class Portal:
    """Presence and messages from threads: WSGI handlers, scripts, task queues.

    Its methods have the names, arguments, results and errors of `Presence` and `PubSub`, and block
    the calling thread until the node has answered. They may be called in any thread but that of the
    node's event loop. Make one portal for each process, at import if you like: constructing it
    starts nothing.

    At its first use a node that does not run is started in a daemon thread, and stops with `close`
    or with the normal end of the process. A forked child starts the node again at its own first
    use. A node that runs already is used where it runs, and never stopped by the portal.

    Args:
        node: The node, by default ``Node()``: settings from the environment.
        fetch: Adds fields to entries, as that of `Presence`; it runs in the event loop.
        fetch_timeout: The most seconds of active time that `fetch` may take.
        timeout: Seconds above 0 that a call waits at most, and the first use for the start. Then it
            raises `TimeoutError`, and the work continues.

    Raises:
        ConfigurationError: An argument is wrong.

    Example:
        >>> import adsum
        >>> with adsum.Portal(adsum.Node(siblings=False)) as portal:
        ...     with portal.track("room:1", "ann", {"device": "phone"}):
        ...         portal.count("room:1"), portal.topics()
        (1, ['room:1'])
    """

    def __init__(
        self,
        node: Node | None = None,
        *,
        fetch: Fetch | None = None,
        fetch_timeout: float = 5.0,
        timeout: float = 30.0,
    ) -> None:
        self._node = Node() if node is None else instance("node", node, Node, "an adsum.Node")
        self._timeout = seconds_above_zero("timeout", timeout)
        self._presence = Presence(self._node, fetch=fetch, fetch_timeout=fetch_timeout)
        self._pubsub = PubSub(self._node)
        # Open watches and subscriptions; used in the event loop.
        self._readers: WeakSet[PortalReader[Any]] = WeakSet()
        self._observer = _PortalObserver(self)
        self._node.observe(self._observer)
        # Guards the five below.
        self._lock = threading.Lock()
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
            _portals.add(self)

    @property
    def node(self) -> Node:
        """The node. Use it through `call`, because other threads may not."""
        return self._node

    # Calls.

    @overload
    def call(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, plain or async, in the event loop of the node, and wait for its result.

        Raises:
            NodeNotRunningError: The node has stopped, or the portal is closed.
            TimeoutError: The call took longer than the timeout of the portal; it continues.
            UsageError: This is the thread of the event loop: the call would wait for itself.
        """
        _check_function(function)
        queue, thread = self._connected()
        queue.check_thread()
        if thread is not None and not thread.has_started:
            queue.wait(thread.started, self._timeout)
        return queue.wait(queue.submit(partial(function, *args, **kwargs)), self._timeout)

    @overload
    async def acall(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def acall(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def acall(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `call`, from another event loop, which goes on meanwhile.

        If it is cancelled before the function begins, the function is not called.
        """
        _check_function(function)
        queue, thread = self._connected()
        queue.check_thread()
        async with asyncio.timeout(None if math.isinf(self._timeout) else self._timeout):
            if thread is not None and not thread.has_started:
                await asyncio.shield(asyncio.wrap_future(thread.started))
            return await queue.wait_async(queue.submit(partial(function, *args, **kwargs)))

    # Presence.

    def track(
        self,
        topic: str,
        key: str,
        meta: Meta | None = None,
        *,
        owner: Hashable = _Owner.HANDLE,
    ) -> PortalTracked:
        """Track a presence, as `Presence.track`.

        Args:
            topic: The topic, 1 to 1,024 characters.
            key: The user or thing that is present, 1 to 1,024 characters.
            meta: A JSON object, at most 64 KiB as text.
            owner: Without it the presence lasts until `PortalTracked.untrack`. None and any other
                hashable object own it as in `Presence.track`. A thread has no task, so
                `CURRENT_TASK` is refused.
        """
        checked_topic(topic, "topic", MAX_NAME)
        checked_name(key, "key", MAX_NAME)
        owner = object() if owner is _Owner.HANDLE else _checked_owner(owner)
        return PortalTracked(self, self.call(self._presence.track, topic, key, meta, owner=owner))

    def update(
        self,
        topic: str,
        key: str,
        meta: Meta | Callable[[dict[str, Any]], Meta],
        *,
        owner: Hashable,
    ) -> None:
        """Replace the meta of a presence that an owner tracks, as `Presence.update`."""
        owner = _checked_owner(owner)
        self.call(self._presence.update, topic, key, meta, owner=owner)

    def untrack(self, topic: str, key: str, *, owner: Hashable) -> None:
        """End a presence that an owner tracks; does nothing if there is none."""
        self.call(self._presence.untrack, topic, key, owner=_checked_owner(owner))

    def untrack_all(self, owner: Hashable) -> int:
        """End all presences of an owner; returns the number of presences that ended."""
        return self.call(self._presence.untrack_all, _checked_owner(owner))

    def list(self, topic: str) -> Entries:
        """The entries of all keys on a topic, as `Presence.list`."""
        return self.call(self._presence.list, checked_topic(topic, "topic", MAX_NAME))

    def get(self, topic: str, key: str) -> Metas:
        """The metas of one key on a topic, as `Presence.get`."""
        return self.call(self._presence.get, topic, key)

    def count(self, topic: str) -> int:
        """The number of keys present on a topic."""
        return self.call(self._presence.count, checked_topic(topic, "topic", MAX_NAME))

    def topics(self) -> Names:
        """The topics that have at least one presence, sorted."""
        return self.call(self._presence.topics)

    def fetch(self, topic: str) -> Entries:
        """As `list`, but with the fields of the `fetch` function added."""
        return self.call(self._presence.fetch, checked_topic(topic, "topic", MAX_NAME))

    def watch(self, topic: str, *, timeout: float | None = None) -> PortalWatch:
        """Watch a topic, as `Presence.watch`: a blocking iterator of diffs.

        Args:
            topic: 1 to 1,024 characters.
            timeout: Seconds above 0 that the iterator waits for the next diff at most. Then it
                raises `TimeoutError`. That loses nothing, and the iteration may go on. None waits
                without a bound.
        """
        checked_topic(topic, "topic", MAX_NAME)
        _check_wait(timeout)
        return self.call(
            lambda: self._reader(PortalWatch(self._live(), self._presence.watch(topic), timeout))
        )

    # Messages.

    def publish(
        self,
        topic: str,
        payload: Mapping[str, Any],
        *,
        event: str = "message",
        local: bool = False,
        to: str | None = None,
        exclude: PortalSubscription | None = None,
    ) -> int:
        """Publish a message, as `PubSub.publish`; returns the number of nodes that missed it."""
        if exclude is not None:
            instance("exclude", exclude, PortalSubscription, "a subscription of a portal, or None")
        inner = None if exclude is None else exclude.inner
        publish = self._pubsub.publish
        return self.call(publish, topic, payload, event=event, local=local, to=to, exclude=inner)

    def subscribe(
        self, topic: str, *, limit: int = DEFAULT_LIMIT, timeout: float | None = None
    ) -> PortalSubscription:
        """Subscribe to a topic, as `PubSub.subscribe`: a blocking iterator of messages.

        Args:
            topic: 1 to 1,024 characters.
            limit: Unread messages that are kept; beyond it the oldest are dropped.
            timeout: As for `watch`.
        """
        whole("limit", limit, 1)
        _check_wait(timeout)
        return self.call(
            lambda: self._reader(
                PortalSubscription(
                    self._live(), self._pubsub.subscribe(topic, limit=limit), timeout
                )
            )
        )

    # Lifecycle.

    def close(self) -> None:
        """Close the portal, for good: its presences, watches and subscriptions end. Idempotent.

        A node that the portal started says goodbye and stops. Waiting calls, and calls from now on,
        raise `NodeNotRunningError`.

        Raises:
            TimeoutError: The node has not stopped within the timeout of the portal.
            UsageError: This is the thread of the event loop.
        """
        queue = self._queue
        if queue is not None and not queue.closed:
            queue.check_thread()
        with self._lock:
            self._closed = True
            thread, queue = self._thread, self._queue
        if thread is not None:
            thread.stop(self._timeout)
        elif queue is not None and not queue.closed:
            try:
                queue.wait(queue.submit(partial(self._leave, queue)), self._timeout)
            except NodeNotRunningError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Portal to {self._node!r}>"

    def _connected(self) -> tuple[CallQueue, NodeThread | None]:
        """The queue of the node that runs, which this starts at the first use in a process."""
        with self._lock:
            if self._closed:
                raise NodeNotRunningError(_CLOSED)
            if self._queue is None or self._queue.closed:
                self._queue = self._connect()
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
        self._thread = NodeThread(self._node)
        call_at_exit(_close_all)
        return self._thread.queue

    def _starting_thread(self) -> NodeThread | None:
        """The thread in which a portal starts the node at this moment."""
        threads = [portal._thread for portal in list(_portals) if portal._node is self._node]
        return next((one for one in threads if one is not None and one.is_starting), None)

    def _live(self) -> CallQueue:
        """The queue, within a call that it executes."""
        queue = self._queue
        if queue is None:
            raise NodeNotRunningError(STOPPED)
        return queue

    def _reader(self, reader: R) -> R:
        self._readers.add(reader)
        return reader

    def _leave(self, queue: CallQueue) -> None:
        """End all presences and readers in the loop of a node that goes on."""
        self._presence.release_all()
        for reader in list(self._readers):
            reader.close()
        for observer in (self._presence.observer, self._pubsub.observer, self._observer):
            self._node.stop_observing(observer)
        queue.close()

    # Called by the observer, at the exit of the process, and after a fork.

    def _stopped(self) -> None:
        if self._queue is not None:
            self._queue.close()

    def _close_own(self) -> None:
        if self._thread is not None:
            try:
                self.close()
            except TimeoutError:  # the others take it for a crash
                return

    def _forked(self) -> None:
        # Another thread of the parent may have held the lock.
        self._lock = threading.Lock()
        self._inherited += [self._thread, self._host, self._queue]
        self._thread = self._host = self._queue = None
        self._guest = False
        self._readers = WeakSet()


class _PortalObserver(Observer):
    """Passes the end of the node on, so that it is no method of `Portal`."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def closed(self) -> None:
        self._portal._stopped()


_portals: WeakSet[Portal] = WeakSet()
# Guards the portals, and each first use: two portals of one node do not start it twice.
_first_uses = threading.Lock()


def _close_all(**_: object) -> None:
    """Say goodbye at the normal end of the process."""
    for portal in list(_portals):
        portal._close_own()


def _after_fork() -> None:
    global _first_uses  # another thread of the parent may have held it
    _first_uses = threading.Lock()
    for portal in list(_portals):
        portal._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _check_function(function: object) -> None:
    if not callable(function):
        refuse("function", function, "a function, plain or async")


def _checked_owner(owner: Hashable) -> Hashable:
    if owner is CURRENT_TASK:
        raise UsageError("owner=adsum.CURRENT_TASK: a thread has no task; give another owner")
    return resolve_owner(owner)


def _check_wait(timeout: float | None) -> None:
    if timeout is not None:
        seconds_above_zero("timeout", timeout)
