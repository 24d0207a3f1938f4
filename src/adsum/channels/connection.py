"""One connection of one client, whatever carries its frames: from frames to channels, and back.

A transport gives it what the client sends (`receive`), is told when there is something to send
(`attach`), takes that out of the outbox, and at the end calls `finish`.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from adsum.activetime import ActiveTimer
from adsum.errors import ProtocolError, RefusedError
from adsum.quoting import printable, quoted

from .client import Client
from .fairshare import WORK, FairShare
from .frames import Frame, Ref, Serializer, Wire
from .limits import Meter
from .membership import GRACE, JOIN_CRASHED, Membership
from .outbox import Closing, Outbox

if TYPE_CHECKING:
    from .hub import Hub

_EMPTY = "{}"
_UNMATCHED = '{"reason":"unmatched topic"}'
_TOO_MANY_CHANNELS = '{"reason":"too many channels"}'
_TOO_MANY_JOINS = '{"reason":"too many joins"}'


class Connection:
    """See the module.

    Args:
        hub: What all connections of the `Socket` share.
        client: Who it is.
        serializer: The version of the protocol.
    """

    def __init__(self, hub: "Hub", client: Client, serializer: Serializer) -> None:
        self.hub = hub
        self.client = client
        #: Where the client is, for the log.
        self.address = printable(client.address or "?", 60)
        #: What `connect` made the client's id; a channel that sets another one changes nothing.
        self.id = client.id
        self.serializer = serializer
        #: Where it lives. If that was closed, nothing of it runs any more.
        self.loop = asyncio.get_running_loop()
        #: What it costs in each turn of that loop; transports wait for it before `receive`.
        self.share = FairShare()
        self.outbox = Outbox(hub.limits.outbox, self._filled, self._drained)
        self.memberships: dict[str, Membership] = {}
        #: Characters in the presences of a topic that the transport can carry; None if any number.
        self.longest_state: int | None = None
        # After which sweep the client was heard last; after which it took a frame last or had taken
        # most of them, and how many it had taken then.
        self._heard_at = self._took_at = hub.sweeps
        self._taken = 0
        # Looks, while the outbox is half full, whether the client reads; and whether it does not.
        self._reading_watch: ActiveTimer | None = None
        self._reads_nothing = False
        self._joins = Meter(hub.limits.joins, hub.limits.interval)
        self._updates = Meter(hub.limits.updates, hub.limits.interval)
        # What the transport does when there is something to send, and to end at once.
        self._filled_hook: Callable[[], None] = _nothing
        self._abort_hook: Callable[[], None] = _nothing
        # Bytes that wait to be handled; done once there are fewer, or fewer that wait to be sent.
        self._backlog = 0
        self._room: asyncio.Future[None] | None = None
        self._deadline: ActiveTimer | None = None
        self._finished = False
        # Of the channels that have ended already, and still do what they do about that.
        self._endings: set[asyncio.Future[None]] = set()
        self._told_of_bytes = False
        hub.add(self)

    # For the transport.

    def attach(self, filled: Callable[[], None], abort: Callable[[], None]) -> None:
        """Say what to call when there is something to send, and when to give the client up."""
        self._filled_hook, self._abort_hook = filled, abort
        if self.outbox or self.closing is not None:
            filled()

    def receive(self, data: Wire) -> None:
        """Do what the client sent, or begin to; garbage ends the connection.

        Wait for the client's `share` before, and do not read on before there is `room`.
        """
        if self.outbox.closing is not None:
            return
        hub = self.hub
        self._heard_at = hub.sweeps
        hub.frames_received += 1
        size = _size_of(data)
        if size > hub.limits.frame_size:
            self._complain(f"a frame of {size} bytes")
            self.close(1009, "frame too large")
            return
        try:
            frame = self.serializer.decode(data)
        except ProtocolError as error:
            self._complain(str(error))
            self.close(1011, "not a frame")
            return
        self._dispatch(frame, size)

    def heard(self) -> None:
        """The client has sent something, or asked for something."""
        self._heard_at = self.hub.sweeps

    def is_silent(self, sweeps: int) -> bool:
        """Whether the client has done nothing during so many sweeps that it could have done.

        It need not send while it is not read, as too much of what it sent waits to be handled. If
        it is not read because it does not read, then it has to take a frame.
        """
        now, outbox = self.hub.sweeps, self.outbox
        if not outbox.half_full or outbox.frames != self._taken:
            self._took_at, self._taken = now, outbox.frames
        if outbox.half_full:
            return now - self._took_at > sweeps
        if self._is_behind_with_handling:
            self.heard()
        return now - self._heard_at > sweeps

    @property
    def full(self) -> bool:
        """Whether the client is not to be read on.

        As much of what it sent waits to be handled as may, or it is slow to read the replies.
        """
        outbox = self.outbox
        if outbox.closing is not None:
            return False  # nothing is handled any more
        if outbox.half_full and not self._reads_nothing:
            return True
        # An event has at least one byte: fewer bytes than events may wait are not too many.
        return self._backlog >= self.hub.limits.waiting and self._is_behind_with_handling

    @property
    def is_behind_with_reading(self) -> bool:
        """Whether the client reads slowly.

        One that took no frame for a while is read on: then its replies overflow, and the end of its
        connection is noticed. Some servers report no end while frames wait in front of it.
        """
        return self.outbox.half_full and not self._reads_nothing

    @property
    def _is_behind_with_handling(self) -> bool:
        if self._backlog > self.hub.limits.backlog:
            return True
        for membership in self.memberships.values():  # noqa: SIM110  # for each frame: `any` is slow
            if membership.full:
                return True
        return False

    async def room(self) -> None:
        """Wait until the client may be read further."""
        while self.full:
            await self._change()

    async def drained(self) -> None:
        """Wait until there is room for a reply, or none is needed any more."""
        while self.is_behind_with_reading and self.closing is None:
            await self._change()

    async def _change(self) -> None:
        """Wait until something was handled or sent, or the connection ends."""
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._room])  # several may wait

    def freed(self, size: int) -> None:
        """So many bytes of what the client sent have been handled, or dropped."""
        self._backlog -= size
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def finish(self, *, linger: float = 0.0) -> None:
        """The client is gone: end its channels, and wait until they have.

        Args:
            linger: Seconds for which its presences stay.
        """
        if self._finished:
            return
        self._finished = True
        self.outbox.close(Closing(1006, ""), drop=True)
        self.freed(0)
        for timer in (self._deadline, self._reading_watch):
            if timer is not None:
                timer.cancel()
        self.hub.remove(self)
        memberships = list(self.memberships.values())
        endings = self._endings | {membership.finished for membership in memberships}
        for membership in memberships:
            self.share.call(WORK, partial(membership.end_after, "closed", linger))
        if endings:
            await asyncio.wait(endings)

    # For channels, and the hub.

    def abandon(self) -> None:
        """Forget a connection whose event loop is closed."""
        self._finished = True
        self.attach(_nothing, _nothing)
        self.outbox.close(Closing(1006, ""), drop=True)
        self.hub.remove(self)
        for membership in self.memberships.values():
            self.hub.unsubscribe(membership)
        self.memberships.clear()

    @property
    def closing(self) -> Closing | None:
        """How the connection ends, once it does."""
        return self.outbox.closing

    def send(self, frame: Wire) -> None:
        """Send a frame, in order."""
        if not self.outbox.put(frame):
            self.overflow()
        elif self._reading_watch is None and self.outbox.half_full:
            self._watch_reading()

    def _watch_reading(self) -> None:
        self._reading_watch = ActiveTimer(GRACE, partial(self._look_at_reading, self.outbox.frames))

    def _look_at_reading(self, frames: int) -> None:
        self._reading_watch = None
        if self.outbox.half_full and self.closing is None:
            self._reads_nothing = self.outbox.frames == frames
            if self._reads_nothing:
                self.freed(0)
            self._watch_reading()  # a client that was away may read again, and be slow

    def cannot_carry_bytes(self) -> None:
        """Bytes were for the client, whose version or transport has no room for them."""
        if not self._told_of_bytes:
            self._told_of_bytes = True
            text = "a client at %s gets no binary payloads: it polls, or speaks version 1"
            self.hub.log.warning(text, self.address, key=self.address)

    def time_out(self) -> None:
        """Close a client that is silent; one that is not read is so because it does not read."""
        if self.outbox.half_full:
            self.overflow()
        else:
            # Not 1000: clients that are told that all is well do not come back.
            self.close(1001, "timeout")

    def overflow(self) -> None:
        """The client does not read fast enough for what it has to be told."""
        if self.closing is None:
            self._complain("it does not read what it is sent")
            self.close(1013, "too slow", drop=True)

    def close(self, code: int, reason: str, *, drop: bool = False) -> None:
        """End the connection after what waits to be sent, or instead of it.

        A client that does not take it within seconds of active time is given up.
        """
        if self.closing is None:
            self.outbox.close(Closing(code, reason), drop=drop)
            self._deadline = ActiveTimer(GRACE, self._give_up)
            for membership in list(self.memberships.values()):
                self.share.call(WORK, partial(membership.end_after, "closed"))
            self.freed(0)

    def forget(self, membership: Membership) -> None:
        """A channel has ended; what it does about that is waited for in `finish`."""
        if not membership.finished.done():
            self._endings.add(membership.finished)
            membership.finished.add_done_callback(self._endings.discard)
        if self.memberships.get(membership.topic) is membership:
            del self.memberships[membership.topic]

    def count_update(self) -> None:
        """Count a presence that is tracked or updated.

        Raises:
            RefusedError: There are too many.
        """
        if not self._updates.allows(self.hub.now()):
            raise RefusedError("too many presence updates")

    # What frames ask for.

    def _dispatch(self, frame: Frame, size: int) -> None:
        membership = self.memberships.get(frame.topic)
        if frame.topic == "phoenix" and frame.event == "heartbeat":
            self._reply(None, frame, "ok", _EMPTY)
        elif frame.event == "phx_join":
            self._join(frame, size)
        elif membership is not None and membership.means(frame.join_ref):
            self._backlog += size
            membership.receive(frame, size)
        elif frame.event == "phx_leave":
            self._reply(frame.join_ref, frame, "ok", _EMPTY)
        else:
            self._reply(None, frame, "error", _UNMATCHED)

    def _join(self, frame: Frame, size: int) -> None:
        found = self.hub.find(frame.topic)
        before = self.memberships.get(frame.topic)
        if not self._joins.allows(self.hub.now()):
            self._reply(frame.join_ref, frame, "error", _TOO_MANY_JOINS)
        elif found is None:
            text = "a client at %s was refused a join: no channel of this socket has the topic %s"
            self.hub.log.warning(text, self.address, quoted(frame.topic), key=self.address)
            self._reply(None, frame, "error", _UNMATCHED)
        elif before is None and len(self.memberships) >= self.hub.limits.channels:
            self._reply(frame.join_ref, frame, "error", _TOO_MANY_CHANNELS)
        else:
            kind, params = found
            if before is not None:
                before.end_after("replaced")
            finished = None if before is None else before.finished
            try:
                membership = Membership(self, kind, params, frame)
            except Exception as error:
                text = "a %s could not be made"
                self.hub.log.crashed(text, kind.__name__, error=error)
                self._reply(frame.join_ref, frame, "error", JOIN_CRASHED)
            else:
                self._backlog += size
                self.memberships[frame.topic] = membership
                membership.begin(frame, size, finished)

    def _reply(self, join_ref: Ref, frame: Frame, status: str, response: str) -> None:
        self.send(self.serializer.reply(join_ref, frame.ref, frame.topic, status, response))

    def _complain(self, what: str) -> None:
        """Log why the client is cut off, without what it sent."""
        who = quoted(self.id or "no id")
        text = "a client at %s (%s) is cut off: %s"
        self.hub.log.warning(text, self.address, who, what, key=self.address)

    def _filled(self) -> None:
        self._filled_hook()

    def _drained(self) -> None:
        self._reads_nothing = False
        self.freed(0)

    def _give_up(self) -> None:
        if not self._finished:
            self._abort_hook()


def _size_of(data: Wire) -> int:
    """Bytes of a frame, as it came."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode(errors="surrogatepass"))


def _nothing() -> None:
    """What a transport does before it is attached."""
