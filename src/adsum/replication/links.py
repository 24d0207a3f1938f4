"""The open links to other replicas, and the choice of links for messages and digests."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from .sizes import Size
from .state import Replica

#: Links that a digest request or a question about a suspect is sent over.
FANOUT = 3
#: Digest requests over one link that are answered between two heartbeats, at most.
MAX_ANSWERS = 4


@dataclass(slots=True, eq=False)
class PeerLink:
    """One open link to a replica.

    Attributes:
        id: The number by which the driver knows the link.
        replica: The replica at the other end.
        opened_at: When it opened, in active time.
        received_at: When the last frame was received over it, in active time.
        kept: Whether its smaller end, which chooses among links opened at one moment, is known to
            keep it: that end knows at once, the other one when the first frame arrives.
        writable: Whether the peer reads and there is room to send.
        stuck_at: When the peer stopped reading, in active time. Valid while not writable.
        dialled: This end dialled it.
        direct: Whether it is a connection of its own, and not a virtual link over a carrier.
        held: Whether its silence means nothing, because its carrier is away.
        resumed_at: When it was held last, in active time.
        addresses: The addresses at which the peer listens.
        greeted: Whether a heartbeat was received over it; its first frame is one.
        answers: Digest requests that are still answered before the next heartbeat.
        awaiting: A digest was requested over it and has not arrived.
        introduced_upto: Members with a `change_number` up to this have had their addresses sent
            over this link.
        lacks: Replicas to which the peer has no live link, as of its last request.
        first_counter: The first counter received over it, if it opened after a goodbye of its
            replica.
    """

    id: int
    replica: Replica
    opened_at: float
    received_at: float
    kept: bool = True
    writable: bool = True
    stuck_at: float = 0.0
    dialled: bool = False
    direct: bool = True
    held: bool = False
    resumed_at: float = float("-inf")
    addresses: tuple[str, ...] = ()
    greeted: bool = False
    answers: int = MAX_ANSWERS
    awaiting: bool = False
    introduced_upto: int = 0
    lacks: frozenset[Replica] = frozenset()
    first_counter: int | None = None


class Links:
    """The open links, by id and by the name at the other end."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._by_id: dict[int, PeerLink] = {}
        # Oldest first.
        self._by_name: dict[str, list[PeerLink]] = {}
        # The number of direct links to each name; none is 0.
        self._direct: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[PeerLink]:
        return iter(list(self._by_id.values()))

    def __contains__(self, id: int) -> bool:
        return id in self._by_id

    def __getitem__(self, id: int) -> PeerLink:
        return self._by_id[id]

    def get(self, id: int) -> PeerLink | None:
        """The link with an id, or None if it is not open."""
        return self._by_id.get(id)

    @property
    def names(self) -> Mapping[str, object]:
        """The names of the nodes with a link, as the keys of a mapping."""
        return self._by_name

    @property
    def direct_names(self) -> Mapping[str, object]:
        """The names of the nodes with a direct link, as the keys of a mapping."""
        return self._direct

    def of(self, name: str) -> list[PeerLink]:
        """The links to all incarnations of a name, oldest first."""
        return self._by_name.get(name, [])

    def add(self, link: PeerLink) -> None:
        """Add a link that has opened."""
        self._by_id[link.id] = link
        self._by_name.setdefault(link.replica.name, []).append(link)
        self._count(link, 1)

    def remove(self, link: PeerLink) -> None:
        """Remove a link that has closed."""
        del self._by_id[link.id]
        rest = [other for other in self._by_name.pop(link.replica.name) if other is not link]
        if rest:
            self._by_name[link.replica.name] = rest
        self._count(link, -1)

    def _count(self, link: PeerLink, number: int) -> None:
        if link.direct:
            self._direct[link.replica.name] += number
            if not self._direct[link.replica.name]:
                del self._direct[link.replica.name]

    def to_replica(self, replica: Replica) -> list[PeerLink]:
        """The links to one incarnation of a name, oldest first."""
        return [link for link in self.of(replica.name) if link.replica == replica]

    def is_held(self, replica: Replica) -> bool:
        """Whether there are links to a replica, and all of them are held."""
        links = self.to_replica(replica)
        return bool(links) and all(link.held for link in links)

    def to(self, name: str) -> PeerLink | None:
        """The link for published messages to a member: the newest one that both ends keep, or None.

        If both ends dial at once, each may see another of the two links open first. The smaller end
        closes one of them, without a frame over it.
        """
        for link in reversed(self.of(name)):
            if link.kept:
                return link
        return None

    def some(self) -> list[PeerLink]:
        """A random sample of `FANOUT` links, or fewer, of those not held whose peers read."""
        links = [link for link in self._by_id.values() if link.writable and not link.held]
        return self._rng.sample(links, min(FANOUT, len(links)))

    def should_introduce(self) -> bool:
        """Whether to request a digest over a new link: while at most `FANOUT` links are open.

        On later links, fingerprints are compared with the next heartbeat.
        """
        return len(self._by_id) <= FANOUT

    def sizes(self, names: int) -> Iterator[Size]:
        """The number of open links.

        Of two links that opened in a race one is closed at once, by the end that may decide it. The
        other end has both until it learns of that, and for as long as a new dial takes.
        """
        yield Size("links", len(self), 4 * names)

    def has_live(self, replica: Replica, since: float) -> bool:
        """Whether a frame was received since an active time over a link that is not held."""
        links = self.to_replica(replica)
        return any(link.received_at >= since and not link.held for link in links)
