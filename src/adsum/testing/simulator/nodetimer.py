"""A timer of a simulated node: it fires at a time of the node's own clock, in virtual time."""

from collections.abc import Callable
from functools import partial

from adsum.replication.engine import RESOLUTION

from .network import VirtualClock


class NodeTimer:
    """Calls a function when the clock of a node reaches the earliest time that was set.

    Args:
        clock: Virtual time.
        now: Reads the monotonic clock of the node, which may jump.
        action: The function; the timer is clear when it is called.
    """

    def __init__(
        self, clock: VirtualClock, now: Callable[[], float], action: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._now = now
        self._action = action
        self._at = float("inf")

    def set(self, at: float) -> None:
        """Fire at a time of the node's clock, unless an earlier one is set."""
        if at < self._at:
            self._at = at
            self._clock.call_later(at - self._now(), partial(self._due, at))

    def clear(self) -> None:
        """Forget the time that is set."""
        self._at = float("inf")

    def _due(self, at: float) -> None:
        if at != self._at:
            return
        self._at = float("inf")
        if self._now() < at - RESOLUTION:
            self.set(at)  # the clock was set back meanwhile
        else:
            self._action()
