"""Passes the changes of topics to their watches, with the fields that `fetch` adds.

A topic has a feed while it has a watch.
"""

import asyncio
import logging
from functools import partial

from adsum.driver.driver import Driver
from adsum.node import Node
from adsum.quoting import quoted
from adsum.replication.entry import Transition
from adsum.singlereader import ReaderSet
from adsum.sparselog import log_line
from adsum.tasks import cancel_task, start_task
from adsum.watch import Enrich, Watch, changed_entries, group_in_slices

logger = logging.getLogger("adsum.presence")


class WatchFeeds:
    """The feeds of all topics that are watched on one node.

    Args:
        node: The node.
        enrich: Returns the extras for the entries of a topic; None if there is no `fetch`.
    """

    def __init__(self, node: Node, enrich: Enrich | None) -> None:
        self._node = node
        self._enrich = enrich
        self._by_topic: dict[str, WatchFeed] = {}

    def watch(self, driver: Driver, topic: str) -> Watch:
        """Begin to watch a topic; its present keys are the first changes."""
        # This watch must not see earlier changes; the end of an earlier watch may be among them.
        driver.notify_observers()
        feed = self._by_topic.get(topic)
        if feed is None:
            watches = ReaderSet[Watch](driver.loop, partial(self._close_unwatched, topic))
            feed = WatchFeed(topic, self._enrich, watches)
            driver.watch_topic(topic)
            self._by_topic[topic] = feed
        watch = Watch(topic, feed.watches)
        entries = driver.view.all_entries(topic)
        feed.push([watch], [(None, entry) for entry in entries])
        return watch

    def push(self, topic: str, transitions: list[Transition]) -> None:
        """Pass the changes of one topic to its watches."""
        feed = self._by_topic.get(topic)
        if feed is not None:
            feed.push(list(feed.watches), transitions)

    def close(self) -> None:
        """Close all watches: the node has stopped."""
        feeds, self._by_topic = self._by_topic, {}
        for feed in feeds.values():
            feed.close()
            for watch in feed.watches:
                watch.close()

    def forget(self) -> None:
        """Forget all watches: they belong to the parent of this process."""
        self._by_topic = {}

    def _close_unwatched(self, topic: str) -> None:
        """Close the feed of a topic without watches."""
        feed = self._by_topic.get(topic)
        if feed is not None and not feed.watches:
            del self._by_topic[topic]
            feed.close()
            if self._node.running:
                self._node.driver.unwatch_topic(topic)


class WatchFeed:
    """Passes the changes of one topic to its watches, enriched by `fetch`.

    One call of `fetch` serves all watches. Changes during the call are folded for the next one, so
    no diff overtakes another, and the memory of each watch is bounded by the presences that
    changed.

    Args:
        topic: The topic.
        enrich: Returns the extras for its entries; None if there is no `fetch`.
        watches: The watches of the topic.
    """

    def __init__(self, topic: str, enrich: Enrich | None, watches: ReaderSet[Watch]) -> None:
        self.watches = watches
        self._topic = topic
        self._enrich = enrich
        # Calls `fetch`. Stored until its end is handled, so there is one at a time.
        self._task: asyncio.Task[None] | None = None

    def push(self, watches: list[Watch], transitions: list[Transition]) -> None:
        """Pass changes to some of the watches, after all changes that were pushed before."""
        for watch in watches:
            if self._enrich is None:
                watch.merge(transitions, {})
            else:
                watch.defer(transitions)
        self._start()

    def close(self) -> None:
        """Cancel a call of `fetch` that is under way."""
        cancel_task(self._task)

    def _start(self) -> None:
        if self._enrich is not None and self._task is None:
            self._task = start_task(self._run(self._enrich))
            self._task.add_done_callback(self._stopped)

    async def _run(self, enrich: Enrich) -> None:
        while batch := self._next_batch():
            extras = await enrich(self._topic, await group_in_slices(await changed_entries(batch)))
            for watch, transitions in batch:
                await watch.merge_in_slices(transitions, extras)

    def _next_batch(self) -> list[tuple[Watch, list[Transition]]]:
        taken = [(watch, watch.take_deferred()) for watch in self.watches]
        return [(watch, transitions) for watch, transitions in taken if transitions is not None]

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        """Continue with deferred changes; after a failure or cancellation, close all watches."""
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log_line(logger, logging.ERROR, "the watches of %s end", (quoted(self._topic),), error)
        if error is not None or task.cancelled():
            for watch in [*self.watches]:
                watch.close()  # its batch is lost, and each change must be delivered once
        elif any(watch.deferring for watch in self.watches):
            self._start()
