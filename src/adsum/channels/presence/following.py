"""`Following`: the place of one channel in the presence feed of its topic."""

from typing import Protocol

from adsum.channels.flow.outbox import Outbox
from adsum.channels.wire.frames import Ref, Serializer, Wire
from adsum.channels.wire.prepared import Prepared

from .feed import Follower
from .feeds import Feeds


class FollowerConnection(Protocol):
    """The connection of a client, as presences are sent over it."""

    serializer: Serializer
    outbox: Outbox
    longest_state: int | None

    def write(self, frame: Wire | Prepared) -> bool:
        """Write a frame at once if no other waits; returns False if it must be queued."""

    def overflow(self) -> None:
        """Close the connection: the client reads too slowly."""


class FollowingChannel(Protocol):
    """The channel that follows its topic."""

    def presences_too_long(self, size: int, longest: int) -> None:
        """Called if the presences have more characters than the connection can carry.

        Args:
            size: The number of characters of the next state or diff.
            longest: The most that the connection carries.
        """


class Following:
    """Sends a client the presences of a topic, between `start` and `stop`.

    Args:
        connection: The connection of the client.
        feeds: The feeds of the socket.
        topic: The topic of the channel.
        join_ref: The reference of the join.
        owner: The channel.
    """

    __slots__ = (
        "_connection",
        "_feeds",
        "_follower",
        "_owner",
        "join_ref",
        "serializer",
        "topic",
    )

    def __init__(
        self,
        connection: FollowerConnection,
        feeds: Feeds,
        topic: str,
        join_ref: Ref,
        owner: FollowingChannel,
    ) -> None:
        #: See `feed.FeedListener`.
        self.topic = topic
        self.join_ref = join_ref
        self.serializer = connection.serializer
        self._connection = connection
        self._feeds = feeds
        self._owner = owner
        # The entry in the feed; None while the channel does not follow its topic.
        self._follower: Follower | None = None

    def start(self, counts_above: int | None) -> None:
        """Send the presence state, and then the diffs. Idempotent."""
        if self._follower is None:
            self._follower = self._feeds.follow(self, counts_above)

    def stop(self) -> None:
        """Send no more presences. Idempotent."""
        if self._follower is not None:
            self._feeds.unfollow(self._follower)
            self._connection.outbox.discard(self._follower)
            self._follower = None

    # Called by the feed.

    @property
    def longest_state(self) -> int | None:
        """See `feed.FeedListener`."""
        return self._connection.longest_state

    def write(self, frame: Prepared) -> bool:
        """See `feed.FeedListener`."""
        return self._connection.write(frame)

    def ready(self, follower: Follower) -> None:
        """See `feed.FeedListener`."""
        self._connection.outbox.put_source(follower)

    def too_slow(self) -> None:
        """See `feed.FeedListener`."""
        self._connection.overflow()

    def too_long(self, size: int) -> None:
        """See `feed.FeedListener`."""
        self._owner.presences_too_long(size, self._connection.longest_state or 0)
