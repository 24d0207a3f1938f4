"""Presence: track, list and watch the keys that are present on topics, across the cluster."""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from adsum.arguments import instance
from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.enrichment import Enrichment, Fetch
from adsum.errors import AlreadyTrackedError, NodeNotRunningError, NotTrackedError, UsageError
from adsum.node import Node
from adsum.owners import CURRENT_TASK, Owners, describe_owner, resolve_owner
from adsum.quoting import quoted
from adsum.replication.entry import ID, META, Entry, Transition
from adsum.singlereader import ReaderSet
from adsum.sparselog import SparseLogger
from adsum.topicswatch import TopicFeeds, TopicsWatch, topics_with
from adsum.values.jsontext import encode_object, load
from adsum.values.limits import MAX_META, MAX_NAME
from adsum.values.names import checked_name, checked_prefix, checked_topic
from adsum.watch import Entries, Watch, WatchFeed, entry_of

logger = logging.getLogger("adsum.presence")

# Named, because within the class `list` is a method.
Names = list[str]
Metas = list[Mapping[str, Any]]
Transitions = list[Transition]
Meta = Mapping[str, Any]
_RESERVED = ("phx_ref", "phx_ref_prev")

#: Seconds that a presence lingers, at most, after its owner was cancelled; 0 if the node's `linger`
#: is 0. Some servers cancel handlers and stop the node right afterwards, without a signal.
CANCEL_GRACE = 1.0


