"""Which address to dial when: backoff, jitter, and every address of a peer in turn.

A peer is dialled while there is no link to it: at once when a link was lost, then less and less
often, with jitter, so that a cluster that comes back does not dial in step. Addresses come from
the configuration (seeds) and from what nodes tell of each other (peers).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from .timing import Timing

#: So many dials are under way at a time. Peers tell of addresses, and may tell of too many.
MOST_DIALS = 64
#: Where more are due, they are looked at again after so many seconds.
CROWDED_PAUSE = 0.02


@dataclass(slots=True, eq=False)
class Target:
    """Somebody to keep a link to.

    Attributes:
        addresses: Tried in turn.
        name: Who answers there; None for a seed that never answered.
        dial_at: When to dial next.
        seed: Whether it was configured or found, rather than told of.
        lasting: Whether to go on when it refuses.
    """

    addresses: tuple[str, ...]
    name: str | None
    dial_at: float
    seed: bool = False
    lasting: bool = True
    #: The address that is being dialled, if any.
    dialling: str | None = None
    #: The position of the next address in this round, and whether all before it refused.
    position: int = 0
    all_refused: bool = True
    #: Rounds in which no address answered, or the link did not last, since one that did.
    failures: int = 0

    def begin_round(self) -> None:
        """Try the first address next."""
        self.position, self.all_refused = 0, True


class Dialler:
    """Keeps trying to reach everybody to whom there is no link."""

    def __init__(self, timing: Timing, rng: Random) -> None:
        self._timing = timing
        self._rng = rng
        self._seeds: dict[str, Target] = {}
        self._peers: dict[str, Target] = {}
        #: When `due` has something to say, at the earliest.
        self.next_at = float("inf")

    def add_seed(self, address: str, now: float, *, lasting: bool) -> bool:
        """Dial an address from the configuration or the host; returns whether it is a new one."""
        if address in self._seeds:
            return False
        self._seeds[address] = Target((address,), None, now, seed=True, lasting=lasting)
        self.next_at = min(self.next_at, now)
        return True

    def add_peer(self, name: str, addresses: tuple[str, ...], dial_at: float) -> None:
        """Dial a member, from `dial_at` on; changes nothing but addresses if it is known."""
        target = self._peers.get(name)
        if target is None:
            target = self._peers[name] = Target(addresses, name, dial_at)
        elif target.addresses != addresses:
            target.addresses, target.position = addresses, 0
        self.next_at = min(self.next_at, target.dial_at)

    def seeds_of(self, name: str) -> list[str]:
        """The addresses of seeds at which a node of this name has answered."""
        return [address for address, seed in self._seeds.items() if seed.name == name]

    def remove_seed(self, address: str) -> None:
        """Stop dialling an address that is not configured or found any more."""
        self._seeds.pop(address, None)

    def forget_peer(self, name: str) -> None:
        """Stop dialling a member."""
        self._peers.pop(name, None)

    def hurry(self, name: str, now: float) -> None:
        """Dial a member at once: its link was lost."""
        for target in self._targets_of(name):
            target.dial_at, target.failures = now, 0
            target.begin_round()
            self.next_at = min(self.next_at, now)

    def wait(self, name: str, now: float) -> None:
        """Dial a member again only after a while: a link to it did not last."""
        for target in self._targets_of(name):
            target.all_refused = False  # somebody answered
            self._back_off(target, now)

    def due(self, now: float, linked: Mapping[str, object]) -> list[str]:
        """The addresses to dial now; each is reported back by `answered` or `failed`.

        Args:
            now: Active time.
            linked: The names to which there is a link.
        """
        if now < self.next_at:
            return []
        self.next_at = float("inf")
        addresses: list[str] = []
        # Those that wait longest come first, so that where many do not answer all get their turn.
        targets = sorted(
            (*self._seeds.values(), *self._peers.values()), key=lambda target: target.dial_at
        )
        room = MOST_DIALS - sum(target.dialling is not None for target in targets)
        for target in targets:
            if target.dialling is not None or target.name in linked or not target.addresses:
                continue
            if target.dial_at <= now and len(addresses) >= room:
                self.next_at = min(self.next_at, now + CROWDED_PAUSE)
            elif target.dial_at <= now:
                target.dialling = target.addresses[target.position % len(target.addresses)]
                addresses.append(target.dialling)
            else:
                self.next_at = min(self.next_at, target.dial_at)
        return list(dict.fromkeys(addresses))

    def answered(self, address: str, name: str, now: float) -> str | None:
        """A node of this name answered at an address that was dialled.

        Returns:
            As `failed`: where somebody else answers, the one that was looked for is gone.
        """
        gone = None
        for target in self._dialling(address):
            if target.seed:
                target.name = name
            if target.name == name:
                target.dialling = None
                target.begin_round()
            else:
                gone = self._miss(target, True, now) or gone
        return gone

    def answered_oneself(self, address: str, now: float) -> None:
        """This node itself answered; behind a balancer it may be somebody else another time."""
        for target in self._dialling(address):
            target.dialling, target.name = None, target.name if not target.seed else None
            target.dial_at = now + self._timing.redial_refused
            self.next_at = min(self.next_at, target.dial_at)

    def failed(self, address: str, refused: bool, now: float) -> str | None:
        """No link came of a dial.

        Returns:
            The name of the member all of whose addresses refused in this round, if that is so.
        """
        gone = None
        for target in self._dialling(address):
            gone = self._miss(target, refused, now) or gone
        return gone

    def _miss(self, target: Target, refused: bool, now: float) -> str | None:
        """Go on to the next address, or wait for the next round if this was the last one."""
        target.dialling = None
        target.all_refused &= refused
        target.position += 1
        gone = None
        if target.position < len(target.addresses):
            target.dial_at = now
        else:
            gone = target.name if target.all_refused else None
            if target.all_refused and not target.lasting:
                del self._seeds[target.addresses[0]]
            self._back_off(target, now)
        self.next_at = min(self.next_at, target.dial_at)
        return gone

    def _back_off(self, target: Target, now: float) -> None:
        target.dial_at = now + self._backoff(target)
        target.failures += 1
        target.begin_round()
        self.next_at = min(self.next_at, target.dial_at)

    def _backoff(self, target: Target) -> float:
        timing = self._timing
        gone = target.all_refused and not target.seed
        most = timing.redial_refused if gone else timing.redial_most
        delay = min(most, timing.redial_first * 2.0 ** min(target.failures, 20))
        return delay * (0.5 + self._rng.random() / 2)

    def _dialling(self, address: str) -> list[Target]:
        targets = (*self._seeds.values(), *self._peers.values())
        return [target for target in targets if target.dialling == address]

    def _targets_of(self, name: str) -> list[Target]:
        targets = (*self._seeds.values(), *self._peers.values())
        return [target for target in targets if target.name == name]
