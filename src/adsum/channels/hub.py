"""State shared by all connections of a `Socket`: routes, subscriptions, rooms, and broadcasts.

A broadcast is sent to the clients of this node at once and to each other node as one message. Each
node encodes it once for each version of the protocol, however many clients receive it.
"""

import asyncio
import base64
import logging
import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

from adsum.activetime import ActiveTimer
from adsum.arguments import instance, refuse, seconds_above_zero
from adsum.driver.observer import Observer
from adsum.errors import ConfigurationError
from adsum.presence import Presence
from adsum.pubsub import RESERVED
from adsum.quoting import printable, quoted
from adsum.replication.entry import Transition
from adsum.replication.messages import Publish
from adsum.sparselog import SparseLogger
from adsum.tasks import in_slices, start_task
from adsum.values.jsontext import dump, load
from adsum.values.limits import MAX_NAME, MAX_NODE_NAME, MAX_PAYLOAD
from adsum.values.names import checked_name

from .channel import Channel, pattern_of
from .clientlimits import Limits
from .connection import Connection
from .flow.fairshare import RECIPIENT, WORK
from .presence.feed import Follower, PresenceFeed
from .process import ChannelProcess, encode
from .wire.frames import Encoded, Serializer, Wire, checked_event, is_reserved
from .wire.topics import Pattern

logger = logging.getLogger("adsum.channels")

#: Topics of messages between nodes; a topic of the application is appended to the first two.
_TEXT = f"{RESERVED}channels/text/"
_BYTES = f"{RESERVED}channels/bytes/"
_DISCONNECT = f"{RESERVED}channels/disconnect"
#: Characters that a channel topic may have, so that a broadcast on it fits the limit of names.
MAX_TOPIC = MAX_NAME - len(_BYTES)
#: Seconds of active time between two sweeps for silent clients.
_SWEEP_INTERVAL = 5.0


