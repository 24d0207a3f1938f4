"""Broadcasts on their way to the clients of this node: which of them go together, and to whom.

Invariants:
- A broadcast is sent to the channels that were on its topic when it was sent, and still are.
- The broadcasts on a topic are sent to each client in their order: one pass is under way at a time.
- Each is encoded once for each version of the protocol.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Protocol

from adsum.errors import UsageError
from adsum.tasks import resolve

from .flow.slicedpass import SlicedPass
from .wire.frames import Encoded, Serializer, Wire
from .wire.prepared import Prepared, PreparedSeries

#: Waiting broadcasts on one topic that one pass sends together, and bytes of their payloads, unless
#: the first alone has more.
MAX_TOGETHER, MAX_TOGETHER_SIZE = 16, 16 * 1024


class Recipient(Protocol):
    """The connection of a client, as broadcasts are sent over it."""

    serializer: Serializer

    def write(self, frame: Wire | Prepared) -> bool:
        """Write a frame at once if no other waits; returns False if it must be queued."""

    def queue(self, frame: Wire | Prepared) -> None:
        """Queue a frame that `write` refused."""

    def cannot_carry_bytes(self) -> None:
        """Log, once, that a binary payload cannot be sent over this version or transport."""


class Subscriber(Protocol):
    """A channel that receives the broadcasts on its topic."""

    topic: str

    @property
    def intercepts(self) -> Collection[str]:
        """The events that the channel filters."""

    @property
    def connection(self) -> Recipient:
        """The connection of its client."""

    def intercept_later(self, event: str, payload: Encoded) -> None:
        """Filter a broadcast, and send its result to the client."""


class LocalTopic:
    """The subscribers of one topic, and the broadcasts to them."""

    __slots__ = ("deliveries", "snapshot", "subscribers", "work")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, None] = {}
        #: The subscribers as a list that nothing changes; None once they have changed.
        self.snapshot: list[Subscriber] | None = None
        #: Unfinished broadcasts: the first ones are under way together, the others wait for them.
        self.deliveries: deque[Delivery] = deque()
        #: The pass of the first ones, until the turn after its end.
        self.work: SlicedPass[Subscriber] | None = None

    def listed(self) -> list[Subscriber]:
        """The subscribers, listed once for all broadcasts until they change."""
        if self.snapshot is None:
            self.snapshot = list(self.subscribers)
        return self.snapshot

    def first_together(self) -> "list[Delivery]":
        """The first broadcast, and those behind it that are sent together with it."""
        together, size = list[Delivery](), 0
        for delivery in islice(self.deliveries, MAX_TOGETHER):
            size += len(delivery.payload)
            if together and (
                size > MAX_TOGETHER_SIZE or delivery.recipients is not together[0].recipients
            ):
                break
            together.append(delivery)
        return together

    def drop(self) -> None:
        """Send nothing more of the unfinished broadcasts."""
        self.deliveries.clear()
        if self.work is not None:
            self.work.drop()
            self.work = None


class Delivery:
    """One broadcast to the clients that were on its topic when it was sent."""

    __slots__ = (
        "_done",
        "_frames",
        "_name",
        "_waiter",
        "event",
        "exclude",
        "number",
        "payload",
        "recipients",
        "topic",
    )

    def __init__(
        self,
        number: int,
        topic: LocalTopic,
        name: str,
        event: str,
        payload: Encoded,
        exclude: Subscriber | None,
    ) -> None:
        self.number = number
        self.topic = topic
        self._name = name
        self.event = event
        self.payload = payload
        self.exclude = exclude
        # The frame for each version; None if it cannot carry the payload.
        self._frames: dict[Serializer, Prepared | None] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._done = False
        #: The channels on the topic when it was sent; the same list until they change.
        self.recipients = topic.listed()

    async def wait(self) -> None:
        """Wait until all clients were sent the broadcast. For one caller."""
        if not self._done:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def send(self, subscribers: Sequence[Subscriber]) -> int:
        """Send it to some of the clients; returns the number of frames written at once."""
        present, event = self.topic.subscribers, self.event
        written = 0
        for subscriber in subscribers:
            if subscriber not in present or subscriber is self.exclude:
                continue  # a channel that has left is sent nothing
            if event in subscriber.intercepts:
                subscriber.intercept_later(event, self.payload)
                continue
            connection = subscriber.connection
            frame = self.frame(connection.serializer)
            if frame is None:
                connection.cannot_carry_bytes()
            elif connection.write(frame):
                written += 1
            else:
                connection.queue(frame)
        return written

    def frame(self, serializer: Serializer) -> Prepared | None:
        """The frame of a version, made once; None if that version cannot carry the payload."""
        frames = self._frames
        if serializer not in frames:
            frames[serializer] = self._encoded(serializer)
        return frames[serializer]

    def _encoded(self, serializer: Serializer) -> Prepared | None:
        if isinstance(self.payload, bytes) and not serializer.binary:
            return None
        try:
            return Prepared(serializer.broadcast(self._name, self.event, self.payload))
        except UsageError:  # logged already, see `framescode`
            return None

    def finish(self) -> None:
        """Note that no client is sent it any more. Idempotent."""
        self._done = True
        resolve(self._waiter)


class Together:
    """Several broadcasts to the same channels: each client is written all of their frames at once.

    So one system call sends them. A client that has no room or cannot carry all, and one whose
    channel filters one or is excluded from one, is sent each broadcast by itself.
    """

    __slots__ = ("_deliveries", "_events", "_excluded", "_present", "_series")

    def __init__(self, deliveries: list[Delivery]) -> None:
        self._deliveries = deliveries
        self._present = deliveries[0].topic.subscribers
        self._events = {delivery.event for delivery in deliveries}
        self._excluded = {delivery.exclude for delivery in deliveries}
        # The frames for each version; None if it cannot carry all of them.
        self._series: dict[Serializer, PreparedSeries | None] = {}

    def send(self, subscribers: Sequence[Subscriber]) -> int:
        """Send them to some of the clients; returns the number of those written all at once."""
        written = 0
        for subscriber in subscribers:
            connection = subscriber.connection
            series = self._series_for(connection.serializer)
            if (
                series is not None
                and subscriber in self._present
                and subscriber not in self._excluded
                and self._events.isdisjoint(subscriber.intercepts)
                and connection.write(series)
            ):
                written += 1
            else:
                sent = [delivery.send((subscriber,)) for delivery in self._deliveries]
                written += all(sent)
        return written

    def _series_for(self, serializer: Serializer) -> PreparedSeries | None:
        if serializer not in self._series:
            frames = [delivery.frame(serializer) for delivery in self._deliveries]
            present = [frame for frame in frames if frame is not None]
            whole = len(present) == len(frames)
            self._series[serializer] = PreparedSeries(present) if whole else None
        return self._series[serializer]
