"""Presence: track, list and watch the keys that are present on topics, across the cluster."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from adsum.activetime import active_timeout
from adsum.arguments import async_function, instance, seconds_above_zero
from adsum.errors import (
    AlreadyTrackedError,
    NodeClosedError,
    NotTrackedError,
    UsageError,
)
from adsum.node import Node
from adsum.quoting import quoted
from adsum.reading import Readers
from adsum.replication.entry import ID, META, Entry, Transition
from adsum.replication.frozen import freeze
from adsum.replication.jsontext import checked_name, encode_object, load
from adsum.replication.limits import MAX_META, MAX_NAME
from adsum.replication.messages import Publish
from adsum.replication.state import Slice
from adsum.sparselog import SparseLogger
from adsum.tasks import in_slices
from adsum.watching import Entries, Extras, Feed, Watch, entry_of

logger = logging.getLogger("adsum")

# Named, because within the class `list` is a method.
Names = list[str]
Metas = list[Mapping[str, Any]]
Transitions = list[Transition]
Meta = Mapping[str, Any]
Fetch = Callable[[str, Entries], Awaitable[Mapping[str, Mapping[str, Any]]]]
_RESERVED = ("phx_ref", "phx_ref_prev")


class _Owner(Enum):
    CURRENT_TASK = "the task that calls"

    def __repr__(self) -> str:
        return f"adsum.{self.name}"  # in the signatures that `help` and the reference show


CURRENT_TASK = _Owner.CURRENT_TASK

#: Seconds that a presence lingers, at most, after its owner was cancelled; 0 if the node's `linger`
#: is 0. Some servers cancel handlers and stop the node right afterwards, without a signal.
CANCEL_GRACE = 1.0


class Tracked:
    """A handle to one tracked presence of this node, returned by `Presence.track`.

    As a context manager it untracks the presence at the end of the block.
    """

    __slots__ = ("_id", "_key", "_owner", "_presence", "_slice", "_topic")

    def __init__(
        self, presence: "Presence", owner: Hashable, topic: str, key: str, id: int, slice: Slice
    ) -> None:
        self._presence = presence
        self._owner = owner
        self._topic = topic
        self._key = key
        self._id = id
        # The slice that holds the presence; a different slice means a different run of the node.
        self._slice = slice

    @property
    def active(self) -> bool:
        """Whether the presence is still tracked."""
        return self._presence._entry_of(self) is not None

    def update(self, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        """Replace the meta in place: no observer sees the key leave.

        Args:
            meta: The new meta, or a function from a copy of the old meta to the new one.

        Raises:
            NotTrackedError: The presence has ended.
            TypeError: The meta is not a JSON object; the message names the path.
            ValueError: The meta is not finite, too deep or too large.
        """
        self._presence._update(self, meta)

    def untrack(self) -> None:
        """End the presence. Idempotent, also after its owner or its node has ended.

        The presence leaves at once, or after `linger` seconds if the node is about to stop.
        """
        self._presence._untrack(self)

    def __repr__(self) -> str:
        # Callable in any thread. Meta and owner belong to the application and are not shown.
        state = "active" if self._presence._node.running and self._presence._owns(self) else "ended"
        return f"<Tracked {quoted(self._key)} on {quoted(self._topic)}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cancelled = error_type is not None and issubclass(error_type, asyncio.CancelledError)
        self._presence._untrack(self, cancelled=cancelled)


class Presence:
    """Tracks presences on this node, and lists and watches those of the whole cluster.

    Reads (`list`, `get`, `count`, `topics`) answer at once from this node's memory. A change is
    visible on its own node when the call returns, and on the other nodes some milliseconds later.
    Results belong to the caller: the dicts and lists in them are copies or read-only. Changing a
    result does not change the presence state, and later changes of the state do not change it.

    Make one for each node, at import if you like. Use it while the node runs, in the thread of its
    event loop.

    Args:
        node: The node; presences are tracked on it, and those of its cluster are listed.
        fetch: Called with a topic and a batch of entries by key, as
            ``{"ann": {"metas": [...]}}``; returns the fields to add beside ``metas`` for each key,
            as ``{"ann": {"user": {...}}}``. It is called once for each `fetch` of a list and once
            for each diff of a topic, regardless of the number of watches. If it fails or takes too
            long, that is logged, and the entries are delivered without the added fields.
        fetch_timeout: The most seconds of active time that `fetch` may take.

    Raises:
        ConfigurationError: `node` is not a `Node`, `fetch` is not an async function of two
            arguments, or `fetch_timeout` is not above 0.

    Example:
        >>> import asyncio, adsum
        >>> async def main():
        ...     node = adsum.Node(siblings=False)
        ...     presence = adsum.Presence(node)
        ...     async with node:
        ...         with presence.track("room:1", "ann", {"device": "phone"}):
        ...             return presence.count("room:1"), presence.topics()
        >>> asyncio.run(main())
        (1, ['room:1'])
    """

    def __init__(
        self, node: Node, *, fetch: Fetch | None = None, fetch_timeout: float = 5.0
    ) -> None:
        instance("node", node, Node, "an adsum.Node")
        if fetch is not None:
            async_function("fetch", fetch, "topic", "entries")
        seconds_above_zero("fetch_timeout", fetch_timeout)
        self._node = node
        self._fetch = fetch
        self._fetch_timeout = fetch_timeout
        # For each owner, the ids of its presences by topic and key. Handles are not stored: a
        # handle belongs to its caller, and the garbage collector need not visit half a million.
        self._owned: dict[Hashable, dict[tuple[str, str], int]] = {}
        self._feeds: dict[str, Feed] = {}
        #: Logs failures of `fetch`, which is called for each change of a topic.
        self.log = SparseLogger(logger)
        node.observe(self)

    # Changing.

    def track(
        self,
        topic: str,
        key: str,
        meta: Meta | None = None,
        *,
        owner: Hashable = CURRENT_TASK,
    ) -> Tracked:
        """Track a presence: list a key on a topic until its owner ends.

        Args:
            topic: The topic, 1 to 1,024 characters.
            key: The user or thing that is present, 1 to 1,024 characters. One key may be present
                several times, tracked by several owners.
            meta: A JSON object, at most 64 KiB as text. The keys ``phx_ref`` and ``phx_ref_prev``
                are reserved for adsum and are left out.
            owner: The presence ends with its owner. The default owner is the calling task: the
                presence ends when the task does, by return, exception or cancellation; in a plain
                HTTP handler the task is the request. With None the presence has no owner. Any other
                hashable object, such as a connection, owns the presence until `untrack_all(owner)`.

        Returns:
            A handle to update or end the presence; also a context manager.

        Raises:
            AlreadyTrackedError: The owner tracks this key on this topic already.
            NodeClosedError: The node is not running.
            TypeError: The topic or the key is not a string, or the meta is not a JSON object.
            ValueError: The topic, the key or the meta is too long, too deep or not finite.
        """
        runtime = self._node.runtime
        topic = checked_name(topic, "topic", MAX_NAME)
        key = checked_name(key, "key", MAX_NAME)
        text = "{}" if meta is None else _encode_meta(meta)
        owner = _resolved(owner)
        owned = self._owned.get(owner)
        if owned is None:
            owned = self._adopt(owner)
        if (topic, key) in owned:
            raise AlreadyTrackedError(
                f"{quoted(key)} is tracked on {quoted(topic)} already by {_describe(owner)}; "
                f"call update() on the handle that track() returned; outside of a channel, another "
                f"owner= tracks it once more"
            )
        id = owned[topic, key] = runtime.engine.track(topic, key, text)[ID]
        runtime.poke()
        return Tracked(self, owner, topic, key, id, runtime.engine.own_slice)

    def update(
        self,
        topic: str,
        key: str,
        meta: Meta | Callable[[dict[str, Any]], Meta],
        *,
        owner: Hashable = CURRENT_TASK,
    ) -> None:
        """Replace the meta of a presence that an owner tracks, as `Tracked.update` does.

        Raises:
            NotTrackedError: The owner does not track this key on this topic.
        """
        tracked = self._find(topic, key, owner)
        if tracked is None:
            raise NotTrackedError(f"{quoted(key)} is not tracked on {quoted(topic)} by that owner")
        tracked.update(meta)

    def untrack(self, topic: str, key: str, *, owner: Hashable = CURRENT_TASK) -> None:
        """End a presence that an owner tracks; does nothing if there is none."""
        tracked = self._find(topic, key, owner)
        if tracked is not None:
            tracked.untrack()

    def untrack_all(self, owner: Hashable = CURRENT_TASK) -> int:
        """End all presences of an owner.

        Returns:
            The number of presences that ended.
        """
        return self.release(_resolved(owner), self._linger())

    # Reading.

    def list(self, topic: str) -> Entries:
        """The entries of all keys on a topic, in the same order on every node.

        The first call for a topic costs time proportional to the result. While nothing changes,
        later calls only copy a dict.

        Returns:
            ``{"ann": {"metas": [{"device": "phone", "phx_ref": "..."}]}}``, sorted by key. The
            metas of a key are grouped by node, each group in the order of tracking. The dict
            belongs to the caller; its entries are read-only and never change. Empty if nobody is
            present.
        """
        topic = checked_name(topic, "topic", MAX_NAME)
        return cast(Entries, self._node.runtime.engine.view.render(topic))

    def get(self, topic: str, key: str) -> Metas:
        """The metas of one key on a topic; an empty list if the key is absent."""
        topic, key = checked_name(topic, "topic", MAX_NAME), checked_name(key, "key", MAX_NAME)
        return [*self._node.runtime.engine.view.metas(topic, key)]

    def count(self, topic: str) -> int:
        """The number of keys present on a topic. Costs the same at any size."""
        return self._node.runtime.engine.view.count(checked_name(topic, "topic", MAX_NAME))

    def topics(self) -> Names:
        """The topics that have at least one presence, sorted."""
        return sorted(self._node.runtime.engine.view.topics)

    async def fetch(self, topic: str) -> Entries:
        """As `list`, but with the fields of the `fetch` function added, in one call of it."""
        entries = self.list(topic)
        extras = await self.enrich(topic, entries)
        if not extras:
            return entries
        return {
            key: entry_of(entry["metas"], extras[key]) if key in extras else entry
            for key, entry in entries.items()
        }

    def watch(self, topic: str) -> Watch:
        """Watch a topic: an asynchronous iterator of joins, leaves and updates.

        The watch begins at this call. The first diff comes at once, with all present keys as joins;
        it may be empty. Each later diff has the changes since the one before. Every join, update
        and leave is delivered exactly once. For a slow reader several are merged into one diff, so
        no queue grows.

        Raises:
            NodeClosedError: The node is not running.

        Example:
            >>> import asyncio, adsum
            >>> async def main():
            ...     node = adsum.Node(siblings=False)
            ...     presence = adsum.Presence(node)
            ...     async with node:
            ...         presence.track("room:1", "ann")
            ...         async for diff in presence.watch("room:1"):
            ...             return list(diff.joins)
            >>> asyncio.run(main())
            ['ann']
        """
        runtime = self._node.runtime
        topic = checked_name(topic, "topic", MAX_NAME)
        runtime.tell_observers()  # this watch must not see earlier changes
        feed = self._feeds.get(topic)
        if feed is None:
            enrich = None if self._fetch is None else self.enrich
            watches = Readers[Watch](runtime.loop, partial(self._tidy, topic))
            feed = self._feeds[topic] = Feed(topic, enrich, watches)
            runtime.engine.view.watch(topic)
        watch = Watch(topic, feed.watches)
        entries = runtime.engine.view.all_entries(topic)
        feed.push([watch], [(None, entry) for entry in entries])
        return watch

    def __repr__(self) -> str:
        return f"<Presence on {self._node!r}>"

    # For code that is built on presences.

    @property
    def node(self) -> Node:
        """The node given to the constructor."""
        return self._node

    def release(self, owner: Hashable, linger: float) -> int:
        """End all presences of an owner, as `untrack_all`, but after exactly `linger` seconds.

        If the node stops earlier, they linger with its goodbye.
        """
        self._node.runtime  # noqa: B018  # raises if the node is not running
        if owner not in self._owned:
            return 0
        owned = self._disown(owner)
        self._end(owned.values(), linger)
        return len(owned)

    @property
    def enriches(self) -> bool:
        """Whether there is a `fetch` function."""
        return self._fetch is not None

    async def enrich(self, topic: str, entries: Entries) -> Extras:
        """Call the `fetch` function; returns its fields by key, none if it fails or times out."""
        if self._fetch is None or not entries:
            return {}
        work: asyncio.Future[Mapping[str, Mapping[str, Any]]] | None = None
        try:
            work = asyncio.ensure_future(self._fetch(topic, entries))
            # `fetch` itself is not awaited, as it may ignore its cancellation.
            with contextlib.suppress(TimeoutError):
                async with active_timeout(self._fetch_timeout):
                    await asyncio.wait({work})
            if not work.done() or work.cancelled():
                what = "was cancelled" if work.done() else "took too long"
                text = "fetch for %s %s; its entries go without"
                self.log.error(text, quoted(topic), what, key=what)
                return {}
            added, extras = work.result(), Extras()
            async for part in in_slices([key for key in added if key in entries]):
                extras.update((key, freeze(dict(added[key]))) for key in part)
            return extras
        except Exception as error:
            text = "fetch for %s failed; its entries go without"
            self.log.crashed(text, quoted(topic), error=error)
            return {}
        finally:
            if work is not None:
                work.cancel()

    # Observer.

    def changed(self, topic: str, transitions: Transitions) -> None:
        """See `Observer`."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.push(list(feed.watches), transitions)

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""

    def closed(self) -> None:
        """See `Observer`: every presence and every watch ends with the node."""
        self.log.flush()
        owned, self._owned = self._owned, {}
        feeds, self._feeds = self._feeds, {}
        for owner in owned:
            if isinstance(owner, asyncio.Task):
                owner.remove_done_callback(self._owner_ended)
        for feed in feeds.values():
            feed.close()
            for watch in feed.watches:
                watch.close()

    def forked(self) -> None:
        """See `Observer`."""
        self._owned, self._feeds = {}, {}

    # Called by handles and watches.

    def _entry_of(self, tracked: Tracked) -> Entry | None:
        """The current entry of a presence; None once the presence or its run has ended."""
        if not self._owns(tracked):
            return None  # it may linger, but it has ended
        try:
            engine = self._node.runtime.engine
        except NodeClosedError:  # the node is stopped, or runs in the parent of this process
            return None
        if engine.own_slice is not tracked._slice:
            return None
        return tracked._slice.entries.get(tracked._id)

    def _owns(self, tracked: Tracked) -> bool:
        """Whether the owner still owns the presence, in this run of the node or an earlier one."""
        owned = self._owned.get(tracked._owner)
        return owned is not None and owned.get((tracked._topic, tracked._key)) == tracked._id

    def _update(self, tracked: Tracked, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        old = self._entry_of(tracked)
        if old is None:
            self._node.check_process()
            raise NotTrackedError(f"{quoted(tracked._key)} on {quoted(tracked._topic)} has ended")
        if callable(meta):
            meta = meta(load(old[META]))
            if not isinstance(meta, dict):
                raise TypeError(f"meta: the function must return the new meta, not {quoted(meta)}")
            if self._entry_of(tracked) is not old:
                raise UsageError("the function that makes the new meta changed the presence itself")
        text = _encode_meta(meta)
        runtime = self._node.runtime
        runtime.engine.update(old, text)
        runtime.poke()

    def _untrack(self, tracked: Tracked, *, cancelled: bool = False) -> None:
        entry = self._entry_of(tracked)
        if entry is None:
            return
        owned = self._owned[tracked._owner]
        del owned[tracked._topic, tracked._key]
        if not owned:
            self._disown(tracked._owner)
        if linger := self._linger(cancelled):
            self._end([tracked._id], linger)
        else:
            runtime = self._node.runtime
            runtime.engine.untrack(entry)
            runtime.poke()

    def _linger(self, cancelled: bool = False) -> float:
        """Seconds that a presence lingers if it ends now."""
        linger = self._node.settings.linger
        if not linger or self._node.stopping:
            return linger
        return min(linger, CANCEL_GRACE) if cancelled else 0.0

    def _end(self, ids: Iterable[int], linger: float) -> None:
        """Untrack entries without an owner, at once or after `linger` seconds."""
        runtime = self._node.runtime
        own = runtime.engine.own_slice
        if linger:
            runtime.call_later(linger, partial(self._end_late, own, ids))
        else:
            self._end_now(own, ids)

    def _end_late(self, own: Slice, ids: Iterable[int]) -> None:
        if self._node.running and self._node.runtime.engine.own_slice is own:
            self._end_now(own, ids)

    def _end_now(self, own: Slice, ids: Iterable[int]) -> None:
        runtime = self._node.runtime
        for id in ids:
            runtime.engine.untrack(own.entries[id])
        runtime.poke()

    def _find(self, topic: str, key: str, owner: Hashable) -> Tracked | None:
        topic, key = checked_name(topic, "topic", MAX_NAME), checked_name(key, "key", MAX_NAME)
        owner = _resolved(owner)
        id = self._owned.get(owner, {}).get((topic, key))
        if id is None:
            return None
        return Tracked(self, owner, topic, key, id, self._node.runtime.engine.own_slice)

    def _adopt(self, owner: Hashable) -> dict[tuple[str, str], int]:
        """Register an owner; the presences of a task end with the task."""
        owned: dict[tuple[str, str], int] = {}
        self._owned[owner] = owned
        if isinstance(owner, asyncio.Task):
            owner.add_done_callback(self._owner_ended)
        return owned

    def _disown(self, owner: Hashable) -> dict[tuple[str, str], int]:
        """Remove an owner; returns the ids of its presences by topic and key."""
        if isinstance(owner, asyncio.Task):
            owner.remove_done_callback(self._owner_ended)
        return self._owned.pop(owner)

    def _owner_ended(self, task: "asyncio.Task[Any]") -> None:
        if task in self._owned and self._node.running:
            self.release(task, self._linger(task.cancelled()))

    def _tidy(self, topic: str) -> None:
        """Close the feed of a topic without watches."""
        feed = self._feeds.get(topic)
        if feed is not None and not feed.watches:
            del self._feeds[topic]
            feed.close()
            if self._node.running:
                self._node.runtime.engine.view.unwatch(topic)


def _encode_meta(meta: object) -> str:
    if isinstance(meta, dict) and ("phx_ref" in meta or "phx_ref_prev" in meta):
        meta = {key: value for key, value in meta.items() if key not in _RESERVED}
    return encode_object(meta, "meta", MAX_META)


def _resolved(owner: Hashable) -> Hashable:
    """The owner to store: the calling task for the default, otherwise the given object.

    Raises:
        TypeError: The owner is not hashable.
        UsageError: There is no calling task.
    """
    if owner is CURRENT_TASK:
        return _current_task()
    try:
        hash(owner)
    except TypeError:
        raise TypeError(f"owner={quoted(owner)}: must be hashable, as a session id") from None
    return owner


def _current_task() -> Hashable:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs
        task = None
    if task is None:
        raise UsageError(
            "owner: there is no current task; call from a coroutine, or give owner= (None unties)"
        )
    return task


def _describe(owner: Hashable) -> str:
    if isinstance(owner, asyncio.Task):
        return f"the task {owner.get_name()!r}"
    return "owner None" if owner is None else f"the owner {quoted(owner)}"
