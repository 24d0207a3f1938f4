"""`RateLimit`: a rate limiter for the joins and the presence updates of one client."""


class RateLimit:
    """A rate limiter that counts events in fixed intervals."""

    __slots__ = ("_began", "_count", "_interval", "_limit")

    def __init__(self, limit: int, interval: float) -> None:
        self._limit = limit
        self._interval = interval
        self._began = 0.0
        self._count = 0

    def allows(self, now: float) -> bool:
        """Count one event; returns whether it is within the limit of its interval.

        Args:
            now: The current time, in monotonic seconds.
        """
        if now - self._began >= self._interval:
            self._began, self._count = now, 0
        self._count += 1
        return self._count <= self._limit
