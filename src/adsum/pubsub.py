"""PubSub: publish messages to the subscribers of a topic, on every node of the cluster."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from adsum.arguments import flag, instance, whole
from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.errors import NodeNotRunningError, UsageError, WrongThreadError
from adsum.node import Node
from adsum.quoting import described, quoted
from adsum.replication.messages import Publish
from adsum.singlereader import ReaderSet, SingleReaderIterator
from adsum.values.frozen import freeze
from adsum.values.jsontext import encode_object, load
from adsum.values.limits import MAX_DATA, MAX_NAME, MAX_NODE_NAME, MAX_PAYLOAD
from adsum.values.names import checked_name, checked_topic

#: Unread messages that a subscription holds at most, by default.
DEFAULT_LIMIT = 1000
#: Characters of JSON text, or bytes, in the unread messages of a subscription at most, by default.
DEFAULT_LIMIT_BYTES = 16 * 1024 * 1024
#: The end of the error for a JSON object that is too large.
_REMEDY = (
    ", because decoding more would block the event loop of each subscriber; "
    f"publish bytes, which may be {MAX_DATA}"
)


@dataclass(frozen=True, slots=True)
class Message:
    """A published message, as a subscriber receives it.

    Attributes:
        topic: The topic on which it was published.
        event: The kind of message.
        payload: A JSON object as a mapping, or `bytes`, as it was published. It is read-only,
            because all subscribers of the node share it.
        sender: The name of the node that published it.
    """

    topic: str
    event: str
    payload: Any
    sender: str


class _Topics:
    """The open subscriptions of one run of the node, by topic.

    Invariant: the driver wants a topic exactly while it has an entry in `_readers`.

    Args:
        driver: The run.
    """

    def __init__(self, driver: Driver) -> None:
        #: Every open subscription, also those without a topic.
        self.all: ReaderSet[Subscription] = ReaderSet(driver.loop, _do_nothing)
        # Until the end of the run, so that a subscription does not keep it alive.
        self._driver: Driver | None = driver
        # The topics with an open subscription.
        self._readers: dict[str, ReaderSet[Subscription]] = {}
        self._thread = threading.get_ident()

    def check_thread(self) -> None:
        """Check that this is the thread of the event loop.

        Raises:
            WrongThreadError: It is another one.
        """
        if self._thread != threading.get_ident():
            raise WrongThreadError(
                "a subscription must be used in the thread of its event loop; other threads use "
                "`adsum.Portal.subscribe`"
            )

    def of(self, topic: str) -> Iterator["Subscription"]:
        """The subscriptions to a topic."""
        return iter(self._readers.get(topic, ()))

    def join(self, topic: str, subscription: "Subscription") -> None:
        """Add a subscription to a topic, until it leaves the topic or is collected."""
        readers = self._readers.get(topic)
        if readers is None:
            readers = ReaderSet(self.all.loop, partial(self._forget, topic))
            if self._driver is not None:
                self._driver.want_topic(topic)
        readers.add(subscription)
        # After `add`: the garbage collector may run in it, and forget the topic without a loop.
        self._readers[topic] = readers

    def leave(self, topic: str, subscription: "Subscription") -> None:
        """Remove a subscription from a topic."""
        if topic in self._readers:
            self._readers[topic].discard(subscription)

    def _forget(self, topic: str) -> None:
        """Forget a topic after its last subscription has left, unless there is a new one."""
        if topic in self._readers and not self._readers[topic]:
            del self._readers[topic]
            if self._driver is not None:
                self._driver.unwant_topic(topic)

    def close(self) -> None:
        """Close every subscription: the run has ended."""
        self._driver = None
        for subscription in self.all:
            subscription.close()


class Subscription(SingleReaderIterator[Message]):
    """An asynchronous iterator of the messages on one or several topics, in order of arrival.

    Made by `PubSub.subscribe`. Holds at most `limit` unread messages with `limit_bytes` in all.
    Beyond that the oldest ones are dropped and `dropped` counts them; the newest message is always
    kept. So a slow subscriber sees recent messages and costs bounded memory. The iteration ends
    when the subscription or the node is closed. One task reads at a time. A subscription without a
    reference, as after leaving an `async for`, is closed; while a task awaits it, that task keeps
    it open.
    """

    def __init__(self, topics: _Topics, limit: int, limit_bytes: int) -> None:
        super().__init__(topics.all)
        #: Number of messages dropped because the reader was too slow.
        self.dropped = 0
        #: Whether messages are skipped; set while the publisher excludes its own subscription.
        self.muted = False
        self._limit, self._limit_bytes = limit, limit_bytes
        self._run = topics
        self._topics: set[str] = set()
        # Unread messages, each with the characters or bytes of its payload, and their sum.
        self._messages: deque[tuple[Message, int]] = deque()
        self._size = 0

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it receives messages of, sorted."""
        return tuple(sorted(self._topics))

    def add(self, topic: str) -> None:
        """Receive the messages that are published on one more topic from now on. Idempotent.

        Args:
            topic: 1 to 1,024 characters.

        Raises:
            NodeNotRunningError: The subscription is closed, or the node has stopped.
            WrongThreadError: This is not the thread of its event loop.
        """
        topic = checked_topic(topic)
        if self.closed:
            raise NodeNotRunningError("the subscription is closed; subscribe again")
        self._run.check_thread()
        if topic not in self._topics:
            self._topics.add(topic)
            self._run.join(topic, self)

    def remove(self, topic: str) -> None:
        """Receive no more messages of a topic. Idempotent.

        Messages that have arrived can still be read. Without a topic the subscription stays open.

        Raises:
            WrongThreadError: This is not the thread of its event loop.
        """
        topic = checked_topic(topic)
        if not self.closed:
            self._run.check_thread()
        if topic in self._topics:
            self._topics.discard(topic)
            self._run.leave(topic, self)

    def put(self, message: Message, size: int) -> None:
        """Add a message with a payload of `size`; drops the oldest ones beyond the limits."""
        if self.muted:
            return
        self._messages.append((message, size))
        self._size += size
        while len(self._messages) > 1 and self._is_full():
            self._size -= self._messages.popleft()[1]
            self.dropped += 1
        self._wake()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._messages)} messages waiting"
        shown = ", ".join(quoted(topic) for topic in self.topics[:3]) or "no topic"
        more = f" and {len(self._topics) - 3} more" if len(self._topics) > 3 else ""
        return f"<Subscription to {shown}{more}, {state}, {self.dropped} dropped>"

    def _is_full(self) -> bool:
        return len(self._messages) > self._limit or self._size > self._limit_bytes

    def _has_more(self) -> bool:
        return bool(self._messages)

    def _take(self) -> Message:
        message, size = self._messages.popleft()
        self._size -= size
        return message

    def _drop(self) -> None:
        self._messages.clear()
        self._size = 0
        for topic in self._topics:
            self._run.leave(topic, self)


