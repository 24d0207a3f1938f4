"""The law of messages on topics: they reach the nodes that want them, and only faults lose them.

A node publishes a message for all on the subject of its topic. `Witness.delivered` checks that it
arrives whole, at most once, and after all earlier ones of its publisher. Here is the rest:

* *Nobody else is sent it.* It is delivered only where a topic of its slot is wanted, or was wanted
  until `UNFOLLOW_AFTER` ago.
* *Only a fault loses it.* If publisher and receiver were calm for `CALM` before its publication,
  and still are `ARRIVES` later, the receiver has it. Two nodes are calm while they run, and their
  connections, links with each other, and clocks do not change, on a bus that loses nothing and is
  not cut. The receiver wants the topic since then, too.

The times of the last change of each kind are recorded apart from the code under test.
"""

from typing import Final

from adsum.bus.limits import RESEND_PATIENCE, UNFOLLOW_AFTER
from adsum.bus.topicslots import slot_of
from adsum.replication.state import Replica

#: The topics of recorded messages. The first two have the same slot.
ROUTED_TOPICS: Final = ("routed 1", "routed 5760", "routed 2")
#: Seconds after the last change after which both ends have the same links, and have confirmed them.
CALM: Final = 2.0
#: Seconds more after the end of a fault that loses messages of open connections: a confirmation
#: that it has lost is requested again, or its link closes, in this time.
CALM_AFTER_LOSS: Final = RESEND_PATIENCE
#: Seconds from a publication after which a message has arrived; up to 1 s of them without room.
ARRIVES: Final = 2.0
#: Seconds that messages and the ends of subscriptions are under way, at most.
UNDER_WAY: Final = 0.1

_NEVER: Final = float("inf")


class TopicWants:
    """The topics that one node wants: since when, and until when."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._since: dict[str, float] = {}
        # Virtual time at which a topic of each slot was last wanted, while none is now.
        self._until: dict[int, float] = {}

    def want(self, topic: str, now: float) -> None:
        """Record one more subscriber of a topic."""
        self._counts[topic] = self._counts.get(topic, 0) + 1
        self._since.setdefault(topic, now)

    def unwant(self, topic: str, now: float) -> None:
        """Record the end of a subscriber."""
        self._counts[topic] -= 1
        if not self._counts[topic]:
            del self._counts[topic], self._since[topic]
            self._until[slot_of(topic)] = now

    def __contains__(self, topic: str) -> bool:
        return topic in self._counts

    def since(self, topic: str) -> float:
        """Virtual time since which a topic is wanted without a break; infinite if it is not."""
        return self._since.get(topic, _NEVER)

    def violation(self, topic: str, now: float, steady_since: float) -> str | None:
        """The violation if a message is delivered on a topic; None if it may be.

        Args:
            topic: The topic.
            now: Virtual time.
            steady_since: Virtual time since which the timers of the node run.
        """
        slot = slot_of(topic)
        if any(slot_of(each) == slot for each in self._counts):
            return None
        if slot not in self._until:
            return f"a message on {topic!r} is delivered, which was never wanted"
        idle = now - max(self._until[slot], steady_since)
        if idle <= UNFOLLOW_AFTER + UNDER_WAY:
            return None
        return (
            f"a message on {topic!r} is delivered, {idle:.1f} s after the end of its subscription"
        )


class LinkTimes:
    """The links of one node by peer, and when those to each peer last changed."""

    def __init__(self) -> None:
        self._open: dict[Replica, int] = {}
        self._changed_at: dict[Replica, float] = {}

    def note(self, peer: Replica, change: int, now: float) -> None:
        """Record that a link to a peer has opened (1) or closed (-1)."""
        self._open[peer] = self._open.get(peer, 0) + change
        self._changed_at[peer] = now

    def since(self, peer: Replica) -> float:
        """Virtual time since which the links to a peer are the same; infinite without a link."""
        return self._changed_at[peer] if self._open.get(peer) else _NEVER
