"""The presences of one key that is present more than once: ordered, and presented, when read.

Most keys are present once; their entries are held bare, which saves a container for each of them:
memory, and work for the garbage collector. Few keys have many presences, and those change often: a
service with thousands of workers. So a large group keeps the answer to its last reading, and the
next reading costs what changed since, and a copy.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable

from .entry import Entry, Identity, identity
from .frozen import FrozenDict, FrozenList

#: Presences from which on a group keeps its answer; smaller ones are presented again.
LARGE = 64
#: Changes that are put into a kept answer one by one, as a part of the group. Each of them moves
#: what comes behind it, so beyond this it is cheaper to begin again.
_PATCHED_PART = 16

#: Makes metas of entries.
Present = Callable[[list[Entry]], list[FrozenDict]]


class Group(dict[Identity, Entry]):
    """The presences of one key, by identity; the order of the dict means nothing."""

    __slots__ = ("_metas", "_order", "_stale")

    def __init__(self, entries: Iterable[Entry]) -> None:
        super().__init__((identity(entry), entry) for entry in entries)
        # The answer to the last reading: identities in order, and the meta of each. Valid but for
        # the identities that are stale; None if no answer is kept.
        self._order: list[Identity] | None = None
        self._metas: list[FrozenDict] = []
        self._stale: set[Identity] = set()

    def put(self, entry: Entry) -> None:
        """Add a presence, or replace its value."""
        name = identity(entry)
        self[name] = entry
        self._expire(name)

    def drop(self, entry: Entry) -> None:
        """Remove a presence."""
        name = identity(entry)
        del self[name]
        self._expire(name)

    def entries(self) -> list[Entry]:
        """The presences, in the same order on every node."""
        return [self[name] for name in sorted(self)]

    def read(self, present: Present) -> FrozenList:
        """The metas in order; costs what changed since the last reading, and a copy."""
        if self._order is None:
            self._order = sorted(self)
            self._metas = present([self[name] for name in self._order])
        for name in self._stale:
            self._patch(self._order, name, present)
        self._stale.clear()
        return FrozenList(self._metas)

    def forget(self) -> None:
        """Keep no answer."""
        self._order, self._metas = None, []
        self._stale.clear()

    def _expire(self, name: Identity) -> None:
        if self._order is not None:
            self._stale.add(name)
            if len(self._stale) * _PATCHED_PART > len(self):
                self.forget()

    def _patch(self, order: list[Identity], name: Identity, present: Present) -> None:
        at = bisect_left(order, name)
        known = at < len(order) and order[at] == name
        if name not in self:
            if known:
                del order[at], self._metas[at]
            return
        [meta] = present([self[name]])
        if known:
            self._metas[at] = meta
        else:
            order.insert(at, name)
            self._metas.insert(at, meta)
