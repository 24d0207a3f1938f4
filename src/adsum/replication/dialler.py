"""The schedule of dials: exponential backoff, jitter, and every address of a peer in turn.

A peer is dialled while there is no link to it: at once when a link was lost, then less and less
often, with jitter, so that a cluster that comes back does not dial in step. Addresses come from
the configuration or discovery (seeds) and from the other nodes (peers).

A seed is dialled until its node has a *direct* link: one over a carrier is no substitute for that
to a sibling. A peer is dialled while it has no link at all, so that nodes that cannot dial each
other do not try for ever.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from .sizes import Size
from .timing import Timing

#: Dials under way at a time, at most: peers send addresses, and may send too many.
MOST_DIALS = 64


@dataclass(slots=True, eq=False)
class Target:
    """A node to keep a link to: a seed or a peer.

    Attributes:
        addresses: Its addresses, dialled in turn.
        name: The name of the node that answers there; None for a seed that never answered.
        dial_at: When to dial next.
        seed: Whether its address was configured or discovered, rather than received from a peer.
        lasting: Whether to keep dialling after it refused.
        direct: Whether a seed leads to a direct link, and not to one over a carrier.
    """

    addresses: tuple[str, ...]
    name: str | None
    dial_at: float
    seed: bool = False
    lasting: bool = True
    direct: bool = True
    #: The address that is being dialled, if any.
    dialling: str | None = None
    #: The index of the next address in this round, and whether all addresses before it refused.
    position: int = 0
    all_refused: bool = True
    #: Failed rounds since a link lasted; a round fails if no address answers or its link does not
    #: last.
    failures: int = 0

    def begin_round(self) -> None:
        """Start a round of dials with the first address."""
        self.position, self.all_refused = 0, True


class Dialler:
    """Decides which addresses to dial, and when, to reach every seed and peer without a link."""

    def __init__(self, timing: Timing, rng: Random) -> None:
        self._timing = timing
        self._rng = rng
        self._seeds: dict[str, Target] = {}
        self._peers: dict[str, Target] = {}
        #: The earliest time at which `due` may return addresses.
        self.next_at = float("inf")
        # Whether more dials are due than may be under way.
        self._crowded = False

    def add_seed(self, address: str, now: float, *, lasting: bool, direct: bool = True) -> bool:
        """Dial an address from the configuration or discovery; returns whether it is new.

        Args:
            address: The address.
            now: Active time.
            lasting: Keep the seed when it refuses; otherwise it is removed then.
            direct: Whether it leads to a direct link, and not to one over a carrier.
        """
        if address in self._seeds:
            return False
        self._seeds[address] = Target(
            (address,), None, now, seed=True, lasting=lasting, direct=direct
        )
        self.next_at = min(self.next_at, now)
        return True

    def add_peer(self, name: str, addresses: tuple[str, ...], dial_at: float) -> None:
        """Dial a member from `dial_at` on; for a known one, only the addresses are updated."""
        target = self._peers.get(name)
        if target is None:
            target = self._peers[name] = Target(addresses, name, dial_at)
        elif target.addresses != addresses:
            target.addresses, target.position = addresses, 0
        self.next_at = min(self.next_at, target.dial_at)

    def seeds_of(self, name: str) -> list[str]:
        """The seed addresses at which a node of this name has answered."""
        return [address for address, seed in self._seeds.items() if seed.name == name]

    def remove_seed(self, address: str) -> None:
        """Stop dialling an address that is no longer configured or discovered."""
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
        """Dial a member again only after a backoff: a link to it did not last."""
        for target in self._targets_of(name):
            target.all_refused = False  # a process answered
            self._back_off(target, now)

    def due(
        self, now: float, linked: Mapping[str, object], direct: Mapping[str, object] | None = None
    ) -> list[str]:
        """The addresses to dial now; report each result by `answered` or `failed`.

        Args:
            now: Active time.
            linked: The names of nodes with a link.
            direct: The names of nodes with a direct link; None if all links are direct.
        """
        direct = linked if direct is None else direct
        if now < self.next_at:
            return []
        self.next_at = float("inf")
        room = MOST_DIALS
        unlinked: list[Target] = []
        for target in (*self._seeds.values(), *self._peers.values()):
            reached = direct if target.seed and target.direct else linked
            if target.dialling is not None:
                room -= 1
            elif target.name not in reached and target.addresses:
                unlinked.append(target)
        # The longest wait comes first, so every target has its turn even if many do not answer.
        unlinked.sort(key=lambda target: target.dial_at)
        due = [target for target in unlinked if target.dial_at <= now]
        for target in due[: max(0, room)]:
            target.dialling = target.addresses[target.position % len(target.addresses)]
        self._crowded = len(due) > room
        if len(unlinked) > len(due):
            self.next_at = unlinked[len(due)].dial_at
        return list(dict.fromkeys(target.dialling for target in due if target.dialling is not None))

    def answered(self, address: str, name: str, now: float) -> str | None:
        """Record that a node of this name answered at a dialled address.

        Returns:
            As `failed`: if another node answers, that counts as a refusal by the expected one.
        """
        gone = None
        for target in self._end_dial(address, now):
            if target.seed:
                target.name = name
            if target.name == name:
                target.dialling = None
                target.begin_round()
            else:
                gone = self._advance(target, True, now) or gone
        return gone

    def answered_oneself(self, address: str, now: float) -> None:
        """Record that this node itself answered; behind a balancer, another node may answer later.

        A seed is dialled again after `Timing.redial_refused`.
        """
        for target in self._end_dial(address, now):
            target.dialling, target.name = None, target.name if not target.seed else None
            target.dial_at = now + self._timing.redial_refused
            self.next_at = min(self.next_at, target.dial_at)

    def failed(self, address: str, refused: bool, now: float) -> str | None:
        """Record that a dial opened no link.

        Args:
            address: The address that was dialled.
            refused: Nothing listens there.
            now: Active time.

        Returns:
            The name of a member if all its addresses refused in this round, else None.
        """
        gone = None
        for target in self._end_dial(address, now):
            gone = self._advance(target, refused, now) or gone
        return gone

    def sizes(self, names: int) -> Iterator[Size]:
        """The number of members to dial; seeds come from the configuration, not from peers."""
        yield Size("peers to dial", len(self._peers), names)

    def _advance(self, target: Target, refused: bool, now: float) -> str | None:
        """Go on to the next address, or back off until the next round after the last one.

        Returns:
            The name of the target if all its addresses refused in this round, else None.
        """
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

    def _end_dial(self, address: str, now: float) -> list[Target]:
        """The targets of a dial that has ended; the next one begins if it waits for a place."""
        if self._crowded:
            self.next_at = min(self.next_at, now)
        targets = (*self._seeds.values(), *self._peers.values())
        return [target for target in targets if target.dialling == address]

    def _targets_of(self, name: str) -> list[Target]:
        targets = (*self._seeds.values(), *self._peers.values())
        return [target for target in targets if target.name == name]
