"""Watches of a service: arrived, departed and changed instances, merged for a slow reader.

A watch keeps the instances that its reader knows and no queue. A diff compares them with the
instances at the moment of the read, so changes that were undone meanwhile are in no diff.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from adsum.driver.driver import Driver
from adsum.quoting import quoted
from adsum.singlereader import ReaderSet, SingleReaderIterator

from .instance import PREFIX, Instance, topic_of

#: Instances by id.
Known = dict[str, Instance]
#: Returns the listed instances of a service.
Listed = Callable[[str], tuple[Instance, ...]]


@dataclass(frozen=True, slots=True)
class InstancesDiff:
    """The changes of the instances of a service since the last diff.

    Attributes:
        arrived: Instances that are new.
        departed: Instances that are no longer listed, as the reader knew them.
        changed: Instances with other tags, another weight or another meta, as they are now.
    """

    arrived: tuple[Instance, ...] = ()
    departed: tuple[Instance, ...] = ()
    changed: tuple[Instance, ...] = ()


class InstancesWatch(SingleReaderIterator[InstancesDiff]):
    """An asynchronous iterator of the changes of a service; made by `Services.watch`.

    The first diff always comes at once: all listed instances, possibly none, as arrived. Changes
    are merged for a slow reader: memory is bounded by the instances. The iteration ends when the
    watch or the node is closed. One task reads at a time. A watch without a reference, as after
    leaving an `async for`, is closed; while a task awaits it, that task keeps it open.
    """

    def __init__(self, name: str, listed: Listed, readers: ReaderSet["InstancesWatch"]) -> None:
        super().__init__(readers)
        #: The name of the service.
        self.name = name
        self._listed = listed
        self._known: Known = {}
        # Whether the first diff, which is delivered even if it is empty, was read.
        self._begun = False
        # Whether the instances may differ from the known ones.
        self._stale = True

    def expire(self) -> None:
        """Compare the instances again at the next read: they have changed."""
        self._stale = True
        self._wake()

    def __repr__(self) -> str:
        return f"<InstancesWatch on {quoted(self.name)}, {'closed' if self.closed else 'open'}>"

    def _has_more(self) -> bool:
        if not self._begun:
            return True
        self._stale = self._stale and _compare(self._known, self._current()) != InstancesDiff()
        return self._stale

    def _take(self) -> InstancesDiff:
        self._stale, self._begun = False, True
        before, self._known = self._known, self._current()
        return _compare(before, self._known)

    def _drop(self) -> None:
        self._known = {}

    def _current(self) -> Known:
        return {instance.id: instance for instance in self._listed(self.name)}


class InstancesFeeds:
    """Passes the changes of services to their watches, in one run of a node.

    Args:
        driver: The run.
        listed: Returns the listed instances of a service.
    """

    def __init__(self, driver: Driver, listed: Listed) -> None:
        self._driver = driver
        self._listed = listed
        # The watches by service.
        self._watches: dict[str, ReaderSet[InstancesWatch]] = {}

    def watch(self, name: str) -> InstancesWatch:
        """Begin to watch a service."""
        watches = self._watches.get(name)
        if watches is None:
            emptied = partial(self._tidy, name)
            watches = ReaderSet[InstancesWatch](self._driver.loop, emptied)
            self._driver.watch_topic(topic_of(name))
            self._watches[name] = watches
        return InstancesWatch(name, self._listed, watches)

    def push(self, topic: str) -> None:
        """Let the watches of a changed topic compare again."""
        for watch in self._watches.get(topic.removeprefix(PREFIX), ()):
            watch.expire()

    def close(self) -> None:
        """Close all watches: the node has stopped."""
        all_watches, self._watches = self._watches, {}
        for watches in all_watches.values():
            for watch in watches:
                watch.close()

    def _tidy(self, name: str) -> None:
        """Stop watching a service that has no watches."""
        watches = self._watches.get(name)
        if watches is not None and not watches:
            del self._watches[name]
            self._driver.unwatch_topic(topic_of(name))


def _compare(before: Known, after: Known) -> InstancesDiff:
    both = [id for id in after if id in before]
    return InstancesDiff(
        tuple(instance for id, instance in after.items() if id not in before),
        tuple(instance for id, instance in before.items() if id not in after),
        tuple(after[id] for id in both if after[id] != before[id]),
    )
