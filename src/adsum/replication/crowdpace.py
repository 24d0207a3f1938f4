"""The pace of one node: how its heartbeats, and its patience with those of others, slow down.

Over a carrier a heartbeat costs one publish and a delivery at each other node, N * N deliveries in
all. So beyond `Timing.crowd` members the interval grows in proportion to their number, and with it
every deadline that counts heartbeats. Without a limit, as on links of their own, nothing changes.

Theory of operation
===================

Each node computes its pace from the members that it knows. These numbers differ for a moment, and
they change, also suddenly: a partition may end half of the members at once.

* **Heartbeats follow the number at once**, up and down. Only members that are alive here count.
* **Deadlines follow a rising number at once**, and members count that a digest has just listed, so
  a newcomer has the patience of its peers with their first digest.
* **Deadlines follow a falling number late**: a deadline covers the largest number in force at any
  time since it began. The numbers of one *span*, which is as long as `down_after`, count for the
  next span as well.

Invariant: a node never declares a peer silent that sends each heartbeat within its own interval,
while the numbers of both differ by less than `down_after / heartbeat_interval`, 6 by default, less
the time that a heartbeat is under way. When a heartbeat is received, the receiver's patience is at
least `down_after / heartbeat_interval` of its own intervals. It does not become less while that
time runs: within the span because it only grows, in the next one because it begins with the
largest number of this one, and that next span is as long as the patience itself.
"""

from .timing import Timing


class CrowdPace:
    """The durations of one node that grow with the number of members.

    Attributes:
        heartbeat_interval: Seconds until the next heartbeat of this node.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self.heartbeat_interval = timing.heartbeat_interval
        # The factor of all deadlines, and the largest factor seen in this span.
        self._factor = self._largest = 1.0
        # When this span ends, in active time.
        self._span_ends_at = 0.0

    @property
    def longest_interval(self) -> float:
        """Seconds between two heartbeats of any member, at most."""
        return self._timing.heartbeat_interval * self._factor

    @property
    def down_after(self) -> float:
        """Seconds without an advance of its counter after which a replica is down."""
        return self._timing.down_after * self._factor

    @property
    def vouch_grace(self) -> float:
        """Seconds for which a vouch is valid: until the next heartbeat should have been relayed."""
        return 1.5 * self.longest_interval

    def beat(self, alive: int, now: float) -> None:
        """Adapt to the number of members at a heartbeat of this node.

        Args:
            alive: The members that are alive here, this node included.
            now: Active time.
        """
        self.heartbeat_interval = self._timing.heartbeat_interval * self._factor_of(alive)
        if now >= self._span_ends_at:
            self._factor, self._largest = self._largest, 1.0
        self.expect(alive)
        if now >= self._span_ends_at:
            self._span_ends_at = now + self.down_after

    def expect(self, members: int) -> None:
        """Raise the deadlines to a number of members; they may not be alive here yet."""
        factor = self._factor_of(members)
        self._largest = max(self._largest, factor)
        self._factor = max(self._factor, factor)

    def _factor_of(self, members: int) -> float:
        return max(1.0, members / self._timing.crowd)
