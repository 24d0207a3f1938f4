"""`Directory`: the instances of one service, ready to be picked.

Invariants:

- The slots are exactly the instances that the node lists: the first ones are read when the
  directory begins, and each change is applied once.
- Pools are derived from slots, availability and rests, and dropped whenever one of these changes.
  So a resolve in between costs a few comparisons and one pick.
"""

import logging
from collections.abc import Iterable, Set
from typing import NamedTuple

from adsum.driver.driver import Driver
from adsum.quoting import quoted
from adsum.replication.entry import KEY, NAME, Entry, Transition
from adsum.sparselog import SparseLogger

from .availability import Availability
from .instance import Instance, decode_instance, id_of
from .pick import STRATEGIES, Strategy
from .slot import Slot

_log = SparseLogger(logging.getLogger("adsum.services"))


class Pool(NamedTuple):
    """The candidates for one tag and one strategy.

    Attributes:
        ready: Picks among those that are available and do not rest.
        spare: Picks among the others, if there is none of the first.
    """

    ready: Strategy
    spare: Strategy


class Directory:
    """The instances of one service, as one run of a node lists them.

    Args:
        name: The name of the service.
        driver: The run.
        availability: The members of the run that may be gone.
        entries: The entries of the service.
    """

    def __init__(
        self, name: str, driver: Driver, availability: Availability, entries: Iterable[Entry]
    ) -> None:
        self.name = name
        self._driver = driver
        self._availability = availability
        self._slots: dict[str, Slot] = {}
        # All instances, sorted; None if they have changed since they were asked for.
        self._instances: tuple[Instance, ...] | None = None
        # By tag and strategy. A tag that no instance has is not stored.
        self._pools: dict[tuple[str | None, str], Pool] = {}
        # The version of the availability that the pools have.
        self._version = -1
        # The time at which the first rest ends; infinite if none rests.
        self._rest_ends_at = float("inf")
        self._picks = 0
        self.apply([(None, entry) for entry in entries])

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances, in the same order on every node."""
        if self._instances is None:
            found = (slot.instance for slot in self._slots.values())
            self._instances = tuple(sorted(found, key=lambda i: (i.address, i.node, i.id)))
        return self._instances

    def apply(self, transitions: Iterable[Transition]) -> None:
        """Apply changes of the entries."""
        self._instances = None
        for old, new in transitions:
            entry = new or old
            if entry is not None:
                self._set(id_of(entry), None if new is None else self._decode(new))

    def find(self, id: str) -> Slot | None:
        """The slot of an instance; None if it has departed."""
        return self._slots.get(id)

    def pick(self, tag: str | None, strategy: str, excluded: Set[str]) -> Slot | None:
        """Pick an instance; None if there is none with the tag, weight and not excluded."""
        if self._version != self._availability.version() or self._has_rested():
            self.renew()
        pool = self._pools.get((tag, strategy))
        if pool is None:
            pool = self._make_pool(tag, strategy)
        slot = pool.ready.pick(excluded) or pool.spare.pick(excluded)
        if slot is not None:
            self._picks += 1
            slot.picked = self._picks
        return slot

    def renew(self) -> None:
        """Sort the instances again into those to use and those to skip."""
        self._pools.clear()
        self._version = self._availability.version()
        now = self._driver.now
        rests = [slot.rests_until for slot in self._slots.values() if slot.rests_until > now]
        self._rest_ends_at = min(rests, default=float("inf"))

    def _has_rested(self) -> bool:
        at = self._rest_ends_at
        return at < float("inf") and self._driver.now >= at

    def _decode(self, entry: Entry) -> Instance | None:
        """The instance of an entry; None if another program has tracked one of another form."""
        found = decode_instance(self.name, entry)
        if found is None:
            text = "a presence of node %s was skipped: %s is no instance of service %s"
            shown = quoted(entry[NAME]), quoted(entry[KEY]), quoted(self.name)
            _log.warning(text, *shown, key=entry[NAME])
        return found

    def _set(self, id: str, instance: Instance | None) -> None:
        """Add, replace or remove an instance; pools are kept if just its meta has changed."""
        slot = self._slots.get(id)
        if instance is None:
            if self._slots.pop(id, None) is not None:
                self._pools.clear()
        elif slot is None:
            self._slots[id] = Slot(instance)
            self._pools.clear()
        else:
            before, slot.instance = slot.instance, instance
            if (before.tags, before.weight) != (instance.tags, instance.weight):
                self._pools.clear()

    def _make_pool(self, tag: str | None, strategy: str) -> Pool:
        slots = [slot for slot in self._slots.values() if _accepts(slot.instance, tag)]
        slots.sort(key=lambda slot: slot.picked)
        now, doubtful = self._driver.now, self._availability.doubtful
        ready = [s for s in slots if s.instance.node not in doubtful and s.rests_until <= now]
        spare = [s for s in slots if s.instance.node in doubtful or s.rests_until > now]
        pool = Pool(STRATEGIES[strategy](ready), STRATEGIES[strategy](spare))
        if slots:
            self._pools[tag, strategy] = pool
        return pool


def _accepts(instance: Instance, tag: str | None) -> bool:
    return instance.weight > 0 and (tag is None or tag in instance.tags)
