"""One connection of one client, whatever carries it: dispatches frames to channels.

A carrier passes in received frames (`receive`), is called when frames are queued (`Carrier`), takes
frames out of the outbox to send them, and calls `finish` at the end.
"""

import asyncio
from functools import partial
from typing import Protocol

from adsum.activetime import ActiveTimer
from adsum.errors import ProtocolError, RefusedError
from adsum.quoting import printable, quoted

from .client import Client
from .flow.fairshare import WORK, FairShare
from .flow.outbox import Closing, Outbox
from .flow.ratelimit import RateLimit
from .process import GRACE, JOIN_CRASHED, ChannelProcess
from .socketparts import SocketParts
from .wire.frames import Frame, Ref, Serializer, Wire
from .wire.prepared import Prepared

#: Close code of an end that the server intends, such as that of `Socket.disconnect`.
_NORMAL = 1000
_EMPTY = "{}"
_UNMATCHED = '{"reason":"unmatched topic"}'
_TOO_MANY_CHANNELS = '{"reason":"too many channels"}'
_TOO_MANY_JOINS = '{"reason":"too many joins"}'


class Carrier(Protocol):
    """Moves the frames of one connection to its client.

    All methods are called in the event loop of the connection, from any of its tasks or callbacks,
    so they must not wait and must not raise.
    """

    def filled(self) -> None:
        """Called when the outbox is no longer empty, or the connection is to end.

        The carrier may take frames later, in a task, or take and write them before it returns. The
        outbox counts a frame before this call, so both are the same to it. A carrier that writes at
        once must return from a nested call that arrives while it takes a frame, and go on taking
        until there is none: making a frame may queue the next one, and order would be lost. It
        takes the rest when its transport has room again; this is not called again before the
        outbox was empty.
        """

    def write(self, frame: Wire | Prepared) -> bool:
        """Write a frame now; False, with nothing written, if it must be queued.

        Called while the outbox is idle, so that the order is kept. A carrier whose transport has no
        room returns False.
        """

    def give_up(self) -> None:
        """Called when the client did not take the end of its connection in time."""


