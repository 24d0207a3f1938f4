"""Anti-entropy by digests: relayed counters and goodbyes of third replicas, sent on request.

Theory of operation
===================

A heartbeat carries two fingerprints (see `fingerprint`): of the replicas that are alive here, and
of those that linger. While all nodes have live links, fingerprints agree and no digest is sent.
Digests are sent on demand:

* **A mismatch** of a peer's fingerprint with one's own causes a request for everything, over one
  link in each heartbeat; a mismatch of lingering replicas alone causes a request for those, over
  each link. Both requests name the replicas that linger here, so the answer lists those that linger
  no longer. So the loss of a message is detected by the next heartbeat, and nodes joined by a path
  of k links agree on the lingering replicas within k heartbeats.
* **A newcomer** requests everything over its first few links, and dials the replicas it learns of.
* **A replica without a live link**, because there is no link to it or the link is silent, is
  named in a request to a few peers with each heartbeat. The answer has its counter, or its
  goodbye. Peers remember the names until the next request, and push goodbyes to those that lack
  them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from adsum.values.jsontext import quote

from .departures import Departure, Departures
from .effects import EffectQueue
from .exchange import Exchange
from .links import MAX_ANSWERS, Links, PeerLink
from .liveness import Liveness, Member
from .messages import Digest, Farewell, Heartbeat, Pull, Sighting
from .state import Replica

#: Bytes, about, at which a digest is cut into several messages, and up to which a request names
#: replicas; with more of them it is a request for everything.
DIGEST_BUDGET = 64 * 1024
#: Replicas that one request names, at most.
MAX_NAMED = 256
#: Bytes on the wire, at most, of the numbers in one statement.
_NUMBERS = 100

T = TypeVar("T")


class Digests:
    """Requests and answers digests; all members are those of one engine."""

    def __init__(
        self,
        liveness: Liveness,
        departures: Departures,
        exchange: Exchange,
        links: Links,
        effects: EffectQueue,
    ) -> None:
        self._liveness = liveness
        self._departures = departures
        self._exchange = exchange
        self._links = links
        self._effects = effects
        # When a mismatch may be followed by a request for everything again, in active time.
        self._everything_at = 0.0

    # Requests.

    def request_everything(self, link: PeerLink) -> None:
        """Request all that a peer knows, and whether the replicas that linger here still linger."""
        self._request(link, everything=True)

    def compare(self, link: PeerLink, heartbeat: Heartbeat, now: float) -> None:
        """Request a digest from a peer if fingerprints in its heartbeat differ from local ones.

        With its first heartbeat a peer is asked for the lingering replicas also if a slice of one
        is incomplete here: the peer that relayed the goodbye may have been a newcomer itself. A
        request for everything is sent at most once in a heartbeat interval, over all links.
        """
        if link.awaiting:
            return
        # With its first heartbeat a newcomer knows no member yet.
        differs = link.greeted and heartbeat.members != self._liveness.fingerprint
        if differs and now >= self._everything_at:
            self._everything_at = now + self._liveness.pace.heartbeat_interval
            self.request_everything(link)
        elif heartbeat.departed != self._departures.fingerprint or (
            not link.greeted and next(self._incomplete(), None) is not None
        ):
            self._request(link, everything=False)

    def _request(self, link: PeerLink, *, everything: bool) -> None:
        link.awaiting = True
        lingering = [departure.replica for departure in self._departures.lingering()]
        self._effects.send([link], Pull(_named(lingering), everything))

    def beat(self, now: float, unanswered: list[PeerLink], awaited: list[Replica]) -> None:
        """Request digests of replicas without a live link; called at each heartbeat.

        Args:
            now: Active time.
            unanswered: Links over which everything is requested again. These requests come first:
                the end of any answer counts as the end of the first.
            awaited: Replicas that this node waits for before it has joined. If one has stopped
                since, the answer contains its goodbye.
        """
        for link in self._links:
            link.answers = MAX_ANSWERS
            link.awaiting &= not link.greeted  # before its first frame a peer answers nothing
        for link in unanswered:
            self.request_everything(link)
        unlinked = (replica for replica in awaited if not self.has_live_link(replica, now))
        missing = list(dict.fromkeys([*self._silent(now), *self._incomplete(), *unlinked]))
        if not missing:
            return
        named = _named(missing)
        complete = len(named) == len(missing)
        self._effects.send(self._links.some(), Pull(named) if complete else Pull(everything=True))

    def has_live_link(self, replica: Replica, now: float) -> bool:
        """Whether a link to a replica is alive, so its own statements will be received."""
        return self._links.has_live(replica, now - self._liveness.pace.vouch_grace)

    def _silent(self, now: float) -> Iterator[Replica]:
        for member in self._liveness.members.values():
            if member.alive and not self.has_live_link(member.replica, now):
                yield member.replica

    def _incomplete(self) -> Iterator[Replica]:
        for departure in self._departures.lingering():
            held = self._exchange.of(departure.replica)
            if held is None or held.slice.horizon < departure.version:
                yield departure.replica

    # Answers.

    def answer(self, link: PeerLink, pull: Pull, elapsed: float) -> None:
        """Answer a digest request, if the peer reads and has answers left in this heartbeat."""
        if pull.replicas and not pull.everything:
            link.lacks = frozenset(pull.replicas[:MAX_NAMED])
        if not link.writable or not link.answers:
            return
        link.answers -= 1
        wanted = None if pull.everything else frozenset(pull.replicas[:MAX_NAMED])
        sightings = [
            self._sighting(link, member, pull.everything)
            for member in self._liveness.fresh()
            if member.replica != link.replica and (wanted is None or member.replica in wanted)
        ]
        if pull.everything:
            link.introduced_upto = self._liveness.change_number
        gone = [departure for departure in self._departures.lingering() if departure.sure]
        for replica in pull.replicas[:MAX_NAMED]:
            departure = self._departures.get(replica)
            if departure is not None and departure.sure and not departure.lingers:
                gone.append(departure)
        farewells = [self.farewell(departure, elapsed) for departure in gone]
        for part in _in_parts(sightings, farewells):
            self._effects.send([link], part)

    def push(self, departure: Departure, elapsed: float) -> None:
        """Send a goodbye to the peers without a live link to its replica, if sure."""
        replica = departure.replica
        links = [link for link in self._links if replica in link.lacks and link.writable]
        if departure.sure:
            self._effects.send(links, self.notice(departure, elapsed))

    def notice(self, departure: Departure, elapsed: float) -> Digest:
        """A digest of one goodbye, which answers no request."""
        return Digest((), (self.farewell(departure, elapsed),), last=False)

    def farewell(self, departure: Departure, elapsed: float) -> Farewell:
        """The statement that relays a goodbye."""
        return Farewell(
            departure.replica,
            departure.counter,
            departure.version,
            round(max(0.0, departure.until - elapsed), 3) if departure.lingers else 0.0,
            self._exchange.horizon_of(departure.replica),
        )

    def _sighting(self, link: PeerLink, member: Member, everything: bool) -> Sighting:
        replica = member.replica
        known = not everything and member.change_number <= link.introduced_upto
        addresses = () if known else member.addresses
        return Sighting(replica, member.counter, self._exchange.horizon_of(replica), addresses)


def _named(replicas: list[Replica]) -> tuple[Replica, ...]:
    """The first of these replicas, as many as one request may name."""
    return tuple(next(_cut(replicas[:MAX_NAMED], _replica_size), []))


def _in_parts(sightings: list[Sighting], farewells: list[Farewell]) -> Iterator[Digest]:
    """An answer, cut into parts that fit into one message each."""
    parts = [
        *(Digest(sightings=tuple(part)) for part in _cut(sightings, _sighting_size)),
        *(Digest(farewells=tuple(part)) for part in _cut(farewells, _farewell_size)),
    ]
    for part in parts[:-1]:
        yield replace(part, last=False)
    yield parts[-1] if parts else Digest()


def _cut(statements: list[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    part: list[T] = []
    budget = DIGEST_BUDGET
    for statement in statements:
        part.append(statement)
        budget -= size_of(statement)
        if budget <= 0:
            yield part
            part, budget = [], DIGEST_BUDGET
    if part:
        yield part


def _sighting_size(sighting: Sighting) -> int:
    """Bytes, at most, that a sighting takes on the wire."""
    addresses = sum(len(quote(address)) + 1 for address in sighting.addresses)
    return _replica_size(sighting.replica) + addresses


def _farewell_size(farewell: Farewell) -> int:
    """Bytes, at most, that a goodbye takes on the wire."""
    return _replica_size(farewell.replica)


def _replica_size(replica: Replica) -> int:
    """Bytes, at most, that a replica takes on the wire, with numbers."""
    return _NUMBERS + len(quote(replica.name))