class PubSub:
    """Publish and subscribe across the cluster.

    Delivery is at most once and best effort: messages are not part of the replicated state. From
    one node to another they arrive in order. A node without a link, or one that does not read,
    misses them and is counted; a link that breaks loses the messages under way, uncounted.

    Over a carrier, messages for all nodes reach those with a subscription to the topic only. The
    engine does not report the misses of a message that it has accepted, so they are not counted.
    Messages with `to` may overtake messages for all there, and the other way round.

    Args:
        node: The node; messages are sent to the nodes of its cluster.

    Raises:
        ConfigurationError: `node` is not a `Node`.

    Example:
        >>> import asyncio, adsum
        >>> async def main():
        ...     node = adsum.Node(siblings=False)
        ...     pubsub = adsum.PubSub(node)
        ...     async with node:
        ...         subscription = pubsub.subscribe("room:1")
        ...         await pubsub.publish("room:1", {"text": "hi"})
        ...         return (await anext(subscription)).payload["text"]
        >>> asyncio.run(main())
        'hi'
    """

    def __init__(self, node: Node) -> None:
        instance("node", node, Node, "an adsum.Node")
        self._node = node
        # The subscriptions of this run of the node, from the first one on.
        self._topics: _Topics | None = None
        #: Its observer of the node, for `Node.stop_observing`.
        self.observer: Observer = _PubSubObserver(self)
        node.observe(self.observer)

    def __repr__(self) -> str:
        return f"<PubSub on {self._node!r}>"

    def subscribe(
        self, topic: str, *, limit: int = DEFAULT_LIMIT, limit_bytes: int = DEFAULT_LIMIT_BYTES
    ) -> Subscription:
        """Subscribe to the messages that are published on a topic from now on.

        For several topics in one subscription, call `Subscription.add` for each further one:
        ``subscription.add("room:2")``.

        Over a carrier it takes effect at the engine within a round trip. With one server, a message
        is received that another node publishes after it has received a later presence change of
        this node over the carrier.

        Args:
            topic: 1 to 1,024 characters.
            limit: Unread messages that are kept; beyond it the oldest are dropped. A higher limit
                costs memory for a slow reader.
            limit_bytes: Characters of JSON text and bytes that the payloads of unread messages may
                have in all; beyond it the oldest are dropped. The newest message is kept even if it
                is larger.

        Raises:
            ConfigurationError: A limit is not a whole number from 1.
            NodeNotRunningError: The node is not running.
        """
        driver = self._node.driver
        topic = checked_topic(topic)
        whole("limit", limit, 1)
        whole("limit_bytes", limit_bytes, 1)
        if self._topics is None:
            self._topics = _Topics(driver)
        subscription = Subscription(self._topics, limit, limit_bytes)
        subscription.add(topic)
        return subscription

    async def publish(
        self,
        topic: str,
        payload: Mapping[str, Any] | bytes | bytearray | memoryview,
        *,
        event: str = "message",
        local: bool = False,
        to: str | None = None,
        exclude: Subscription | None = None,
    ) -> int:
        """Publish a message to the subscribers of a topic: a JSON object, or bytes.

        A message of bytes is sent in pieces, with presence changes in between, and delivered
        completely or not at all. All messages of a node arrive in the order of publication.

        The message is sent at once to local subscribers, and to nodes with room on their link.
        For other nodes it is queued in order, and this call waits, at most 1 s in all. A node that
        reads receives it even later; a node without room for 1 s does not read and misses it. No
        node delays another. If the call is cancelled, the nodes that it waits for miss the message.

        Nodes on a carrier receive a message for all on the subject of its topic. It waits for the
        carrier as for one node. All of them miss it while the carrier is away.

        On the simulated network of `adsum.testing` this never waits.

        Args:
            topic: 1 to 1,024 characters.
            payload: A JSON object, at most 192 KiB as text; or bytes, at most 8 MiB, which are
                sent as they are. A `bytearray` or `memoryview` is copied at once.
            event: The kind of message, 1 to 1,024 characters.
            local: Whether to send it to subscribers on this node only.
            to: The name of a node, to send it to subscribers on that node only.
            exclude: A subscription that does not receive it: the publisher's own.

        Returns:
            The number of nodes that are known to have missed it, because there is no link, they do
            not read, or their carrier did not accept it. Later misses over a carrier are not known.

        Raises:
            ConfigurationError: `local` is not a bool, or `exclude` not a subscription.
            NodeNotRunningError: The node is not running.
            TypeError: The payload is neither a JSON object nor bytes; the message names the path.
                Publish a text, a list or a number in a dict: ``{"value": payload}``.
            UsageError: `local` and `to` are both given.
            ValueError: The payload is not finite, too deep or too large.
        """
        driver = self._node.driver
        flag("local", local)
        if to is not None:
            checked_name(to, "to", MAX_NODE_NAME)
        if exclude is not None:
            instance("exclude", exclude, Subscription, "a subscription of this node, or None")
        if local and to is not None:
            raise UsageError(f"local=True, to={to!r}: must not both be given")
        message = Publish(
            checked_topic(topic),
            checked_name(event, "event", MAX_NAME),
            _checked_payload(payload),
        )
        own = driver.replica.name
        if to in (None, own):
            self._deliver_here(own, message, exclude)
        elsewhere = to != own and not local
        missed = await driver.publish(message, to) if elsewhere else 0
        await asyncio.sleep(0)  # a loop that only publishes lets others run
        return missed

    def _delivered(self, sender: str, message: Publish) -> None:
        if self._topics is None:
            return
        delivered = None
        for subscription in self._topics.of(message.topic):
            if delivered is None:
                delivered = _decoded(sender, message)
            subscription.put(delivered, len(message.payload))

    def _closed(self) -> None:
        """End every subscription: the node has stopped."""
        topics, self._topics = self._topics, None
        if topics is not None:
            topics.close()

    def _forked(self) -> None:
        self._topics = None

    def _deliver_here(self, own: str, message: Publish, exclude: Subscription | None) -> None:
        """Deliver to the subscribers on this node, also those of its other `PubSub` objects."""
        if exclude is not None:
            exclude.muted = True
        try:
            self._node.driver.deliver(own, message)
        finally:
            if exclude is not None:
                exclude.muted = False


