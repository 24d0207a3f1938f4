"""Portal: presence and messages from threads and synchronous code.

Invariants:

- Each call is executed at most once, and its result is delivered to its caller, see `callqueue`.
- No call is lost silently: if the node stops, waiting calls raise `NodeNotRunningError`.
- Nothing here blocks the event loop of the node.
- A process starts at most one node for a portal, see `portalconnection`.
"""

from collections.abc import Callable, Coroutine, Hashable, Mapping
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from adsum.arguments import instance, refuse, seconds_above_zero, seconds_up_to, whole
from adsum.enrichment import Fetch
from adsum.errors import UsageError
from adsum.node import Node
from adsum.owners import CURRENT_TASK, PassingOwner, resolve_owner
from adsum.presence import Metas, Names, Presence
from adsum.pubsub import DEFAULT_LIMIT, DEFAULT_LIMIT_BYTES, PubSub
from adsum.tracked import Meta
from adsum.values.limits import MAX_LINGER, MAX_NAME
from adsum.values.names import checked_name, checked_topic
from adsum.watch import Entries

from .portalconnection import PortalConnection
from .portalreaders import PortalReader, PortalSubscription, PortalWatch
from .portaltracked import PortalTracked

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=PortalReader[Any])


class _Owner(Enum):
    HANDLE = "the handle"

    def __repr__(self) -> str:
        return "<the handle>"  # in the signatures that `help` and the reference show


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
        timeout = seconds_above_zero("timeout", timeout)
        self._presence = Presence(self._node, fetch=fetch, fetch_timeout=fetch_timeout)
        self._pubsub = PubSub(self._node)
        self._connection = PortalConnection(self._node, timeout)
        # Open watches and subscriptions; used in the event loop.
        self._readers: WeakSet[PortalReader[Any]] = WeakSet()

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
        return self._connection.call(partial(function, *args, **kwargs))

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
        return await self._connection.acall(partial(function, *args, **kwargs))

    # Presence.

    def track(
        self,
        topic: str,
        key: str,
        meta: Meta | None = None,
        *,
        owner: Hashable = _Owner.HANDLE,
        linger: float = 0.0,
    ) -> PortalTracked:
        """Track a presence, as `Presence.track`.

        Args:
            topic: The topic, 1 to 1,024 characters.
            key: The user or thing that is present, 1 to 1,024 characters.
            meta: A JSON object, at most 64 KiB as text.
            owner: Without it the presence lasts until `PortalTracked.untrack`. None and any other
                hashable object own it as in `Presence.track`. A thread has no task, so
                `CURRENT_TASK` is refused.
            linger: Seconds from 0 to 3600 for which the presence stays listed after it has broken,
                as in `Presence.track`. Without an owner it breaks if an exception ends its block,
                and the next presence of the key without an owner takes it over.
        """
        checked_topic(topic)
        checked_name(key, "key", MAX_NAME)
        owner = PassingOwner() if owner is _Owner.HANDLE else _checked_owner(owner)
        seconds_up_to("linger", linger, MAX_LINGER)
        track = self._presence.track
        tracked = self.call(track, topic, key, meta, owner=owner, linger=linger)
        return PortalTracked(self.call, tracked)

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
        """End a presence that an owner tracks, as `Presence.untrack`."""
        self.call(self._presence.untrack, topic, key, owner=_checked_owner(owner))

    def untrack_all(self, owner: Hashable) -> int:
        """End all presences of an owner; returns the number of presences that ended."""
        return self.call(self._presence.untrack_all, _checked_owner(owner))

    def lost(self, owner: Hashable) -> int:
        """End all presences of an owner whose connection was lost, as `Presence.lost`."""
        return self.call(self._presence.lost, _checked_owner(owner))

    def list(self, topic: str, *, after: str | None = None, limit: int | None = None) -> Entries:
        """The entries of all keys on a topic, or of a page of them, as `Presence.list`."""
        return self.call(self._presence.list, checked_topic(topic), after=after, limit=limit)

    def get(self, topic: str, key: str) -> Metas:
        """The metas of one key on a topic, as `Presence.get`."""
        return self.call(self._presence.get, topic, key)

    def count(self, topic: str) -> int:
        """The number of keys present on a topic."""
        return self.call(self._presence.count, checked_topic(topic))

    def topics(self, prefix: str = "") -> Names:
        """The topics that have a presence and begin with a prefix, as `Presence.topics`."""
        return self.call(self._presence.topics, prefix)

    def fetch(self, topic: str, *, after: str | None = None, limit: int | None = None) -> Entries:
        """As `list`, but with the fields of the `fetch` function added."""
        return self.call(self._presence.fetch, checked_topic(topic), after=after, limit=limit)

    def watch(self, topic: str, *, timeout: float | None = None) -> PortalWatch:
        """Watch a topic, as `Presence.watch`: a blocking iterator of diffs.

        Args:
            topic: 1 to 1,024 characters.
            timeout: Seconds above 0 that the iterator waits for the next diff at most. Then it
                raises `TimeoutError`. That loses nothing, and the iteration may go on. None waits
                without a bound.
        """
        checked_topic(topic)
        _check_wait(timeout)
        return self.call(
            lambda: self._reader(
                PortalWatch(self._connection.queue, self._presence.watch(topic), timeout)
            )
        )

    # Messages.

    def publish(
        self,
        topic: str,
        payload: Mapping[str, Any] | bytes | bytearray | memoryview,
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
        if isinstance(payload, bytearray | memoryview):
            payload = bytes(payload)  # the caller may change it once this has timed out
        publish = self._pubsub.publish
        return self.call(publish, topic, payload, event=event, local=local, to=to, exclude=inner)

    def subscribe(
        self,
        topic: str,
        *,
        limit: int = DEFAULT_LIMIT,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        timeout: float | None = None,
    ) -> PortalSubscription:
        """Subscribe to a topic, as `PubSub.subscribe`: a blocking iterator of messages.

        For several topics in one subscription, call `PortalSubscription.add` for each further one.

        Args:
            topic: 1 to 1,024 characters.
            limit: Unread messages that are kept; beyond it the oldest are dropped.
            limit_bytes: The size of unread messages that are kept, as for `PubSub.subscribe`.
            timeout: As for `watch`.
        """
        whole("limit", limit, 1)
        whole("limit_bytes", limit_bytes, 1)
        _check_wait(timeout)
        return self.call(
            lambda: self._reader(
                PortalSubscription(
                    self._connection.queue,
                    self._pubsub.subscribe(topic, limit=limit, limit_bytes=limit_bytes),
                    timeout,
                    self._connection.timeout,
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
        self._connection.close(self._leave)

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

    def _reader(self, reader: R) -> R:
        self._readers.add(reader)
        return reader

    def _leave(self) -> None:
        """End all presences and readers, and observe the node no longer."""
        if self._node.running:
            self._presence.release_all()
        for reader in list(self._readers):
            reader.close()
        for observer in (self._presence.observer, self._pubsub.observer, self._connection):
            self._node.stop_observing(observer)


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
