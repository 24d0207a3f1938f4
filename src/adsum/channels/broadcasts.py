"""`Broadcasts`: the subscribed channels of a node, and the broadcasts between nodes.

There is one object for each node, shared by all of its sockets: a topic is the same on each of
them. A broadcast is sent to the clients of this node at once and to each other node as one message.
Each node encodes it once for each version of the protocol, however many clients receive it. It
passes each file once::

      this node                                     each other node

    process.py, socket.py                             driver/
      |  Channel.broadcast, Socket.broadcast            |  message from a link
      v                                                 v
    broadcasts.py ------------------------------>     broadcasts.py
      |  one call for each       driver.publish,        |
      |  subscribed channel      one message            |
      v                                                 v
    process.py         through the channel's intercept method for the event, if it has one
      v                                                 v
    connection.py      is the client too far behind?
      v                                                 v
    flow/outbox.py     a frame in the queue of one client
      v                                                 v
    carriers/          bytes
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.quoting import printable, quoted
from adsum.replication.messages import Publish
from adsum.sparselog import SparseLogger
from adsum.values.limits import MAX_NAME, MAX_NODE_NAME, MAX_PAYLOAD
from adsum.values.names import RESERVED, checked_name

from .flow.fairshare import RECIPIENT
from .pernode import PerNode
from .wire.frames import Encoded, Serializer, Wire, checked_event, is_reserved
from .wire.payloads import encode

logger = logging.getLogger("adsum.channels")

#: Topics of messages between nodes; the topic of the broadcast is appended.
_TEXT = f"{RESERVED}channels/text/"
_BYTES = f"{RESERVED}channels/bytes/"
#: Characters that a channel topic may have, so that a broadcast on it fits the limit of names.
MAX_TOPIC = MAX_NAME - len(_BYTES)
#: Characters of JSON text, or bytes, in one broadcast: each client of a topic may queue it.
MAX_BROADCAST = MAX_PAYLOAD


class Subscriber(Protocol):
    """A channel that receives the broadcasts on its topic."""

    topic: str

    def deliver(self, event: str, payload: Encoded, frames: dict[Serializer, Wire]) -> None:
        """Send a broadcast to the client.

        Args:
            event: The event.
            payload: Its payload.
            frames: Cache of the encoded broadcast, by version of the protocol; added to.
        """


class Broadcasts(Observer):
    """Sends each broadcast to the subscribers of this node and to the other nodes.

    Args:
        node: The node that carries the broadcasts.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = SparseLogger(logger)
        self._subscribers: dict[str, set[Subscriber]] = {}

    @staticmethod
    def of(node: Node) -> "Broadcasts":
        """The broadcasts of a node, created at the first call."""
        return _BROADCASTS.of(node)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Send the topic's broadcasts to a channel from now on."""
        self._subscribers.setdefault(subscriber.topic, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> bool:
        """Stop sending broadcasts to a channel; returns whether it was subscribed."""
        subscribers = self._subscribers.get(subscriber.topic, set())
        if subscriber not in subscribers:
            return False
        subscribers.remove(subscriber)
        if not subscribers:
            del self._subscribers[subscriber.topic]
        return True

    def recipients(self, topic: str) -> int:
        """Number of channels on a topic, over all sockets of this node."""
        return len(self._subscribers.get(topic, ()))

    async def broadcast(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        exclude: Subscriber | None = None,
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
            raise ValueError(
                "topic and event of a binary broadcast must have at most 255 bytes each"
            )
        encoded = encode(payload, MAX_BROADCAST)
        driver = self._node.driver
        self._distribute(topic, event, encoded, exclude)
        await driver.publish(_message(topic, event, encoded), None)
        await asyncio.sleep(0)  # a loop that only broadcasts lets others run

    def _distribute(
        self, topic: str, event: str, payload: Encoded, exclude: Subscriber | None
    ) -> int:
        """Send a broadcast to the clients of this node; returns the number of subscribers."""
        frames: dict[Serializer, Wire] = {}
        if isinstance(payload, bytes) and not _fits(topic, event):
            self._log.warning(
                "a member sent a binary broadcast with a topic or event above 255 bytes"
            )
            return 0
        subscribers = list(self._subscribers.get(topic, ()))
        for subscriber in subscribers:
            if subscriber is not exclude:
                subscriber.deliver(event, payload, frames)
        return len(subscribers)

    # Events from the node.

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        if not message.topic.startswith((_TEXT, _BYTES)):
            return
        if is_reserved(message.event):
            text = "%s sent a broadcast of the reserved event %s, which was dropped"
            shown = printable(sender, MAX_NODE_NAME)
            self._log.warning(text, shown, quoted(message.event), key=sender)
        elif len(message.payload) > MAX_BROADCAST or not message.topic.startswith(_prefix(message)):
            text = "%s sent a broadcast of the wrong kind or size, which was dropped"
            self._log.warning(text, printable(sender, MAX_NODE_NAME), key=sender)
        else:
            topic = message.topic.removeprefix(_prefix(message))
            self._pass_on(topic, message.event, message.payload)

    def _pass_on(self, topic: str, event: str, payload: Encoded) -> None:
        """Send another node's broadcast to local clients; charged to the budget of receiving."""
        count = self._distribute(topic, event, payload, None)
        self._node.driver.charge(RECIPIENT * count)

    def closed(self) -> None:
        """See `Observer`."""
        self._log.flush()

    def forked(self) -> None:
        """See `Observer`: the clients are connected to the parent."""
        self._subscribers = {}


def _message(topic: str, event: str, payload: Encoded) -> Publish:
    prefix = _TEXT if isinstance(payload, str) else _BYTES
    return Publish(prefix + topic, event, payload)


def _prefix(message: Publish) -> str:
    """The prefix of the topics of text or binary broadcasts, by the payload."""
    return _TEXT if isinstance(message.payload, str) else _BYTES


def _fits(topic: str, event: str) -> bool:
    """Whether the binary form of a broadcast has room for its names."""
    return len(topic.encode()) <= 255 and len(event.encode()) <= 255


_BROADCASTS = PerNode(Broadcasts)