class _PubSubObserver(Observer):
    """Passes the events of the node on, so that they are no methods of `PubSub`."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    def delivered(self, sender: str, message: Publish) -> None:
        self._pubsub._delivered(sender, message)

    def closed(self) -> None:
        self._pubsub._closed()

    def forked(self) -> None:
        self._pubsub._forked()


def _checked_payload(payload: object) -> str | bytes:
    """The payload as it is sent: the text of a JSON object, or bytes that no caller can change."""
    if not isinstance(payload, bytes | bytearray | memoryview):
        if not isinstance(payload, dict):
            raise TypeError(
                f"payload must be a dict (a JSON object) or bytes, not {described(payload)}; "
                'publish it in a dict, such as {"value": payload}'
            )
        return encode_object(payload, "payload", MAX_PAYLOAD, _REMEDY)
    size = payload.nbytes if isinstance(payload, memoryview) else len(payload)
    if size > MAX_DATA:
        raise ValueError(f"payload is {size} bytes: must be at most {MAX_DATA}")
    return bytes(payload)  # the same object if it is immutable already


def _decoded(sender: str, message: Publish) -> Message:
    payload = message.payload
    shared = freeze(load(payload)) if isinstance(payload, str) else payload
    return Message(message.topic, message.event, shared, sender)


def _do_nothing() -> None:
    """A subscription that ends leaves nothing to forget but its topics."""
