"""Presence and PubSub for clusters of Python servers, without a database.

A `Node` is one process in the cluster, a `Presence` tracks and lists the keys that are present on
topics, a `PubSub` sends messages to the subscribers of a topic, and `Services` resolves a service
to one of its live addresses. Importing this starts nothing.

The layers, from the top: `node`, `presence` and `pubsub` are the API, with `portal` for threads,
`services`, and `channels` for browsers, beside them; `driver` runs the engine of `replication` on
the links of `transport`; `values` and the small modules beside it are the ground. `testing` runs
all of it on a simulated network.

The other files here:

- of `node`: `config` (settings), `lifespan` and `startingapp` (ASGI applications), `memberswatch`;
- of `presence`: `tracked` (handles), `owners`, `endings`, `watch`, `watchfeeds`, `topicswatch`, and
  `enrichment` (the fields that `fetch` adds);
- of both: `singlereader` (the base of watches and subscriptions), `arguments` (their checks),
  `errors`;
- of the process and its event loop: `tasks`, `activetime`, `signals`, `forks`, `processexit`;
- of log lines: `sparselog`, `quoting`.
"""

from adsum.errors import (
    AdsumError,
    AlreadyTrackedError,
    CarrierError,
    ConfigurationError,
    DialError,
    DialRefusedError,
    HandshakeError,
    ListenError,
    NodeNotRunningError,
    NoInstanceError,
    NotTrackedError,
    ProtocolError,
    TransportError,
    UsageError,
    WrongThreadError,
)
from adsum.memberswatch import MembersDiff, MembersWatch
from adsum.node import Node
from adsum.owners import CURRENT_TASK
from adsum.portal import Portal, PortalSubscription, PortalTracked, PortalWatch
from adsum.presence import Presence
from adsum.pubsub import Message, PubSub, Subscription
from adsum.replication.memberinfo import MemberInfo
from adsum.services import (
    Attempt,
    Attempts,
    Instance,
    InstancesDiff,
    InstancesWatch,
    Registration,
    Services,
    Use,
)
from adsum.topicswatch import TopicDiff, TopicsWatch
from adsum.tracked import Tracked
from adsum.transport.tls import TLS
from adsum.watch import Diff, PresenceEntry, Watch

__all__ = [
    "CURRENT_TASK",
    "TLS",
    "AdsumError",
    "AlreadyTrackedError",
    "Attempt",
    "Attempts",
    "CarrierError",
    "ConfigurationError",
    "DialError",
    "DialRefusedError",
    "Diff",
    "HandshakeError",
    "Instance",
    "InstancesDiff",
    "InstancesWatch",
    "ListenError",
    "MemberInfo",
    "MembersDiff",
    "MembersWatch",
    "Message",
    "NoInstanceError",
    "Node",
    "NodeNotRunningError",
    "NotTrackedError",
    "Portal",
    "PortalSubscription",
    "PortalTracked",
    "PortalWatch",
    "Presence",
    "PresenceEntry",
    "ProtocolError",
    "PubSub",
    "Registration",
    "Services",
    "Subscription",
    "TopicDiff",
    "TopicsWatch",
    "Tracked",
    "TransportError",
    "UsageError",
    "Use",
    "Watch",
    "WrongThreadError",
]
