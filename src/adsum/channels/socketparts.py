"""`SocketParts`: all that the connections and channels of one socket have in common."""

import logging
from collections.abc import Iterable
from typing import Literal

from adsum.arguments import instance, refuse, seconds_above_zero
from adsum.presence import Presence
from adsum.sparselog import SparseLogger

from .broadcasts import Broadcasts
from .channel import Channel
from .connectionregistry import Registry
from .framescode import FramesCode
from .limits import Limits
from .presence.feeds import Feeds
from .routes import Routes
from .wire.frames import V2, V2_TEXT, BinaryFrames, Serializer, Version2

logger = logging.getLogger("adsum.channels")


class SocketParts:
    """The settings of a socket, checked, and the objects that its connections share.

    Args:
        presence: The presences of the node.
        channels: The classes, in the order in which their patterns are tried.
        limits: Resource limits for each client.
        timeout: Seconds of silence after which a client is considered gone.
        when_slow: Action for a client that is too far behind: send a new ``state``, or ``close``.
        binary_frames: The binary frames of the clients; None for those of phoenix.js.

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
        binary_frames: BinaryFrames | None,
    ) -> None:
        instance("presence", presence, Presence, "an adsum.Presence, as adsum.Presence(node)")
        instance("limits", limits, Limits, "a Limits, as Limits(joins=50)")
        seconds_above_zero("timeout", timeout)
        if when_slow not in ("state", "close"):
            refuse("when_slow", when_slow, "'state' or 'close'")
        if binary_frames is not None:
            accepted = "an instance of a subclass of BinaryFrames, or None"
            instance("binary_frames", binary_frames, BinaryFrames, accepted)
        self.presence = presence
        self.limits = limits
        #: Rate-limited log of events that clients cause.
        self.log = SparseLogger(logger)
        #: The serializer for version 2, by transport.
        self.version2: dict[str, Serializer] = {"websocket": V2, "longpoll": V2_TEXT}
        if binary_frames is not None:
            frames = FramesCode(binary_frames, self.log)
            self.version2 = {
                "websocket": Version2(frames),
                "longpoll": Version2(frames, binary=False),
            }
        self.routes = Routes(channels)
        self.broadcasts = Broadcasts.of(presence.node)
        self.feeds = Feeds(presence, when_slow == "state")
        self.registry = Registry(presence.node, limits, timeout, self.log)
        presence.node.observe(self.feeds)
        presence.node.observe(self.registry)
