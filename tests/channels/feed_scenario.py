"""One topic's presence feed on a running node, and readers that follow it step by step."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import adsum
from adsum.channels.presence.feed import Follower, PresenceFeed
from adsum.channels.wire.frames import V2, Ref, Serializer
from adsum.channels.wire.prepared import Prepared, wire_of
from adsum.driver.observer import Observer
from adsum.replication.entry import Transition

from .phoenix_presence import Presence

TOPIC = "room"


class FeedScenario(Observer):
    """A room of a node that runs, and what the node tells it."""

    def __init__(
        self,
        *,
        state_if_slow: bool = True,
        fetch: Any = None,
        counts_above: int | None = None,
    ) -> None:
        self.node = adsum.Node(siblings=False)
        self.presence = adsum.Presence(self.node, fetch=fetch)
        self._state_if_slow = state_if_slow
        self._counts_above = counts_above
        self.feed: PresenceFeed
        self.readers: list[Reader] = []

    async def play(self, part: Callable[["FeedScenario"], Awaitable[None]]) -> None:
        """Run something while the node runs."""
        async with self.node:
            self.feed = PresenceFeed(TOPIC, self.presence, self._counts_above, self._state_if_slow)
            self.node.driver.watch_topic(TOPIC)
            self.node.observe(self)
            await part(self)
            self.feed.close()

    def reader(self) -> "Reader":
        """Somebody new who follows the room."""
        made = Reader(f"{len(self.readers)}")
        made.follower = self.feed.enter(made)
        self.readers.append(made)
        return made

    def track(self, key: str, meta: dict[str, Any] | None = None) -> adsum.Tracked:
        return self.presence.track(TOPIC, key, meta, owner=None)

    def cut(self) -> None:
        """Cut what there is, if nothing is being fetched."""
        self.node.driver.notify_observers()
        self.feed.flush_presences()

    async def rest(self) -> None:
        """Let everything be cut, and everybody read, until there is nothing more."""
        quiet = 0
        while quiet < 5:
            self.cut()
            await asyncio.sleep(0)
            read = sum([reader.read_all() for reader in self.readers if not reader.gone])
            busy = read or self.feed._pace._timer is not None or self.feed._cutting is not None
            quiet = 0 if busy else quiet + 1

    # As an observer of the node.

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        if topic == TOPIC:
            self.feed.changed(transitions)


class Reader:
    """A client's channel, which reads when the test says so; it checks what it reads."""

    follower: Follower

    def __init__(self, join_ref: str) -> None:
        self.topic = TOPIC
        self.join_ref: Ref = join_ref
        self.serializer: Serializer = V2
        self.presence = Presence(join_ref)
        self.frames: list[Any] = []
        #: Whether it is to ask for a frame.
        self.marked = False
        #: Whether it follows no more, by itself or because it was too slow.
        self.gone = False
        self.longest_state: int | None = None

    def too_long(self, size: int) -> None:
        raise AssertionError(f"{size} characters are too long for nobody here")

    def write(self, frame: Prepared) -> bool:
        return False

    def ready(self, follower: Follower) -> None:
        assert not self.marked, "it is told twice before it reads"
        self.marked = True

    def too_slow(self) -> None:
        self.gone = True
        self.follower.feed.leave(self.follower)

    def read(self) -> bool:
        """Take a frame, if there is one; whether there may be."""
        marked, self.marked = self.marked, False
        frame = self.follower.frame() if marked else None
        if frame is not None:
            self.frames.append(json.loads(wire_of(frame)))
            self.presence.take(self.frames[-1])
        return marked

    def read_all(self) -> int:
        count = 0
        while self.read():
            count += 1
        return count

    def events(self) -> list[str]:
        return [frame[3].removeprefix("presence_") for frame in self.frames]
