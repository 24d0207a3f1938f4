"""`TopicSlots`: the topics that a node wants, as subscriptions to a bounded number of subjects.

A topic has one *slot* by its hash, and each slot one subject. So the engine routes a message to the
nodes that want a topic of its slot, and no node ever subscribes to more than `SLOTS` subjects. A
node also receives the messages on other topics of these slots, which its observers drop. With T
wanted topics that are T / `SLOTS` of all others, about.

Invariant: while a topic is wanted, its slot is followed. A slot is unfollowed some time after its
last topic, so topics that come and go cost the engine a bounded number of commands.
"""

from hashlib import blake2b
from typing import Final

from .limits import UNFOLLOW_AFTER

#: Number of subjects for topics.
SLOTS: Final = 4096
_NEVER: Final = float("inf")


def slot_of(topic: str) -> int:
    """The slot of a topic, the same on every node."""
    digest = blake2b(topic.encode("utf-8", "surrogatepass"), digest_size=2).digest()
    return int.from_bytes(digest, "big") % SLOTS


class TopicSlots:
    """The slots that a node follows.

    Attributes:
        sweep_at: When to call `sweep`, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.sweep_at = _NEVER
        # The number of wanted topics of each slot that is followed; 0 until the next sweep.
        self._wanted: dict[int, int] = {}

    def __contains__(self, slot: int) -> bool:
        """Whether a slot is followed."""
        return slot in self._wanted

    def want(self, slot: int) -> bool:
        """Count one more wanted topic of a slot; returns whether to follow it from now on."""
        is_new = slot not in self._wanted
        self._wanted[slot] = self._wanted.get(slot, 0) + 1
        return is_new

    def unwant(self, slot: int, now: float) -> None:
        """Undo one `want`; a later `sweep` returns the slot if it was the last one."""
        if self._wanted.get(slot, 0):
            self._wanted[slot] -= 1
            if not self._wanted[slot]:
                self.sweep_at = min(self.sweep_at, now + UNFOLLOW_AFTER)

    def sweep(self) -> list[int]:
        """Remove the slots without a wanted topic; returns those to unfollow."""
        self.sweep_at = _NEVER
        idle = [slot for slot, count in self._wanted.items() if not count]
        for slot in idle:
            del self._wanted[slot]
        return idle
