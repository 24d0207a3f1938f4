"""Phoenix Channels for Python servers: the protocol of phoenix.js, over ASGI.

A `Socket` is the ASGI application that clients connect to. A subclass of `Channel` serves the
topics of one kind. The presences of a topic come from an `adsum.Presence`, the same on every node.
"""

from adsum.errors import RefusedError

from .channel import Channel, ChannelPresence, Reason
from .client import Client
from .handlers import Answer, intercept, on
from .limits import Limits
from .socket import Socket
from .wire.frames import BinaryFrames, Frame

__all__ = [
    "Answer",
    "BinaryFrames",
    "Channel",
    "ChannelPresence",
    "Client",
    "Frame",
    "Limits",
    "Reason",
    "RefusedError",
    "Socket",
    "intercept",
    "on",
]
