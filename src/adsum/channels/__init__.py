"""Phoenix Channels for Python servers: what phoenix.js and its relatives speak, over ASGI.

A `Socket` is the ASGI application that clients connect to, a subclass of `Channel` serves the
topics of one kind. Who is on a topic comes from an `adsum.Presence`, whatever node it is asked on.
"""

from adsum.errors import RefusedError

from .channel import Answer, Channel, ChannelPresence, Reason, on, outgoing
from .client import Client
from .limits import Limits
from .socket import Socket

__all__ = [
    "Answer",
    "Channel",
    "ChannelPresence",
    "Client",
    "Limits",
    "Reason",
    "RefusedError",
    "Socket",
    "on",
    "outgoing",
]
