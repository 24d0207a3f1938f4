"""One client on one topic, from its join to its end: what runs a `Channel`.

What concerns the channel waits in its mailbox, and is done in order. It begins with the join. It is
open until somebody wants its end; then it is *ending*, and what waits before the end is still done;
then it has *ended*, with one call of `_finish`; and it is *finished* when `terminate` is through.

Invariants:
- A channel ends once. Its presences leave when it does, or before: at once when its connection is
  gone. Nothing is sent for it afterwards.
- What the client sent before it went is still handled, for a few seconds at most.
- An exception of the application ends the channel and is logged; so does a cancellation, of
  something that it waits for or of its own task, that neither adsum nor the end of the event loop
  asked for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adsum.activetime import ActiveTimer, active_timeout
from adsum.errors import NodeClosedError, RefusedError, UsageError
from adsum.presence import Meta, Tracked
from adsum.quoting import quoted
from adsum.replication.jsontext import encode_object, load
from adsum.tasks import is_closing, start_task

from .channel import Answer, Channel, Reason
from .fairshare import RECIPIENT, WORK
from .frames import Encoded, Frame, Ref, Serializer, Wire, checked_event
from .mailbox import Mailbox
from .rooms import Follower

if TYPE_CHECKING:
    from .connection import Connection

T = TypeVar("T")

#: Seconds of active time that a handler may go on after its client has gone, and that `terminate`
#: may take.
GRACE = 5.0
#: Characters of JSON text in what is pushed or replied to one client.
MAX_PUSH = 1024 * 1024
_EMPTY = "{}"
JOIN_CRASHED = '{"reason":"join crashed"}'
_TOO_LONG = (
    "%s: the channel of a client that polls is closed: its presences have %d characters, and long "
    "polling carries %d; set counts_above in the class of the channel"
)
_CANCELLED = "it was cancelled, by itself or by other code of the application"
_NO_BYTES = '{"reason":"this connection carries no bytes"}'
#: How a channel says that it ended; a client that it refused or that is gone is told nothing.
_ENDINGS = {
    "crashed": "phx_error",
    "left": "phx_close",
    "stopped": "phx_close",
    "replaced": "phx_close",
}


class Membership:
    """See the module.

    Args:
        connection: Whose it is.
        kind: The class of the channel.
        params: The parameters of the topic.
        join: What the client sent to join.
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
        #: Set when the channel has ended, and whatever it does about that is done.
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Whether it is on its way to its end: nothing that it does is for anybody any more.
        self.ending = False
        # Why it is, and when what it does about that is cancelled.
        self._reason: Reason = "closed"
        self._deadline: ActiveTimer | None = None
        # For how many seconds its presences stay after its end.
        self._linger = 0.0
        self._hub = connection.hub
        self._channel = kind(self, params)
        self._joined = self._ended = False
        # How many broadcasts wait to be filtered.
        self._to_filter = 0
        self._filter_too_slow = False
        # What was pushed before the join was answered.
        self._early: list[Wire] = []
        self._follows = False
        self._follower: Follower | None = None
        self._spawned: set[asyncio.Task[None]] = set()
        self._mailbox = Mailbox(self)

    # What the connection asks for.

    def begin(self, join: Frame, size: int, before: "asyncio.Future[None] | None") -> None:
        """Join.

        Args:
            join: What the client sent to join.
            size: How many bytes that were.
            before: The end of the client's channel before it on this topic, which is waited for.
        """
        self._mailbox.put(partial(self._join, join, before), size)

    def means(self, join_ref: Ref) -> bool:
        """Whether a frame with this `join_ref` is for this channel, and it is still there."""
        return not self.ending and (join_ref is None or str(join_ref) == str(self.join_ref))

    @property
    def full(self) -> bool:
        """Whether as much waits to be handled as may."""
        return len(self._mailbox) >= self._hub.limits.waiting and not self.ending

    def receive(self, frame: Frame, size: int) -> None:
        """Handle an event from the client, of so many bytes, after those before it."""
        handle = self._leave if frame.event == "phx_leave" else self._handle
        self._mailbox.put(partial(handle, frame), size)

    def deliver(self, event: str, payload: Encoded, frames: dict[Serializer, Wire]) -> None:
        """Send a broadcast to the client, by its filter if there is one for the event.

        Args:
            event: The event.
            payload: Its payload.
            frames: The frame of this broadcast for each version of the protocol, once made.
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
        if self._to_filter <= self._hub.limits.waiting:
            self._mailbox.put(partial(self._filter, event, payload))
        else:
            text = "%s: the filter of %s is too slow"
            self._hub.log.error(text, repr(self), quoted(event), key=type(self._channel).__name__)
            self._filter_too_slow = True
            self.end_soon("crashed")

    def end_soon(self, reason: Reason) -> None:
        """End after what is being handled, before anything that waits."""
        if not self._ended:
            self._mailbox.put_first(partial(self._end, reason))

    def end_after(self, reason: Reason, linger: float = 0.0) -> None:
        """End after everything that waits; the presences leave at once, or after some seconds."""
        if self.ending:
            return
        self.ending = True
        self._linger = linger
        self._reason = reason
        self._withdraw()
        self._mailbox.put(partial(self._end, reason))
        self._deadline = ActiveTimer(GRACE, self._mailbox.cancel)

    # What the channel asks for.

    def track(self, topic: str, key: str, meta: Meta | None) -> Tracked:
        """See `Channel.track`."""
        if self._ended:
            raise UsageError(f"the channel on {self.topic!r} has ended; nobody is there to track")
        tracked = self._hub.presence.track(topic, key, meta, owner=self)
        if self.ending:
            # The client is gone; in the same turn, so nobody sees anything.
            self._hub.presence.release(self, 0.0)
        return tracked

    def follow(self) -> None:
        """See `Channel.follow`."""
        self._follows = not self.ending
        if self._follows and self._joined and self._follower is None:
            self._follower = self._hub.follow(self, self._channel.counts_above)

    def push(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """See `Channel.push`."""
        self._send(checked_event(event), encode(payload))

    async def broadcast(
        self, event: str, payload: Mapping[str, Any] | bytes, *, to_self: bool
    ) -> None:
        """See `Channel.broadcast`."""
        await self.share.turn(WORK + RECIPIENT * self._hub.recipients(self.topic))
        await self._hub.broadcast(self.topic, event, payload, None if to_self else self)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """See `Channel.spawn`."""
        if self._ended:
            coroutine.close()
            raise UsageError(f"the channel on {self.topic!r} has ended")
        task = start_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._spawned_ended)

    def count_update(self) -> None:
        """Count a presence that is tracked or updated.

        Raises:
            RefusedError: There are too many.
        """
        self.connection.count_update()

    # What a room asks for.

    def ready(self, follower: Follower) -> None:
        """See `rooms.Listener`."""
        self.connection.outbox.put_source(follower)

    def too_slow(self) -> None:
        """See `rooms.Listener`."""
        self.connection.overflow()

    @property
    def longest_state(self) -> int | None:
        """See `rooms.Listener`."""
        return self.connection.longest_state

    def too_long(self, size: int) -> None:
        """See `rooms.Listener`. The channel stops: a crash would make the client join again."""
        self._hub.log.warning(_TOO_LONG, repr(self), size, self.longest_state, key=self.topic)
        self._withdraw()
        self.end_soon("stopped")

    # What the mailbox tells.

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
            # It went on for too long after its client had gone, or crashed.
            reason = self._reason if error is None else "crashed"
            self._mailbox.put_first(partial(self._end, reason))

    # What it does.

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
        """Answer the join; from here on, in the same turn, everything that happens is sent."""
        self._joined = True
        self.connection.send(reply)
        for frame in self._early:
            self.connection.send(frame)
        self._early.clear()
        if not self.ending:
            self._hub.subscribe(self)
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
            self._hub.log.warning(text, repr(self), quoted(frame.event), key=key)
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
        """The end: nobody is present, nothing is sent; then the application may clean up."""
        self._finish(reason)
        try:
            async with active_timeout(GRACE) as limit:
                await self._own(self._channel.terminate(reason), limit)
        except TimeoutError:
            text = "%s: terminate took longer than %g s"
            self._hub.log.error(text, repr(self), GRACE, key=type(self._channel).__name__)
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
        self._hub.unsubscribe(self)
        self.connection.forget(self)
        event = _ENDINGS.get(reason or "")
        if event is not None:
            closing = self.serializer.message(
                self.join_ref, self.join_ref, self.topic, event, _EMPTY
            )
            self.connection.send(closing)

    def _withdraw(self) -> None:
        """Be seen no more, and see no more."""
        if self._follower is not None:
            self._hub.unfollow(self._follower)
            self.connection.outbox.discard(self._follower)
            self._follower = None
        self._follows = False
        with contextlib.suppress(NodeClosedError):  # then every presence has ended already
            self._hub.presence.release(self, self._linger)

    def _spawned_ended(self, task: "asyncio.Task[None]") -> None:
        self._spawned.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() and not self.ending and not is_closing():
            error = RuntimeError(_CANCELLED)  # the channel has not cancelled it
        if error is not None:
            self._log_crash("%s: a task that it spawned crashed", error)
            self.end_soon("crashed")

    # Awaiting the application.

    async def _outcome(self, handling: Awaitable[Answer]) -> tuple[str, Answer]:
        """The status of a reply and what it says, refusals included."""
        try:
            return "ok", await self._own(handling)
        except RefusedError as refusal:
            return "error", refusal.response

    async def _own(self, handling: Awaitable[T], limit: asyncio.Timeout | None = None) -> T:
        """Await code of the application; a cancellation that adsum did not ask for is a crash.

        The code may cancel its own task, or wait for something that is cancelled. If it cancels its
        task and then returns without another wait, the task ends as cancelled; see `broken`.

        Args:
            handling: What to await.
            limit: Cancels it when it takes too long.
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
        """Whether this client can be sent it; that it cannot is logged, once."""
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
        # Events in `args` are those of the class: a client cannot invent any.
        within = (type(self._channel), *args)
        self._hub.log.crashed(text, repr(self), *args, error=error, within=within)


def encode(payload: object, limit: int = MAX_PUSH, what: str = "payload") -> Encoded:
    """A payload as it goes into a frame; errors call it `what`.

    Raises:
        TypeError: It is neither a JSON object nor bytes.
        ValueError: It is not finite, too deep or too large.
    """
    if isinstance(payload, bytes):
        if len(payload) > limit:
            raise ValueError(f"{what} is {len(payload)} bytes; at most {limit} are accepted")
        return payload
    return encode_object(payload, what, limit)
