"""`Limits`: the resource limits of each client of a socket."""

from dataclasses import dataclass, fields

from adsum.arguments import seconds_above_zero, whole


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits for each client.

    The client is sent an error or a close code when it exceeds a limit.

    Attributes:
        frame_size: Bytes of one frame from a client; a larger frame closes the connection with
            code 1009.
        channels: Channels of one connection at a time; further joins are refused with
            ``too many channels``.
        joins: Joins of one connection in an interval; further joins are refused with
            ``too many joins``.
        updates: Presences tracked and updated by one connection in an interval; beyond, `track`
            and `update` raise `RefusedError`: ``too many presence updates``.
        interval: Seconds in which joins and updates are counted.
        waiting: Events queued for one channel; beyond, the server stops reading from the client
            until some are handled (backpressure). Also broadcasts that wait for a filter; beyond,
            the channel crashes.
        backlog: Bytes of events queued for one connection; beyond, reading stops likewise.
        outbox: Bytes of frames queued for one client, without presences, since these are merged.
            Above half, the server stops reading from the client; beyond, the connection is closed
            with code 1013, and the client reconnects.
        connections: Connections of one process, including those for which `connect` still runs,
            and those that were given up but whose sockets the server still holds; further ones are
            refused with status 503.

    Raises:
        ConfigurationError: A limit is not a whole number from 1, or `interval` is not above 0.
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
