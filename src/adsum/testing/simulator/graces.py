"""The law of grace: a broken presence is shown until its deadline, or until its owner returns.

`Graces` records the lingering presences of one replica, apart from the code under test. The law:

* from the moment at which a presence breaks until its deadline, in active time, it is in the slice
  of its node, and is shown wherever that slice is shown;
* it ends at its deadline, neither earlier nor later, unless it was taken over or its end was
  intended;
* it is taken over by its heirs alone, and of several presences the one with the earliest deadline.
  If there is one, no other presence is tracked instead.
"""

from dataclasses import dataclass

from adsum.replication.entry import ID, KEY, TOPIC, Entry
from adsum.replication.grace import Claim

#: Seconds by which two computations of one deadline may differ.
_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True)
class Graced:
    """One lingering presence: its topic and key, its deadline in active seconds, and its claim."""

    topic: str
    key: str
    deadline: float
    claim: Claim | None

    def may_pass_to(self, claim: Claim) -> bool:
        """Whether an owner may take the presence over."""
        return self.claim is not None and self.claim.heir == claim.heir


class Graces:
    """The lingering presences of one replica, by id."""

    def __init__(self) -> None:
        self.pending: dict[int, Graced] = {}

    def begin(self, entry: Entry, deadline: float, claim: Claim | None) -> None:
        """Record that a presence broke; a new grace replaces the one that it has."""
        self.pending[entry[ID]] = Graced(entry[TOPIC], entry[KEY], deadline, claim)

    def end(self, id: int) -> None:
        """Record the end of a presence, or of its grace. Idempotent."""
        self.pending.pop(id, None)

    def heir_of(self, topic: str, key: str, claim: Claim) -> int | None:
        """The id of the presence that an owner has to be given; None if there is none."""
        fitting = [
            (one.deadline, id)
            for id, one in self.pending.items()
            if (one.topic, one.key) == (topic, key) and one.may_pass_to(claim)
        ]
        return min(fitting)[1] if fitting else None

    def expiry_violation(self, entry: Entry, active: float) -> str | None:
        """The violation if a presence expires at an active time; None if it is due."""
        one = self.pending.get(entry[ID])
        if one is None:
            return f"the grace of {entry[KEY]!r} ends, though it has none"
        if active + _ROUNDING < one.deadline:
            return f"{entry[KEY]!r} departs {one.deadline - active:g} s before its deadline"
        return None

    def overdue(self, active: float, tolerance: float) -> str | None:
        """The violation if a presence has outlived its deadline by more than a tolerance."""
        for id, one in self.pending.items():
            if active - one.deadline > tolerance:
                return f"{one.key!r} ({id}) stays {active - one.deadline:g} s after its deadline"
        return None

    def left(self, active: float) -> float:
        """Active seconds until no presence lingers any longer."""
        return max((one.deadline - active for one in self.pending.values()), default=0.0)
