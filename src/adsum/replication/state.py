"""The replicated state: one slice for each replica, written by that replica alone.

Theory of operation
===================

The state of a cluster is a map ``replica -> (version, entries)``. Only the replica that owns a
slice ever changes it; all others relay it, as a whole or as an interval of versions. So two
statements about one slice never conflict: the one with the higher version is newer. That makes the
state a product of chains, a join-semilattice, and merging commutative, associative and idempotent
(delta-state CRDTs: Almeida, Shoker, Baquero 2018; intervals of versions: Scuttlebutt, van Renesse
et al. 2008).

Invariants of a slice, each checked by `tests/replication/test_state.py`:

* every change takes the next version: ``version <= horizon``, and no two changes share one;
* ``horizon`` never goes back: all changes up to it are applied;
* the log is in version order and holds every live entry and every removal above ``floor``;
* a delta ``(after, upto]`` is applied only where ``after <= horizon``, and changes that the
  horizon covers are skipped, so applying is idempotent;
* a peer whose horizon is below ``floor`` may have missed removals that the log no longer has, so
  it gets a reset.

The state is the queue: the changes that a peer lacks are computed from the log when they are sent.
A slow peer therefore costs no memory, and changes that supersede each other coalesce by themselves.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from .entry import ID, KEY, TOPIC, VERSION, Change, Entry, Removal, Transition, size_of
from .sizes import Size

#: Changes by which the history of a slice, its superseded entries and its removals (tombstones),
#: may outgrow its entries before it is compacted. A peer that missed more removals than are kept is
#: sent the whole slice instead (a reset).
SPARE_HISTORY = 1024

_version = itemgetter(VERSION)


class Replica(NamedTuple):
    """One incarnation of one node: the owner of one slice of the replicated state.

    A restart is a new incarnation. Replicas sort by name, then by age.
    """

    name: str
    incarnation: int

    def __str__(self) -> str:
        # Used in log lines; peers choose names, and a line break in one would forge a line.
        name = self.name if self.name.isprintable() else ascii(self.name)
        return f"{name}@{self.incarnation:x}"


class Slice:
    """All presences of one replica, and enough history to bring a peer up to date."""

    __slots__ = ("_log", "_removals", "entries", "floor", "horizon", "replica")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        #: All changes up to this version are applied.
        self.horizon = 0
        #: Removals up to this version may be missing from the log.
        self.floor = 0
        #: The live entries by id.
        self.entries: dict[int, Entry] = {}
        # Changes in version order. An entry that was replaced or removed stays until compaction.
        self._log: list[Change] = []
        # How many of the changes in the log are removals.
        self._removals = 0

    def add(self, entry: Entry) -> None:
        """Add an entry with an id that is new to this slice."""
        self.entries[entry[ID]] = entry
        self.horizon = entry[VERSION]
        self._log.append(entry)

    def put(self, entry: Entry) -> Entry | None:
        """Add an entry, or replace the entry of the same id; returns the replaced entry, if any."""
        old = self.entries.get(entry[ID])
        self.entries[entry[ID]] = entry
        self.horizon = entry[VERSION]
        self._log.append(entry)
        if old is not None:
            self._compact_when_due()
        return old

    def remove(self, removal: Removal) -> Entry | None:
        """Remove a presence and log its tombstone; returns the removed entry, if any."""
        old = self.entries.pop(removal[ID], None)
        self.horizon = removal[VERSION]
        self._log.append(removal)
        self._removals += 1
        self._compact_when_due()
        return old

    def changes_after(self, version: int, budget: int) -> tuple[list[Change], int]:
        """The changes after `version`, oldest first, up to about `budget` bytes.

        The cost grows with the changes returned and the changes superseded since `version`.

        Args:
            version: A horizon at or above `floor`, or 0 for a reset.
            budget: Bytes on the wire; at least one change is returned whatever its size.

        Returns:
            The changes, and the version that a peer reaches by them: the horizon if none are left.
        """
        changes: list[Change] = []
        for change in self._current_after(version):
            changes.append(change)
            budget -= size_of(change)
            if budget <= 0:
                return changes, change[VERSION]
        return changes, self.horizon

    def apply(self, changes: Iterable[Change], upto: int) -> list[Transition]:
        """Merge the changes of one delta.

        Idempotent: changes that the horizon covers are skipped.

        Args:
            changes: The changes, in version order. The interval begins at or below the horizon.
            upto: The end of the interval; the horizon afterwards, if it is higher.

        Returns:
            The joins, updates and leaves that observers see, in order.
        """
        transitions: list[Transition] = []
        horizon = self.horizon
        for change in changes:
            if change[VERSION] <= horizon:
                continue
            if len(change) > 2:
                transitions += replacement(self.put(change), change)
            elif (old := self.remove(change)) is not None:
                transitions.append((old, None))
        self.horizon = max(horizon, upto)
        return transitions

    def forget_removals(self) -> None:
        """Raise the floor to the horizon: after a reset, no removals up to it are known."""
        self.floor = self.horizon

    def sizes(self) -> Iterator[Size]:
        """The number of changes in the log: entries, their superseded versions, and tombstones."""
        bound = 2 * (len(self.entries) + SPARE_HISTORY) + 1
        yield Size(f"history of {self.replica}", len(self._log), bound)

    def _current_after(self, version: int) -> Iterator[Change]:
        log, entries = self._log, self.entries
        for index in range(bisect_right(log, version, key=_version), len(log)):
            change = log[index]
            if len(change) == 2 or entries.get(change[ID]) is change:
                yield change

    def _compact_when_due(self) -> None:
        # Half of the log may be history. A compaction drops a constant share of the log, and each
        # change is dropped once, so its amortized cost for each change is constant.
        if len(self._log) > 2 * (len(self.entries) + SPARE_HISTORY):
            self._compact()

    def _compact(self) -> None:
        """Drop the superseded entries and the excess tombstones, oldest first."""
        excess = self._excess_tombstones()
        entries = self.entries
        kept: list[Change] = []
        for change in self._log:
            if len(change) > 2:
                if entries.get(change[ID]) is change:
                    kept.append(change)
            elif excess > 0:
                excess -= 1
                self._removals -= 1
                self.floor = change[VERSION]
            else:
                kept.append(change)
        self._log = kept

    def _excess_tombstones(self) -> int:
        """The number of tombstones beyond those that a compacted log keeps."""
        return self._removals - (len(self.entries) + SPARE_HISTORY) // 2


def replacement(old: Entry | None, new: Entry) -> list[Transition]:
    """The transitions that observers see when an entry is added or replaced: a join or an update.

    A presence never moves. If a peer sends one with another topic or key nevertheless, observers
    see it leave one place and join the other.
    """
    if old is not None and (old[TOPIC] != new[TOPIC] or old[KEY] != new[KEY]):
        return [(old, None), (None, new)]
    return [(old, new)]
