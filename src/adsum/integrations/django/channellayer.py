"""`ChannelLayer`: a channel layer for Django Channels, without a server of its own.

The node of the layer runs in a thread of a portal, because the event loops that use a layer come
and go: `async_to_sync` makes one for each call. It starts at the first use in a process, so a
layer may be made before a fork. Calls of any event loop wait for the node without blocking.
Messages to channels of the same process do not pass through it.
"""

import asyncio
import inspect
import re
import threading
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from adsum.arguments import instance, refuse, seconds_within, whole_up_to
from adsum.errors import ConfigurationError, NodeNotRunningError, UsageError
from adsum.forks import call_after_fork
from adsum.node import Node
from adsum.portal import Portal
from adsum.presence import Presence
from adsum.processexit import call_at_exit
from adsum.pubsub import PubSub
from adsum.quoting import described, quoted
from adsum.sparselog import SparseLog, error_text
from adsum.values.limits import MAX_DATA

from .consumerpresences import ConsumerPresences
from .layerlimits import CAPACITY, EXPIRY, MAX_CAPACITY, MAX_EXPIRY, MIN_EXPIRY
from .layermailbox import ChannelName
from .layernode import LayerNode, address_of, logger
from .localchannels import LocalChannels

#: The settings of a node, by the names of its keywords.
_NODE_SETTINGS = tuple(inspect.signature(Node).parameters)
#: Settings of other layers, and their replacement.
_REPLACED = {
    "hosts": 'remove it; `carrier="redis://host:6379"` links hosts that cannot dial each other',
    "prefix": "remove it; layers with different values of `cluster` are apart",
    "group_expiry": "remove it; a membership ends with its channel",
    "symmetric_encryption_keys": "remove it; `secret` and `tls` protect links to other hosts",
}


