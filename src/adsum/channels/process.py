"""`ChannelProcess`: queues and handles the events of one channel, replies, and ends it.

Events of the channel are queued in its mailbox and handled in order; the first is the join. The
states of a channel, from JOINING to FINISHED, are drawn in `lifecycle`.

Invariants:
- A channel ends once. Its presences leave when it ends, or earlier: at once when its connection is
  gone. Nothing is sent for it afterwards.
- A channel that breaks (see `_BREAKS`) keeps its presences for their linger. Its client, or another
  one of the same key, takes them over.
- A channel whose client has gone shows no presence, and takes none over.
- Events that the client sent before it disconnected are still handled, for `GRACE` at most.
- An exception of the application ends the channel and is logged. So does a cancellation, of an
  awaited future or of the channel's own task, that neither adsum nor the end of the event loop
  requested.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from adsum.activetime import ActiveTimer, active_timeout
from adsum.errors import NodeNotRunningError, RefusedError, UsageError
from adsum.owners import DeviceOwner, PassingOwner
from adsum.quoting import quoted
from adsum.tasks import is_closing
from adsum.tracked import Meta, Tracked
from adsum.values.jsontext import load

from .channel import Channel, Reason
from .channelcode import ChannelCode
from .client import Client
from .flow.fairshare import RECIPIENT, WORK, FairShare
from .flow.mailbox import CANCELLED, Mailbox
from .lifecycle import TRANSITIONS, State
from .presence.following import FollowerConnection, Following
from .sender import EMPTY, ChannelSender, FrameSink
from .socketparts import SocketParts
from .wire.frames import Encoded, Frame, Ref, Wire, checked_event
from .wire.payloads import encode
from .wire.prepared import Prepared

#: Seconds of active time that a handler may go on after its client has gone, and that `terminate`
#: may take.
GRACE = 5.0
#: Devices that one channel may name.
MAX_DEVICES = 16
_TOO_LONG = (
    "%s: the channel of a polling client was closed: its presences have %d characters, and long "
    "polling carries at most %d; set counts_above in the class of the channel"
)
JOIN_CRASHED = '{"reason":"join crashed"}'

#: The ends that the client and the server code did not intend.
_BREAKS = frozenset[Reason | None]({"closed", "crashed", "replaced"})

# Names of this module, since each frame and each broadcast compares states.
_JOINING, _OPEN, _ENDING, _ENDED, _FINISHED = State


class ClientConnection(FrameSink, FollowerConnection, Protocol):
    """The connection of a client, as its channels use it."""

    shared: SocketParts
    client: Client
    share: FairShare
    address: str

    def queue(self, frame: Wire | Prepared) -> None:
        """Queue a frame that `write` refused."""

    @property
    def is_behind_with_reading(self) -> bool:
        """Whether the client reads slowly, and replies to it should wait."""

    async def wait_drained(self) -> None:
        """Wait until the outbox has room for a reply, or the connection is closing."""

    def freed(self, size: int) -> None:
        """Subtract handled or dropped bytes from the backlog."""

    def note_full(self, process: "ChannelProcess") -> None:
        """Record that a mailbox may have become full."""

    def forget(self, process: "ChannelProcess") -> None:
        """Remove a channel that has ended, and wait for its `finished` before the end."""

    def count_update(self) -> None:
        """Count one track or update against the rate limit of presences."""


class ChannelProcess(PassingOwner):
    """Runs one `Channel` of a client: calls its methods one at a time and sends its frames.

    Args:
        connection: The connection of the client.
        kind: The class of the channel.
        params: The parameters of the topic.
        join: The client's join frame.
    """

    def __init__(
        self,
        connection: ClientConnection,
        kind: type[Channel],
        params: dict[str, str],
        join: Frame,
    ) -> None:
        self.connection = connection
        #: See `mailbox.MailboxOwner`.
        self.share = connection.share
        self.topic = join.topic
        self._join_ref: Ref = join.join_ref
        #: Done when the channel is FINISHED.
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._state = _JOINING
        self._shared = connection.shared
        self._sender = ChannelSender(connection, join.topic, join.join_ref)
        self._mailbox = Mailbox(self)
        self._channel = kind(self, params)
        #: See `deliveries.Subscriber`.
        self.intercepts = kind._intercepts
        self._code = ChannelCode(self._channel, self._mailbox, self._shared.log)
        # Whether `follow` was called while JOINING; carried out when the channel is OPEN.
        self._follow_when_open = False
        # None before the first `follow`.
        self._following: Following | None = None
        # While ENDING: the reason, and the timer that cancels the handler under way when the end
        # takes too long.
        self._reason: Reason = "closed"
        self._deadline: ActiveTimer | None = None
        # The owners of presences that were tracked for a device, by device. None before the first.
        self._devices: dict[str, DeviceOwner] | None = None
        # Broadcasts that wait to be filtered; beyond the limit no more are accepted.
        self._to_intercept = 0

    @property
    def client(self) -> Client:
        """The client that joined."""
        return self.connection.client

    @property
    def ending(self) -> bool:
        """Whether an end was requested or reached: its changes are visible to nobody any more."""
        return self._state is not _OPEN and self._state is not _JOINING

    @property
    def ended(self) -> bool:
        """Whether the end was reached: nothing is sent, and nothing more is queued."""
        return self._state is _ENDED or self._state is _FINISHED

    def _enter(self, state: State) -> None:
        """Change the state.

        Raises:
            RuntimeError: The state may not follow the current one.
        """
        if state not in TRANSITIONS[self._state]:
            old, new = self._state.value, state.value
            raise RuntimeError(f"{self!r}: a channel that is {old} cannot become {new}")
        self._state = state

    # Called by the connection.

    def begin(self, join: Frame, size: int, before: "asyncio.Future[None] | None") -> None:
        """Queue the join.

        Args:
            join: The client's join frame.
            size: Size of that frame in bytes.
            before: `finished` of the client's old channel on this topic; the join waits for it.
        """
        self._mailbox.put(partial(self._join, join, before), size)
        self._note_full()

    def means(self, join_ref: Ref) -> bool:
        """Whether a frame with this `join_ref` is for this channel, and the channel is open."""
        if self._state is not _OPEN and self._state is not _JOINING:
            return False  # as `ending`, for each frame
        own = self._join_ref
        return join_ref == own or join_ref is None or str(join_ref) == str(own)

    @property
    def full(self) -> bool:
        """Whether the mailbox has reached `Limits.waiting`."""
        return len(self._mailbox) >= self._shared.limits.waiting and not self.ending

    def receive(self, frame: Frame, size: int) -> None:
        """Handle an event from the client, whose frame had `size` bytes, after all queued ones.

        If none is queued, its handler runs up to its first wait before this returns.
        """
        handle = self._leave if frame.event == "phx_leave" else self._handle
        if not self._mailbox.begin(handle, frame, size):
            self._note_full()

    def _note_full(self) -> None:
        if self.full:
            self.connection.note_full(self)

    def intercept_later(self, event: str, payload: Encoded) -> None:
        """See `deliveries.Subscriber`."""
        limit = self._shared.limits.waiting
        if self._to_intercept > limit:
            return  # its end is queued already
        self._to_intercept += 1
        if self._to_intercept <= limit:
            self._mailbox.put(partial(self._intercept, event, payload))
            self._note_full()
        else:
            text, key = "%s: the intercept method for %s is too slow", type(self._channel).__name__
            self._shared.log.error(text, repr(self), quoted(event), key=key)
            self.end_soon("crashed")

    def end_soon(self, reason: Reason) -> None:
        """End the channel after the current handler, before all queued events."""
        if not self.ended:
            self._mailbox.put_first(partial(self._end, reason))

    def end_after(self, reason: Reason, linger: float = 0.0, *, intended: bool = False) -> None:
        """End the channel after all queued events.

        Args:
            reason: The reason for `terminate`.
            linger: Seconds until the presences leave; with 0 they leave at once, or after their own
                linger.
            intended: Whether the end was intended, so that they do not stay for their own linger.
        """
        if self.ending:
            return
        self._enter(_ENDING)
        self._reason = reason
        self._withdraw(linger, broken=reason in _BREAKS and not intended)
        self._mailbox.put(partial(self._end, reason))
        self._deadline = ActiveTimer(GRACE, self._mailbox.cancel)

    def unsubscribe(self) -> None:
        """Stop sending broadcasts to the client. Idempotent."""
        if self._shared.broadcasts.unsubscribe(self):
            self._shared.registry.channels -= 1

    # Called by the channel.

    def track(
        self, topic: str, key: str, meta: Meta | None, linger: float, device: str | None
    ) -> Tracked:
        """See `Channel.track`."""
        if self.ended:
            raise UsageError(
                f"the channel on {self.topic!r} has ended; its client cannot be tracked"
            )
        presence = self._shared.presence
        if not self.ending:
            owner = self._owner_for(device)
            return presence.track(topic, key, meta, owner=owner, linger=linger)
        # The client is gone. Released in the same turn, so no follower sees the presence. An owner
        # that can come back takes over nothing, so a lingering presence of the key goes on.
        nobody = object()
        tracked = presence.track(topic, key, meta, owner=nobody, linger=linger)
        presence.release(nobody, 0.0)
        return tracked

    def _owner_for(self, device: str | None) -> "ChannelProcess | DeviceOwner":
        """The owner of the presences of a device; released with the channel."""
        if device is None:
            return self
        if self._devices is None:
            self._devices = {}
        if device not in self._devices and len(self._devices) >= MAX_DEVICES:
            raise UsageError(
                f"device={quoted(device)}: a channel must name at most {MAX_DEVICES} devices; its "
                f"client is one"
            )
        return self._devices.setdefault(device, DeviceOwner(device))

    def follow(self) -> None:
        """See `Channel.follow`."""
        if self._state is _JOINING:
            self._follow_when_open = True
        elif self._state is _OPEN:
            if self._following is None:
                feeds = self._shared.feeds
                self._following = Following(
                    self.connection, feeds, self.topic, self._join_ref, self
                )
            self._following.start(self._channel.counts_above)

    def push(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """See `Channel.push`."""
        event, encoded = checked_event(event), encode(payload)
        if not self.ended:
            self._sender.push(event, encoded)

    async def broadcast(
        self, event: str, payload: Mapping[str, Any] | bytes, *, to_self: bool
    ) -> None:
        """See `Channel.broadcast`."""
        await self.share.turn(WORK + RECIPIENT * self._shared.broadcasts.recipients(self.topic))
        await self._shared.broadcasts.broadcast(
            self.topic, event, payload, None if to_self else self
        )

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """See `Channel.spawn`."""
        if self.ended:
            coroutine.close()
            raise UsageError(f"the channel on {self.topic!r} has ended")
        self._code.spawn(coroutine)

    def count_update(self) -> None:
        """See `channel.ProcessHandle`."""
        self.connection.count_update()

    def presences_too_long(self, size: int, longest: int) -> None:
        """See `FollowingChannel`. The channel stops; after a crash the client would rejoin."""
        self._shared.log.warning(_TOO_LONG, repr(self), size, longest, key=self.topic)
        self._withdraw(0.0, broken=False)
        self.end_soon("stopped")

    # Called by the mailbox, see `mailbox.MailboxOwner`.

    def freed(self, size: int) -> None:
        """See `mailbox.MailboxOwner`."""
        self.connection.freed(size)

    def idle(self) -> None:
        """See `mailbox.MailboxOwner`."""
        if self._state is _ENDED:
            self._enter(_FINISHED)
            self.finished.set_result(None)

    def broken(self, error: BaseException | None) -> None:
        """See `mailbox.MailboxOwner`."""
        if error is None and not self._mailbox.cancelling and not is_closing():
            error = RuntimeError(CANCELLED)
        if error is not None:
            self._code.log_crash("%s: a handler crashed", error)
        if self.ended:
            return
        if error is None and not self.ending:
            self._finish("closed")  # the event loop is closing
        else:
            # The handler exceeded `GRACE` after its client had gone, or it crashed.
            reason = self._reason if error is None else "crashed"
            self._mailbox.put_first(partial(self._end, reason))

    # Jobs of the mailbox.

    async def _join(self, frame: Frame, before: "asyncio.Future[None] | None") -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            status, answer = await self._code.outcome(self._channel.join(frame.payload))
            reply = self._sender.answer(frame, status, answer or {})
        except Exception as error:
            self._code.log_crash("%s: the join crashed", error)
            self._refuse(self._sender.reply(frame, "error", JOIN_CRASHED), broken=True)
        else:
            if status == "ok":
                self._accept_join(reply)
            else:
                self._refuse(reply)

    def _accept_join(self, reply: Wire) -> None:
        """Reply to the join and subscribe in the same turn, so no later broadcast is missed."""
        self._sender.begin(reply)
        if self._state is _JOINING:
            self._enter(_OPEN)
            self._shared.broadcasts.subscribe(self)
            self._shared.registry.channels += 1
            if self._follow_when_open:
                self.follow()

    def _refuse(self, reply: Wire, *, broken: bool = False) -> None:
        self._finish(None, broken=broken)
        self.connection.send(reply)

    async def _handle(self, frame: Frame) -> None:
        name = self._channel._handlers.get(frame.event)
        if name is None:
            text = "%s: the event %s has no handler"
            key = self.connection.address
            self._shared.log.warning(text, repr(self), quoted(frame.event), key=key)
            await self._end("crashed")
            return
        if self.connection.is_behind_with_reading:
            await self.connection.wait_drained()
        try:
            try:  # here, since `ChannelCode.outcome` is one more coroutine for each event
                status, answer = "ok", await getattr(self._channel, name)(frame.payload)
            except (RefusedError, asyncio.CancelledError) as error:
                status, answer = "error", self._code.refusal(error)
            reply = None if answer is None else self._sender.answer(frame, status, answer)
        except Exception as error:
            self._code.log_crash("%s: the handler of %s crashed", error, quoted(frame.event))
            await self._end("crashed")
            return
        if reply is not None:
            self.connection.send(reply)

    async def _intercept(self, event: str, payload: Encoded) -> None:
        self._to_intercept -= 1
        value = payload if isinstance(payload, bytes) else load(payload)
        method = getattr(self._channel, self._channel._intercepts[event])
        try:
            shown = await self._mailbox.call(method(value))
            if shown is not None:
                encoded = encode(shown)
                if not self.ended:
                    self._sender.broadcast(event, encoded)
        except Exception as error:
            self._code.log_crash("%s: the intercept method for %s crashed", error, quoted(event))
            await self._end("crashed")

    async def _leave(self, frame: Frame) -> None:
        self.connection.send(self._sender.reply(frame, "ok", EMPTY))
        await self._end("left")

    async def _end(self, reason: Reason) -> None:
        """End the channel: withdraw its presences, stop sending, then call `terminate`."""
        self._finish(reason)
        try:
            async with active_timeout(GRACE) as limit:
                await self._mailbox.call(self._channel.terminate(reason), limit)
        except TimeoutError:
            text = "%s: terminate took longer than %g s"
            self._shared.log.error(text, repr(self), GRACE, key=type(self._channel).__name__)
        except Exception as error:
            self._code.log_crash("%s: terminate crashed", error)

    def _finish(self, reason: Reason | None, *, broken: bool = False) -> None:
        if self.ended:
            return
        self._enter(_ENDED)
        if self._deadline is not None:
            self._deadline.cancel()
        self._withdraw(0.0, broken=broken or reason in _BREAKS)
        self._mailbox.clear()
        self._code.cancel_tasks()
        self.unsubscribe()
        self.connection.forget(self)
        self._sender.close(reason)

    def _withdraw(self, linger: float, *, broken: bool) -> None:
        """Release the channel's presences, if there are any left, and stop following the topic."""
        if self._following is not None:
            self._following.stop()
        with contextlib.suppress(NodeNotRunningError):  # the stop has ended every presence already
            for owner in (self, *(self._devices or {}).values()):
                self._shared.presence.release(owner, linger, broken=broken)
                if not broken:  # the client may have left just before its connection ended
                    self._shared.presence.release_lingering(owner, 0.0)

    def __repr__(self) -> str:
        return f"{type(self._channel).__name__} on {quoted(self.topic)}"
