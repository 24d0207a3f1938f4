"""`BusDials`: the handshakes under way of one node, and its dials that wait for a place. No I/O.

A node that starts among many others, or returns to the bus with them, has to dial and to answer all
of them at once. Unpaced, handshakes time out in the queues of busy nodes, and are begun again.

Invariants:
- At most `MAX_DIALS` dials are under way that began less than `DIAL_PATIENCE` ago. Further dials
  wait in a `DialQueue`, and their time has not begun.
- At most `MAX_GREETINGS` handshakes that others began are under way: for one more, the oldest is
  dropped. A stranger can repeat recorded greetings, each of which begins a handshake here.
- There is at most one dial to a life. It waits, is under way, or is taken over by the handshake
  that its node has begun, once that has opened a link. Not before: a recorded greeting opens none.
- A handshake has `DIAL_TIMEOUT` from its beginning and from each answer: a busy peer is no stopped
  one. Those of each kind are kept in the order of their last progress. So the first one is due
  first, and no call looks at all of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile

from adsum.transport.handshake import Handshake

from .busmessages import KEY_BYTES, LIFE_BYTES
from .dialqueue import DialQueue
from .limits import DIAL_TIMEOUT, MAX_GREETINGS
from .virtuallink import VirtualGreeting

SCHEME = "bus:"


def address_of(life: bytes) -> str:
    """The address of a life on the bus."""
    return SCHEME + life.hex()


def life_of(address: str) -> bytes | None:
    """The life in an address; None if it is not one of a node on a bus.

    Each life has one address: another spelling of its digits is none.
    """
    try:
        life = bytes.fromhex(address.removeprefix(SCHEME))
    except ValueError:
        return None
    return life if len(life) == LIFE_BYTES and address == address_of(life) else None


class BusDials:
    """Handshakes that this node or others have begun, and the dials that wait.

    Args:
        make_handshake: Makes this end of a handshake; its argument is whether this end dials.
        random_bytes: Makes random bytes.
    """

    def __init__(
        self, make_handshake: Callable[[bool], Handshake], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._make_handshake = make_handshake
        self._random_bytes = random_bytes
        self._by_key: dict[bytes, VirtualGreeting] = {}
        # Of the handshakes in `_by_key`: those that this end began, by life, ...
        self._dialled: dict[bytes, VirtualGreeting] = {}
        # ... and those that others began, by key, with their number for each life.
        self._answered: dict[bytes, VirtualGreeting] = {}
        self._answered_lives = Counter[bytes]()
        self._queue = DialQueue()

    def get(self, key: bytes) -> VirtualGreeting | None:
        """The handshake of a key, if one is under way."""
        return self._by_key.get(key)

    def meets(self, life: bytes) -> bool:
        """Whether a handshake with a life is under way, begun by either end."""
        return life in self._dialled or life in self._answered_lives

    def waits(self, life: bytes) -> bool:
        """Whether a dial to a life waits for its place."""
        return self._queue.waits(life)

    def dial_to(self, life: bytes) -> VirtualGreeting | None:
        """The handshake with a life that this end began, if one is under way."""
        return self._dialled.get(life)

    @property
    def heard(self) -> Mapping[bytes, float]:
        """The lives without a link that were heard; see `DialQueue`."""
        return self._queue.heard

    def note(self, life: bytes, now: float) -> None:
        """Note a message of a life without a link; see `DialQueue`."""
        self._queue.note(life, now)

    def dial(self, life: bytes) -> bool:
        """Let a dial wait for its place; nothing changes if there is a dial to this life.

        Returns:
            False if the dial may not wait, as too many others do.
        """
        return life in self._dialled or self._queue.add(life)

    def begin(self, now: float) -> Iterator[VirtualGreeting]:
        """Begin the dials that have a place now."""
        for life in self._queue.begin(now):
            yield self._add(self._random_bytes(KEY_BYTES), life, address_of(life), now)

    def answer(self, key: bytes, life: bytes, now: float) -> VirtualGreeting:
        """Take part in the handshake that another life has begun."""
        if len(self._answered) >= MAX_GREETINGS:
            self.end(next(iter(self._answered.values())))
        return self._add(key, life, None, now)

    def extend(self, greeting: VirtualGreeting, now: float) -> None:
        """Give a handshake its full time again: the other end goes on with it."""
        greeting.until = now + DIAL_TIMEOUT
        if greeting.dialled is not None:
            self._dialled[greeting.life] = self._dialled.pop(greeting.life)
        else:
            self._answered[greeting.key] = self._answered.pop(greeting.key)

    def end(self, greeting: VirtualGreeting) -> bool:
        """Forget a handshake; returns whether it was under way."""
        if self._by_key.get(greeting.key) is not greeting:
            return False
        del self._by_key[greeting.key]
        if greeting.dialled is not None:
            del self._dialled[greeting.life]
            self._queue.end(greeting.life)
        else:
            del self._answered[greeting.key]
            self._answered_lives[greeting.life] -= 1
            if not self._answered_lives[greeting.life]:
                del self._answered_lives[greeting.life]
        return True

    def take_over(self, life: bytes) -> str | None:
        """End the dial to a life: its node has dialled, too, and that has opened a link.

        Returns:
            The dialled address, if there was a dial.
        """
        own = self._dialled.get(life)
        if own is not None:
            self.end(own)
        was_waiting = self._queue.withdraw(life)
        self._queue.end(life)
        return address_of(life) if own is not None or was_waiting else None

    def expire(self, now: float) -> list[str]:
        """Forget the handshakes whose time is over; returns the addresses that this end dialled."""
        over = list[VirtualGreeting]()
        for kind in (self._dialled, self._answered):
            over += takewhile(lambda greeting: greeting.until <= now, kind.values())
        for greeting in over:
            self.end(greeting)
        return [greeting.dialled for greeting in over if greeting.dialled is not None]

    def clear(self) -> list[str]:
        """Forget all handshakes and dials: the bus is away; returns the dialled addresses."""
        addresses = [address_of(life) for life in (*self._dialled, *self._queue.clear())]
        for kind in (self._by_key, self._dialled, self._answered, self._answered_lives):
            kind.clear()
        return addresses

    @property
    def wake_at(self) -> float:
        """When a handshake is over, or a place is free for a dial that waits: monotonic seconds."""
        first = [next(iter(kind.values())) for kind in (self._dialled, self._answered) if kind]
        return min([*(greeting.until for greeting in first), self._queue.wake_at])

    def _add(self, key: bytes, life: bytes, dialled: str | None, now: float) -> VirtualGreeting:
        handshake = self._make_handshake(dialled is not None)
        greeting = VirtualGreeting(key, life, handshake, now, now + DIAL_TIMEOUT, dialled)
        self._by_key[key] = greeting
        if dialled is not None:
            self._dialled[life] = greeting
        else:
            self._answered[key] = greeting
            self._answered_lives[life] += 1
        return greeting
