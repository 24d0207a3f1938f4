"""A backend for the channels of Litestar: its workers exchange messages without Redis.

The task of `ChannelsPlugin` that publishes ends with the first error that a backend raises. From
then on nothing is published in this worker, and its shutdown never returns. So `publish` logs the
faults of a single message, and drops the message: a client that sends a long text stops no worker.
"""

import logging
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from adsum.errors import NodeNotRunningError
from adsum.node import Node
from adsum.sparselog import SparseLog

from .namedchannels import NamedChannels

try:
    from litestar.channels import ChannelsBackend
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'adsum.integrations.litestar needs litestar: pip install "adsum[litestar]"',
        name=error.name,
    ) from error

__all__ = ["AdsumChannelsBackend"]

logger = logging.getLogger("adsum.integrations.litestar")

#: Precedes the name of a channel in its topic.
PREFIX = "litestar:"


class AdsumChannelsBackend(ChannelsBackend):
    """Carries the events of a `ChannelsPlugin` between all nodes of a cluster.

    The plugin starts the node with the application, unless it runs already, and stops a node that
    it has started.

    A channel is the topic ``litestar:`` and its name. Other code of the cluster may publish there,
    such as a task queue: bytes arrive as they are, and a JSON object as its text. Delivery is that
    of `PubSub`: at most once, and in order from each worker. A subscription receives the events
    that are published after `subscribe` has returned.

    Args:
        node: The node.

    Raises:
        ConfigurationError: `node` is not a `Node`.

    Example:
        >>> import asyncio, adsum
        >>> from litestar.channels import ChannelsPlugin
        >>> from adsum.integrations.litestar import AdsumChannelsBackend
        >>> async def main():
        ...     backend = AdsumChannelsBackend(adsum.Node(siblings=False))
        ...     async with ChannelsPlugin(backend, channels=["news"]) as channels:
        ...         subscriber = await channels.subscribe("news")
        ...         channels.publish("hello", "news")
        ...         return await anext(subscriber.iter_events())
        >>> asyncio.run(main())
        b'hello'
    """

    def __init__(self, node: Node) -> None:
        self._channels = NamedChannels(node, PREFIX, "AdsumChannelsBackend.on_startup", logger)
        self._failures = SparseLog(logger, "a Litestar event was not published: %s", logging.ERROR)

    async def on_startup(self) -> None:
        """Start the node unless it runs, and wait until it has joined, as `Node.start` does.

        Raises:
            AdsumError: The node cannot start, see `Node.start`.
        """
        await self._channels.open()

    async def on_shutdown(self) -> None:
        """End all subscriptions, and stop the node if `on_startup` has started it."""
        await self._channels.close()

    async def publish(self, data: bytes, channels: Iterable[str]) -> None:
        """Publish an event to subscribers in all workers, once to each of the channels.

        An event that cannot be sent is dropped, and logged as an error with the reason: it has more
        than 8 MiB or is not bytes, the name of the channel is wrong or no string, or the node has
        stopped.

        Args:
            data: At most 8 MiB.
            channels: Names of at most 1,015 characters.

        Raises:
            RuntimeError: `on_startup` was not called.
        """
        published = set[str]()
        names: Iterable[Any] = channels  # of any type, as a client has sent them
        for channel in names:
            try:
                if isinstance(channel, str) and channel in published:
                    continue
                await self._channels.publish(channel, data)
                published.add(channel)
            except (NodeNotRunningError, TypeError, ValueError) as error:
                self._failures.log(str(error))

    async def subscribe(self, channels: Iterable[str]) -> None:
        """Receive the events of more channels from now on, or from startup on. Idempotent.

        Args:
            channels: Names of at most 1,015 characters.

        Raises:
            NodeNotRunningError: The node has stopped.
            ValueError: The name of a channel is too long, or no Unicode text.
        """
        for channel in channels:
            self._channels.want(channel)

    async def unsubscribe(self, channels: Iterable[str]) -> None:
        """Receive no more events of these channels. Idempotent."""
        for channel in channels:
            self._channels.unwant(channel)

    async def stream_events(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """Iterate over the events of the channels that are subscribed to, until the node stops.

        At most 20,000 events with 64 MiB may be unread. Beyond that the oldest are dropped, and a
        warning is logged.

        Raises:
            RuntimeError: `on_startup` was not called.
        """
        while True:
            try:
                event = await self._channels.receive()
            except NodeNotRunningError:
                return
            yield event

    async def get_history(self, channel: str, limit: int | None = None) -> list[bytes]:
        """Not supported, because no worker has received all events of a channel.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "AdsumChannelsBackend has no history: leave out `history` and "
            "`ws_handler_send_history`, and store events to be read later in a database"
        )
