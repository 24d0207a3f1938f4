"""The replicated state: one slice for each replica, written by that replica alone.

Theory of operation
===================

The state of a cluster is a map ``replica -> (version, entries)``. Only the replica that owns a
slice ever changes it; everybody else relays it, as a whole or as an interval of versions. So two
statements about one slice never conflict: the one with the higher version is newer. That makes the
state a product of chains, a join-semilattice, and merging commutative, associative and idempotent
(delta-state CRDTs: Almeida, Shoker, Baquero 2018; intervals of versions: Scuttlebutt, van Renesse
et al. 2008).

Invariants of a slice, each checked by `tests/replication/test_state.py`:

* every change takes the next version: ``version <= horizon``, and no two changes share one;
* ``horizon`` never goes back: all changes up to it are applied;
* the log is in version order and holds every live entry and every removal above ``floor``;
* a delta ``(after, upto]`` is applied only where ``after <= horizon``, and what the horizon
  covers is skipped, so applying is idempotent;
* a peer whose horizon is below ``floor`` cannot be told what was removed, so it gets a reset.

The state is the queue: what a peer lacks is computed from the log when it is sent. A slow peer
therefore costs no memory, and changes that supersede each other coalesce by themselves.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from .entry import ID, KEY, TOPIC, VERSION, Change, Entry, Removal, Transition, size_of

#: The history of a slice, superseded entries and removals, is cut when it outgrows its entries by
#: this. A peer that missed more removals than are kept is sent the whole slice instead.
SPARE_HISTORY = 1024

_version = itemgetter(VERSION)


class Replica(NamedTuple):
    """What one life of one node contributes to the cluster's state.

    A restart is a new incarnation. Replicas sort by name, then by age.
    """

    name: str
    incarnation: int

    def __str__(self) -> str:
        # It stands in log lines, and peers tell of names: a line break would forge one.
        name = self.name if self.name.isprintable() else ascii(self.name)
        return f"{name}@{self.incarnation:x}"


class Slice:
    """All presences of one replica, and enough history to bring a peer up to date."""

    __slots__ = ("_log", "_removals", "entries", "floor", "horizon", "replica")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        #: All changes up to this version are applied.
        self.horizon = 0
        #: Removals up to this version are forgotten.
        self.floor = 0
        #: The live entries by id.
        self.entries: dict[int, Entry] = {}
        # Changes in version order. An entry that was replaced or removed stays until compaction.
        self._log: list[Change] = []
        # How many of the changes in the log are removals.
        self._removals = 0

    def add(self, entry: Entry) -> None:
        """Add an entry of an id that was never there."""
        self.entries[entry[ID]] = entry
        self.horizon = entry[VERSION]
        self._log.append(entry)

    def put(self, entry: Entry) -> Entry | None:
        """Add an entry, or replace the one of the same id; returns the replaced one."""
        old = self.entries.get(entry[ID])
        self.entries[entry[ID]] = entry
        self.horizon = entry[VERSION]
        self._log.append(entry)
        if old is not None:
            self._compact_when_due()
        return old

    def remove(self, removal: Removal) -> Entry | None:
        """End a presence; returns the entry that was there, if any."""
        old = self.entries.pop(removal[ID], None)
        self.horizon = removal[VERSION]
        self._log.append(removal)
        self._removals += 1
        self._compact_when_due()
        return old

    def changes_after(self, version: int, budget: int) -> tuple[list[Change], int]:
        """What happened after `version`, oldest first, up to about `budget` bytes.

        Costs what it returns, plus what was superseded meanwhile.

        Args:
            version: A horizon at or above `floor`, or 0 for a reset.
            budget: Bytes on the wire; at least one change is returned whatever its size.

        Returns:
            The changes, and the version up to which they bring a peer: the horizon if they are all.
        """
        changes: list[Change] = []
        for change in self._current_after(version):
            changes.append(change)
            budget -= size_of(change)
            if budget <= 0:
                return changes, change[VERSION]
        return changes, self.horizon

    def apply(self, changes: Iterable[Change], upto: int) -> list[Transition]:
        """Merge changes in version order that begin at or below the horizon.

        Idempotent: what the horizon covers is skipped.

        Returns:
            What it changed, for observers, in order.
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
        """Say that nothing is known of removals up to the horizon, as after a reset."""
        self.floor = self.horizon

    def _current_after(self, version: int) -> Iterator[Change]:
        log, entries = self._log, self.entries
        for index in range(bisect_right(log, version, key=_version), len(log)):
            change = log[index]
            if len(change) == 2 or entries.get(change[ID]) is change:
                yield change

    def _compact_when_due(self) -> None:
        # Half of the log may be history. Each compaction is paid for by as many changes as it
        # drops, so it adds a constant to each of them.
        if len(self._log) > 2 * (len(self.entries) + SPARE_HISTORY):
            self._compact()

    def _compact(self) -> None:
        excess = self._removals - (len(self.entries) + SPARE_HISTORY) // 2
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


def replacement(old: Entry | None, new: Entry) -> list[Transition]:
    """What an observer sees of a new entry: a join or an update.

    A presence never moves. If a peer says so nevertheless, it leaves one place and joins another.
    """
    if old is not None and (old[TOPIC] != new[TOPIC] or old[KEY] != new[KEY]):
        return [(old, None), (None, new)]
    return [(old, new)]