class Hub(Observer):
    """Registry of a socket's connections, subscriptions and rooms; distributes broadcasts.

    Args:
        presence: The presences of the node.
        channels: The classes, in the order in which their patterns are tried.
        limits: Resource limits for each client.
        timeout: Seconds of silence after which a client is considered gone.
        when_slow: Action for a client that is too far behind: send a new ``state``, or ``close``.

    Raises:
        ConfigurationError: A channel has no topic, two have the same, or a setting is wrong.
    """

    def __init__(
        self,
        presence: Presence,
        channels: Iterable[type[Channel]],
        limits: Limits,
        timeout: float,
        when_slow: Literal["state", "close"],
    ) -> None:
        instance("presence", presence, Presence, "an adsum.Presence, as adsum.Presence(node)")
        instance("limits", limits, Limits, "a Limits, as Limits(joins=50)")
        seconds_above_zero("timeout", timeout)
        if when_slow not in ("state", "close"):
            refuse("when_slow", when_slow, "'state' or 'close'")
        self.presence = presence
        #: Rate-limited log of events that clients cause.
        self.log = SparseLogger(logger)
        self.limits = limits
        self._sweep_interval = min(_SWEEP_INTERVAL, timeout / 4)
        # A client silent for more sweeps than this has exceeded the timeout.
        sweeps = timeout / self._sweep_interval
        self._silent_sweeps = math.ceil(sweeps) if math.isfinite(sweeps) else sys.maxsize
        #: Number of sweeps so far: the clock for the silence of clients. It stands still while this
        #: process is stopped or blocked, so a client is not timed out for frames not read then.
        self.sweeps = 0
        self._state_if_slow = when_slow == "state"
        self._routes = _routes(channels)
        self.connections: set[Connection] = set()
        #: Connections that were given up and whose end the server has not reported: they serve no
        #: client any more, but still occupy their sockets.
        self.given_up: set[Connection] = set()
        #: Clients for which `connect` is still running: a future that is done when each has gone.
        self.admissions: set[asyncio.Future[Any]] = set()
        self._by_id: dict[str, set[Connection]] = {}
        self._members: dict[str, set[ChannelProcess]] = {}
        self._feeds: dict[str, PresenceFeed] = {}
        self._sweeper: ActiveTimer | None = None
        self._sweeping: asyncio.Task[None] | None = None
        # Deadlines of lingering presences of ended connections, in seconds of the event loop,
        # earliest first.
        self._lingering: deque[float] = deque()
        #: Frames received since the process began.
        self.frames_received = 0
        # Totals of the connections that have ended.
        self._frames_sent = self._bytes_sent = 0
        presence.node.observe(self)

    @property
    def channels(self) -> list[type[Channel]]:
        """The classes, in the order in which their patterns are tried."""
        return [channel for _, channel in self._routes]

    def now(self) -> float:
        """The current time, in seconds of the event loop."""
        return asyncio.get_running_loop().time()

    def find(self, topic: str) -> tuple[type[Channel], dict[str, str]] | None:
        """The channel class for a topic and the topic's parameters; None if no pattern matches."""
        if len(topic) > MAX_TOPIC:
            return None
        for pattern, channel in self._routes:
            params = pattern.match(topic)
            if params is not None:
                return channel, params
        return None

    # Connections.

    def add(self, connection: Connection) -> None:
        """Register a new connection."""
        self.connections.add(connection)
        if connection.id is not None:
            self._by_id.setdefault(connection.id, set()).add(connection)
        if self._sweeper is None:
            self._sweeper = ActiveTimer(self._sweep_interval, self._sweep)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended, and add its counters to the totals."""
        self.connections.discard(connection)
        self._frames_sent += connection.outbox.frames
        self._bytes_sent += connection.outbox.sent
        if connection.id in self._by_id:
            self._by_id[connection.id].discard(connection)
            if not self._by_id[connection.id]:
                del self._by_id[connection.id]
        if not self.connections and self._sweeper is not None:
            self._sweeper.cancel()  # the next connection may be in another event loop
            self._sweeper = self._sweeping = None

    def disconnect(self, id: str) -> None:
        """Close every connection with an id, on every node."""
        checked_name(id, "id", MAX_NAME)
        message = Publish(_DISCONNECT, "disconnect", dump({"id": id}))
        self.presence.node.driver.post(message, None)
        for hub in self._of_this_node():
            hub._disconnect(id)

    def _disconnect(self, id: object) -> None:
        for connection in list(self._by_id.get(str(id), ())):
            connection.share.call(WORK, partial(connection.close, 1000, "disconnected"))

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

    @property
    def is_full(self) -> bool:
        """Whether `Limits.connections` is reached, connections that begin or end included."""
        count = len(self.connections) + len(self.given_up) + len(self.admissions)
        return count >= self.limits.connections

    def lingers(self, *, restarts: bool = False) -> float:
        """Seconds for which the presences of an ending connection stay.

        They stay if the node is about to stop. A client that fakes the close code of a server
        restart gains no more than by staying connected: lingering presences count as connections.

        Args:
            restarts: Whether the connection was closed because its server restarts.
        """
        if not (restarts or self.presence.node.stopping):
            return 0.0
        linger, now = self.presence.node.settings.linger, self.now()
        while self._lingering and self._lingering[0] <= now:
            self._lingering.popleft()
        if not linger or len(self.connections) + len(self._lingering) >= self.limits.connections:
            return 0.0
        self._lingering.append(now + linger)
        return linger

    # Broadcasts.

    def subscribe(self, process: ChannelProcess) -> None:
        """Send the topic's broadcasts to a channel from now on."""
        self._members.setdefault(process.topic, set()).add(process)

    def unsubscribe(self, process: ChannelProcess) -> None:
        """Stop sending the topic's broadcasts to a channel. Idempotent."""
        members = self._members.get(process.topic)
        if members is not None:
            members.discard(process)
            if not members:
                del self._members[process.topic]

    def recipients(self, topic: str) -> int:
        """Number of channels on a topic, over all sockets of this node."""
        return sum(len(hub._members.get(topic, ())) for hub in self._of_this_node())

    async def broadcast(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        exclude: ChannelProcess | None = None,
    ) -> None:
        """Send an event to every client on a topic, on every node, except `exclude`.

        Clients of this node are sent the event at once. Waits for nodes under backpressure, as
        `PubSub.publish` does.

        Raises:
            NodeNotRunningError: The node is not running.
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: The topic, the event or the payload is too large, the payload is not
                finite, or the event is reserved.
        """
        topic = checked_name(topic, "topic", MAX_TOPIC)
        event = checked_event(event)
        if isinstance(payload, bytes) and not _fits(topic, event):
            raise ValueError("topic and event of a broadcast of bytes may have 255 bytes each")
        encoded = encode(payload, _MAX_BYTES if isinstance(payload, bytes) else MAX_PAYLOAD)
        driver = self.presence.node.driver
        for hub in self._of_this_node():
            hub._distribute(topic, event, encoded, exclude)
        await driver.publish(_message(topic, event, encoded), None)
        await asyncio.sleep(0)  # a loop that only broadcasts lets others run

    def _distribute(
        self, topic: str, event: str, payload: Encoded, exclude: ChannelProcess | None
    ) -> int:
        """Send a broadcast to the clients of this socket; returns the number of subscribers."""
        frames: dict[Serializer, Wire] = {}
        if isinstance(payload, bytes) and not _fits(topic, event):
            self.log.warning("a member sent a broadcast of bytes whose names are too long")
            return 0
        members = list(self._members.get(topic, ()))
        for process in members:
            if process is not exclude:
                process.deliver(event, payload, frames)
        return len(members)

    def _of_this_node(self) -> "list[Hub]":
        """The hubs of all sockets of this node: a topic is the same on each of them."""
        return [one for one in self.presence.node.observers if isinstance(one, Hub)]

    # Presences.

    def follow(self, process: ChannelProcess, counts_above: int | None) -> Follower:
        """Send a channel the presence state of its topic, and then the diffs."""
        feed = self._feeds.get(process.topic)
        if feed is None:
            feed = PresenceFeed(process.topic, self.presence, counts_above, self._state_if_slow)
            self._feeds[process.topic] = feed
            self.presence.node.driver.watch_topic(process.topic)
        return feed.enter(process)

    def unfollow(self, follower: Follower) -> None:
        """Stop sending presences to a follower. Idempotent."""
        feed = follower.feed
        feed.leave(follower)
        if feed.empty and self._feeds.get(feed.topic) is feed:
            del self._feeds[feed.topic]
            feed.close()
            if self.presence.node.running:
                self.presence.node.driver.unwatch_topic(feed.topic)

    def stats(self) -> dict[str, int]:
        """See `Socket.stats`."""
        outboxes = [connection.outbox for connection in self.connections]
        return {
            "connections": len(outboxes) + len(self.given_up),
            "channels": sum(len(members) for members in self._members.values()),
            "followers": sum(feed.followers for feed in self._feeds.values()),
            "received_frames_total": self.frames_received,
            "sent_frames_total": self._frames_sent + sum(outbox.frames for outbox in outboxes),
            "sent_bytes_total": self._bytes_sent + sum(outbox.sent for outbox in outboxes),
        }

    def flush_presences(self) -> bool:
        """Make all pending cuts now, for tests; see `PresenceFeed.flush_presences`."""
        if self.presence.node.running:
            self.presence.node.driver.notify_observers()
        busy = [feed.flush_presences() for feed in list(self._feeds.values())]
        return any(busy)

    # Events from the node.

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        """See `Observer`."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.changed(transitions)

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        if message.topic.startswith((_TEXT, _BYTES)) and is_reserved(message.event):
            text = "%s sent a broadcast of the reserved event %s, which is dropped"
            shown = printable(sender, MAX_NODE_NAME)
            self.log.warning(text, shown, quoted(message.event), key=sender)
        elif message.topic.startswith(_TEXT):
            self._pass_on(message.topic.removeprefix(_TEXT), message.event, message.payload)
        elif message.topic.startswith(_BYTES):
            topic = message.topic.removeprefix(_BYTES)
            self._pass_on(topic, message.event, self._bytes_of(message))
        elif message.topic == _DISCONNECT:
            self._disconnect(load(message.payload).get("id"))

    def _bytes_of(self, message: Publish) -> bytes:
        try:
            return base64.b64decode(load(message.payload)["bytes"], validate=True)
        except (KeyError, TypeError, ValueError):
            self.log.warning("a member sent a broadcast of bytes that are none")
            return b""

    def _pass_on(self, topic: str, event: str, payload: Encoded) -> None:
        """Send another node's broadcast to local clients; charged to the budget of receiving."""
        count = self._distribute(topic, event, payload, None)
        self.presence.node.driver.charge(RECIPIENT * count)

    def closed(self) -> None:
        """See `Observer`: clients reconnect, to another node or to the next run of this one."""
        self.log.flush()
        rooms, self._feeds = self._feeds, {}
        for feed in rooms.values():
            feed.close()
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
        self.connections, self._by_id, self._members, self._feeds = set(), {}, {}, {}
        self.given_up, self.admissions = set(), set()
        self._sweeper = self._sweeping = None
        self._lingering.clear()