class ChannelLayer(BaseChannelLayer):  # type: ignore[misc]  # channels has no types
    """A channel layer for Django Channels.

    All processes with the same `cluster` share channels and groups. The layer starts nothing until
    its first use in a process; then it starts a node in a daemon thread, which sends a goodbye at
    the normal end of the process. A forked child starts a node of its own.

    Messages are delivered at most once. A message that cannot be delivered is logged by
    ``adsum.integrations.django``.

    Args:
        expiry: Seconds for which an unread message is kept, from 0.1 to 31,536,000. A channel is
            forgotten so long after its consumer has ended.
        capacity: Unread messages of one channel at most, from 1 to 1,000,000,000.
        channel_capacity: Other capacities, by glob patterns or compiled expressions of names.
        settings: Those of `adsum.Node`: `cluster`, `listen`, `peers`, `secret` and so on.

    Raises:
        ConfigurationError: A setting is wrong or unknown, or there is no `cluster`.

    Example:
        >>> from adsum.integrations.django import ChannelLayer
        >>> ChannelLayer(cluster="shop", capacity=100).capacity
        100
    """

    extensions = ("groups", "flush")
    #: Raised by `send` while a channel is full.
    ChannelFull = ChannelFull
    #: Raised for a message of more than 8 MiB.
    MessageTooLarge = MessageTooLarge
    #: Memberships do not expire: they end with their channels.
    group_expiry = None

    def __init__(
        self,
        expiry: float = EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: dict[Any, int] | None = None,
        **settings: Any,
    ) -> None:
        expiry = seconds_within("expiry", expiry, MIN_EXPIRY, MAX_EXPIRY)
        super().__init__(expiry, whole_up_to("capacity", capacity, 1, MAX_CAPACITY))
        capacities = {} if channel_capacity is None else channel_capacity
        instance("channel_capacity", capacities, dict, "a dict of patterns and capacities")
        for pattern, value in capacities.items():
            text = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
            if not isinstance(text, str):
                accepted = "a dict whose keys are glob patterns or compiled expressions of str"
                refuse("channel_capacity", pattern, accepted)
            whole_up_to(f"channel_capacity[{quoted(pattern)}]", value, 1, MAX_CAPACITY)
        self.channel_capacity = self.compile_capacities(capacities)
        self._node = _make_node(settings)
        self._portal = Portal(self._node)
        #: The presences of the node; used by `portal.call` and `portal.acall`.
        self.presence = Presence(self._node)
        self._pubsub = PubSub(self._node)
        self._undecodable = SparseLog(
            logger, "a message to channel %s could not be decoded, it was dropped: %s"
        )
        self._begin_process()
        _layers.add(self)
        call_at_exit(_end_all)
        weakref.finalize(self, _close_in_background, self._portal).atexit = False

    @property
    def portal(self) -> Portal:
        """The portal to the node of the layer, for presences and messages of the application."""
        return self._portal

    def __repr__(self) -> str:
        return f"<ChannelLayer on {self._node!r}>"

    # Channels.

    async def new_channel(self, prefix: str = "specific.") -> str:
        """Create a channel that this process receives on: ``specific.<process>!<random>``.

        It lives as long as its consumer: as long as there are calls of `receive`, or references to
        the returned name. `expiry` seconds later it is forgotten, with its memberships.

        Raises:
            TypeError: The prefix is no str, is too long, or has other characters than letters,
                digits, ``-``, ``_``, ``.``.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"prefix={quoted(prefix)}: must be a str")
        await self._begun()
        name = ChannelName(f"{prefix}{self._traffic.address}!{uuid.uuid4().hex}")
        self.require_valid_channel_name(name)
        self.local.create(name)
        return name

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to one receiver of a channel.

        Waits at most 1 s for a process with a full link.

        Raises:
            ChannelFull: The channel is full.
            MessageTooLarge: The message has more than 8 MiB.
            TypeError: The name is not valid, or the message is not a dict or cannot be encoded.
        """
        self.require_valid_channel_name(channel)
        data = self._encoded(message)
        await self._begun()
        if not self._is_own(channel):
            await self._portal.acall(self._traffic.send, channel, data)
        elif not self.local.send(channel, data):
            raise ChannelFull(channel)

    async def receive(self, channel: str) -> dict[str, Any]:
        """Wait for the next message of a channel. Cancelling this loses nothing.

        A message that cannot be decoded is dropped, and logged as a warning.

        A process that receives on a normal channel, one without ``!``, gets its share of the
        messages until the call is cancelled, or for `expiry` seconds after the last call.

        Raises:
            NodeNotRunningError: The layer is closed, or is closed meanwhile.
            TypeError: The name is not valid.
            UsageError: The channel is specific to another process.
        """
        self.require_valid_channel_name(channel)
        await self._begun()
        if "!" not in channel:
            self.local.begin_receiving(channel)
        elif not self._is_own(channel):
            raise UsageError(f"channel={quoted(channel)}: must be a channel of this process")
        while (message := self._decoded(channel, await self.local.take(channel))) is None:
            continue
        return message

    # Groups.

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group. Idempotent. Adds nothing if the channel is forgotten.

        The membership of a process-specific channel ends with the channel. That of a normal
        channel ends with the process that has called this. A specific channel of another process
        has joined when this returns; without its answer within 1 s, a warning is logged.

        Raises:
            TypeError: A name is not valid.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._begun()
        if not self._is_own(channel):
            await self._portal.acall(self._traffic.join, group, channel)
        elif self.local.join(group, channel):
            await self._portal.acall(self._traffic.follow, group)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group. Does nothing if it is no member.

        Raises:
            TypeError: A name is not valid.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._begun()
        if not self._is_own(channel):
            await self._portal.acall(self._traffic.leave, group, channel)
        elif self.local.leave(group, channel):
            await self._portal.acall(self._traffic.follow, group)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to all channels of a group. Full channels miss it, which is logged.

        Raises:
            MessageTooLarge: The message has more than 8 MiB.
            TypeError: The name is not valid, or the message is not a dict or cannot be encoded.
        """
        self.require_valid_group_name(group)
        data = self._encoded(message)
        await self._begun()
        full, of = self.local.deliver_group(group, data)
        await self._portal.acall(self._traffic.send_group, group, data, full, of)

    # Ends.

    async def flush(self) -> None:
        """Drop all messages and groups: in this process at once, in others within milliseconds."""
        await self._begun()
        await self._portal.acall(self._traffic.flush)

    async def close(self) -> None:
        """Stop the node of the layer in this process, for good. Idempotent.

        The normal end of the process does it too. Unread messages on normal channels are passed on
        to other processes first. Waiting calls of `receive`, and later calls, raise
        `NodeNotRunningError`.
        """
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """As `close`, in a thread without an event loop."""
        if self._traffic.loop is not None:
            with suppress(NodeNotRunningError, TimeoutError):
                self._portal.call(self._traffic.end)
        self._portal.close()

    # Encoding; subclasses may replace it.

    def serialize(self, message: dict[str, Any]) -> bytes:
        """Encode a message, as MessagePack."""
        data: bytes = msgpack.packb(message, use_bin_type=True)
        return data

    def deserialize(self, data: bytes) -> dict[str, Any]:
        """Decode a message."""
        message: dict[str, Any] = msgpack.unpackb(data, raw=False, strict_map_key=False)
        return message

    def _encoded(self, message: dict[str, Any]) -> bytes:
        if not isinstance(message, dict):
            raise TypeError(f"message={quoted(message)}: must be a dict")
        try:
            data = self.serialize(message)
        except (OverflowError, ValueError) as error:  # a large number, a lone surrogate, too deep
            raise TypeError(f"message={quoted(message)}: cannot be encoded: {error}") from error
        if len(data) > MAX_DATA:
            raise MessageTooLarge(f"message of {len(data)} bytes: must have at most {MAX_DATA}")
        return data

    def _decoded(self, channel: str, data: bytes) -> dict[str, Any] | None:
        """A message as its consumer receives it; None if another process has sent garbage."""
        try:
            message: object = self.deserialize(data)
            if isinstance(message, dict):
                return message
            raise TypeError(f"message must be a dict, not {described(message)}")
        except Exception as error:  # of any encoding
            self._undecodable.log(quoted(channel), error_text(error))
            return None

    def _is_own(self, channel: str) -> bool:
        """Whether a channel is specific to this process."""
        return "!" in channel and address_of(channel) == self._traffic.address

    async def _begun(self) -> None:
        self.local.check_open()
        if self._traffic.loop is None:
            await self._portal.acall(self._traffic.begin)
            call_at_exit(_end_all)  # before the portal, which was registered earlier

    def _begin_process(self) -> None:
        """Begin without channels, at first and in a forked child."""
        #: The channels of this process.
        self.local = LocalChannels(self.expiry, _capacities(self))
        #: The presences of consumers of this process; used in the event loop of the node.
        self.visits = ConsumerPresences(self.presence, self.local)
        self._traffic = LayerNode(self._node, self.presence, self._pubsub, self.local, self.expiry)


_layers: weakref.WeakSet[ChannelLayer] = weakref.WeakSet()


def _capacities(layer: ChannelLayer) -> Callable[[str], int]:
    """The capacities of a layer, for its node, which must not refer to the layer."""
    method = weakref.WeakMethod(layer.get_capacity)

    def capacity(channel: str) -> int:
        get_capacity = method()
        return CAPACITY if get_capacity is None else int(get_capacity(channel))

    return capacity


def _make_node(settings: dict[str, Any]) -> Node:
    unknown = sorted(settings.keys() - set(_NODE_SETTINGS))
    if unknown:
        name = unknown[0]
        known = ", ".join(["capacity", "channel_capacity", "expiry", *_NODE_SETTINGS])
        raise ConfigurationError(
            f"{name}={quoted(settings[name])} in CONFIG is not a setting of this layer: "
            + _REPLACED.get(name, f"must be one of {known}")
        )
    node = Node(**settings)
    if node.settings.cluster is None:
        raise ConfigurationError(
            "cluster: must be set in CONFIG, or as ADSUM_CLUSTER, to the same name in all "
            "processes of the application: servers, commands and task queues"
        )
    return node


def _close_in_background(portal: Portal) -> None:
    """Stop the node of a layer that was collected, in whichever thread that happens."""
    with suppress(RuntimeError):  # at the exit of the interpreter, which closes the portal
        threading.Thread(target=portal.close, name="adsum closing", daemon=True).start()


def _end_all(**_: object) -> None:
    """At the normal end of the process."""
    for layer in list(_layers):
        with suppress(TimeoutError):  # the other nodes take it for a crash
            layer.end()


def _after_fork() -> None:
    # The event loop of the parent, which the portal keeps, refers to the tasks of its traffic.
    for layer in list(_layers):
        layer._begin_process()


call_after_fork(_after_fork)
