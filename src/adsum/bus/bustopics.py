"""`BusTopics`: the messages on topics that one node wants, sends and accepts. No I/O.

A message for all members is published on the subject of its topic as a `Bulletin`, so the engine
passes it to the nodes that want the topic, see `topicslots`. Nothing is repeated, and there is no
credit.

Invariants:

* Each arrives at most once, in the order of publication. A life numbers its bulletins upwards over
  all subjects, and the bus keeps the order of a publisher over all subjects. The receiver accepts
  higher numbers only; one number for each life with a link is all that it stores.
* Each comes from a member that is linked here. It is accepted only from a life with a link whose
  first single has arrived, and that the life is known to have still. The single states the number
  of the life's last bulletin before, so a recorded one is accepted neither on a new link nor after
  the end of its life. Announcements state it, too, so a node that begins to follow a topic accepts
  no bulletin recorded before the last of them.
* While its links have not begun, or it may have given them up during an absence from the bus, its
  bulletins wait. The answer to a question of this end proves that the life has a link still, and
  that it had it when it published them: a link never comes back. If all its links close instead,
  or the bus is lost again, they are dropped. Their bytes are bounded, see `waitingbulletins`.
* A node that its publisher sends the message over a direct link does not take it from the subject
  as well: the bulletin names the life. The publisher has to name only lives to which it has a link
  itself: it publishes the first single when it opens a link, and the end when it closes one, before
  all later bulletins.
"""

from collections.abc import Iterable

from .busmessages import Bulletin
from .topicslots import TopicSlots, slot_of
from .waitingbulletins import WaitingBulletins

#: Bytes of the number of a bulletin in the first single of a link.
_NUMBER_BYTES = 8


class BusTopics:
    """The topics that a node wants, and the numbers of the bulletins that it sends and accepts.

    Args:
        life: The life of this node.

    Attributes:
        slots: The slots of the wanted topics.
        issued: The number of the last bulletin of this node.
    """

    def __init__(self, life: bytes) -> None:
        self.slots = TopicSlots()
        self._life = life
        self.issued = 0
        # The number of the last bulletin of each life with a link that has begun.
        self._heard: dict[bytes, int] = {}
        self._waiting = WaitingBulletins()

    @property
    def opening(self) -> bytes:
        """The body of the first single of a link: all earlier bulletins are not for it."""
        return self.issued.to_bytes(_NUMBER_BYTES, "big")

    def issue(self, topic: str, excluded: Iterable[bytes], body: bytes) -> Bulletin:
        """The next bulletin of this node.

        Args:
            topic: Its topic.
            excluded: The lives that are sent it in another way.
            body: The frame.
        """
        self.issued += 1
        return Bulletin(slot_of(topic), self.issued, tuple(dict.fromkeys(excluded)), body)

    def begin(self, life: bytes, opening: bytes) -> None:
        """Accept the bulletins of a life from now on: the first single of a link has arrived."""
        last = int.from_bytes(opening[:_NUMBER_BYTES], "big")
        self._heard[life] = max(last, self._heard.get(life, 0))

    def expire(self, life: bytes, issued: int) -> None:
        """Accept no bulletin up to a number any more, which an announcement states.

        It has come after them on the bus; those that wait here have come before it.
        """
        if life in self._heard and life not in self._waiting:
            self._heard[life] = max(issued, self._heard[life])

    def forget(self, life: bytes) -> None:
        """Forget a life: its last link has closed."""
        self._heard.pop(life, None)
        self._waiting.take(life)

    def lose_bus(self) -> None:
        """Drop the bulletins that wait: an absence loses all that was not delivered before it."""
        self._waiting.clear()

    def accept(self, life: bytes, bulletin: Bulletin) -> bool:
        """Whether to deliver a bulletin of a life with a link that it is known to have still.

        One of a slot that is not followed does not count: a recorded one, published again on
        another subject, would hide those under way.
        """
        if bulletin.slot not in self.slots or bulletin.number <= self._heard[life]:
            return False
        self._heard[life] = bulletin.number
        return self._life not in bulletin.excluded

    def store(self, life: bytes, bulletin: Bulletin) -> None:
        """Let a bulletin of a life with a link wait until one has begun and is confirmed.

        Repetitions are not stored.
        """
        last = self._waiting.last_of(life) or self._heard.get(life, 0)
        if bulletin.slot in self.slots and bulletin.number > last:
            self._waiting.add(life, bulletin)

    def release(self, life: bytes) -> list[Bulletin]:
        """The bulletins to deliver, in order: a link of the life has begun and is confirmed."""
        return [bulletin for bulletin in self._waiting.take(life) if self.accept(life, bulletin)]
