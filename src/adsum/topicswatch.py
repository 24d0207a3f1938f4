"""Watches of several topics: one stream of diffs over all topics, or over those with a prefix.

The first diff of a topic is made when it is read, so a watch of many presences begins in a short
turn of the event loop.

Invariant: each change of a watched topic is in exactly one diff. Until the first diff of a topic is
read, changes of that topic are dropped, because the first diff has their result. Before it is read,
all changes so far are passed on, so none of them follows it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from adsum.driver.driver import Driver
from adsum.quoting import quoted
from adsum.replication.entry import KEY, Identity, Transition
from adsum.singlereader import ReaderSet, SingleReaderIterator
from adsum.values.names import RESERVED
from adsum.watch import Diff, fold, make_diff


@dataclass(frozen=True, slots=True)
class TopicDiff(Diff):
    """The joins, leaves and updates on one of several topics since its last diff.

    Attributes:
        topic: The topic.
        arrived: The keys whose first meta came since the last diff, sorted.
        departed: The keys whose last meta went since the last diff, sorted.
    """

    topic: str = field(kw_only=True)
    arrived: tuple[str, ...] = field(default=(), kw_only=True)
    departed: tuple[str, ...] = field(default=(), kw_only=True)


class TopicsWatch(SingleReaderIterator[TopicDiff]):
    """An asynchronous iterator of the diffs of several topics; made by `Presence.watch_topics`.

    The first diffs have all presences, as joins: one diff for each topic, in the order of
    `Presence.topics`. So folding the diffs of a topic gives exactly its list. For a reader that is
    slower than the changes they are merged for each topic: memory is bounded by the presences that
    it has seen and those that are present. The iteration ends when the watch or the node is closed.
    One task reads at a time. A watch without a reference, as after leaving an `async for`, is
    closed; while a task awaits it, that task keeps it open.
    """

    def __init__(self, prefix: str, driver: Driver, readers: ReaderSet["TopicsWatch"]) -> None:
        super().__init__(readers)
        self.prefix = prefix
        self._driver = driver
        # The topics whose first diff was not read, the next one last.
        self._first = dict.fromkeys(reversed(topics_with(driver.view.topics, prefix)))
        # Unread changes of the other topics, as in `Watch`; in the order of the oldest ones.
        self._pending: dict[str, dict[Identity, Transition]] = {}
        # The number of metas of each key that the reader knows, by topic.
        self._known: dict[str, dict[str, int]] = {}

    def merge(self, topic: str, transitions: Sequence[Transition]) -> None:
        """Add changes to the next diff of a topic."""
        if self._closed or topic in self._first:
            return
        pending = self._pending.setdefault(topic, {})
        fold(pending, transitions)
        if not pending:
            del self._pending[topic]
        self._wake()

    def __repr__(self) -> str:
        waiting = len(self._first) + len(self._pending)
        state = "closed" if self.closed else f"{waiting} topics waiting"
        return f"<TopicsWatch on {quoted(self.prefix)}, {state}>"

    def _has_more(self) -> bool:
        if self._first:
            self._skip_emptied()
        return bool(self._first or self._pending)

    def _skip_emptied(self) -> None:
        """Skip topics that were emptied before their first diff was read."""
        self._driver.notify_observers()  # the next first diff has these changes
        while self._first and not self._driver.view.count(next(reversed(self._first))):
            self._first.popitem()

    def _take(self) -> TopicDiff:
        if self._first:
            topic, _ = self._first.popitem()
            return self._diff(topic, [(None, e) for e in self._driver.view.all_entries(topic)])
        topic = next(iter(self._pending))
        return self._diff(topic, list(self._pending.pop(topic).values()))

    def _diff(self, topic: str, transitions: list[Transition]) -> TopicDiff:
        """Make a diff, and note the keys that the reader knows from now on."""
        keys = {entry[KEY] for pair in transitions for entry in pair if entry is not None}
        known = self._known.setdefault(topic, {})
        before = keys & known.keys()
        _count(known, transitions)
        after = keys & known.keys()
        if not known:
            del self._known[topic]
        diff = make_diff(transitions, {})
        return TopicDiff(
            diff.joins,
            diff.leaves,
            diff.updates,
            topic=topic,
            arrived=tuple(sorted(after - before)),
            departed=tuple(sorted(before - after)),
        )

    def _drop(self) -> None:
        self._first.clear()
        self._pending.clear()
        self._known.clear()


class TopicFeeds:
    """Passes the changes of one node to the watches of several topics."""

    def __init__(self) -> None:
        # The watches by their prefix.
        self._watches: dict[str, ReaderSet[TopicsWatch]] = {}

    def watch(self, driver: Driver, prefix: str) -> TopicsWatch:
        """Begin to watch the topics with a prefix."""
        # This watch must not see earlier changes; the end of an earlier watch may be among them.
        driver.notify_observers()
        watches = self._watches.get(prefix)
        if watches is None:
            watches = ReaderSet[TopicsWatch](driver.loop, partial(self._tidy, driver, prefix))
            driver.watch_topics(prefix)
            self._watches[prefix] = watches
        return TopicsWatch(prefix, driver, watches)

    def push(self, topic: str, transitions: Sequence[Transition]) -> None:
        """Pass the changes of one topic to its watches."""
        if not self._watches or topic.startswith(RESERVED):
            return
        for prefix, watches in list(self._watches.items()):
            if topic.startswith(prefix):
                for watch in watches:
                    watch.merge(topic, transitions)

    def close(self) -> None:
        """Close all watches: the node has stopped."""
        all_watches, self._watches = self._watches, {}
        for watches in all_watches.values():
            for watch in watches:
                watch.close()

    def forget(self) -> None:
        """Forget all watches: they belong to the parent of this process."""
        self._watches = {}

    def _tidy(self, driver: Driver, prefix: str) -> None:
        """Stop watching a prefix that has no watches."""
        watches = self._watches.get(prefix)
        if watches is not None and not watches:
            del self._watches[prefix]
            driver.unwatch_topics(prefix)


def topics_with(topics: Iterable[str], prefix: str) -> list[str]:
    """The topics that begin with a prefix, sorted, without adsum's own."""
    return sorted(name for name in topics if name.startswith(prefix) and name[0] != RESERVED)


def _count(known: dict[str, int], transitions: list[Transition]) -> None:
    """Apply joins and leaves to the number of metas of each key; a key without metas is removed."""
    changed = Counter[str]()
    for old, new in transitions:
        if old is None and new is not None:
            changed[new[KEY]] += 1
        elif old is not None and new is None:
            changed[old[KEY]] -= 1
    for key, change in changed.items():
        count = known[key] = known.get(key, 0) + change
        if not count:
            del known[key]
