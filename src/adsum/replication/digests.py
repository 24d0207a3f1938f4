"""What a node tells of others: counters, versions and addresses of all that are fresh here."""

from collections.abc import Iterator

from .effects import Outbox
from .entry import text_size
from .exchange import Exchange
from .links import Link
from .liveness import Liveness, Member
from .messages import Digest, Sighting
from .timing import Timing

#: A digest of a large cluster is cut into messages of about so many bytes.
DIGEST_BUDGET = 64 * 1024
#: What the numbers of a sighting take on the wire.
_NUMBERS = 48


class Digests:
    """Makes digests of what liveness and slices know.

    An address is told once over each link: what is told of is one number, `Link.introduced`.
    """

    def __init__(
        self, liveness: Liveness, exchange: Exchange, outbox: Outbox, timing: Timing
    ) -> None:
        self._liveness = liveness
        self._exchange = exchange
        self._outbox = outbox
        self._timing = timing

    def answer(self, link: Link, now: float) -> None:
        """Tell a peer that asks, if it reads, and was not told a moment ago for asking."""
        patience = self._timing.heartbeat_interval / 4
        if link.writable and now - link.told_at >= patience:
            link.told_at = now
            self.send(link)

    def send(self, link: Link, *, pull: bool = False) -> None:
        """Tell the other end of a link of everybody but itself.

        Args:
            link: Over which to tell.
            pull: Ask it to tell in return.
        """
        sightings = [
            self._sighting(link, member)
            for member in self._liveness.fresh()
            if member.replica != link.replica
        ]
        link.introduced = self._liveness.news
        for part in _in_parts(sightings):
            self._outbox.send([link], Digest(part, pull=pull))
            pull = False
        if pull:
            self._outbox.send([link], Digest((), pull=True))

    def _sighting(self, link: Link, member: Member) -> Sighting:
        replica = member.replica
        addresses = member.addresses if member.news > link.introduced else ()
        held = self._exchange.of(replica)
        version = held.slice.horizon if held is not None else 0
        return Sighting(replica, member.counter, version, addresses)


def _in_parts(sightings: list[Sighting]) -> Iterator[tuple[Sighting, ...]]:
    """The sightings in parts that fit into a message."""
    part: list[Sighting] = []
    budget = DIGEST_BUDGET
    for sighting in sightings:
        part.append(sighting)
        budget -= _size_of(sighting)
        if budget <= 0:
            yield tuple(part)
            part, budget = [], DIGEST_BUDGET
    if part:
        yield tuple(part)


def _size_of(sighting: Sighting) -> int:
    """About how many bytes a sighting takes on the wire."""
    texts = (sighting.replica.name, *sighting.addresses)
    return _NUMBERS + sum(text_size(text) + 3 for text in texts)
