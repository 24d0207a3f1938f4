"""A transport over a message engine: runs a `BusCore` over a `BusClient` in one event loop.

Two queues keep the order. The events of the client (messages, refusals, connection lost and
restored) wait in the first one until the core handles them: a refusal that arrives after the
goodbye of a node is handled after it. The outputs of the core wait in the second one until they are
reported to the handler, in the event loop and never from inside a call of a link. Both share the
turn budget of the node, see `adsum.transport.turns`. The windows of the links bound their bytes;
messages of strangers are dropped beyond `MAX_QUEUED`, those on topics beyond `MAX_TOPIC_QUEUED`.

Outputs for the client do not wait: messages, subscriptions and their ends. Nor do two for the
handler: `link_writable(link, False)` takes effect inside the `send` that fills the window of a
link, and `topics_writable(False)` inside the `publish_topic` that fills the backlog of the client.

While the engine is away, links stay open, and the handler is notified that the silence of their
peers means nothing. An outage that outlasts the grace ends all links, as if the node were alone;
they form again after the return.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Protocol, cast

from adsum.activetime import ActiveTimer
from adsum.errors import DialError, ListenError, ProtocolError
from adsum.forks import process
from adsum.quoting import printable
from adsum.sparselog import SparseLog, SparseLogger
from adsum.tasks import cancel_task, start_task
from adsum.transport.contract import HoldHandler, Link, NodeIdentity
from adsum.transport.framing import FRAME_LIMIT
from adsum.transport.turns import FRAME_COST, TurnBudget

from .busclient import BusClient, BusHandler
from .buscore import BusCore
from .busdials import SCHEME
from .busevents import (
    Alone,
    Announced,
    Arrived,
    BusChanged,
    BusEvent,
    Closed,
    DialDone,
    Emit,
    Follow,
    Heard,
    HoldChanged,
    Opened,
    RoomChanged,
    Trouble,
    Unfollow,
)
from .buslink import BusLink
from .busmessages import Bulletin, claims
from .limits import MAX_TOPIC_QUEUED
from .topicroom import TopicRoom

logger = logging.getLogger("adsum.transport")

#: Bytes of received messages that may be queued; further ones are dropped, as a bus may lose any.
MAX_QUEUED = 64 * 1024 * 1024
#: Bytes for which a queued message counts beside its own, so that a flood of empty ones is bounded.
MESSAGE_COST = 256
#: Characters of a reason in a log line.
_MAX_REASON = 200


class CarrierHandler(HoldHandler, Protocol):
    """Receives the events of a bus transport. Its methods are called in the event loop."""

    def node_announced(self, address: str, sibling: bool) -> None:
        """A node without a link over the bus has announced its address; see `Announced`."""

    def found_alone(self) -> None:
        """The engine reports that no other node is there."""

    def topics_open(self, is_open: bool) -> None:
        """Messages on topics can be published from now on, or no longer: the engine is away."""

    def topics_writable(self, writable: bool) -> None:
        """The client has room for messages on topics again, or has none, also while it is away.

        False takes effect at once.
        """

    def topic_received(self, link: Link, payload: bytes) -> None:
        """A frame on a topic has arrived from the peer of an open link.

        Raises:
            ProtocolError: It breaks the protocol; the link is closed.
        """


class BusTransport:
    """Moves frames over a message engine; fulfils `Transport`.

    Belongs to the event loop that it is made in. Construction connects nothing.

    Args:
        identity: The identity of the node. Set the attribute again before `listen`, once its other
            addresses are known.
        handler: Receives the events.
        make_client: Makes the client of the engine for its handler.
        secret: The shared secret of the cluster.
        carrier: The URL of the engine without credentials, for log lines.
        grace: Seconds of active time that the engine may be away until all links end, from 0.
        turns: The turn budget; shared with the other transport of the node, if it has one.
        site: See `BusCore`.
        random_bytes: Makes random bytes, like `secrets.token_bytes`.

    Attributes:
        handler: Receives the events.
        address: The address at which other nodes dial this one over the bus.
        turns: The turn budget.
        waiting: See `TurnSource`.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        handler: CarrierHandler,
        make_client: Callable[[BusHandler], BusClient],
        *,
        secret: bytes,
        carrier: str,
        grace: float,
        turns: TurnBudget,
        site: bytes = b"",
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.handler = handler
        self.turns = turns
        self.waiting = False
        self._loop = asyncio.get_running_loop()
        self._core = BusCore(identity, secret, random_bytes, site)
        self.address = self._core.address
        self._client = make_client(self)
        self._carrier = carrier
        self._grace = grace
        self._generation = process.generation
        # No more links may form; then, no more messages may be published.
        self._closing = self._muted = False
        self._closed: asyncio.Event | None = None
        # The first connection to the engine, which `close` interrupts.
        self._connecting: asyncio.Task[None] | None = None
        self._links: dict[int, BusLink] = {}
        self._dials: dict[str, asyncio.Future[None]] = {}
        # Calls of the core for the events of the client, each with the bytes of its message.
        self._inbound: deque[tuple[int, Callable[[float], None]]] = deque()
        self._queued = 0
        # Outputs of the core that are not carried out yet.
        self._events: deque[BusEvent] = deque()
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        # A deadline of the core has passed, and waits behind the messages received before.
        self._tick_queued = False
        # When the engine was lost, in monotonic seconds; None while it is connected.
        self._lost_at: float | None = None
        self._patience: ActiveTimer | None = None
        self._topic_room = TopicRoom(self._backlog, self._topic_room_changed, self._loop.call_later)
        self._log = SparseLogger(logger)
        self._failures = SparseLog(logger, "carrier %s: %s failed", logging.ERROR)

    def __repr__(self) -> str:
        return f"<bus transport {self._carrier}, {len(self._links)} links>"

    @property
    def identity(self) -> NodeIdentity:
        """The identity that this node sends in handshakes."""
        return self._core.identity

    @identity.setter
    def identity(self, identity: NodeIdentity) -> None:
        self._core.identity = identity

    @property
    def connected(self) -> bool:
        """Whether the engine is connected at present."""
        return self._client.connected

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the process that the transport belongs to."""
        return self._generation != process.generation

    @property
    def closing(self) -> bool:
        """Whether no more links may form: the transport is closed or inherited."""
        return self._closing or self.inherited

    # Transport.

    async def listen(self, address: str = SCHEME) -> str:
        """Connect to the engine and announce this node; returns its address on the bus.

        Args:
            address: Always ``bus:``, as the address is drawn at construction.

        Raises:
            CarrierError: The engine cannot be reached; names it, the reason and a remedy.
            ListenError: Another address was given, or the transport is closed.
        """
        if not address.startswith(SCHEME):
            raise ListenError(f"{address}: not an address of a bus")
        if self.closing:
            raise ListenError(f"{address}: the transport is closed")
        self._connecting = start_task(self._client.connect(self._core.subjects))
        try:
            await asyncio.wait([self._connecting])
        finally:
            self._connecting.cancel()
        if self._connecting.cancelled():
            raise ListenError(f"{address}: the transport is closed")
        self._connecting.result()
        return self.address

    async def dial(self, address: str) -> None:
        """Open a link to the node with an address on the bus. See `Transport.dial`.

        Raises:
            DialRefusedError: The engine reports that nobody has this address.
            DialError: The engine is away, or the node did not answer in time.
            HandshakeError: A node answered that cannot form a link; `SelfDialError` if it is this
                node.
        """
        if self.closing:
            raise DialError(f"{address}: the transport is closed")
        dial = self._dials.get(address)
        if dial is None:
            dial = self._dials[address] = self._loop.create_future()
            dial.add_done_callback(_retrieve)
            self._call(self._core.dial, address)
            self._schedule()
        await asyncio.wait([dial])
        dial.result()

    def send(self, links: Iterable[Link], payload: bytes) -> None:
        """Send one frame over each of these links, of this transport. See `Transport.send`."""
        if len(payload) > FRAME_LIMIT:
            size = len(payload)
            raise ValueError(f"a payload of {size} bytes is above the frame limit of {FRAME_LIMIT}")
        numbers = [link.number for link in cast(Iterable[BusLink], links) if link.open]
        if numbers and not self.inherited:
            self._call(self._core.send, numbers, payload)
            self._schedule()

    # Topics.

    def want_topic(self, topic: str) -> None:
        """Receive the messages on one more topic; call `unwant_topic` once for each call.

        The engine has the subscription within a round trip, and before all later frames of this
        node. It is renewed with the connection.
        """
        self._call(self._core.want_topic, topic)

    def unwant_topic(self, topic: str) -> None:
        """Undo one `want_topic`; messages may arrive for some time. See `BusCore.unwant_topic`."""
        self._call(self._core.unwant_topic, topic)

    def publish_topic(self, topic: str, payload: bytes, excluded: Collection[str]) -> None:
        """Publish one frame on the subject of a topic. See `BusCore.publish_topic`.

        Without room the caller should wait, see `CarrierHandler.topics_writable`. The frame is
        dropped while the engine is away, and beyond the bound of the client.
        """
        if self.closing:
            return
        self._call(self._core.publish_topic, topic, payload, excluded)
        self._topic_room.check()

    async def close(self) -> None:
        """Close every link with a goodbye, and disconnect from the engine. Idempotent.

        Concurrent callers wait for the same end. Does nothing in a forked child.
        """
        if self.inherited:
            return
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = asyncio.Event()
        self._closing = True
        try:
            for link in list(self._links.values()):
                link.close("the node is closing")
            self._end_dials()
            cancel_task(self._connecting)
            await self._client.close()
        finally:
            self._muted = True
            self._stop()
            self._closed.set()
        while self._events:  # noqa: ASYNC110  # the turn budget has them carried out
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # `link_closed` is called for the last links

    def abandon(self) -> None:
        """Disconnect at once, without goodbyes, as a killed process does. Idempotent."""
        if self.inherited:
            return
        self._closing = self._muted = True
        cancel_task(self._connecting)
        self._client.abandon()
        self._stop()
        if not self._loop.is_closed():
            self._end_dials()
            self._call(self._core.give_up)
            self._schedule()

    # Called by links.

    def send_over(self, link: BusLink, payload: bytes) -> None:
        """See `BusLinkOwner`."""
        self.send([link], payload)

    def close_link(self, link: BusLink, reason: str) -> None:
        """See `BusLinkOwner`."""
        if link.open and not self.inherited:
            link.open = False
            self._call(self._core.close, link.number, reason)
            self._schedule()

    # BusHandler.

    def bus_received(self, data: bytes) -> None:
        """See `BusHandler`."""
        limit = MAX_TOPIC_QUEUED if claims(data, Bulletin) else MAX_QUEUED
        if self._queued + len(data) > limit:
            self._log.warning(
                "carrier %s: messages are dropped, more than %d bytes are queued",
                self._carrier,
                limit,
            )
        else:
            self._enqueue(partial(self._core.received, data), len(data))

    def bus_refused(self, probe: object) -> None:
        """See `BusHandler`."""
        self._enqueue(partial(self._core.refused, probe))

    def bus_connected(self) -> None:
        """See `BusHandler`."""
        if self._lost_at is not None and not self.closing:
            seconds = self._loop.time() - self._lost_at
            text = "%s: the carrier %s is back after %.1f s"
            self._log.log(logging.INFO, text, self.identity.name, self._carrier, seconds)
        self._lost_at = None
        self._end_patience()
        self._enqueue(self._core.connected)

    def bus_disconnected(self, reason: str) -> None:
        """See `BusHandler`."""
        if self._lost_at is None and not self.closing:
            self._lost_at = self._loop.time()
            text = "%s: the carrier %s is gone: %s; the other nodes stay listed for %g s"
            why = printable(reason, _MAX_REASON)
            self._log.warning(text, self.identity.name, self._carrier, why, self._grace)
            if self._grace > 0:
                self._patience = ActiveTimer(self._grace, self._give_up, self._loop)
        self._enqueue(self._core.disconnected)
        if not self._grace:
            self._enqueue(self._core.give_up)

    # TurnSource.

    def deliver(self) -> int | None:
        """Carry out one output of the core, or first let it handle an event of the client.

        Never raises. See `TurnSource`.
        """
        size = 0
        if not self._events:
            if not self._inbound or self.inherited:
                return None
            size, action = self._inbound.popleft()
            self._queued -= size + MESSAGE_COST
            self._call(action)
        if self._events:
            size = max(size, self._perform(self._events.popleft()))
        return FRAME_COST + size

    def caught_up(self) -> None:
        """See `TurnSource`."""

    # The core.

    def _enqueue(self, action: Callable[[float], None], size: int = 0) -> None:
        if not self._muted and not self.inherited:
            self._inbound.append((size, action))
            self._queued += size + MESSAGE_COST
            self.turns.offer(self)

    def _call(self, action: Callable[..., None], *arguments: object) -> None:
        """Call the core, and publish its messages; the other outputs are queued."""
        try:
            action(*arguments, self._loop.time())
        except Exception as error:
            self._failed(getattr(action, "__name__", "an event"), error)
        for event in self._core.take_events():
            match event:
                case Emit() | Follow() | Unfollow():
                    self._pass_on(event)
                case RoomChanged(number, writable) if self._note_room(number, writable):
                    self._set_writable(number, False)
                case _:
                    self._events.append(event)
        if not self._closing:
            self._set_timer()

    def _note_room(self, number: int, writable: bool) -> bool:
        """Note the room of a link; returns whether it has to stop sending at once."""
        link = self._links.get(number)
        if link is None:
            return False
        link.room = writable
        return not writable

    def _pass_on(self, event: Emit | Follow | Unfollow) -> None:
        """Pass an output to the client."""
        if self._muted:
            return
        try:
            match event:
                case Emit(subject, data, probe):
                    self._client.publish(subject, data, probe)
                case Follow(subject):
                    self._client.subscribe(subject)
                case Unfollow(subject):
                    self._client.unsubscribe(subject)
        except Exception as error:
            self._failed("a message", error)

    def _schedule(self) -> None:
        """Carry out the queued outputs in a later turn of the event loop."""
        if self._events and self._soon is None and not self.waiting:
            self._soon = self._loop.call_soon(self._on_soon)

    def _on_soon(self) -> None:
        self._soon = None
        self.turns.offer(self)

    def _perform(self, event: BusEvent) -> int:  # noqa: C901  # a case a kind
        """Carry out an output; returns the bytes that were passed to the handler."""
        match event:
            case Arrived(number, payload):
                self._arrived(number, payload)
                return len(payload)
            case Heard(number, payload):
                self._arrived(number, payload, on_topic=True)
                return len(payload)
            case BusChanged(connected):
                self._notify(self.handler.topics_open, connected)
            case Opened():
                self._opened(event)
            case Closed(number, reason, gone):
                self._end(number, reason, gone)
            case RoomChanged(number, writable):
                # The handler may have filled the window since then.
                link = self._links.get(number)
                if link is not None and link.room is writable:
                    self._set_writable(number, writable)
            case DialDone(address, error):
                self._dial_done(address, error)
            case Announced(address, sibling):
                self._notify(self.handler.node_announced, address, sibling)
            case Alone():
                self._notify(self.handler.found_alone)
            case HoldChanged(numbers, held):
                links: list[Link] = [self._links[each] for each in numbers if each in self._links]
                self._notify(self.handler.links_held, links, held)
            case Trouble(text, key):
                self._log.warning("%s: %s", self.identity.name, text, key=key)
        return 0

    def _opened(self, event: Opened) -> None:
        link = BusLink(self, event.link, event.peer, event.dialled, event.version)
        self._links[event.link] = link
        if self._closing:
            link.close("the node is closing")
        if not self._notify(self.handler.link_opened, link):
            link.close("internal error")

    def _arrived(self, number: int, payload: bytes, *, on_topic: bool = False) -> None:
        """Pass a frame to the handler; a peer that breaks the protocol loses its link."""
        link = self._links.get(number)
        if link is None or not link.open:
            return
        try:
            if on_topic:
                self.handler.topic_received(link, payload)
            else:
                self.handler.frame_received(link, payload)
        except ProtocolError as error:
            reason = str(error)
            self._log.warning("link to %r closed: %s", link.peer.name, printable(reason, 320))
            link.close(reason)
        except Exception as error:
            self._failed("a frame", error)
            link.close("internal error")

    def _end(self, number: int, reason: str, gone: bool) -> None:
        """End a link; `link_closed` follows in a later turn."""
        link = self._links.pop(number, None)
        if link is None:
            return
        by_peer, link.open = link.open, False
        link.gone = gone
        self._loop.call_soon(self.handler.link_closed, link, reason)
        if by_peer and link.writable:
            link.writable = False
            self._notify(self.handler.link_writable, link, False)

    def _set_writable(self, number: int, writable: bool) -> None:
        link = self._links.get(number)
        if link is not None and link.open and link.writable is not writable:
            link.writable = writable
            self._notify(self.handler.link_writable, link, writable)

    def _dial_done(self, address: str, error: Exception | None) -> None:
        dial = self._dials.pop(address, None)
        if dial is None or dial.done():
            return
        if error is None:
            dial.set_result(None)
        else:
            dial.set_exception(error)

    def _notify(self, method: Callable[..., None], *arguments: object) -> bool:
        """Call the handler; a failure is logged, and everything else goes on."""
        try:
            method(*arguments)
        except Exception as error:
            self._failed(getattr(method, "__name__", "a notification"), error)
            return False
        return True

    def _failed(self, subject: str, error: Exception) -> None:
        self._failures.log(self._carrier, subject, key=subject, error=error)

    # Time.

    def _set_timer(self) -> None:
        # A timer that fires too early does no harm, so it is only ever moved forward.
        if self._tick_queued:
            return
        at = self._core.wake_at
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at < float("inf"):
            self._timer, self._timer_at = self._loop.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        if not self._closing and not self.inherited:
            # A busy node has received the answers, and not handled them yet: they come first.
            self._tick_queued = True
            self._enqueue(self._tick)

    def _tick(self, now: float) -> None:
        self._tick_queued = False
        self._core.tick(now)

    def _give_up(self) -> None:
        """End all links: the engine has been away for longer than the grace."""
        if not self._closing and not self.inherited:
            text = "%s: the carrier %s has been away for %g s: the other nodes leave the lists"
            self._log.warning(text, self.identity.name, self._carrier, self._grace)
            self._call(self._core.give_up)
            self.turns.offer(self)

    # See `TopicRoom`.

    def _backlog(self) -> int | None:
        return None if self.closing else self._client.backlog

    def _topic_room_changed(self, has_room: bool) -> None:
        self._notify(self.handler.topics_writable, has_room)

    # The end.

    def _end_dials(self) -> None:
        for address in list(self._dials):
            self._dial_done(address, DialError(f"{address}: the transport is closed"))

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _stop(self) -> None:
        """Remove the timers, and drop the queued events of the client."""
        self._end_patience()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._topic_room.stop()
        self._inbound.clear()
        self._queued = 0


def _retrieve(dial: "asyncio.Future[None]") -> None:
    """Mark the error of a dial as seen: its callers may all be cancelled."""
    if not dial.cancelled():
        dial.exception()
