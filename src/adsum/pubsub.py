"""PubSub: publish messages to the subscribers of a topic, on every node of the cluster."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from adsum.arguments import flag, instance, whole
from adsum.driver.observer import Observer
from adsum.errors import UsageError
from adsum.node import Node
from adsum.quoting import quoted
from adsum.replication.messages import Publish
from adsum.singlereader import ReaderSet, SingleReaderIterator
from adsum.values.frozen import freeze
from adsum.values.jsontext import encode_object, load
from adsum.values.limits import MAX_NAME, MAX_NODE_NAME, MAX_PAYLOAD
from adsum.values.names import checked_name, checked_topic

#: Unread messages that a subscription holds at most, by default.
DEFAULT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A published message, as a subscriber receives it.

    Attributes:
        topic: The topic on which it was published.
        event: The kind of message.
        payload: A JSON object, read-only because all subscribers of the node share it.
        sender: The name of the node that published it.
    """

    topic: str
    event: str
    payload: Mapping[str, Any]
    sender: str


class Subscription(SingleReaderIterator[Message]):
    """An asynchronous iterator of messages; made by `PubSub.subscribe`.

    Holds at most `limit` unread messages. When a message arrives at a full subscription, the oldest
    one is dropped and `dropped` counts it. So a slow subscriber sees recent messages and costs
    bounded memory. The iteration ends when the subscription or the node is closed. One task reads
    at a time. A subscription without a reference, as after leaving an `async for`, is closed; while
    a task awaits it, that task keeps it open.
    """

    def __init__(self, topic: str, limit: int, readers: ReaderSet["Subscription"]) -> None:
        super().__init__(readers)
        self.topic = topic
        #: Number of messages dropped because the reader was too slow.
        self.dropped = 0
        #: Whether messages are skipped; set while the publisher excludes its own subscription.
        self.muted = False
        self._messages: deque[Message] = deque(maxlen=limit)

    def put(self, message: Message) -> None:
        """Add a message; drops the oldest one if the subscription is full."""
        if self.muted:
            return
        if len(self._messages) == self._messages.maxlen:
            self.dropped += 1
        self._messages.append(message)
        self._wake()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._messages)} messages waiting"
        return f"<Subscription to {quoted(self.topic)}, {state}, {self.dropped} dropped>"

    def _has_more(self) -> bool:
        return bool(self._messages)

    def _take(self) -> Message:
        return self._messages.popleft()

    def _drop(self) -> None:
        self._messages.clear()


class PubSub:
    """Publish and subscribe across the cluster.

    Delivery is at most once and best effort: messages are not part of the replicated state. From
    one node to another they arrive in order. A node without a link, or one that does not read,
    misses them and is counted; a link that breaks loses the messages under way, uncounted.

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
        # The topics with an open subscription.
        self._subscriptions: dict[str, ReaderSet[Subscription]] = {}
        #: Its observer of the node, for `Node.stop_observing`.
        self.observer: Observer = _PubSubObserver(self)
        node.observe(self.observer)

    def __repr__(self) -> str:
        return f"<PubSub on {self._node!r}>"

    def subscribe(self, topic: str, *, limit: int = DEFAULT_LIMIT) -> Subscription:
        """Subscribe to the messages that are published on a topic from now on.

        Args:
            topic: 1 to 1,024 characters.
            limit: Unread messages that are kept; beyond it the oldest are dropped. A higher limit
                costs memory for a slow reader.

        Raises:
            ConfigurationError: The limit is not a whole number from 1.
            NodeNotRunningError: The node is not running.
        """
        driver = self._node.driver
        topic = _checked_topic(topic)
        whole("limit", limit, 1)
        readers = self._subscriptions.get(topic)
        if readers is None:
            readers = ReaderSet(driver.loop, partial(self._forget, topic))
            self._subscriptions[topic] = readers
        return Subscription(topic, limit, readers)

    async def publish(
        self,
        topic: str,
        payload: Mapping[str, Any],
        *,
        event: str = "message",
        local: bool = False,
        to: str | None = None,
        exclude: Subscription | None = None,
    ) -> int:
        """Publish a message to the subscribers of a topic.

        The message is sent at once to local subscribers, and to nodes with room on their link.
        For other nodes it is queued in order, and this call waits, at most 1 s in all. A node that
        reads receives it even later; a node without room for 1 s does not read and misses it. No
        node delays another. If the call is cancelled, the nodes that it waits for miss the message.

        On the simulated network of `adsum.testing` this never waits.

        Args:
            topic: 1 to 1,024 characters.
            payload: A JSON object, at most 192 KiB as text.
            event: The kind of message, 1 to 1,024 characters.
            local: Whether to send it to subscribers on this node only.
            to: The name of a node, to send it to subscribers on that node only.
            exclude: A subscription that does not receive it: the publisher's own.

        Returns:
            The number of nodes that missed it, because there is no link or they do not read.

        Raises:
            ConfigurationError: `local` is not a bool, or `exclude` not a subscription.
            NodeNotRunningError: The node is not running.
            TypeError: The payload is not a JSON object; the message names the path.
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
            _checked_topic(topic),
            checked_name(event, "event", MAX_NAME),
            encode_object(payload, "payload", MAX_PAYLOAD),
        )
        own = driver.replica.name
        if to in (None, own):
            self._deliver_here(own, message, exclude)
        elsewhere = to != own and not local
        missed = await driver.publish(message, to) if elsewhere else 0
        await asyncio.sleep(0)  # a loop that only publishes lets others run
        return missed

    def _delivered(self, sender: str, message: Publish) -> None:
        subscriptions = self._subscriptions.get(message.topic)
        if subscriptions:
            payload = freeze(load(message.payload))
            delivered = Message(message.topic, message.event, payload, sender)
            for subscription in subscriptions:
                subscription.put(delivered)

    def _closed(self) -> None:
        """End every subscription: the node has stopped."""
        topics, self._subscriptions = self._subscriptions, {}
        for subscriptions in topics.values():
            for subscription in subscriptions:
                subscription.close()

    def _forked(self) -> None:
        self._subscriptions = {}

    def _deliver_here(self, own: str, message: Publish, exclude: Subscription | None) -> None:
        """Deliver to the subscribers on this node, also those of its other `PubSub` objects."""
        if exclude is not None:
            exclude.muted = True
        try:
            self._node.driver.deliver(own, message)
        finally:
            if exclude is not None:
                exclude.muted = False

    def _forget(self, topic: str) -> None:
        """Forget a topic after its last subscription has ended, unless there is a new one."""
        if not self._subscriptions.get(topic):
            self._subscriptions.pop(topic, None)


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


def _checked_topic(topic: str) -> str:
    return checked_topic(topic, "topic", MAX_NAME)
