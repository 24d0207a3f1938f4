"""Bytes on named channels, for the channel libraries of others: `litestar` and `broadcaster`.

A channel is an adsum topic: a prefix of the library, and the name of the channel. Clients may
choose the names of channels. The prefix keeps them from the other topics of the application.

Invariant: while the channels are open, there is one subscription, to the topics of exactly those
channels that the library wants. So the messages of one sender keep their order across channels,
and one limit bounds the memory of all unread messages.

A library has one task that reads, and it queues each message for its own subscribers without
waiting. So messages remain unread only for one turn of the event loop, and the limits are reached
only by a burst within that turn.
"""

import json
import logging

from adsum.arguments import instance
from adsum.errors import NodeNotRunningError
from adsum.node import Node
from adsum.pubsub import Message, PubSub, Subscription
from adsum.quoting import described
from adsum.values.limits import MAX_DATA, MAX_NAME
from adsum.values.names import checked_prefix

from .unreadlog import UnreadLog

#: Unread messages that a worker holds at most; beyond it the oldest are dropped.
MAX_UNREAD = 20_000
#: Bytes of all unread messages of a worker at most; beyond it the oldest are dropped.
MAX_UNREAD_BYTES = 64 * 1024 * 1024


class NamedChannels:
    """The channels of one library on one node.

    Args:
        node: The node; `open` starts it unless it runs.
        prefix: Precedes the name of a channel in its topic.
        opener: The method of the library's object that calls `open`, for errors.
        logger: The logger of the integration.

    Raises:
        ConfigurationError: `node` is not a `Node`.
    """

    def __init__(self, node: Node, prefix: str, opener: str, logger: logging.Logger) -> None:
        self._node = instance("node", node, Node, "an adsum.Node")
        self._pubsub = PubSub(node)
        self._prefix = prefix
        self._opener = opener
        # Set between `open` and `close`.
        self._subscription: Subscription | None = None
        # The wanted channels; a message of another one may still be unread.
        self._wanted: set[str] = set()
        # Whether `open` started the node, so that `close` stops it.
        self._started_node = False
        self._unread = UnreadLog(logger, MAX_UNREAD, MAX_UNREAD_BYTES)

    async def open(self) -> None:
        """Start the node unless it runs, and begin to receive. Idempotent.

        Raises:
            AdsumError: The node cannot start, see `Node.start`.
        """
        # A node that `open` has started in an event loop that is closed now starts again.
        lost_loop = self._started_node and self._node.event_loop is None
        starts = not self._node.running or lost_loop
        await self._node.start()
        if self._subscription is not None and not self._subscription.closed:
            return  # another call of `open` has opened them meanwhile, or before
        self._started_node = starts
        subscription = self._pubsub.subscribe(
            self._prefix, limit=MAX_UNREAD, limit_bytes=MAX_UNREAD_BYTES
        )
        # A subscription begins with a topic and stays open without one.
        subscription.remove(self._prefix)
        for channel in self._wanted:
            subscription.add(self._topic(channel))
        self._subscription = subscription
        self._unread.begin()

    async def close(self) -> None:
        """Receive no more, and stop the node if `open` started it. Idempotent."""
        subscription, self._subscription = self._subscription, None
        self._wanted.clear()
        if subscription is not None:
            subscription.close()
        if self._started_node:
            self._started_node = False
            await self._node.stop()

    def want(self, channel: str) -> None:
        """Receive the messages of a channel from now on, or from `open` on. Idempotent.

        Raises:
            NodeNotRunningError: The node has stopped.
            TypeError: The name is not a string.
            ValueError: The name is too long or no Unicode text.
        """
        topic = self._topic(channel)
        if self._subscription is not None:
            self._subscription.add(topic)
        self._wanted.add(channel)

    def unwant(self, channel: str) -> None:
        """Receive no more messages of a channel, also none that have arrived. Idempotent."""
        if channel in self._wanted:
            self._wanted.discard(channel)
            if self._subscription is not None:
                self._subscription.remove(self._topic(channel))

    async def publish(self, channel: str, data: bytes) -> None:
        """Publish bytes to all workers that want a channel, this one included.

        Raises:
            NodeNotRunningError: The node has stopped.
            RuntimeError: The channels are not open.
            TypeError: The name is not a string, or the data are not bytes.
            ValueError: The name is too long or no Unicode text, or the data are too long.
        """
        topic = self._topic(channel)
        self._opened()
        if not isinstance(data, bytes):
            raise TypeError(f"message must be bytes, not {described(data)}")
        if len(data) > MAX_DATA:
            raise ValueError(f"message of {len(data)} bytes: must have at most {MAX_DATA}")
        await self._pubsub.publish(topic, data)

    async def receive(self) -> tuple[str, bytes]:
        """Wait for the next message; returns its channel and its bytes. A cancel loses nothing.

        Raises:
            NodeNotRunningError: The node has stopped, or the channels were closed meanwhile.
            RuntimeError: The channels are not open.
        """
        subscription = self._opened()
        async for message in subscription:
            self._unread.check(subscription.dropped)
            channel = message.topic.removeprefix(self._prefix)
            if channel in self._wanted:
                return channel, _bytes_of(message)
        raise NodeNotRunningError("no more messages arrive: the node has stopped")

    def _topic(self, channel: str) -> str:
        most = MAX_NAME - len(self._prefix)
        return self._prefix + checked_prefix(channel, "channel", most)

    def _opened(self) -> Subscription:
        if self._subscription is None:
            raise RuntimeError(f"the channels are not open: call `{self._opener}` first")
        return self._subscription


def _bytes_of(message: Message) -> bytes:
    """The payload of a message; the text of a JSON object that other code has published."""
    if isinstance(message.payload, bytes):
        return message.payload
    text = json.dumps(message.payload, ensure_ascii=False)
    return text.encode(errors="backslashreplace")  # a lone surrogate, as JSON has it: \ud800