class Tracked:
    """A handle to one tracked presence of this node, returned by `Presence.track`.

    As a context manager it untracks the presence at the end of the block.
    """

    __slots__ = ("_id", "_key", "_owner", "_presence", "_run", "_topic")

    def __init__(
        self, presence: "Presence", owner: Hashable, topic: str, key: str, id: int, run: object
    ) -> None:
        self._presence = presence
        self._owner = owner
        self._topic = topic
        self._key = key
        self._id = id
        # The token of the run that the presence belongs to.
        self._run = run

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
        #: Logs failures of `fetch`, which is called for each change of a topic.
        self.log = SparseLogger(logger)
        #: Calls `fetch`; false if there is none.
        self.enrich = Enrichment(fetch, fetch_timeout, self.log)
        self._node = node
        self._owners = Owners(self._owner_ended)
        self._feeds: dict[str, WatchFeed] = {}
        self._topic_feeds = TopicFeeds()
        #: Its observer of the node, for `Node.stop_observing`.
        self.observer: Observer = _PresenceObserver(self)
        node.observe(self.observer)

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
            NodeNotRunningError: The node is not running.
            TypeError: The topic or the key is not a string, or the meta is not a JSON object.
            ValueError: The topic, the key or the meta is too long, too deep or not finite, or the
                topic begins with NUL, which adsum reserves.
        """
        driver = self._node.driver
        topic = checked_topic(topic, "topic", MAX_NAME)
        key = checked_name(key, "key", MAX_NAME)
        text = "{}" if meta is None else _encode_meta(meta)
        owner = resolve_owner(owner)
        owned = self._owners.get(owner)
        if owned is None:
            owned = self._owners.add(owner)
        if (topic, key) in owned:
            raise AlreadyTrackedError(
                f"{quoted(key)} is tracked on {quoted(topic)} already by {describe_owner(owner)}; "
                f"call update() on the handle that track() returned; outside of a channel, another "
                f"owner= tracks it once more"
            )
        id = owned[topic, key] = driver.track(topic, key, text)[ID]
        return Tracked(self, owner, topic, key, id, driver.token)

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
        return self.release(resolve_owner(owner), self._linger())

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
        topic = checked_topic(topic, "topic", MAX_NAME)
        return cast(Entries, self._node.driver.view.render(topic))

    def get(self, topic: str, key: str) -> Metas:
        """The metas of one key on a topic; an empty list if the key is absent."""
        topic, key = checked_topic(topic, "topic", MAX_NAME), checked_name(key, "key", MAX_NAME)
        return [*self._node.driver.view.metas(topic, key)]

    def count(self, topic: str) -> int:
        """The number of keys present on a topic. Costs the same at any size."""
        return self._node.driver.view.count(checked_topic(topic, "topic", MAX_NAME))

    def topics(self, prefix: str = "") -> Names:
        """The topics that have at least one presence, sorted by code points.

        A call compares each topic with the prefix, and sorts those that begin with it.

        Args:
            prefix: Only topics that begin with this are listed; at most 1,024 characters.

        Raises:
            TypeError: The prefix is not a string.
            ValueError: The prefix is too long.
        """
        prefix = checked_prefix(prefix, "prefix", MAX_NAME)
        return topics_with(self._node.driver.view.topics, prefix)

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
            NodeNotRunningError: The node is not running.

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
        driver = self._node.driver
        topic = checked_topic(topic, "topic", MAX_NAME)
        # This watch must not see earlier changes; the end of an earlier watch may be among them.
        driver.notify_observers()
        feed = self._feeds.get(topic)
        if feed is None:
            watches = ReaderSet[Watch](driver.loop, partial(self._close_unwatched, topic))
            feed = WatchFeed(topic, self.enrich if self.enrich else None, watches)
            driver.watch_topic(topic)
            self._feeds[topic] = feed
        watch = Watch(topic, feed.watches)
        entries = driver.view.all_entries(topic)
        feed.push([watch], [(None, entry) for entry in entries])
        return watch

    def watch_topics(self, prefix: str = "") -> TopicsWatch:
        """Watch all topics, or those that begin with a prefix: an asynchronous iterator of diffs.

        The watch begins at this call. The first diffs have all present keys as joins, one diff for
        each topic, in the order of `topics`; there is none if nobody is present. Then a diff comes
        for each topic that changes, new topics included. Every join, update and leave is delivered
        exactly once. For a slow reader the changes of a topic are merged into one diff.

        `fetch` is not called: the first diffs would need a call for each topic. Call it for the
        topics that you show: ``await presence.fetch(diff.topic)``.

        Args:
            prefix: Only topics that begin with this are watched; at most 1,024 characters.

        Raises:
            NodeNotRunningError: The node is not running.
            TypeError: The prefix is not a string.
            ValueError: The prefix is too long.

        Example:
            >>> import asyncio, adsum
            >>> async def main():
            ...     node = adsum.Node(siblings=False)
            ...     presence = adsum.Presence(node)
            ...     async with node:
            ...         presence.track("room:1", "ann")
            ...         async for diff in presence.watch_topics("room:"):
            ...             return diff.topic, diff.arrived
            >>> asyncio.run(main())
            ('room:1', ('ann',))
        """
        driver = self._node.driver
        prefix = checked_prefix(prefix, "prefix", MAX_NAME)
        return self._topic_feeds.watch(driver, prefix)

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
        self._node.check_running()
        if owner not in self._owners:
            return 0
        owned = self._owners.remove(owner)
        self._end(owned.values(), linger)
        return len(owned)

    def release_all(self) -> None:
        """End all presences of all owners, as `untrack_all` does for each."""
        for owner in list(self._owners):
            self.release(owner, self._linger())

    # Called by the observer.

    def _changed(self, topic: str, transitions: Transitions) -> None:
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.push(list(feed.watches), transitions)
        self._topic_feeds.push(topic, transitions)

    def _closed(self) -> None:
        """End every presence and every watch: the node has stopped."""
        self.log.flush()
        self._owners.clear()
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.close()
            for watch in feed.watches:
                watch.close()
        self._topic_feeds.close()

    def _forked(self) -> None:
        self._owners.forget()
        self._feeds = {}
        self._topic_feeds.forget()

    # Called by handles and watches.

    def _entry_of(self, tracked: Tracked) -> Entry | None:
        """The current entry of a presence; None once the presence or its run has ended."""
        if not self._owns(tracked):
            return None  # it may linger, but it has ended
        try:
            driver = self._node.driver
        except NodeNotRunningError:  # the node is stopped, or runs in the parent of this process
            return None
        return driver.tracked(tracked._id) if driver.token is tracked._run else None

    def _owns(self, tracked: Tracked) -> bool:
        """Whether the owner still owns the presence, in this run of the node or an earlier one."""
        owned = self._owners.get(tracked._owner)
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
                raise UsageError("meta: the function must not change the presence itself")
        text = _encode_meta(meta)
        self._node.driver.update(old, text)

    def _untrack(self, tracked: Tracked, *, cancelled: bool = False) -> None:
        entry = self._entry_of(tracked)
        if entry is None:
            return
        owned = self._owners.get(tracked._owner)
        if owned is not None:
            del owned[tracked._topic, tracked._key]
            if not owned:
                self._owners.remove(tracked._owner)
        linger = self._linger(cancelled)
        if linger:
            self._end([tracked._id], linger)
        else:
            self._node.driver.untrack(entry)

    def _linger(self, cancelled: bool = False) -> float:
        """Seconds that a presence lingers if it ends now."""
        linger = self._node.settings.linger
        if not linger or self._node.stopping:
            return linger
        return min(linger, CANCEL_GRACE) if cancelled else 0.0

    def _end(self, ids: Iterable[int], linger: float) -> None:
        """Untrack presences without an owner, at once or after `linger` seconds."""
        driver = self._node.driver
        if linger:
            driver.call_later(linger, partial(self._end_lingering, driver, ids))
        else:
            _untrack(driver, ids)

    def _end_lingering(self, driver: Driver, ids: Iterable[int]) -> None:
        if self._node.running and self._node.driver is driver:
            _untrack(driver, ids)

    def _find(self, topic: str, key: str, owner: Hashable) -> Tracked | None:
        topic, key = checked_topic(topic, "topic", MAX_NAME), checked_name(key, "key", MAX_NAME)
        owner = resolve_owner(owner)
        owned = self._owners.get(owner)
        id = None if owned is None else owned.get((topic, key))
        return None if id is None else Tracked(self, owner, topic, key, id, self._node.driver.token)

    def _owner_ended(self, task: "asyncio.Task[Any]") -> None:
        if task in self._owners and self._node.running:
            self.release(task, self._linger(task.cancelled()))

    def _close_unwatched(self, topic: str) -> None:
        """Close the feed of a topic without watches."""
        feed = self._feeds.get(topic)
        if feed is not None and not feed.watches:
            del self._feeds[topic]
            feed.close()
            if self._node.running:
                self._node.driver.unwatch_topic(topic)


class _PresenceObserver(Observer):
    """Passes the events of the node on, so that they are no methods of `Presence`."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    def changed(self, topic: str, transitions: Transitions) -> None:
        self._presence._changed(topic, transitions)

    def closed(self) -> None:
        self._presence._closed()

    def forked(self) -> None:
        self._presence._forked()


def _untrack(driver: Driver, ids: Iterable[int]) -> None:
    for id in ids:
        entry = driver.tracked(id)
        if entry is not None:  # it is there, for a presence without an owner ends only here
            driver.untrack(entry)


def _encode_meta(meta: object) -> str:
    if isinstance(meta, dict) and ("phx_ref" in meta or "phx_ref_prev" in meta):
        meta = {key: value for key, value in meta.items() if key not in _RESERVED}
    return encode_object(meta, "meta", MAX_META)
