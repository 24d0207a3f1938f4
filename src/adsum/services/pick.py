"""Strategies that pick one of several instances. Each is fair: equals are picked in rotation.

A strategy owns the order of its candidates. It is made again when the candidates change, from a
list in the order of their last pick, so a change does not begin the rotation again.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from operator import attrgetter

from adsum.arguments import refuse

from .slot import Slot

_uses = attrgetter("uses")


class Strategy(ABC):
    """Picks one of several slots.

    Args:
        slots: The candidates, the one that was picked longest ago first.
    """

    @abstractmethod
    def __init__(self, slots: Sequence[Slot]) -> None: ...

    @abstractmethod
    def pick(self, excluded: Set[str]) -> Slot | None:
        """The next slot whose id is not excluded; None if there is none."""


class RoundRobin(Strategy):
    """Each in turn."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._order = list(slots)

    def pick(self, excluded: Set[str]) -> Slot | None:
        """See `Strategy`."""
        for at, slot in enumerate(self._order):
            if slot.instance.id not in excluded:
                del self._order[at]
                self._order.append(slot)
                return slot
        return None


class LeastUsed(Strategy):
    """The one with the fewest requests in use at this resolver; among equals, each in turn.

    A pick costs a scan in C, and nothing if the first in turn is idle.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._order = list(slots)

    def pick(self, excluded: Set[str]) -> Slot | None:
        """See `Strategy`."""
        order = self._order
        if excluded:
            order = [slot for slot in order if slot.instance.id not in excluded]
        if not order:
            return None
        slot = order[0] if not order[0].uses else min(order, key=_uses)
        self._order.remove(slot)
        self._order.append(slot)
        return slot


class Weighted(Strategy):
    """Each as often as its weight says, spread evenly: earliest deadline first.

    Each pick moves the deadline of the picked slot by 1 / weight, and the earliest deadline is
    next. So a weight of 2 is picked every other time beside two of weight 1, not twice in a row,
    and a pick costs O(log n).

    Each slot keeps the time of its last turn. If deadlines began again with each change of the
    candidates, only the highest weights would be picked while changes are frequent.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        now = max((slot.turn for slot in slots if slot.turn is not None), default=0.0)
        # (deadline, number of the last pick, slot); the numbers are unique, so slots are not
        # compared.
        self._heap = [(_deadline(slot, now), at, slot) for at, slot in enumerate(slots)]
        heapq.heapify(self._heap)
        self._picks = len(slots)

    def pick(self, excluded: Set[str]) -> Slot | None:
        """See `Strategy`."""
        skipped, found = list[tuple[int, Slot]](), None
        while self._heap and found is None:
            deadline, at, slot = heapq.heappop(self._heap)
            if slot.instance.id in excluded:
                skipped.append((at, slot))
                continue
            found, slot.turn, self._picks = slot, deadline, self._picks + 1
            heapq.heappush(self._heap, (deadline + 1 / slot.instance.weight, self._picks, slot))
        for at, slot in skipped:  # it is due now, and does not catch up on the time before
            heapq.heappush(self._heap, (deadline, at, slot))
        return found


def _deadline(slot: Slot, now: float) -> float:
    """The deadline of a slot; one that was no candidate does not catch up on the time before."""
    if slot.turn is None:
        slot.turn = now  # it begins to wait
    return max(now, slot.turn + 1 / slot.instance.weight)


#: The strategies by the name that `Services` accepts.
STRATEGIES: dict[str, type[Strategy]] = {
    "least_used": LeastUsed,
    "round_robin": RoundRobin,
    "weight": Weighted,
}


def checked_strategy(pick: object) -> str:
    """Check the name of a strategy.

    Raises:
        ConfigurationError: There is no such strategy.
    """
    if not isinstance(pick, str) or pick not in STRATEGIES:
        refuse("pick", pick, "one of " + ", ".join(map(repr, STRATEGIES)))
    return pick
