"""The clock of one engine: active time for liveness, elapsed time for goodbyes.

*Active time* stands still while the process does not run (Lifeguard: Dadgar, Phillips, Currey
2018). An engine asks to be called at least once in its *patience*. A longer gap between two calls
is this node's own absence, and a step back is a broken clock; neither says anything about other
nodes, so a gap counts for no more than the patience. *Elapsed time* is monotonic time since the
start.
"""


class Clock:
    """Computes active and elapsed time, in seconds, from the monotonic time of each call.

    Args:
        now: The present, in monotonic seconds.
        heartbeat_interval: Seconds between heartbeats.
    """

    def __init__(self, now: float, heartbeat_interval: float) -> None:
        #: Active seconds since the start.
        self.active = 0.0
        #: Elapsed seconds since the start.
        self.elapsed = 0.0
        self._last_call = now
        self._heartbeat_interval = heartbeat_interval
        # Seconds of the last absence, and the elapsed time at which it ended.
        self._absence = 0.0
        self._back_at = float("-inf")

    def advance(self, now: float, patience: float) -> None:
        """Advance both times to a call; no more than `patience` counts as active.

        Args:
            now: Monotonic seconds.
            patience: Seconds after the last call within which this one was requested.
        """
        gap = max(0.0, now - self._last_call)
        counted = min(gap, patience)
        before = self.recent_absence
        self._last_call = now
        self.active += counted
        self.elapsed += gap
        if gap - counted > self._heartbeat_interval:
            self._absence = gap + before
            self._back_at = self.elapsed

    @property
    def recent_absence(self) -> float:
        """Seconds for which the process did not run, if that ended within the last heartbeat.

        Absences of less than a heartbeat do not count.
        """
        recent = self.elapsed - self._back_at <= self._heartbeat_interval
        return self._absence if recent else 0.0

    def monotonic_at(self, active: float, elapsed: float) -> float:
        """The monotonic time at which the earlier of two deadlines comes."""
        return self._last_call + max(0.0, min(active - self.active, elapsed - self.elapsed))
