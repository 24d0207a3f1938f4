"""The presences of one key that is present more than once: ordered, and presented, when read.

Most keys are present once; their entries are held bare, which saves a container for each of them:
memory, and work for the garbage collector. Few keys have many presences, and those change often: a
service with thousands of workers. So a large group keeps the answer to its last reading, and the
next reading costs what changed since, and a copy.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .entry import Entry, Identity, identity
from .frozen import FrozenDict, FrozenList

#: Presences from which on a group keeps its answer; smaller ones are presented again.
LARGE = 64
#: Changes that are put into a kept answer one by one, as a part of the group. Each of them moves
#: what comes behind it, so beyond this it is cheaper to begin again.
_PATCHED_PART = 16

#: Makes metas of entries.
Present = Callable[[list[Entry]], list[FrozenDict]]


@dataclass(slots=True)
class Answer:
    """What a large group answered last.

    Attributes:
        order: The identities in order.
        metas: The meta of each.
        stale: The identities that changed since.
    """

    order: list[Identity]
    metas: list[FrozenDict]
    stale: set[Identity] = field(default_factory=set)


class Group(dict[Identity, Entry]):
    """The presences of one key, by identity; the order of the dict means nothing."""

    __slots__ = ("_answer",)

    def __init__(self, entries: Iterable[Entry]) -> None:
        super().__init__((identity(entry), entry) for entry in entries)
        # Kept from one reading to the next, unless too much changes.
        self._answer: Answer | None = None

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
        answer = self._answer
        if answer is None:
            order = sorted(self)
            answer = self._answer = Answer(order, present([self[name] for name in order]))
        for name in answer.stale:
            self._patch(answer, name, present)
        answer.stale.clear()
        return FrozenList(answer.metas)

    def forget(self) -> None:
        """Keep no answer."""
        self._answer = None

    def _expire(self, name: Identity) -> None:
        if self._answer is not None:
            self._answer.stale.add(name)
            if len(self._answer.stale) * _PATCHED_PART > len(self):
                self._answer = None

    def _patch(self, answer: Answer, name: Identity, present: Present) -> None:
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
