"""Watches of the member list: joined, left and changed members, merged for a slow reader.

A watch keeps the list that its reader knows and no queue. A diff compares it with the members at
the moment of the read, so changes that were undone meanwhile are in no diff.
"""

from collections.abc import Callable
from dataclasses import dataclass

from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.replication.memberinfo import MemberInfo
from adsum.singlereader import ReaderSet, SingleReaderIterator

#: Members by name and incarnation.
Known = dict[tuple[str, int], MemberInfo]


@dataclass(frozen=True, slots=True)
class MembersDiff:
    """The changes of the member list since the last diff.

    A restart under the same name is a member that left and one that joined. Each attribute is
    sorted by name and incarnation.

    Attributes:
        joined: Members that are new.
        left: Members that are no longer listed, as the reader knew them.
        changed: Members with another status or address, as they are now. The other fields of a
            member change all the time and are not compared.
    """

    joined: tuple[MemberInfo, ...] = ()
    left: tuple[MemberInfo, ...] = ()
    changed: tuple[MemberInfo, ...] = ()


class MembersWatch(SingleReaderIterator[MembersDiff]):
    """An asynchronous iterator of the changes of the members; made by `Node.watch_members`.

    The first diff always comes at once: all members, as joined. Changes are merged for a slow
    reader: memory is bounded by the members. The iteration ends when the watch or the node is
    closed. One task reads at a time. A watch without a reference, as after leaving an `async for`,
    is closed; while a task awaits it, that task keeps it open.
    """

    def __init__(self, driver: Driver, readers: ReaderSet["MembersWatch"]) -> None:
        super().__init__(readers)
        self._driver = driver
        self._known: Known = {}
        # Whether the members may differ from the known ones.
        self._stale = True

    def expire(self) -> None:
        """Compare the members again at the next read: they have changed."""
        self._stale = True
        self._wake()

    def __repr__(self) -> str:
        return f"<MembersWatch, {'closed' if self.closed else 'open'}>"

    def _has_more(self) -> bool:
        self._stale = self._stale and _differ(self._known, self._current())
        return self._stale

    def _take(self) -> MembersDiff:
        self._stale = False
        before, self._known = self._known, self._current()
        return _compare(before, self._known)

    def _drop(self) -> None:
        self._known = {}

    def _current(self) -> Known:
        return {(member.name, member.incarnation): member for member in self._driver.members()}


class MembersFeed(Observer):
    """Passes changes of the members of one run to their watches.

    Args:
        driver: The run.
        ended: Called when the last watch has been closed or collected.
    """

    def __init__(self, driver: Driver, ended: Callable[["MembersFeed"], None]) -> None:
        self._driver = driver
        self._ended = ended
        self._watches = ReaderSet[MembersWatch](driver.loop, self._emptied)
        driver.watch_members()

    def watch(self) -> MembersWatch:
        """Begin to watch the members."""
        return MembersWatch(self._driver, self._watches)

    def members_changed(self) -> None:
        """See `Observer`."""
        for watch in self._watches:
            watch.expire()

    def closed(self) -> None:
        """See `Observer`."""
        for watch in self._watches:
            watch.close()
        self._ended(self)  # also if the garbage collector was about to end the last watch

    def forked(self) -> None:
        """See `Observer`."""
        self._ended(self)

    def _emptied(self) -> None:
        self._driver.unwatch_members()
        self._ended(self)


def _differ(before: Known, after: Known) -> bool:
    return _compare(before, after) != MembersDiff()


def _compare(before: Known, after: Known) -> MembersDiff:
    both = [name for name in after if name in before]
    return MembersDiff(
        tuple(member for name, member in after.items() if name not in before),
        tuple(member for name, member in before.items() if name not in after),
        tuple(after[name] for name in both if _reported(before[name]) != _reported(after[name])),
    )


def _reported(member: MemberInfo) -> tuple[str, str]:
    """The fields whose changes are reported."""
    return member.status, member.address
