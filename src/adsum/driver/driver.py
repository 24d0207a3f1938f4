"""`Driver`: one run of a node, and the seam between the node and all code that is built on it.

A driver carries out the effects of an engine and notifies observers. `Presence`, `PubSub` and
channels use its public methods alone. A change through them wakes the engine, so no caller has to
remember that. `SocketDriver` runs on sockets, `SimulatedNode` on a simulated network in virtual
time.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from adsum.errors import NodeNotRunningError
from adsum.forks import process
from adsum.replication.effects import (
    Close,
    Deliver,
    Dial,
    Effect,
    Joined,
    Notice,
    PublishOnTopic,
    Released,
    Send,
    Sending,
    Severity,
)
from adsum.replication.engine import Engine
from adsum.replication.entry import Entry
from adsum.replication.grace import Claim
from adsum.replication.memberinfo import MemberInfo
from adsum.replication.messages import ProtocolMessage, Publish
from adsum.replication.state import Replica
from adsum.sparselog import SparseLogger

from .failurelog import FailureLog
from .observer import Observer
from .readonlyview import ReadOnlyView

logger = logging.getLogger("adsum.node")

_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}


class Driver(ABC):
    """One run of a node. `open` it once, `close` it once.

    All methods are called in the thread of its event loop.

    Attributes:
        cluster: The name of the cluster.
        engine: The protocol. For drivers and tests; code that is built on a node uses the methods
            of the driver.
        view: The presences shown here, read-only.
        lingering: The ids of the presences of this node that linger; follows each change.
        loop: The event loop of the observers; None where there is no event loop.
        addresses: Every address at which other nodes reach this one.
        stopping: Whether the process has been asked to stop, and `close` follows.
        token: Identifies this run, for handles that outlive it and must not keep it alive.
        generation: The fork generation of the process that the run belongs to.

    Args:
        cluster: The name of the cluster.
        engine: The protocol; its effects are carried out here.
        observers: The observers to notify; the list is read at each event.
        loop: The event loop of the observers; None where there is no event loop.
    """

    def __init__(
        self,
        cluster: str,
        engine: Engine,
        observers: list[Observer],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.cluster = cluster
        self.engine = engine
        self.view: ReadOnlyView = engine.view
        self.lingering = engine.lingering_ids
        self._own_slice = engine.own_slice
        self.loop = loop
        self.addresses: tuple[str, ...] = ()
        self.frames_sent = self.frames_received = 0
        self.bytes_sent = self.bytes_received = 0
        self.stopping = False
        # Whether the observers have been notified that `close` follows.
        self._stop_announced = False
        self._observers = observers
        self._ended = False
        # Log lines that peers cause become less and less frequent.
        self._log = SparseLogger(logger)
        self._failures = FailureLog(engine.replica)
        # Callers that wait until this node has joined; the end of the run wakes them, too.
        self._waiters: set[asyncio.Future[None]] = set()
        # Whether `_drive` runs. Nested calls return, and the outer one handles their effects.
        self._driving = False
        # Publishers that wait for members without room.
        self._publishers: dict[Sending, asyncio.Future[None]] = {}
        self.token = object()
        # The number of watchers of the members, and the revision that observers know.
        self._member_watchers = 0
        self._members_revision = 0
        self.generation = process.generation

    # Lifecycle.

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the process that the run belongs to."""
        return self.generation != process.generation

    @property
    def replica(self) -> Replica:
        """The name and incarnation of the node in this run."""
        return self.engine.replica

    @abstractmethod
    async def open(self) -> None:
        """Listen, find and dial the other nodes, and wait for a bounded time until joined.

        Raises:
            NodeNotRunningError: The run was closed meanwhile.
            ListenError: An address cannot be listened on.
            CarrierError: The carrier cannot be reached.
            ConfigurationError: The directory for the sockets of siblings is not safe.
        """

    @abstractmethod
    async def close(self) -> None:
        """Send a goodbye and close all links. Observers are notified at once."""

    def abandon(self) -> None:
        """End a run without a goodbye: its loop is closed, `close` was cancelled, or it crashed."""
        self._end()

    async def wait_joined(self, timeout: float | None) -> bool:  # noqa: ASYNC109  # returns a state
        """Wait at most `timeout` seconds until this node has joined; returns whether it has.

        Raises:
            NodeNotRunningError: The run has ended.
        """
        if not self.engine.joined and not self._ended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=timeout)
            finally:
                self._waiters.discard(waiter)
        if self._ended:
            raise NodeNotRunningError("the node was stopped while joining")
        return self.engine.joined

    def leave_to_parent(self) -> None:
        """Make observers forget this run, which is `inherited`."""
        for observer in list(self._observers):
            self._guard(observer.forked)

    @property
    def joined(self) -> bool:
        """Whether this node has joined its cluster; stays true until the end of the run."""
        return self.engine.joined

    def hold(self, links: Collection[int], held: bool) -> None:
        """Let the silence of some links mean nothing, or count again; see `Engine.hold`.

        Meanwhile the members behind them are neither suspected nor declared down, unless they have
        other links; changes and messages of this node are handled as usual. The caller bounds the
        time.
        """
        self.engine.hold(links, held, self._now())
        self._drive()

    def begin_stop(self) -> None:
        """Note that `close` follows, and notify the observers in the event loop, once.

        Safe in a signal handler and in any thread.
        """
        if self.stopping or self.inherited:
            return
        self.stopping = True
        if self.loop is None:
            self.announce_stop()
        elif not self.loop.is_closed():
            with suppress(RuntimeError):  # closed meanwhile by its own thread
                self.loop.call_soon_threadsafe(self.announce_stop)

    def announce_stop(self) -> None:
        """Notify the observers that the run is about to stop. Idempotent."""
        if not self._stop_announced and not self._ended and not self.inherited:
            self._stop_announced = self.stopping = True
            for observer in list(self._observers):
                self._guard(observer.stopping)

    # Presences of this node.

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Track a presence: it is in the view when this returns, and on its way to the members.

        Args:
            topic: A name, as `adsum.values.names` checks it.
            key: A name.
            meta: The text of a JSON object.

        Returns:
            The entry; its `ID` identifies the presence in this run.
        """
        self.wake()  # raises if the event loop is closed, before the change
        return self.engine.track(topic, key, meta)

    def update(self, entry: Entry, meta: str) -> Entry:
        """Replace the meta of a presence in place; returns its new entry."""
        self.wake()
        return self.engine.update(entry, meta)

    def untrack(self, entry: Entry) -> None:
        """End a presence; `entry` is its current entry."""
        self.wake()
        self.engine.untrack(entry)

    def linger(
        self, entry: Entry, seconds: float, claim: Claim | None = None, hold: object = None
    ) -> None:
        """Keep a presence whose owner is gone: it ends after some seconds of active time.

        It stays listed on all nodes until then, and ends earlier only by `untrack`. If it lingers
        already, this replaces its deadline and its claim. At most `MAX_LINGERING` presences of a
        node linger; for one more, one of a key that has the most of them ends at once.

        Args:
            entry: The current entry of the presence.
            seconds: From 0 to `MAX_LINGER`.
            claim: The owner that is gone, and so who may take the presence over; None if nobody
                may.
            hold: Any object, for `lingers_since`.
        """
        self.wake()
        self.engine.linger(entry, seconds, claim, hold, self._now())

    def take_over(self, topic: str, key: str, meta: str, claim: Claim) -> Entry | None:
        """Take over a lingering presence for a new owner, and replace its meta in place.

        No observer sees the key leave. With an equal meta nothing changes, so that thousands of
        clients that return at once cost the other nodes nothing.

        Args:
            topic: A name.
            key: A name.
            meta: The text of a JSON object.
            claim: The new owner.

        Returns:
            Its entry: it lingers no longer. None if there is none that this owner may take over.
        """
        self.wake()
        return self.engine.take_over(topic, key, meta, claim)

    def lingering_of(self, claim: Claim) -> list[Entry]:
        """The current entries of the presences that an owner had and that linger."""
        return self.engine.lingering_of(claim)

    def lingers_since(self, id: int, hold: object) -> bool:
        """Whether a presence lingers, and was passed to `linger` with this very hold."""
        return self.engine.lingers_since(id, hold)

    def tracked(self, id: int) -> Entry | None:
        """The current entry of a presence that this node tracks; None if it has ended."""
        return self._own_slice.entries.get(id)

    # Observers.

    def watch_topic(self, topic: str) -> None:
        """Report the changes of a topic to the observers, from now on; earlier ones are not.

        Call `unwatch_topic` once for each call.
        """
        self.notify_observers()  # earlier changes are for earlier watchers
        self.engine.view.watch(topic)

    def unwatch_topic(self, topic: str) -> None:
        """Undo one `watch_topic`; does nothing once the run has ended."""
        if not self._ended:
            self.engine.view.unwatch(topic)

    def watch_topics(self, prefix: str) -> None:
        """As `watch_topic`, for all topics that begin with a prefix, also for new ones."""
        self.notify_observers()  # earlier changes are for earlier watchers
        self.engine.view.watch_prefix(prefix)

    def unwatch_topics(self, prefix: str) -> None:
        """Undo one `watch_topics`; does nothing once the run has ended."""
        if not self._ended:
            self.engine.view.unwatch_prefix(prefix)

    def watch_members(self) -> None:
        """Report changes of the members to the observers, from now on.

        Call `unwatch_members` once for each call.
        """
        self._notify_of_members()  # earlier changes are for earlier watchers
        self._member_watchers += 1
        self._members_revision = self.engine.members_revision

    def unwatch_members(self) -> None:
        """Undo one `watch_members`."""
        self._member_watchers -= 1

    def notify_observers(self) -> None:
        """Pass all presence changes since the last call to the observers."""
        for topic, transitions in self.engine.take_changes().items():
            for observer in list(self._observers):
                self._guard(observer.changed, topic, transitions)

    # Messages.

    async def publish(self, message: Publish, to: str | None) -> int:
        """Send a message to all members, or to one.

        It is sent to members with room at once. This waits for the others, at most 1 s. A member
        that reads receives the message even later; a member that does not read misses it. If this
        is cancelled, the members that it waits for miss the message.

        A message for all reaches the members on a carrier where its topic is wanted, see
        `want_topic`. It waits as long for the carrier.

        Returns:
            The number of members that are known to have missed it by now.
        """
        sending = self.post(message, to)
        if sending.waiting:
            self._publishers[sending] = asyncio.get_running_loop().create_future()
            try:
                await self._publishers[sending]
            except asyncio.CancelledError:
                self.engine.withdraw(sending)
                raise
            finally:
                del self._publishers[sending]
        return sending.missed

    def post(self, message: Publish, to: str | None, *, over_links: bool = False) -> Sending:
        """Send a message as `publish` does, without waiting for members that have no room.

        Args:
            message: The message.
            to: The name of a member; None for all.
            over_links: Whether members on a carrier are sent it over their links, too. These repeat
                lost frames, and every member receives it, whether its topic is wanted there or not.
        """
        sending = self.engine.publish(message, to, self._now(), over_links=over_links)
        self._drive()
        return sending

    def want_topic(self, topic: str) -> None:  # noqa: B027  # only a carrier routes by topic
        """Let the observers receive the messages for all members on one more topic, from now on.

        Call `unwant_topic` once for each call, and return the topics of earlier calls from
        `Observer.wanted_topics`. On a carrier this takes effect within a round trip to its engine,
        and other topics are not received; without one, all are. Messages for one member need none.
        """

    def unwant_topic(self, topic: str) -> None:  # noqa: B027  # see `want_topic`
        """Undo one `want_topic`; messages on the topic may be delivered for some time."""

    def deliver(self, sender: str, message: Publish) -> None:
        """Deliver a message from a member or from this node to the observers."""
        for observer in list(self._observers):
            self._guard(observer.delivered, sender, message)

    def charge(self, cost: int) -> None:  # noqa: B027  # not every run has a budget
        """Count the work that a received message causes as `cost` more bytes received.

        The run then receives less in this turn of the event loop. So small messages that each cause
        much work do not block the loop.
        """

    # Members and figures.

    def members(self) -> list[MemberInfo]:
        """The known nodes of the cluster, this one included, sorted by name."""
        address = self.addresses[0] if self.addresses else ""
        return [
            replace(member, address=address) if member.status == "self" else member
            for member in self.engine.members()
        ]

    @property
    def members_revision(self) -> int:
        """A number that grows with each change of the members, their statuses or addresses."""
        return self.engine.members_revision

    def counters(self) -> dict[str, int]:
        """Counters and gauges of this run, see `Node.stats`."""
        members = self.engine.members()
        up = [member for member in members if member.status in ("self", "up", "suspect")]
        return {
            "members_up": len(up),
            "members_down": len(members) - len(up),
            "links": self.engine.links,
            "topics": len(self.view.topics),
            "presences": self.engine.shown,
            "own_presences": len(self.engine.own_slice.entries),
            "lingering_presences": len(self.lingering),
            "lag_changes": sum(member.lag for member in members),
            "sent_frames_total": self.frames_sent,
            "received_frames_total": self.frames_received,
            "sent_bytes_total": self.bytes_sent,
            "received_bytes_total": self.bytes_received,
            "missed_messages_total": self.missed_messages,
            "incomplete_messages_total": self.engine.incomplete_messages,
        }

    @property
    def missed_messages(self) -> int:
        """Number of published messages that a member missed, counted for each member."""
        return self.engine.missed_messages

    # Time.

    @property
    def now(self) -> float:
        """The current time in monotonic seconds; virtual time on a simulated network."""
        return self._now()

    @abstractmethod
    def wake(self) -> None:
        """Wake the run after a local change: `tick` follows soon, once for many changes."""

    def tick(self) -> None:
        """Let the engine handle its due timers."""
        if not self._ended:
            self.engine.tick(self._now())
            self._drive()

    def _end(self) -> None:
        # Observers are notified again if `close` was interrupted: their loop may be closed by now.
        self._ended = True
        self._log.flush()
        self._wake_waiters()
        for observer in list(self._observers):
            self._guard(observer.closed)

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    def _drive(self) -> None:
        """Carry out the effects of the engine, notify observers, and set the timer.

        Does nothing in a forked child: an event loop that continues there must not act as the
        parent's node.
        """
        if self.inherited:
            return
        if self._driving:  # called by a link, from inside a send, or by an observer
            return
        self._driving = True
        try:
            while effects := self.engine.take_effects():
                for effect in effects:
                    self._guard(self._perform, effect)
        finally:
            self._driving = False
        self.notify_observers()
        self._notify_of_members()
        if not self._ended:
            self._wake_at(self.engine.wake_at)

    def _notify_of_members(self) -> None:
        """Report a change of the members, if they are watched: at most once for each event."""
        if self._member_watchers and self.engine.members_revision != self._members_revision:
            self._members_revision = self.engine.members_revision
            for observer in list(self._observers):
                self._guard(observer.members_changed)

    def _perform(self, effect: Effect) -> None:
        """Carry out an effect. `PublishOnTopic` is left to drivers that call `set_topics`."""
        match effect:
            case Send(links, message, sending, index):
                self._send(links, message, self._encoded(message, sending, index))
            case Deliver(sender, message):
                self.deliver(sender, message)
            case Dial(address):
                self._dial(address)
            case Close(link, reason):
                self._close(link, reason)
            case Joined():
                self._wake_waiters()
            case Released(sending):
                publisher = self._publishers.get(sending)
                if publisher is not None and not publisher.done():
                    publisher.set_result(None)
            case Notice(severity, text):
                # The key is the text, so that each node is named, up to a number of them.
                self._log.log(_LEVELS[severity], "%s: %s", self.replica, text, key=text)

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call a function; a failure is logged and not raised, so that everything else goes on."""
        self._attempt(action, *arguments)

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> bool:
        """As `_guard`; returns whether it succeeded."""
        try:
            action(*arguments)
        except Exception as error:
            name = getattr(action, "__name__", "an action")
            self._failures.log(name, error, self._now())
            return False
        return True

    @abstractmethod
    def _now(self) -> float:
        """The current time, in monotonic seconds."""

    @abstractmethod
    def _wake_at(self, at: float) -> None:
        """Call `tick` at a time, or earlier."""

    def _encoded(self, message: ProtocolMessage, sending: Sending | None, index: int) -> Any:
        """The encoded message; one that may be sent over many links is encoded once for all."""
        if sending is None:
            return self._encode(message)
        if index not in sending.encoded:
            sending.encoded[index] = self._encode(message)
        return sending.encoded[index]

    def _encoded_for_topic(self, effect: PublishOnTopic) -> Any:
        """The encoded frame of an effect; one that links are sent as well is encoded once."""
        sending, index = effect.sending, effect.index
        return self._encoded(sending.frame(index), sending if effect.reused else None, index)

    @abstractmethod
    def _encode(self, message: ProtocolMessage) -> Any:
        """Encode a message for `_send`."""

    @abstractmethod
    def _send(self, links: tuple[int, ...], message: ProtocolMessage, encoded: Any) -> None:
        """Send one message over each of these links."""

    @abstractmethod
    def _dial(self, address: str) -> None:
        """Begin to open a link to the node at an address."""

    @abstractmethod
    def _close(self, link: int, reason: str) -> None:
        """Close a link, and send the reason to the peer."""
