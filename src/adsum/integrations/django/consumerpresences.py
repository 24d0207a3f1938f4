"""`ConsumerPresences`: users in the rooms of consumers, in the event loop of the node.

A visit is the stay of one connection in one room. A consumer that handles changes receives a
message for each change of its room, of which its own join is the first; all consumers of a process
share one watch of the room.

Invariants:

- A visit is tracked from `enter` to `leave`, and not at all if `leave` comes first.
- A room is watched exactly while a visit of this process receives its changes.
- A visit receives its first message from the watch, which reports its join, or all presences if
  the watch has just begun. Only a visit without a user, which joins nothing, needs another one.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adsum.errors import NodeNotRunningError
from adsum.presence import Presence
from adsum.tasks import start_task

from .localchannels import LocalChannels


@dataclass(eq=False, slots=True)
class Visit:
    """The stay of a connection in a room.

    Attributes:
        topic: The room.
        key: The user.
        meta: Shown with the user.
        channel: The channel of its consumer, if that receives changes of the room.
        news: The message of a change, encoded.
        has_ended: Whether the connection has ended; set in any thread.
    """

    topic: str
    key: str | None
    meta: dict[str, Any]
    channel: str | None
    news: bytes
    has_ended: bool = False


class ConsumerPresences:
    """The visits of the connections of one process.

    Args:
        presence: The presences of the node.
        local: The channels of this process.
    """

    def __init__(self, presence: Presence, local: LocalChannels) -> None:
        self._presence = presence
        self._local = local
        # The visits whose consumers receive changes, by topic.
        self._receiving: dict[str, set[Visit]] = {}
        # The tasks that watch the rooms, by topic.
        self._watching: dict[str, asyncio.Task[None]] = {}

    @property
    def watched(self) -> frozenset[str]:
        """The rooms that are watched."""
        return frozenset(self._watching)

    def enter(self, visit: Visit) -> None:
        """Begin a visit."""
        if visit.has_ended:
            return
        if visit.key is not None:
            self._presence.track(visit.topic, visit.key, visit.meta, owner=visit)
        if visit.channel is not None:
            self._receiving.setdefault(visit.topic, set()).add(visit)
            if visit.topic not in self._watching:
                work = self._watch(visit.topic, visit.news)
                self._watching[visit.topic] = start_task(work)
            elif visit.key is None:
                self._local.put(visit.channel, visit.news)

    def leave(self, visit: Visit) -> None:
        """End a visit."""
        visits = self._receiving.get(visit.topic, set())
        if visit in visits:
            visits.discard(visit)
            if not visits:
                del self._receiving[visit.topic]
                self._watching.pop(visit.topic).cancel()  # `enter` began it with the first one
        if self._presence.node.running:
            self._presence.untrack_all(visit)

    async def _watch(self, topic: str, news: bytes) -> None:
        with suppress(NodeNotRunningError):  # it has stopped before this began
            async for _ in self._presence.watch(topic):
                channels = [visit.channel for visit in self._receiving[topic] if visit.channel]
                self._local.deliver_each(channels, news)
