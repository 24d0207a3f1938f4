"""Grace: the presences of this node whose owners are gone, and the deadline of each.

The property: from the moment at which a presence with grace breaks until its deadline, its key is
listed on its topic on every node that shows the slice of this node. A presence departs at its
deadline, unless it was taken over. An end that is intended is immediate.

A lingering presence is an ordinary entry of this node's slice. So it is replicated, shown, hidden
after a crash and announced by a goodbye like any other, and the other nodes need to know nothing of
its grace. This part only keeps the deadlines. The engine ends the entries that are due.

Invariants:

- A lingering presence is in this node's slice; it is forgotten here in the call that ends it there.
- Deadlines are in active time. A process that was paused or blocked has served no client meanwhile,
  so a pause shortens no grace, and does not end all of them before the first client is served.
- A presence is taken over by its heirs only, see `Claim`; of several, the one with the earliest
  deadline. So the others last longer.
- At most `MAX_LINGERING` presences linger. For one more, one of a key that has the most ends: that
  with the earliest deadline. Their metas have at most `MAX_LINGERING_SIZE` characters. Beyond, the
  one with the largest meta ends. So a client that breaks many presences, or large ones, ends its
  own, not those of others.
- No structure outgrows the lingering presences by more than a constant factor.
"""

import heapq
from collections.abc import Collection, Hashable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from .entry import ID, KEY, META, TOPIC, Entry
from .limits import MAX_LINGERING, MAX_LINGERING_SIZE
from .sizes import Size

#: Presences that one tick ends at most, so that no turn of the event loop is long.
MOST_AT_ONCE = 1000
#: Items that a queue may keep of presences that it has dropped, besides one for each that it holds.
_SLACK = 16


class _Heir(Enum):
    PASSING = "any owner that passes"


#: The heir of owners that never come back, such as tasks: the next one of them.
PASSING = _Heir.PASSING


class Claim(NamedTuple):
    """The owner that a lingering presence had, and the owners that may take it over.

    Attributes:
        owner: Identifies the owner. It may end the presence.
        heir: Equal for the claims that may take over from each other: a session or a device that
            comes back, or `PASSING`.
    """

    owner: Hashable
    heir: Hashable


class PriorityQueue:
    """Ids by priority, such as their deadline: the lowest first. A change costs O(log n)."""

    __slots__ = ("_heap", "_priorities")

    def __init__(self) -> None:
        self._priorities: dict[int, float] = {}
        # May contain pairs that were removed; `_priorities` has those that were not.
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._priorities)

    def __iter__(self) -> Iterator[int]:
        """The ids, in the order in which they were added."""
        return iter(self._priorities)

    @property
    def spare(self) -> int:
        """The number of pairs that were removed and are still stored."""
        return len(self._heap) - len(self._priorities)

    def add(self, id: int, priority: float) -> None:
        """Add an id that is not in the queue."""
        self._priorities[id] = priority
        heapq.heappush(self._heap, (priority, id))

    def remove(self, id: int) -> None:
        """Remove an id that is in the queue."""
        del self._priorities[id]
        if self.spare > len(self) + _SLACK:
            self._heap = [(priority, id) for id, priority in self._priorities.items()]
            heapq.heapify(self._heap)
        while self._heap and self._priorities.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    @property
    def first(self) -> int | None:
        """The id with the lowest priority; None if the queue is empty."""
        return self._heap[0][1] if self._heap else None

    @property
    def lowest(self) -> float:
        """The lowest priority; infinite if the queue is empty."""
        return self._heap[0][0] if self._heap else float("inf")


class _Name:
    """A name in an index, with the hash that it had at first."""

    __slots__ = ("_hash", "_value")

    def __init__(self, value: Hashable) -> None:
        self._value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Name) and self._value == other._value


class _Group(NamedTuple):
    """The presences of one name in an index."""

    name: _Name
    queue: PriorityQueue


class _Index:
    """Presences by a name that contains an object of the application.

    The object may change its hash and what it equals. A presence is removed all the same, because
    its group is found by the very name under which it is stored.
    """

    def __init__(self) -> None:
        # No group is empty.
        self._groups: dict[_Name, _Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, value: Hashable) -> PriorityQueue | None:
        """The presences of a name; None if there are none."""
        group = self._groups.get(_Name(value))
        return None if group is None else group.queue

    def add(self, value: Hashable, id: int, deadline: float) -> _Group:
        """Add a presence; returns its group, for `remove`."""
        name = _Name(value)
        group = self._groups.setdefault(name, _Group(name, PriorityQueue()))
        group.queue.add(id, deadline)
        return group

    def remove(self, group: _Group, id: int) -> None:
        """Remove a presence from its group."""
        group.queue.remove(id)
        if not len(group.queue):
            del self._groups[group.name]


class _Lingering(NamedTuple):
    """One lingering presence.

    Attributes:
        key: The key of the presence.
        size: Characters of its meta.
        hold: The hold of its former owner, for its handle.
        place: Its group among the places; None if nobody may take it over.
        owned: Its group among the former owners; likewise.
    """

    key: str
    size: int
    hold: object
    place: _Group | None = None
    owned: _Group | None = None


