"""The process of one channel: one client on one topic, from the join to the end.

Events of the channel are queued in its mailbox and handled in order; the first is the join. The
channel is open until its end is requested. Then it is *ending*: events queued before the end are
still handled. Then it has *ended*, with one call of `_finish`. It is *finished* when `terminate`
has returned.

Invariants:
- A channel ends once. Its presences leave when it ends, or earlier: at once when its connection is
  gone. Nothing is sent for it afterwards.
- Events that the client sent before it disconnected are still handled, for `GRACE` at most.
- An exception of the application ends the channel and is logged. So does a cancellation, of an
  awaited future or of the channel's own task, that neither adsum nor the end of the event loop
  requested.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adsum.activetime import ActiveTimer, active_timeout
from adsum.errors import NodeNotRunningError, RefusedError, UsageError
from adsum.presence import Meta, Tracked
from adsum.quoting import quoted
from adsum.tasks import is_closing, start_task
from adsum.values.jsontext import load

from .channel import Answer, Channel, Reason
from .flow.fairshare import RECIPIENT, WORK
from .flow.mailbox import Mailbox
from .presence.feed import Follower
from .wire.frames import Encoded, Frame, Ref, Serializer, Wire, checked_event
from .wire.payloads import encode

if TYPE_CHECKING:
    from .connection import Connection

T = TypeVar("T")

#: Seconds of active time that a handler may go on after its client has gone, and that `terminate`
#: may take.
GRACE = 5.0
_EMPTY = "{}"
JOIN_CRASHED = '{"reason":"join crashed"}'
_TOO_LONG = (
    "%s: the channel of a client that polls is closed: its presences have %d characters, and long "
    "polling carries %d; set counts_above in the class of the channel"
)
_CANCELLED = "it was cancelled, by itself or by other code of the application"
_NO_BYTES = '{"reason":"this connection carries no bytes"}'
#: The closing event by reason. A client that was refused or has gone is sent none.
_ENDINGS = {
    "crashed": "phx_error",
    "left": "phx_close",
    "stopped": "phx_close",
    "replaced": "phx_close",
}


class ChannelProcess:
    """Runs one `Channel` of a client: calls its methods one at a time and sends its frames.

    Args:
        connection: The connection of the client.
        kind: The class of the channel.
        params: The parameters of the topic.
        join: The client's join frame.
    """

    def __init__(
        self,
        connection: "Connection",
        kind: type[Channel],
        params: dict[str, str],
        join: Frame,
    ) -> None:
        self.connection = connection
        #: See `mailbox.Owner`.
        self.share = connection.share
        self.topic = join.topic
        self.join_ref: Ref = join.join_ref
        self.serializer: Serializer = connection.serializer
        #: Done when the channel has ended and `terminate` has returned.
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Whether the channel is ending: nothing that it does is visible to anyone any more.
        self.ending = False
        # Reason of the end; timer that cancels the handler under way when the end takes too long.
        self._reason: Reason = "closed"
        self._deadline: ActiveTimer | None = None
        # Seconds for which the presences stay after the end.
        self._linger = 0.0
        self._shared = connection.shared
        self._channel = kind(self, params)
        self._joined = self._ended = False
        # Broadcasts that wait to be filtered.
        self._to_filter = 0
        self._filter_too_slow = False
        # Frames pushed before the reply to the join.
        self._early: list[Wire] = []
        self._follows = False
        self._follower: Follower | None = None
        self._spawned: set[asyncio.Task[None]] = set()
        self._mailbox = Mailbox(self)

    # Called by the connection.

    def begin(self, join: Frame, size: int, before: "asyncio.Future[None] | None") -> None:
        """Queue the join.

        Args:
            join: The client's join frame.
            size: Size of that frame in bytes.
            before: `finished` of the client's old channel on this topic; the join waits for it.
        """
        self._mailbox.put(partial(self._join, join, before), size)

    def means(self, join_ref: Ref) -> bool:
        """Whether a frame with this `join_ref` is for this channel, and the channel is open."""
        return not self.ending and (join_ref is None or str(join_ref) == str(self.join_ref))

    @property
    def full(self) -> bool:
        """Whether the mailbox has reached `Limits.waiting`."""
        return len(self._mailbox) >= self._shared.limits.waiting and not self.ending

    def receive(self, frame: Frame, size: int) -> None:
        """Queue an event from the client, whose frame had `size` bytes."""
        handle = self._leave if frame.event == "phx_leave" else self._handle
        self._mailbox.put(partial(handle, frame), size)

    def deliver(self, event: str, payload: Encoded, frames: dict[Serializer, Wire]) -> None:
        """Send a broadcast to the client, through the channel's filter for the event if it has one.

        Args:
            event: The event.
            payload: Its payload.
            frames: Cache of the encoded broadcast, by version of the protocol; added to.
        """
        if event in self._channel._filters:
            self._filter_later(event, payload)
            return
        if not self._carries(payload):
            return
        frame = frames.get(self.serializer)
        if frame is None:
            frame = self.serializer.broadcast(self.topic, event, payload)
            frames[self.serializer] = frame
        self.connection.send(frame)

    def _filter_later(self, event: str, payload: Encoded) -> None:
        if self._filter_too_slow:
            return
        self._to_filter += 1
        if self._to_filter <= self._shared.limits.waiting:
            self._mailbox.put(partial(self._filter, event, payload))
        else:
            text = "%s: the filter of %s is too slow"
            self._shared.log.error(
                text, repr(self), quoted(event), key=type(self._channel).__name__
            )
            self._filter_too_slow = True
            self.end_soon("crashed")

    def end_soon(self, reason: Reason) -> None:
        """End the channel after the current handler, before all queued events."""
        if not self._ended:
            self._mailbox.put_first(partial(self._end, reason))

    def end_after(self, reason: Reason, linger: float = 0.0) -> None:
        """End the channel after all queued events.

        Args:
            reason: The reason for `terminate`.
            linger: Seconds until the presences leave; with 0 they leave at once.
        """
        if self.ending:
            return
        self.ending = True
        self._linger = linger
        self._reason = reason
        self._withdraw()
        self._mailbox.put(partial(self._end, reason))
        self._deadline = ActiveTimer(GRACE, self._mailbox.cancel)

    def abandon(self) -> None:
        """Stop sending broadcasts: the event loop of the connection is closed."""
        self._unsubscribe()

    # Called by the channel.

    def track(self, topic: str, key: str, meta: Meta | None) -> Tracked:
        """See `Channel.track`."""
        if self._ended:
            raise UsageError(f"the channel on {self.topic!r} has ended; nobody is there to track")
        tracked = self._shared.presence.track(topic, key, meta, owner=self)
        if self.ending:
            # The client is gone. Released in the same turn, so no follower sees the presence.
            self._shared.presence.release(self, 0.0)
        return tracked

    def follow(self) -> None:
        """See `Channel.follow`."""
        self._follows = not self.ending
        if self._follows and self._joined and self._follower is None:
            self._follower = self._shared.feeds.follow(self, self._channel.counts_above)

    def push(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """See `Channel.push`."""
        self._send(checked_event(event), encode(payload))

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
        if self._ended:
            coroutine.close()
            raise UsageError(f"the channel on {self.topic!r} has ended")
        task = start_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._spawned_ended)

    def count_update(self) -> None:
        """Count one track or update against the rate limit of presences.

        Raises:
            RefusedError: The limit of the interval is exceeded.
        """
        self.connection.count_update()

    # Called by the feed, see `feed.FeedListener`.

    def ready(self, follower: Follower) -> None:
        """See `feed.FeedListener`."""
        self.connection.outbox.put_source(follower)

    def too_slow(self) -> None:
        """See `feed.FeedListener`."""
        self.connection.overflow()

    @property
    def longest_state(self) -> int | None:
        """See `feed.FeedListener`."""
        return self.connection.longest_state

    def too_long(self, size: int) -> None:
        """See `feed.FeedListener`. The channel stops; after a crash the client would rejoin."""
        self._shared.log.warning(_TOO_LONG, repr(self), size, self.longest_state, key=self.topic)
        self._withdraw()
        self.end_soon("stopped")

    # Called by the mailbox, see `mailbox.Owner`.

    def freed(self, size: int) -> None:
        """See `mailbox.Owner`."""
        self.connection.freed(size)

    def idle(self) -> None:
        """See `mailbox.Owner`."""
        if self._ended and not self.finished.done():
            self.finished.set_result(None)

    def broken(self, error: BaseException | None) -> None:
        """See `mailbox.Owner`."""
        if error is None and not self._mailbox.cancelling and not is_closing():
            error = RuntimeError(_CANCELLED)
        if error is not None:
            self._log_crash("%s: what it did crashed", error)
        if self._ended:
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
            status, answer = await self._outcome(self._channel.join(frame.payload))
            reply = self._reply_with(frame, status, answer or {})
        except Exception as error:
            self._log_crash("%s: the join crashed", error)
            self._refuse(self._reply(frame, "error", JOIN_CRASHED))
        else:
            if status == "ok":
                self._let_in(reply)
            else:
                self._refuse(reply)

    def _let_in(self, reply: Wire) -> None:
        """Reply to the join and subscribe in the same turn, so no later broadcast is missed."""
        self._joined = True
        self.connection.send(reply)
        for frame in self._early:
            self.connection.send(frame)
        self._early.clear()
        if not self.ending:
            self._shared.broadcasts.subscribe(self)
            self._shared.registry.channels += 1
            if self._follows:
                self.follow()

    def _refuse(self, reply: Wire) -> None:
        self._finish(None)
        self.connection.send(reply)

    async def _handle(self, frame: Frame) -> None:
        name = self._channel._handlers.get(frame.event)
        if name is None:
            text = "%s: there is no handler for the event %s"
            key = self.connection.address
            self._shared.log.warning(text, repr(self), quoted(frame.event), key=key)
            await self._end("crashed")
            return
        if self.connection.is_behind_with_reading:
            await self.connection.drained()
        try:
            status, answer = await self._outcome(getattr(self._channel, name)(frame.payload))
            reply = None if answer is None else self._reply_with(frame, status, answer)
        except Exception as error:
            self._log_crash("%s: the handler of %s crashed", error, quoted(frame.event))
            await self._end("crashed")
            return
        if reply is not None:
            self.connection.send(reply)

    async def _filter(self, event: str, payload: Encoded) -> None:
        self._to_filter -= 1
        value = payload if isinstance(payload, bytes) else load(payload)
        look = getattr(self._channel, self._channel._filters[event])
        try:
            shown = await self._own(look(value))
            if shown is not None:
                self._send(event, encode(shown), broadcast=True)
        except Exception as error:
            self._log_crash("%s: the filter of %s crashed", error, quoted(event))
            await self._end("crashed")

    async def _leave(self, frame: Frame) -> None:
        self.connection.send(self._reply(frame, "ok", _EMPTY))
        await self._end("left")

    async def _end(self, reason: Reason) -> None:
        """End the channel: withdraw its presences, stop sending, then call `terminate`."""
        self._finish(reason)
        try:
            async with active_timeout(GRACE) as limit:
                await self._own(self._channel.terminate(reason), limit)
        except TimeoutError:
            text = "%s: terminate took longer than %g s"
            self._shared.log.error(text, repr(self), GRACE, key=type(self._channel).__name__)
        except Exception as error:
            self._log_crash("%s: terminate crashed", error)

    def _finish(self, reason: Reason | None) -> None:
        if self._ended:
            return
        self._ended = self.ending = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._withdraw()
        self._mailbox.clear()
        for task in self._spawned:
            task.cancel()
        self._unsubscribe()
        self.connection.forget(self)
        event = _ENDINGS.get(reason or "")
        if event is not None:
            closing = self.serializer.message(
                self.join_ref, self.join_ref, self.topic, event, _EMPTY
            )
            self.connection.send(closing)

    def _unsubscribe(self) -> None:
        if self._shared.broadcasts.unsubscribe(self):
            self._shared.registry.channels -= 1

    def _withdraw(self) -> None:
        """Release the channel's presences and stop following the topic."""
        if self._follower is not None:
            self._shared.feeds.unfollow(self._follower)
            self.connection.outbox.discard(self._follower)
            self._follower = None
        self._follows = False
        with contextlib.suppress(NodeNotRunningError):  # the stop has ended every presence already
            self._shared.presence.release(self, self._linger)

    def _spawned_ended(self, task: "asyncio.Task[None]") -> None:
        self._spawned.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() and not self.ending and not is_closing():
            error = RuntimeError(_CANCELLED)  # not cancelled by the end of the channel
        if error is not None:
            self._log_crash("%s: a task that it spawned crashed", error)
            self.end_soon("crashed")

    # Awaiting the application.

    async def _outcome(self, handling: Awaitable[Answer]) -> tuple[str, Answer]:
        """Await a handler; returns the status and the response, ``error`` for a refusal."""
        try:
            return "ok", await self._own(handling)
        except RefusedError as refusal:
            return "error", refusal.response

    async def _own(self, handling: Awaitable[T], limit: asyncio.Timeout | None = None) -> T:
        """Await code of the application; a cancellation that adsum did not request is a crash.

        The code may cancel its own task, or await a future that is cancelled. If it cancels its
        task and then returns without another await, the task ends as cancelled; see `broken`.

        Args:
            handling: The awaitable of the application.
            limit: The timeout around this call, if any.

        Raises:
            RuntimeError: The code was cancelled by the application.
        """
        try:
            return await handling
        except asyncio.CancelledError as error:
            if limit is not None and limit.expired():
                raise
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise RuntimeError("something that it waited for was cancelled") from error
            if self._mailbox.cancelling or is_closing():
                self._mailbox.cancelling = True
                raise
            while task.uncancel():
                pass
            raise RuntimeError(_CANCELLED) from error

    # Sending.

    def _reply(self, frame: Frame, status: str, response: Encoded) -> Wire:
        return self.serializer.reply(self.join_ref, frame.ref, self.topic, status, response)

    def _reply_with(self, frame: Frame, status: str, answer: Mapping[str, Any] | bytes) -> Wire:
        if isinstance(answer, bytes) and not self.serializer.binary:
            return self._reply(frame, "error", _NO_BYTES)
        return self._reply(frame, status, encode(answer, what="reply"))

    def _carries(self, payload: Encoded) -> bool:
        """Whether this client can be sent the payload; logs once if it cannot."""
        fits = isinstance(payload, str) or self.serializer.binary
        if not fits:
            self.connection.cannot_carry_bytes()
        return fits

    def _send(self, event: str, payload: Encoded, *, broadcast: bool = False) -> None:
        if self._ended or not self._carries(payload):
            return
        frame = (
            self.serializer.broadcast(self.topic, event, payload)
            if broadcast
            else self.serializer.message(self.join_ref, None, self.topic, event, payload)
        )
        if self._joined:
            self.connection.send(frame)
        else:
            self._early.append(frame)

    def __repr__(self) -> str:
        return f"{type(self._channel).__name__} on {quoted(self.topic)}"

    def _log_crash(self, text: str, error: BaseException, *args: object) -> None:
        # Events in `args` are declared by the class, so a client cannot choose the log key.
        within = (type(self._channel), *args)
        self._shared.log.crashed(text, repr(self), *args, error=error, within=within)
