"""`Feeds`: the presence feeds of a socket, one for each topic that a client follows."""

from adsum.driver.observer import Observer
from adsum.presence import Presence
from adsum.replication.entry import Transition

from .feed import FeedListener, Follower, PresenceFeed


class Feeds(Observer):
    """Opens a feed for its first follower and closes it after the last one has left.

    Args:
        presence: The presences of the node.
        state_if_slow: Whether a client that is too far behind is sent a new state; otherwise
            `FeedListener.too_slow` is called.
    """

    def __init__(self, presence: Presence, state_if_slow: bool) -> None:
        self._presence = presence
        self._state_if_slow = state_if_slow
        self._feeds: dict[str, PresenceFeed] = {}

    @property
    def followers(self) -> int:
        """Number of channels that are sent presences."""
        return sum(feed.followers for feed in self._feeds.values())

    def follow(self, listener: FeedListener, counts_above: int | None) -> Follower:
        """Send a channel the presence state of its topic, and then the diffs."""
        feed = self._feeds.get(listener.topic)
        if feed is None:
            # First, since the state that the feed sends contains all earlier changes.
            self._presence.node.driver.watch_topic(listener.topic)
            feed = PresenceFeed(listener.topic, self._presence, counts_above, self._state_if_slow)
            self._feeds[listener.topic] = feed
        return feed.enter(listener)

    def unfollow(self, follower: Follower) -> None:
        """Stop sending presences to a follower. Idempotent."""
        feed = follower.feed
        feed.leave(follower)
        if feed.empty and self._feeds.get(feed.topic) is feed:
            del self._feeds[feed.topic]
            feed.close()
            if self._presence.node.running:
                self._presence.node.driver.unwatch_topic(feed.topic)

    def flush_presences(self) -> bool:
        """Make all pending cuts now, for tests; see `PresenceFeed.flush_presences`."""
        if self._presence.node.running:
            self._presence.node.driver.notify_observers()
        busy = [feed.flush_presences() for feed in list(self._feeds.values())]
        return any(busy)

    # Events from the node.

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        """See `Observer`."""
        feed = self._feeds.get(topic)
        if feed is not None:
            feed.changed(transitions)

    def closed(self) -> None:
        """See `Observer`."""
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.close()

    def forked(self) -> None:
        """See `Observer`: the followers are clients of the parent."""
        self._feeds = {}
