"""`Registry`: the connections of a socket, their limit, their silence and their counters."""

import asyncio
import math
import sys
from collections import deque
from typing import Any, Protocol

from adsum.activetime import ActiveTimer
from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.sparselog import SparseLogger
from adsum.tasks import in_slices, start_task

from .disconnects import Closable, Disconnects
from .flow.fairshare import WORK
from .flow.outbox import Outbox
from .limits import Limits

#: Seconds of active time between two sweeps for silent clients.
_SWEEP_INTERVAL = 5.0


class Registered(Closable, Protocol):
    """A connection, as the registry uses it."""

    outbox: Outbox
    loop: asyncio.AbstractEventLoop

    def is_silent(self, sweeps: int) -> bool:
        """Whether the client was inactive for more than `sweeps` sweeps, and could have acted."""

    def time_out(self) -> None:
        """Close the connection of a silent client."""

    def abandon(self) -> None:
        """Discard the connection: its event loop is closed."""


class Registry(Observer):
    """The connections of one socket.

    Args:
        node: The node of the socket.
        limits: Resource limits for each client.
        timeout: Seconds of silence after which a client is considered gone.
        log: The log of the socket, flushed when the node stops.
    """

    def __init__(self, node: Node, limits: Limits, timeout: float, log: SparseLogger) -> None:
        self._node = node
        self._limits = limits
        self._log = log
        self._disconnects = Disconnects.of(node)
        self._sweep_interval = min(_SWEEP_INTERVAL, timeout / 4)
        # A client silent for more sweeps than this has exceeded the timeout.
        sweeps = timeout / self._sweep_interval
        self._silent_sweeps = math.ceil(sweeps) if math.isfinite(sweeps) else sys.maxsize
        #: Number of sweeps so far: the clock for the silence of clients. It stands still while this
        #: process is stopped or blocked, so a client is not timed out for frames not read then.
        self.sweeps = 0
        self.connections: set[Registered] = set()
        #: Connections that were given up and whose end the server has not reported: they serve no
        #: client any more, but still occupy their sockets.
        self.given_up: set[Registered] = set()
        #: Clients for which `connect` is still running: a future that is done when each has gone.
        self.admissions: set[asyncio.Future[Any]] = set()
        #: Number of channels that are sent the broadcasts of their topics.
        self.channels = 0
        #: Frames received since the process began.
        self.frames_received = 0
        # Totals of the connections that have ended.
        self._frames_sent = self._bytes_sent = 0
        self._sweeper: ActiveTimer | None = None
        self._sweeping: asyncio.Task[None] | None = None
        # Deadlines of lingering presences of ended connections, in seconds of the event loop,
        # earliest first.
        self._lingering: deque[float] = deque()

    def add(self, connection: Registered) -> None:
        """Register a new connection."""
        self.connections.add(connection)
        self._disconnects.add(connection)
        if self._sweeper is None:
            self._sweeper = ActiveTimer(self._sweep_interval, self._sweep)

    def remove(self, connection: Registered) -> None:
        """Remove a connection that has ended, and add its counters to the totals."""
        self.connections.discard(connection)
        self._disconnects.remove(connection)
        self._frames_sent += connection.outbox.frames
        self._bytes_sent += connection.outbox.sent
        if not self.connections and self._sweeper is not None:
            self._sweeper.cancel()  # the next connection may be in another event loop
            self._sweeper = self._sweeping = None

    @property
    def is_full(self) -> bool:
        """Whether `Limits.connections` is reached, connections that begin or end included."""
        count = len(self.connections) + len(self.given_up) + len(self.admissions)
        return count >= self._limits.connections

    def lingers(self, *, restarts: bool = False) -> float:
        """Seconds for which the presences of an ending connection stay.

        They stay if the node is about to stop. A client that fakes the close code of a server
        restart gains no more than by staying connected: lingering presences count as connections.

        Args:
            restarts: Whether the connection was closed because its server restarts.
        """
        if not (restarts or self._node.stopping):
            return 0.0
        linger, now = self._node.settings.linger, asyncio.get_running_loop().time()
        while self._lingering and self._lingering[0] <= now:
            self._lingering.popleft()
        if not linger or len(self.connections) + len(self._lingering) >= self._limits.connections:
            return 0.0
        self._lingering.append(now + linger)
        return linger

    def stats(self) -> dict[str, int]:
        """Counters and gauges of the connections, see `Socket.stats`."""
        outboxes = [connection.outbox for connection in self.connections]
        return {
            "connections": len(outboxes) + len(self.given_up),
            "channels": self.channels,
            "received_frames_total": self.frames_received,
            "sent_frames_total": self._frames_sent + sum(outbox.frames for outbox in outboxes),
            "sent_bytes_total": self._bytes_sent + sum(outbox.sent for outbox in outboxes),
        }

    # Silent clients.

    def _sweep(self) -> None:
        """Close the connections of clients that have been silent for too long."""
        self.sweeps += 1
        self._sweeper = ActiveTimer(self._sweep_interval, self._sweep)
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = start_task(self._close_silent())

    async def _close_silent(self) -> None:
        async for part in in_slices(list(self.connections)):
            for connection in part:
                if connection.is_silent(self._silent_sweeps):
                    connection.share.call(WORK, connection.time_out)

    # Events from the node.

    def closed(self) -> None:
        """See `Observer`: clients reconnect, to another node or to the next run of this one."""
        self._log.flush()
        self._lingering.clear()
        self.given_up = {one for one in self.given_up if not one.loop.is_closed()}
        self.admissions = {one for one in self.admissions if not one.get_loop().is_closed()}
        for connection in list(self.connections):
            if connection.loop.is_closed():
                connection.abandon()
            else:
                connection.close(1012, "the server restarts")

    def forked(self) -> None:
        """See `Observer`: the clients are connected to the parent."""
        self.connections, self.given_up, self.admissions = set(), set(), set()
        self.channels = 0
        self._sweeper = self._sweeping = None
        self._lingering.clear()
