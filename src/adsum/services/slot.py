"""`Slot`: one instance with its local state: uses, failures, rest."""

from .instance import Instance

#: Seconds that an instance rests at most, unless `rest` is longer.
MAX_REST = 60.0
#: Failures in a row that lengthen the rest.
_MAX_DOUBLINGS = 16


class Slot:
    """An instance and its state at this resolver. Dropped when the instance departs.

    Invariant: the rest grows once for each rest, not once for each failure. When a process is
    killed, all its open requests fail together, and that is one failure.
    """

    __slots__ = ("failures", "instance", "picked", "rests_until", "turn", "uses")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        #: Requests that use it at this moment.
        self.uses = 0
        #: Rests since the last success.
        self.failures = 0
        #: The time until which it is skipped.
        self.rests_until = float("-inf")
        #: The number of the last resolve that returned it; 0 before the first one.
        self.picked = 0
        #: The time of its last turn with the strategy `Weighted`, or since which it waits for its
        #: first; None before. A time of the strategy, of which each pick takes the next deadline.
        self.turn: float | None = None

    def fail(self, now: float, rest: float) -> bool:
        """Let it rest, twice as long as the last time; returns whether a rest begins."""
        if self.rests_until > now or rest <= 0:
            return False
        most = max(MAX_REST, rest)
        self.rests_until = now + min(most, rest * 2 ** min(self.failures, _MAX_DOUBLINGS))
        self.failures += 1
        return True

    def succeed(self) -> bool:
        """End its rest; returns whether there was one since the last success."""
        rested, self.failures = self.failures > 0, 0
        self.rests_until = float("-inf")
        return rested
