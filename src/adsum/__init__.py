"""Who is here: presence for clusters of Python servers, without a database.

A `Node` is a process's place in the cluster, a `Presence` tells who is here on which topic, a
`PubSub` carries messages to whoever listens. Importing this starts nothing.
"""

from adsum.errors import (
    AdsumError,
    AlreadyTrackedError,
    ConfigurationError,
    DialError,
    DialRefusedError,
    HandshakeError,
    ListenError,
    NodeClosedError,
    NotTrackedError,
    ProtocolError,
    TransportError,
    UsageError,
    WrongThreadError,
)
from adsum.node import Node
from adsum.presence import CURRENT_TASK, Presence, Tracked
from adsum.pubsub import Message, PubSub, Subscription
from adsum.replication.members import MemberInfo
from adsum.transport.tls import TLS
from adsum.watching import Diff, PresenceEntry, Watch

__all__ = [
    "CURRENT_TASK",
    "TLS",
    "AdsumError",
    "AlreadyTrackedError",
    "ConfigurationError",
    "DialError",
    "DialRefusedError",
    "Diff",
    "HandshakeError",
    "ListenError",
    "MemberInfo",
    "Message",
    "Node",
    "NodeClosedError",
    "NotTrackedError",
    "Presence",
    "PresenceEntry",
    "ProtocolError",
    "PubSub",
    "Subscription",
    "Tracked",
    "TransportError",
    "UsageError",
    "Watch",
    "WrongThreadError",
]
