"""Presence: track, list and watch the keys that are present on topics, across the cluster."""

import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

from adsum.arguments import instance, seconds_up_to, whole_up_to
from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.endings import Endings
from adsum.enrichment import Enrichment, Fetch
from adsum.errors import AlreadyTrackedError, NotTrackedError
from adsum.node import Node
from adsum.owners import (
    CURRENT_TASK,
    Hold,
    claim_of,
    describe_owner,
    id_of,
    linger_of,
    resolve_owner,
)
from adsum.quoting import quoted
from adsum.replication.entry import ID, META, Entry, Transition
from adsum.sparselog import SparseLogger
from adsum.topicswatch import TopicFeeds, TopicsWatch, topics_with
from adsum.tracked import Meta, Tracked, encode_meta
from adsum.values.limits import MAX_LINGER, MAX_NAME, MAX_PAGE
from adsum.values.names import checked_place, checked_prefix, checked_topic
from adsum.watch import Entries, Watch, entry_of
from adsum.watchfeeds import WatchFeeds

logger = logging.getLogger("adsum.presence")

# Named, because within the class `list` is a method.
Names = list[str]
Metas = list[Mapping[str, Any]]
Transitions = list[Transition]


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
        self._endings = Endings(node)
        self._owners = self._endings.owners
        self._feeds = WatchFeeds(node, self.enrich if self.enrich else None)
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
        linger: float = 0.0,
    ) -> Tracked:
        """Track a presence: list a key on a topic until its owner ends.

        With `linger` a presence that breaks stays listed for some seconds, so that a client that
        reconnects in this time never departs. A presence breaks if its task ends by an exception or
        by cancellation, if an exception ends its ``with`` block, or by `lost`. If the key is
        tracked on this node again in this time, the new call takes the presence over, and its meta
        is replaced in place. An owner that can come back, as ``owner="session 42"``, takes over its
        own presences only. A task takes over from any task, but not from such an owner. On another
        node the new presence is listed beside the lingering one.

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
            linger: Seconds of active time, from 0 to 3600, for which the presence stays listed
                after it has broken. It does not stay after `untrack`, `untrack_all`, the return of
                its task, the normal end of its block, or a crash of the node. If the owner
                tracks the key already, with a linger in this call or in that one, this call takes
                the presence over, and the earlier handle ends.

        Returns:
            A handle to update or end the presence; also a context manager.

        Raises:
            AlreadyTrackedError: The owner tracks this key on this topic already, without a linger.
            ConfigurationError: `linger` is not a number of seconds in its range.
            NodeNotRunningError: The node is not running.
            TypeError: The topic or the key is not a string, or the meta is not a JSON object.
            ValueError: The topic, the key or the meta is too long, too deep or not finite, or the
                topic begins with NUL, which adsum reserves.
        """
        driver = self._node.driver
        place = topic, key = checked_place(topic, key)
        text = "{}" if meta is None else encode_meta(meta)
        linger = seconds_up_to("linger", linger, MAX_LINGER)
        owner = resolve_owner(owner)
        owned = self._owners.get(owner)
        held = None if owned is None else owned.get(place)
        if held is not None and not linger and not linger_of(held):
            raise AlreadyTrackedError(
                f"{quoted(key)} is tracked on {quoted(topic)} already by {describe_owner(owner)}; "
                f"call update() on the handle that track() returned; outside of a channel, another "
                f"owner= tracks it once more"
            )
        old = None
        if held is not None or driver.lingering:  # else there is none to take over
            old = self._take_over(driver, topic, key, text, owner, held)
        entry = driver.track(topic, key, text) if old is None else old
        if owned is None:
            owned = self._owners.add(owner)
        id = entry[ID]
        # A new pair for each call that takes over, see `Hold`.
        hold: Hold = id if old is None and not linger else (id, linger)
        owned[place] = hold
        return Tracked(self._endings, owner, place, hold, driver.token)

    def _take_over(
        self,
        driver: Driver,
        topic: str,
        key: str,
        text: str,
        owner: Hashable,
        held: Hold | None,
    ) -> Entry | None:
        """The presence that `track` takes over: one of the owner, or one that lingers."""
        old = None if held is None else driver.tracked(id_of(held))
        if old is None:
            return driver.take_over(topic, key, text, claim_of(owner))
        return old if old[META] == text else driver.update(old, text)

    def _find(self, topic: str, key: str, owner: Hashable) -> Tracked | None:
        place = checked_place(topic, key)
        owner = resolve_owner(owner)
        owned = self._owners.get(owner)
        hold = None if owned is None else owned.get(place)
        if hold is None:
            return None
        return Tracked(self._endings, owner, place, hold, self._node.driver.token)

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
        """End a presence that an owner tracks, or that lingers since it broke; or do nothing."""
        tracked = self._find(topic, key, owner)
        if tracked is not None:
            tracked.untrack()
        if self._node.running:
            self.release_lingering(resolve_owner(owner), self._endings.linger(), topic, key)

    def untrack_all(self, owner: Hashable = CURRENT_TASK) -> int:
        """End all presences of an owner, also those that linger because they broke.

        Returns:
            The number of presences that ended.
        """
        owner, linger = resolve_owner(owner), self._endings.linger()
        return self.release(owner, linger) + self.release_lingering(owner, linger)

    def lost(self, owner: Hashable) -> int:
        """End all presences of an owner whose connection was lost: each leaves after its linger.

        For frameworks that report a lost connection by a callback. Presences that were tracked
        without `linger` leave at once.

        Args:
            owner: The owner that was given to `track`.

        Returns:
            The number of presences that broke.

        Raises:
            NodeNotRunningError: The node is not running.
            TypeError: The owner is not hashable.
        """
        return self.release(resolve_owner(owner), self._endings.linger(), broken=True)

    # Reading.

    def list(self, topic: str, *, after: str | None = None, limit: int | None = None) -> Entries:
        """The entries of all keys on a topic, or of a page of them, in the same order on each node.

        The first list of a whole topic costs time proportional to the topic, in one turn of the
        event loop: some 13 ms for 10,000 keys and 210 ms for 100,000. While nothing changes, later
        calls only copy a dict. A change costs the changed keys, and a join also a new dict.

        A page costs its own keys, and at most one visit of all keys of the topic: about 5 ms for
        100 of 100,000 keys. Any number of keys may come and go between the pages: a key that is
        present all the time is on exactly one page.

        Args:
            topic: The topic.
            after: List only keys above this one, by code points: the last key of the page before.
                It need not be present. None or an empty text begins with the first key.
            limit: The most keys to list, from 1 to 5,000; None for all. A page with fewer keys is
                the last one.

        Returns:
            ``{"ann": {"metas": [{"device": "phone", "phx_ref": "..."}]}}``, sorted by the code
            points of the keys. The metas of a key are grouped by node, each group in the order of
            tracking. The dict belongs to the caller; its entries are read-only and never change.
            Empty if nobody is present.

        Raises:
            ConfigurationError: `limit` is not a whole number in its range.
            TypeError: The topic or `after` is not a string.
            ValueError: The topic or `after` is too long.

        Example:
            >>> import asyncio, adsum
            >>> async def main():
            ...     node = adsum.Node(siblings=False)
            ...     presence = adsum.Presence(node)
            ...     async with node:
            ...         for user in ["ann", "bob", "cem"]:
            ...             presence.track("room:1", user)
            ...         page = presence.list("room:1", limit=2)
            ...         rest = presence.list("room:1", after=list(page)[-1], limit=2)
            ...         return list(page), list(rest)
            >>> asyncio.run(main())
            (['ann', 'bob'], ['cem'])
        """
        topic = checked_topic(topic)
        view = self._node.driver.view
        if after is None and limit is None:
            return cast(Entries, view.render(topic))
        after = "" if after is None else checked_prefix(after, "after", MAX_NAME)
        if limit is not None:
            limit = whole_up_to("limit", limit, 1, MAX_PAGE)
        return cast(Entries, view.page(topic, after, limit))

    def get(self, topic: str, key: str) -> Metas:
        """The metas of one key on a topic; an empty list if the key is absent."""
        return [*self._node.driver.view.metas(*checked_place(topic, key))]

    def count(self, topic: str) -> int:
        """The number of keys present on a topic. Costs the same at any size."""
        return self._node.driver.view.count(checked_topic(topic))

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

    async def fetch(
        self, topic: str, *, after: str | None = None, limit: int | None = None
    ) -> Entries:
        """As `list`, but with the fields of the `fetch` function added, in one call of it."""
        entries = self.list(topic, after=after, limit=limit)
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
        topic = checked_topic(topic)
        return self._feeds.watch(driver, topic)

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

    def release(self, owner: Hashable, linger: float, *, broken: bool = False) -> int:
        """End all presences that an owner tracks, after exactly `linger` seconds.

        If they are broken, each stays for its own linger at least, and may be taken over. If the
        node stops earlier, they linger with its goodbye.

        Returns:
            Their number.
        """
        return self._endings.release(owner, linger, broken=broken)

    def release_lingering(
        self, owner: Hashable, linger: float, topic: str | None = None, key: str | None = None
    ) -> int:
        """End the presences that linger since an owner broke, after exactly `linger` seconds.

        With a topic and a key, only those of this key. Nobody may take them over any more.

        Returns:
            Their number.
        """
        return self._endings.release_lingering(owner, linger, topic, key)

    def release_all(self) -> None:
        """End all presences of all owners, as `untrack_all` does for each."""
        for owner in list(self._owners):
            self.release(owner, self._endings.linger())

    # Called by the observer.

    def _changed(self, topic: str, transitions: Transitions) -> None:
        self._feeds.push(topic, transitions)
        self._topic_feeds.push(topic, transitions)

    def _closed(self) -> None:
        """End every presence and every watch: the node has stopped."""
        self.log.flush()
        self._owners.clear()
        self._feeds.close()
        self._topic_feeds.close()

    def _forked(self) -> None:
        self._owners.forget()
        self._feeds.forget()
        self._topic_feeds.forget()


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
