"""The ring of probes: each node asks the engine about one neighbour. No I/O.

The lives of the nodes with a link form a ring, in their own order. A node probes the next one on
it several times a second; the engine refuses a probe whose receiver is gone. So each node is
watched by one other, at a cost that does not depend on the size of the cluster, and the loss is
announced to all (compare SWIM: Das, Gupta, Motivala 2002, and Chord's successors).
"""

from bisect import bisect_right, insort


class Ring:
    """The lives of the nodes with a link, and the neighbour of this node.

    Args:
        life: The life of this node.
    """

    def __init__(self, life: bytes) -> None:
        self._life = life
        self._lives: list[bytes] = []

    def add(self, life: bytes) -> None:
        """Add a life; it must not be there."""
        insort(self._lives, life)

    def remove(self, life: bytes) -> None:
        """Remove a life that is there."""
        self._lives.remove(life)

    @property
    def neighbour(self) -> bytes | None:
        """The life that follows this node's own; None if there is no other."""
        if not self._lives:
            return None
        return self._lives[bisect_right(self._lives, self._life) % len(self._lives)]
