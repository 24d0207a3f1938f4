"""The keys of a topic in order, for pages: sorted in parts, each when a page first needs it.

Sorting all keys of a large topic takes too long for one turn of the event loop. So a sample of the
keys divides them into ranges of about `RANGE` keys. A page that needs a range which is not sorted
yet visits all keys once, and sorts those of the ranges that it needs. From then on each change
keeps these ranges sorted.

Invariant: a sorted range has exactly the keys of the topic in it.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection
from itertools import islice

#: Keys in a range, about. Each change of a sorted range moves at most so many pointers.
RANGE = 4096
#: One in so many keys is in the sample; a prime, so that no pattern in the order of joins matters.
_STEP = 61


class KeyOrder:
    """The keys of one topic, in ranges in ascending order.

    Args:
        keys: All keys of the topic; it is read when a page needs a range, and must then have the
            same keys as the changes reported by `add` and `discard`.
    """

    __slots__ = ("_bounds", "_keys", "_ranges", "outgrown")

    def __init__(self, keys: Collection[str]) -> None:
        self._keys = keys
        sample = sorted(islice(keys, 0, None, _STEP)) if len(keys) > 2 * RANGE else []
        # The greatest key that each range may have; the last range has no bound.
        self._bounds = sample[RANGE // _STEP :: RANGE // _STEP]
        # The sorted keys of each range, or None until a page needs them.
        self._ranges: list[list[str] | None] = [None] * (len(self._bounds) + 1)
        #: Whether a range has grown so much that the keys should be divided again.
        self.outgrown = False

    def add(self, key: str) -> None:
        """Add a key that the topic did not have."""
        held = self._ranges[bisect_left(self._bounds, key)]
        if held is not None:
            insort(held, key)
            if len(held) > 4 * RANGE:
                self.outgrown = True

    def discard(self, key: str) -> None:
        """Remove a key that the topic had."""
        held = self._ranges[bisect_left(self._bounds, key)]
        if held is not None:
            del held[bisect_left(held, key)]

    def after(self, key: str, limit: int) -> list[str]:
        """The next keys above `key`, which need not be one of the topic; at most `limit`."""
        found = list[str]()
        for number in range(bisect_left(self._bounds, key), len(self._ranges)):
            held = self._sorted(number, limit - len(found))
            start = bisect_right(held, key) if not found else 0
            found += islice(held, start, start + limit - len(found))
            if len(found) == limit:
                break
        return found

    def _sorted(self, number: int, needed: int) -> list[str]:
        """The keys of a range; sorts it with those after it that `needed` keys will reach."""
        held = self._ranges[number]
        if held is None:
            self._sort(number, min(len(self._ranges), number + 1 + needed // RANGE))
            held = self._ranges[number] or []
        return held

    def _sort(self, first: int, end: int) -> None:
        """Sort the ranges from `first` up to, but without, `end`, in one visit of all keys."""
        low = self._bounds[first - 1] if first else ""
        if end > len(self._bounds):
            keys = sorted([key for key in self._keys if low < key])
        else:
            high = self._bounds[end - 1]
            keys = sorted([key for key in self._keys if low < key <= high])
        start = 0
        for number in range(first, end):
            is_last = number == len(self._bounds)
            stop = len(keys) if is_last else bisect_right(keys, self._bounds[number], start)
            self._ranges[number] = keys[start:stop]
            start = stop
