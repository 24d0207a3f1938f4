"""`WaitingBulletins`: the messages on topics that wait until a link is confirmed. No I/O.

They wait for a round trip after each return to the bus, in the order of their senders.

Invariants:
- Together they have at most `MAX_WAITING_BULLETINS` bytes.
- Beyond, the sender with the most bytes loses its newest (longest queue drop: Wei, Coyle and Hsiao
  1991). So a sender that has no more than an equal share, the bound divided by the number of
  senders, loses none, however much the others send.
"""

from .busmessages import LIFE_BYTES, Bulletin
from .limits import MAX_WAITING_BULLETINS

#: Bytes that a bulletin counts beside its frame and the lives that it names, so that small ones are
#: bounded, too.
_COST = 256


class WaitingBulletins:
    """The bulletins that wait, by the life of their sender.

    Attributes:
        stored: Bytes of all of them.
    """

    def __init__(self) -> None:
        self.stored = 0
        self._bulletins: dict[bytes, list[Bulletin]] = {}
        # Bytes of each life in `_bulletins`.
        self._sizes: dict[bytes, int] = {}

    def __contains__(self, life: bytes) -> bool:
        return life in self._bulletins

    def last_of(self, life: bytes) -> int:
        """The number of the newest one of a life; 0 if none waits."""
        bulletins = self._bulletins.get(life)
        return bulletins[-1].number if bulletins else 0

    def add(self, life: bytes, bulletin: Bulletin) -> None:
        """Let one wait behind the others of its life."""
        self._bulletins.setdefault(life, []).append(bulletin)
        self._count(life, _size(bulletin))
        while self.stored > MAX_WAITING_BULLETINS:
            self._drop_newest(max(self._sizes, key=self._sizes.__getitem__))

    def take(self, life: bytes) -> list[Bulletin]:
        """Remove those of a life, and return them in order."""
        self.stored -= self._sizes.pop(life, 0)
        return self._bulletins.pop(life, [])

    def clear(self) -> None:
        """Drop all."""
        self._bulletins.clear()
        self._sizes.clear()
        self.stored = 0

    def _drop_newest(self, life: bytes) -> None:
        self._count(life, -_size(self._bulletins[life].pop()))
        if not self._bulletins[life]:
            self.take(life)

    def _count(self, life: bytes, size: int) -> None:
        self._sizes[life] = self._sizes.get(life, 0) + size
        self.stored += size


def _size(bulletin: Bulletin) -> int:
    return _COST + len(bulletin.body) + LIFE_BYTES * len(bulletin.excluded)