def _routes(channels: Any) -> list[tuple[Pattern, type[Channel]]]:
    """The classes with their patterns; refuses a class that no topic can reach."""
    if isinstance(channels, type | str) or not isinstance(channels, Iterable):
        one = channels.__name__ if isinstance(channels, type) else "PresenceFeed"
        refuse("channels", channels, f"a list of classes, as [{one}]")
    routes = [(pattern_of(channel), channel) for channel in channels]
    for index, (pattern, channel) in enumerate(routes):
        for before, other in routes[:index]:
            if before.covers(pattern):
                raise ConfigurationError(
                    f"channels: no topic reaches {channel.__name__} ({pattern.text!r}), since "
                    f"{other.__name__} ({before.text!r}) is before it and has the same topic, or "
                    f"one that matches more; change the order or a topic"
                )
    return routes


def _message(topic: str, event: str, payload: Encoded) -> Publish:
    if isinstance(payload, str):
        return Publish(_TEXT + topic, event, payload)
    return Publish(_BYTES + topic, event, dump({"bytes": base64.b64encode(payload).decode()}))


def _fits(topic: str, event: str) -> bool:
    """Whether the binary form of a broadcast has room for its names."""
    return len(topic.encode()) <= 255 and len(event.encode()) <= 255


#: Bytes that fit into a message between nodes, where base64 turns three into four characters.
_MAX_BYTES = MAX_PAYLOAD * 3 // 4 - 64