class Connection:
    """Dispatches the frames of one client to its channels, and queues the replies.

    Args:
        shared: Shared by all connections of the `Socket`.
        client: The client.
        serializer: The version of the protocol.
    """

    def __init__(self, shared: SocketParts, client: Client, serializer: Serializer) -> None:
        self.shared = shared
        self._limits = shared.limits
        self._registry = shared.registry
        self.client = client
        #: The client's address, for the log.
        self.address = printable(client.address or "?", 60)
        #: The client's id as `connect` set it; a later change by a channel has no effect here.
        self.id = client.id
        self.serializer = serializer
        #: The event loop of the connection. Once it is closed, nothing of the connection runs.
        self.loop = asyncio.get_running_loop()
        #: The client's share of each turn of that loop; carriers wait for it before `receive`.
        self.share = FairShare()
        self.outbox = Outbox(self._limits.outbox, self._filled, self._drained)
        self.processes: dict[str, ChannelProcess] = {}
        #: Most characters of a topic's presences that the carrier can send; None if unlimited.
        self.longest_state: int | None = None
        # Number of the sweep at which the client last sent anything; that at which it last took a
        # frame or its outbox was at most half full, and the count of frames taken by then.
        self._active_sweep = self._taken_sweep = self._registry.sweeps
        self._taken = 0
        # Runs while the outbox is half full and checks whether the client reads; its last finding.
        self._reading_watch: ActiveTimer | None = None
        self._reads_nothing = False
        self._joins = RateLimit(self._limits.joins, self._limits.interval)
        self._updates = RateLimit(self._limits.updates, self._limits.interval)
        # None before `attach`, and once the connection is abandoned.
        self._carrier: Carrier | None = None
        # Bytes of events that wait to be handled; a future that is done once some were handled or
        # sent.
        self._backlog = 0
        self._room: asyncio.Future[None] | None = None
        # All channels whose mailbox is full; some may have room again. None before the first.
        self._full_processes: list[ChannelProcess] | None = None
        self._deadline: ActiveTimer | None = None
        self._finished = False
        # Channels that have ended but still run `terminate`. None before the first.
        self._endings: set[asyncio.Future[None]] | None = None
        self._logged_bytes = False
        self._registry.add(self)

    # Called by the carrier.

    def attach(self, carrier: Carrier) -> None:
        """Set the carrier, which is called at once if frames are queued already."""
        self._carrier = carrier
        if self.outbox or self.closing is not None:
            carrier.filled()

    def receive(self, data: Wire) -> None:
        """Decode a frame and dispatch it; a frame that cannot be decoded ends the connection.

        Wait for the client's `share` before calling, and for `wait_room` before reading on.
        """
        if self.outbox.closing is not None:
            return
        self._active_sweep = self._registry.sweeps
        self._registry.frames_received += 1
        # The size in bytes; nearly all frames are ASCII.
        size = len(data) if isinstance(data, bytes) or data.isascii() else _size_of(data)
        if size > self._limits.frame_size:
            self._log_disconnect(f"frame of {size} bytes too large")
            self.close(1009, "frame too large")
            return
        try:
            frame = self.serializer.decode(data)
        except ProtocolError as error:
            self._log_disconnect(f"malformed frame: {error}")
            self.close(1011, "not a frame")
            return
        self._dispatch(frame, size)

    def note_activity(self) -> None:
        """Record that the client is active: it has sent a frame or a request."""
        self._active_sweep = self._registry.sweeps

    def is_silent(self, sweeps: int) -> bool:
        """Whether the client was inactive for more than `sweeps` sweeps, and could have acted.

        A client that is not read, because too many of its events wait, cannot show activity by
        sending. A client that is not read because it does not read must take a frame instead.
        """
        now, outbox = self._registry.sweeps, self.outbox
        if not outbox.half_full or outbox.frames != self._taken:
            self._taken_sweep, self._taken = now, outbox.frames
        if outbox.half_full:
            return now - self._taken_sweep > sweeps
        if self._is_behind_with_handling:
            self.note_activity()
        return now - self._active_sweep > sweeps

    @property
    def full(self) -> bool:
        """Backpressure: whether the carrier must pause reading from the client.

        Its queued events have reached their limit, or it reads the replies slowly.
        """
        outbox = self.outbox
        if outbox.closing is not None:
            return False  # nothing is handled any more
        if outbox.half_full and not self._reads_nothing:
            return True
        return self._backlog > self._limits.backlog or (
            bool(self._full_processes) and self._is_behind_with_handling
        )

    @property
    def is_behind_with_reading(self) -> bool:
        """Whether the client reads slowly: its outbox is over half full, but it takes frames.

        A client that took no frame for `GRACE` seconds is read again: then its replies overflow,
        and the end of its connection is noticed. Some servers do not report the end while received
        frames are queued before it.
        """
        return self.outbox.half_full and not self._reads_nothing

    @property
    def _is_behind_with_handling(self) -> bool:
        if self._backlog > self._limits.backlog:
            return True
        full = self._full_processes
        while full and not full[-1].full:
            full.pop()
        return bool(full)

    async def wait_room(self) -> None:
        """Wait until the carrier may read the next frame."""
        while self.full:
            await self._change()

    async def wait_drained(self) -> None:
        """Wait until the outbox has room for a reply, or the connection is closing."""
        while self.is_behind_with_reading and self.closing is None:
            await self._change()

    async def _change(self) -> None:
        """Wait until an event was handled or a frame sent, or the connection ends."""
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._room])  # several may wait

    def note_full(self, process: ChannelProcess) -> None:
        """Record that the mailbox of a channel may have become full."""
        if self._full_processes is None:
            self._full_processes = []
        if process not in self._full_processes:
            self._full_processes.append(process)

    def freed(self, size: int) -> None:
        """Subtract handled or dropped bytes from the backlog, and wake waiting readers."""
        self._backlog -= size
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def finish(self, *, linger: float = 0.0) -> None:
        """End all channels after the client has gone, and wait until they have ended.

        Args:
            linger: Seconds for which the client's presences stay.
        """
        if self._finished:
            return
        self._finished = True
        self.outbox.close(Closing(1006, ""), drop=True)
        self.freed(0)
        for timer in (self._deadline, self._reading_watch):
            if timer is not None:
                timer.cancel()
        self._registry.remove(self)
        processes = list(self.processes.values())
        endings = {process.finished for process in processes}.union(self._endings or ())
        for process in processes:
            self.share.call(WORK, partial(process.end_after, "closed", linger))
        if endings:
            await asyncio.wait(endings)

    # Called by channels and the registry.

    def abandon(self) -> None:
        """Discard a connection whose event loop is closed."""
        self._finished = True
        self._carrier = None
        self.outbox.close(Closing(1006, ""), drop=True)
        self._registry.remove(self)
        for process in self.processes.values():
            process.unsubscribe()
        self.processes.clear()

    @property
    def closing(self) -> Closing | None:
        """Close code and reason; None until the connection is closing."""
        return self.outbox.closing

    def write(self, frame: Wire | Prepared) -> bool:
        """Write a frame at once if no other waits; returns False if it must be queued.

        It raises nothing: a broadcast goes on to the other clients if the transport of one fails.
        """
        outbox, carrier = self.outbox, self._carrier
        if carrier is None or not outbox.idle:
            return False
        try:
            if not carrier.write(frame):
                return False
        except Exception as error:
            self.shared.log.crashed("a frame could not be written", error=error)
            self._give_up()
        else:
            outbox.count(len(frame))
        return True

    def send(self, frame: Wire | Prepared) -> None:
        """Send a frame after all earlier ones: at once if possible, otherwise through the outbox.

        Closes the connection if the outbox is full.
        """
        if not self.write(frame):
            self.queue(frame)

    def queue(self, frame: Wire | Prepared) -> None:
        """Queue a frame that `write` refused; closes the connection if the outbox is full."""
        if not self.outbox.put(frame):
            self.overflow()
        elif self._reading_watch is None and self.outbox.half_full:
            self._watch_reading()

    def _watch_reading(self) -> None:
        self._reading_watch = ActiveTimer(GRACE, partial(self._check_reading, self.outbox.frames))

    def _check_reading(self, frames: int) -> None:
        self._reading_watch = None
        if self.outbox.half_full and self.closing is None:
            self._reads_nothing = self.outbox.frames == frames
            if self._reads_nothing:
                self.freed(0)
            self._watch_reading()  # the client may resume reading, slowly

    def cannot_carry_bytes(self) -> None:
        """Log, once, that a binary payload cannot be sent over this version or transport."""
        if not self._logged_bytes:
            self._logged_bytes = True
            text = (
                "a client at %s cannot receive binary payloads: it polls, uses version 1, or "
                "binary_frames of its socket raised an error"
            )
            self.shared.log.warning(text, self.address, key=self.address)

    def time_out(self) -> None:
        """Close the connection of a silent client, as too slow if its outbox is half full."""
        if self.outbox.half_full:
            self.overflow()
        else:
            # Not `_NORMAL`: after that some clients do not reconnect.
            self.close(1001, "timeout")

    def overflow(self) -> None:
        """Close the connection and drop queued frames: the client reads too slowly."""
        if self.closing is None:
            self._log_disconnect("it does not read its frames")
            self.close(1013, "too slow", drop=True)

    def close(self, code: int, reason: str, *, drop: bool = False) -> None:
        """Close the connection: its queued frames are sent first, or dropped. Idempotent.

        A client that does not take the close within `GRACE` seconds of active time is given up.
        """
        if self.closing is None:
            self.outbox.close(Closing(code, reason), drop=drop)
            self._deadline = ActiveTimer(GRACE, self._give_up)
            end = partial(ChannelProcess.end_after, reason="closed", intended=code == _NORMAL)
            for process in list(self.processes.values()):
                self.share.call(WORK, partial(end, process))
            self.freed(0)

    def forget(self, process: ChannelProcess) -> None:
        """Remove a channel that has ended; `finish` waits for its `terminate`."""
        if not process.finished.done():
            if self._endings is None:
                self._endings = set()
            self._endings.add(process.finished)
            process.finished.add_done_callback(self._endings.discard)
        if self.processes.get(process.topic) is process:
            del self.processes[process.topic]

    def count_update(self) -> None:
        """Count one track or update against the rate limit of presences.

        Raises:
            RefusedError: The limit of the interval is exceeded.
        """
        if not self._updates.allows(self.loop.time()):
            raise RefusedError("too many presence updates")

    # Dispatch of frames.

    def _dispatch(self, frame: Frame, size: int) -> None:
        process = self.processes.get(frame.topic)
        if frame.event == "phx_join":
            self._join(frame, size)
        elif frame.event == "heartbeat" and frame.topic == "phoenix":
            self._reply(None, frame, "ok", _EMPTY)
        elif process is not None and process.means(frame.join_ref):
            self._backlog += size
            process.receive(frame, size)
        elif frame.event == "phx_leave":
            self._reply(frame.join_ref, frame, "ok", _EMPTY)
        else:
            self._reply(None, frame, "error", _UNMATCHED)

    def _join(self, frame: Frame, size: int) -> None:
        found = self.shared.routes.find(frame.topic)
        before = self.processes.get(frame.topic)
        if not self._joins.allows(self.loop.time()):
            self._reply(frame.join_ref, frame, "error", _TOO_MANY_JOINS)
        elif found is None:
            text = "a join of a client at %s was refused: no channel matches the topic %s"
            self.shared.log.warning(text, self.address, quoted(frame.topic), key=self.address)
            self._reply(None, frame, "error", _UNMATCHED)
        elif before is None and len(self.processes) >= self._limits.channels:
            self._reply(frame.join_ref, frame, "error", _TOO_MANY_CHANNELS)
        else:
            kind, params = found
            if before is not None:
                before.end_after("replaced")
            finished = None if before is None else before.finished
            try:
                process = ChannelProcess(self, kind, params, frame)
            except Exception as error:
                text = "a %s could not be constructed"
                self.shared.log.crashed(text, kind.__name__, error=error)
                self._reply(frame.join_ref, frame, "error", JOIN_CRASHED)
            else:
                self._backlog += size
                self.processes[frame.topic] = process
                process.begin(frame, size, finished)

    def _reply(self, join_ref: Ref, frame: Frame, status: str, response: str) -> None:
        self.send(self.serializer.reply(join_ref, frame.ref, frame.topic, status, response))

    def _log_disconnect(self, reason: str) -> None:
        """Log why the client is disconnected, without its data."""
        id = quoted(self.id or "no id")
        text = "a client at %s (%s) was disconnected: %s"
        self.shared.log.warning(text, self.address, id, reason, key=self.address)

    def _filled(self) -> None:
        if self._carrier is not None:
            self._carrier.filled()

    def _drained(self) -> None:
        self._reads_nothing = False
        self.freed(0)

    def _give_up(self) -> None:
        if not self._finished and self._carrier is not None:
            self._carrier.give_up()


def _size_of(data: str) -> int:
    return len(data.encode(errors="surrogatepass"))
