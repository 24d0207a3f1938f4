"""The most that one client may cost, and how what it does in an interval is counted."""

from dataclasses import dataclass, fields

from adsum.arguments import seconds_above_zero, whole


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one client may cost. What goes beyond is refused, and told to the client.

    Attributes:
        frame_size: Bytes of one frame that a client sends; beyond, the connection ends with 1009.
        channels: Topics that one connection is on at a time; beyond, ``too many channels``.
        joins: Joins of one connection in an interval; beyond, ``too many joins``.
        updates: Presences tracked and updated for one connection in an interval; beyond,
            `track` and `update` raise `RefusedError`: ``too many presence updates``.
        interval: Seconds in which joins and updates are counted.
        waiting: Events of one channel that wait to be handled; beyond, the client is read no
            further until some are. Also broadcasts that wait for a filter; beyond, the channel
            crashes.
        backlog: Bytes of one connection that wait to be handled; beyond, likewise.
        outbox: Bytes that wait to be sent to one client, presences not counted, for these are
            merged. Above half, the client is read no further; beyond, the connection ends with
            1013, and the client connects again.
        connections: Connections of one process, with those that `connect` decides about and those
            that were given up but whose sockets the server still holds; beyond, they are refused
            with 503.

    Raises:
        ConfigurationError: One is not a whole number from 1, or `interval` not above 0.
    """

    frame_size: int = 64 * 1024
    channels: int = 100
    joins: int = 100
    updates: int = 100
    interval: float = 10.0
    waiting: int = 100
    backlog: int = 256 * 1024
    outbox: int = 4 * 1024 * 1024
    connections: int = 100_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                whole(field.name, value, 1)
            else:
                seconds_above_zero(field.name, value)


class Meter:
    """Counts what happens in each interval."""

    __slots__ = ("_began", "_count", "_interval", "_limit")

    def __init__(self, limit: int, interval: float) -> None:
        self._limit = limit
        self._interval = interval
        self._began = 0.0
        self._count = 0

    def allows(self, now: float) -> bool:
        """Count one more; whether it is within the limit.

        Args:
            now: The present, in monotonic seconds.
        """
        if now - self._began >= self._interval:
            self._began, self._count = now, 0
        self._count += 1
        return self._count <= self._limit
