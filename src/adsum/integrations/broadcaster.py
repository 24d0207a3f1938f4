"""A backend for the library broadcaster: its workers exchange messages without Redis.

broadcaster accepts only its own schemes as a URL, so a backend is given as an object.
"""

import logging

from adsum.node import Node
from adsum.quoting import described, quoted

from .namedchannels import NamedChannels

try:
    from broadcaster import BroadcastBackend, Event
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'adsum.integrations.broadcaster needs broadcaster: pip install "adsum[broadcaster]"',
        name=error.name,
    ) from error

__all__ = ["AdsumBroadcastBackend"]

logger = logging.getLogger("adsum.integrations.broadcaster")

#: Precedes the name of a channel in its topic.
PREFIX = "broadcaster:"


class AdsumBroadcastBackend(BroadcastBackend):
    """Carries the messages of a `Broadcast` between all nodes of a cluster.

    ``Broadcast(backend=AdsumBroadcastBackend(node))`` starts the node when it connects, unless it
    runs already, and stops a node that it has started when it disconnects.

    A channel is the topic ``broadcaster:`` and its name. Other code of the cluster may publish
    there: UTF-8 text as bytes, or a JSON object, which arrives as its text. Delivery is that of
    `PubSub`: at most once, and in order from each worker.

    Args:
        node: The node.

    Raises:
        ConfigurationError: `node` is not a `Node`.

    Example:
        >>> import asyncio, adsum
        >>> from broadcaster import Broadcast
        >>> from adsum.integrations.broadcaster import AdsumBroadcastBackend
        >>> async def main():
        ...     backend = AdsumBroadcastBackend(adsum.Node(siblings=False))
        ...     async with Broadcast(backend=backend) as broadcast:
        ...         async with broadcast.subscribe("news") as subscriber:
        ...             await broadcast.publish("news", "hello")
        ...             return (await subscriber.get()).message
        >>> asyncio.run(main())
        'hello'
    """

    def __init__(self, node: Node) -> None:
        self._channels = NamedChannels(node, PREFIX, "Broadcast.connect", logger)

    async def connect(self) -> None:
        """Start the node unless it runs, and wait until it has joined, as `Node.start` does.

        Raises:
            AdsumError: The node cannot start, see `Node.start`.
        """
        await self._channels.open()

    async def disconnect(self) -> None:
        """End all subscriptions, and stop the node if `connect` has started it."""
        await self._channels.close()

    async def subscribe(self, group: str) -> None:
        """Receive the messages of one more channel from now on, or from `connect` on. Idempotent.

        Args:
            group: The name of the channel, at most 1,012 characters.

        Raises:
            NodeNotRunningError: The node has stopped.
            ValueError: The name is too long, or no Unicode text.
        """
        self._channels.want(group)

    async def unsubscribe(self, group: str) -> None:
        """Receive no more messages of a channel. Idempotent."""
        self._channels.unwant(group)

    async def publish(self, channel: str, message: str | bytes) -> None:
        """Publish a text to subscribers in all workers.

        Args:
            channel: A name of at most 1,012 characters.
            message: A text, as `str` or as UTF-8, of at most 8 MiB. It arrives as `str`.

        Raises:
            NodeNotRunningError: The node has stopped.
            RuntimeError: `connect` was not called.
            TypeError: The message is neither `str` nor `bytes`.
            ValueError: The message is too long or no Unicode text, or the name of the channel is.
        """
        await self._channels.publish(channel, _encoded(message))

    async def next_published(self) -> Event:
        """Wait for the next message of a channel that is subscribed to.

        At most 20,000 messages with 64 MiB may be unread. Beyond that the oldest are dropped, and a
        warning is logged.

        Raises:
            NodeNotRunningError: The node has stopped.
            RuntimeError: `connect` was not called.
        """
        channel, data = await self._channels.receive()
        return Event(channel, data.decode(errors="replace"))


def _encoded(message: object) -> bytes:
    """A message as it is sent: the UTF-8 of a text."""
    if not isinstance(message, str | bytes):
        raise TypeError(f"message must be a str or bytes of UTF-8, not {described(message)}")
    try:
        if isinstance(message, str):
            return message.encode()
        message.decode()  # receivers decode it
        return message
    except UnicodeError:
        raise ValueError(f"message {quoted(message)}: must be Unicode text, as UTF-8") from None
