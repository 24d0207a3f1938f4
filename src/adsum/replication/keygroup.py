"""The presences of one key that is present more than once, sorted and rendered when read.

Most keys are present once. Their entries are held without a container, which saves memory and work
for the garbage collector. Few keys have many presences, and those change often: a service with
thousands of workers. So a large group caches the answer to its last read, and the next read costs
the changes since then, and a copy.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from adsum.values.frozen import FrozenDict, FrozenList

from .entry import Entry, Identity, identity

#: Presences from which on a group caches its answer; smaller groups are rendered at each read.
LARGE = 64
#: A cached answer is patched if at most one in this many presences of the group changed. Each patch
#: moves the later items of a list, so beyond this it is cheaper to render the group again.
_PATCHED_PART = 16

#: Renders entries as metas.
Present = Callable[[list[Entry]], list[FrozenDict]]


@dataclass(slots=True)
class CachedAnswer:
    """The cached answer of a large group.

    Attributes:
        order: The identities in order.
        metas: The meta of each identity, in the same order.
        stale: The identities that changed since the last read.
    """

    order: list[Identity]
    metas: list[FrozenDict]
    stale: set[Identity] = field(default_factory=set)


class Group(dict[Identity, Entry]):
    """The presences of one key, by identity; the order of the dict means nothing."""

    __slots__ = ("_answer",)

    def __init__(self, entries: Iterable[Entry]) -> None:
        super().__init__((identity(entry), entry) for entry in entries)
        # Cached from one read to the next, or None; dropped if too much changes.
        self._answer: CachedAnswer | None = None

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
        """The metas in order; a cached answer costs the changes since the last read, and a copy."""
        answer = self._answer
        if answer is None:
            order = sorted(self)
            answer = self._answer = CachedAnswer(order, present([self[name] for name in order]))
        for name in answer.stale:
            self._patch(answer, name, present)
        answer.stale.clear()
        return FrozenList(answer.metas)

    def forget(self) -> None:
        """Drop the cached answer."""
        self._answer = None

    def _expire(self, name: Identity) -> None:
        if self._answer is not None:
            self._answer.stale.add(name)
            if len(self._answer.stale) * _PATCHED_PART > len(self):
                self._answer = None

    def _patch(self, answer: CachedAnswer, name: Identity, present: Present) -> None:
        at = bisect_left(answer.order, name)
        known = at < len(answer.order) and answer.order[at] == name
        if name not in self:
            if known:
                del answer.order[at], answer.metas[at]
            return
        [meta] = present([self[name]])
        if known:
            answer.metas[at] = meta
        else:
            answer.order.insert(at, name)
            answer.metas.insert(at, meta)
