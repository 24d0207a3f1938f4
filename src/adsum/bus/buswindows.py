"""The two directions of a virtual link: numbered messages, kept until acknowledged. No I/O.

One direction carries *singles*, which are for one link, and *casts*, which are published once for
all links of their sender. Both are numbered on their own, and each names the place of the other
kind that it follows, so the receiver restores the one order in which they were sent.

Invariants:
- A direction delivers each frame once, in the order of sending, or its link closes.
- A message is kept until the peer has acknowledged it, so one that the bus has lost is sent again.
- The bytes that wait at either end are bounded, see `limits`.
"""

from collections.abc import Iterator

from .busmessages import Position
from .limits import MAX_CASTS_KEPT, MAX_STORED


class CastLog:
    """The casts of one node that some peer may still lack.

    Attributes:
        head: The number of the newest cast.
        total: Bytes of all casts so far.
    """

    def __init__(self) -> None:
        self.head = 0
        self.total = 0
        # By number: the message, and the bytes of all casts up to it.
        self._kept: dict[int, tuple[bytes, int]] = {}

    def add(self, data: bytes) -> None:
        """Keep the next cast; the oldest ones beyond the bound are dropped."""
        self.head += 1
        self.total += len(data)
        self._kept[self.head] = data, self.total
        while self.total - self._before_oldest() > MAX_CASTS_KEPT and len(self._kept) > 1:
            del self._kept[next(iter(self._kept))]

    def total_at(self, number: int) -> int:
        """Bytes of all casts up to this one; of those before the oldest kept one if it is older."""
        if number >= self.head:
            return self.total
        known = self._kept.get(number)
        return known[1] if known is not None else self._before_oldest()

    def trim(self, number: int) -> None:
        """Drop the casts up to a number: every peer has them."""
        while self._kept and next(iter(self._kept)) <= number:
            del self._kept[next(iter(self._kept))]

    def beyond(self, number: int) -> list[bytes] | None:
        """The casts after a number; None if one of them was dropped."""
        wanted = range(number + 1, self.head + 1)
        if wanted and wanted[0] not in self._kept:
            return None
        return [self._kept[each][0] for each in wanted]

    def _before_oldest(self) -> int:
        if not self._kept:
            return self.total
        data, total = self._kept[next(iter(self._kept))]
        return total - len(data)


class SendWindow:
    """The messages of one direction that its receiver has not acknowledged.

    Args:
        log: The casts of the node; the direction begins after its head.

    Attributes:
        head: The number of the newest single.
        acknowledged: Up to where the peer has received.
    """

    def __init__(self, log: CastLog) -> None:
        self.head = 0
        self.acknowledged = Position(0, log.head)
        self._log = log
        self._kept: dict[int, bytes] = {}
        self._size = 0
        self._casts_before = log.total

    @property
    def sent(self) -> Position:
        """Up to where this end has sent."""
        return Position(self.head, self._log.head)

    @property
    def in_flight(self) -> int:
        """Bytes that the peer has not acknowledged."""
        return self._size + self._log.total - self._casts_before

    def add(self, data: bytes) -> None:
        """Keep the next single."""
        self.head += 1
        self._kept[self.head] = data
        self._size += len(data)

    def acknowledge(self, received: Position) -> bool:
        """Drop the messages that the peer has received.

        Returns:
            False if it names messages that were never sent.
        """
        if received.single > self.head or received.cast > self._log.head:
            return False
        for number in range(self.acknowledged.single + 1, received.single + 1):
            self._size -= len(self._kept.pop(number))
        if received.cast > self.acknowledged.cast:
            self._casts_before = max(self._casts_before, self._log.total_at(received.cast))
        self.acknowledged = Position(
            max(received.single, self.acknowledged.single),
            max(received.cast, self.acknowledged.cast),
        )
        return True

    def beyond(self, received: Position) -> list[bytes] | None:
        """The messages that a peer lacks that has received so much; None if one was dropped.

        None are lacked by a peer that has acknowledged more: a stranger has repeated its request.
        """
        if received.single < self.acknowledged.single:
            return []
        casts = self._log.beyond(max(received.cast, self.acknowledged.cast))
        if casts is None:
            return None
        singles = range(received.single + 1, self.head + 1)
        return [*(self._kept[number] for number in singles), *casts]


class ReceiveWindow:
    """Restores the order of one direction, and notices missing messages.

    Attributes:
        received: Up to where messages were received without a gap.
        begun: Whether its first single has arrived, which says where its casts begin.
        opening: The body of its first single; empty before.
    """

    def __init__(self) -> None:
        self.received = Position(0, 0)
        self.begun = False
        self.opening = b""
        # Where the peer has stated to be, and the messages that wait for an earlier one: with the
        # number of the other kind that each follows. The body is None if it is not for this link.
        self._sent = Position(0, 0)
        self._singles: dict[int, tuple[int, bytes]] = {}
        self._casts: dict[int, tuple[int, bytes | None]] = {}
        self._stored = 0

    @property
    def incomplete(self) -> bool:
        """Whether a message is missing that is known to have been sent."""
        missing = self._sent.single > self.received.single or self._sent.cast > self.received.cast
        return missing or not self.begun or bool(self._singles or self._casts)

    def expect(self, sent: Position) -> None:
        """Note up to where the peer has sent, by its own statement."""
        self._sent = Position(max(sent.single, self._sent.single), max(sent.cast, self._sent.cast))

    def single(self, number: int, after: int, body: bytes) -> None:
        """Store a single, unless it was received already."""
        if number > self.received.single and number not in self._singles and self._fits(body):
            self._singles[number] = after, body

    def cast(self, number: int, need: int, body: bytes | None) -> None:
        """Store a cast, unless it was received already."""
        if number > self.received.cast and number not in self._casts and self._fits(body):
            self._casts[number] = need, body

    def take(self) -> Iterator[bytes]:
        """The frames whose turn has come, in order."""
        while True:
            single = self._singles.get(self.received.single + 1)
            cast = self._casts.get(self.received.cast + 1)
            if single is not None and not self.begun:
                self._begin(single[0])
            elif single is not None and single[0] <= self.received.cast:
                self.received = Position(self.received.single + 1, self.received.cast)
                del self._singles[self.received.single]
                yield self._release(single[1])
            elif self.begun and cast is not None and cast[0] <= self.received.single:
                self.received = Position(self.received.single, self.received.cast + 1)
                del self._casts[self.received.cast]
                if cast[1] is not None:
                    yield self._release(cast[1])
            else:
                return

    def _begin(self, after: int) -> None:
        """Begin after a cast: earlier ones were not for this link."""
        self.opening = self._release(self._singles.pop(1)[1])
        self.begun, self.received = True, Position(1, after)
        for number in [number for number in self._casts if number <= after]:
            self._release(self._casts.pop(number)[1] or b"")

    def _fits(self, body: bytes | None) -> bool:
        size = len(body or b"")
        if self._stored + size > MAX_STORED:
            return False
        self._stored += size
        return True

    def _release(self, body: bytes) -> bytes:
        self._stored -= len(body)
        return body