class _KeyShares:
    """The lingering presences of each key, to find one of a key that has the most."""

    def __init__(self) -> None:
        self._queues: dict[str, PriorityQueue] = {}
        # The keys by their number of presences; none is empty.
        self._keys: dict[int, dict[str, None]] = {}
        # The largest of these numbers.
        self.most = 0

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, key: str, id: int, deadline: float) -> None:
        """Add a presence of a key."""
        queue = self._queues.setdefault(key, PriorityQueue())
        queue.add(id, deadline)
        self._move(key, len(queue) - 1, len(queue))

    def remove(self, key: str, id: int) -> None:
        """Remove a presence of a key."""
        queue = self._queues[key]
        queue.remove(id)
        self._move(key, len(queue) + 1, len(queue))
        if not len(queue):
            del self._queues[key]

    @property
    def first(self) -> int | None:
        """The presence with the earliest deadline of a key that has the most."""
        return self._queues[next(iter(self._keys[self.most]))].first if self.most else None

    def _move(self, key: str, before: int, after: int) -> None:
        if before:
            keys = self._keys[before]
            del keys[key]
            if not keys:
                del self._keys[before]
        if after:
            self._keys.setdefault(after, {})[key] = None
        if after > self.most or self.most not in self._keys:
            self.most = after  # no key has a number between


class Grace:
    """The presences of this node that linger."""

    def __init__(self) -> None:
        self._lingering: dict[int, _Lingering] = {}
        #: Their ids; a view that follows each change.
        self.ids: Collection[int] = self._lingering.keys()
        self._queue = PriorityQueue()
        self._shares = _KeyShares()
        # Largest meta first: the priority of a presence is the negative size of its meta.
        self._by_size = PriorityQueue()
        # Characters of all their metas.
        self._size = 0
        # The presences that an heir may take over, by topic, key and heir.
        self._places = _Index()
        # The presences of each former owner.
        self._owned = _Index()

    def __len__(self) -> int:
        return len(self._lingering)

    @property
    def check_at(self) -> float:
        """The earliest deadline, in active seconds; infinite if no presence lingers."""
        return self._queue.lowest

    def keep(self, entry: Entry, deadline: float, claim: Claim | None, hold: object) -> None:
        """Let a presence linger until a deadline; it may linger already."""
        id = entry[ID]
        self.forget(id)
        kept = _Lingering(entry[KEY], len(entry[META]), hold)
        if claim is not None:  # hashes an object of the application, which may fail
            place = self._places.add((entry[TOPIC], entry[KEY], claim.heir), id, deadline)
            kept = kept._replace(place=place, owned=self._owned.add(claim.owner, id, deadline))
        self._lingering[id] = kept
        self._queue.add(id, deadline)
        self._shares.add(kept.key, id, deadline)
        self._by_size.add(id, -kept.size)
        self._size += kept.size

    def forget(self, id: int) -> None:
        """Forget a presence: it was taken over, or it has ended. Idempotent."""
        kept = self._lingering.pop(id, None)
        if kept is None:
            return
        self._queue.remove(id)
        self._shares.remove(kept.key, id)
        self._by_size.remove(id)
        self._size -= kept.size
        if kept.place is not None:
            self._places.remove(kept.place, id)
        if kept.owned is not None:
            self._owned.remove(kept.owned, id)

    def heritage(self, topic: str, key: str, claim: Claim) -> int | None:
        """The presence that an owner may take over, by its id; None if there is none."""
        place = self._places.get((topic, key, claim.heir))
        return None if place is None else place.first

    def of(self, claim: Claim) -> list[int]:
        """The ids of the presences that an owner had and that linger."""
        return list(self._owned.get(claim.owner) or ())

    def is_held(self, id: int, hold: object) -> bool:
        """Whether a presence lingers since the end of this very hold."""
        kept = self._lingering.get(id)
        return kept is not None and kept.hold is hold

    def due(self, now: float) -> Iterable[int]:
        """The presences whose deadline has passed, at most `MOST_AT_ONCE`; forget each of them."""
        for _ in range(MOST_AT_ONCE):
            first = self._queue.first
            if first is None or self._queue.lowest > now:
                return
            yield first

    @property
    def excess(self) -> int | None:
        """The presence to end because too many linger, or too large ones; None if there are not."""
        if self._size > MAX_LINGERING_SIZE:
            return self._by_size.first
        if len(self) <= MAX_LINGERING:
            return None
        return self._queue.first if self._shares.most == 1 else self._shares.first

    def sizes(self) -> Iterator[Size]:
        """The sizes of its structures, each with its bound."""
        count = len(self)
        yield Size("lingering presences", count, MAX_LINGERING)
        yield Size("metas of lingering presences", self._size, MAX_LINGERING_SIZE)
        yield Size("keys of lingering presences", len(self._shares), count)
        yield Size("spare deadlines", self._queue.spare, count + _SLACK)
        yield Size("places of lingering presences", len(self._places), count)
        yield Size("former owners of lingering presences", len(self._owned), count)
