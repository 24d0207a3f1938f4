"""Suspects: members whose link was lost or whose addresses refuse dials, and questions about them.

A node that suspects a replica asks a few peers about it (SWIM: Das, Gupta, Motivala 2002). A peer
with a live link to the replica vouches for it, and is asked only once: it vouches again with the
next heartbeat of the replica, which is the proof that ends the doubt. A peer that knows its goodbye
answers with that. `liveness` has the deadlines of a suspicion.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from .clock import Clock
from .departures import Departures
from .digests import Digests
from .effects import EffectQueue
from .joining import Joining
from .links import Links, PeerLink
from .liveness import Liveness
from .messages import Ask, Vouch
from .sizes import Size
from .state import Replica


@dataclass(slots=True, eq=False)
class Suspicion:
    """Suspects members, asks peers about them, and answers the questions of peers.

    All other members are those of one engine.

    Attributes:
        askers: Link ids by the name that was asked about: each is sent a vouch at its next
            heartbeat.
    """

    clock: Clock
    links: Links
    effects: EffectQueue
    liveness: Liveness
    departures: Departures
    digests: Digests
    joining: Joining
    askers: dict[str, set[int]] = field(default_factory=dict)

    def lose_link(self, replica: Replica) -> None:
        """Suspect a replica after its last link has closed."""
        if self.liveness.lose_link(replica, self.clock.active):
            self._ask_about(replica.name)

    def refuse_dials(self, name: str | None) -> None:
        """Suspect a member that refused a dial at every address, unless there is a link to it.

        Args:
            name: Its name, as `Dialler` returns it; None changes nothing.
        """
        if name is None or name in self.links.names:
            return
        member = self.liveness.members.get(name)
        if member is not None:
            self.joining.slice_done(member.replica)
        if self.liveness.refuse(name, self.clock.active):
            self._ask_about(name)

    def receive_ask(self, link: PeerLink, ask: Ask) -> None:
        """Answer a peer that lost its link to a replica: with a vouch, its goodbye, or not at all.

        After a vouch, the peer is sent another one with the next heartbeat of the replica.
        """
        self.liveness.retract(ask.replica, link.replica.name)
        departure = self.departures.get(ask.replica)
        if departure is not None and departure.sure:
            self.effects.send([link], self.digests.notice(departure, self.clock.elapsed))
            return
        member = self.liveness.of(ask.replica)
        if member is not None and self.digests.has_live_link(ask.replica, self.clock.active):
            self.effects.send([link], Vouch(ask.replica, member.counter))
            self.askers.setdefault(ask.replica.name, set()).add(link.id)

    def vouch(self, replica: Replica, counter: int) -> None:
        """Send a vouch to the peers that asked about a replica: a heartbeat of it has arrived."""
        askers = [self.links[id] for id in sorted(self.askers.pop(replica.name, ()))]
        self.effects.send(askers, Vouch(replica, counter))

    def forget_link(self, link: PeerLink) -> None:
        """Drop the questions of a link that has closed."""
        for askers in self.askers.values():
            askers.discard(link.id)

    def forget_name(self, name: str) -> None:
        """Drop the questions about a name: its replica is no longer a member."""
        self.askers.pop(name, None)

    def sizes(self, names: int) -> Iterator[Size]:
        """The number of open questions: one for each name and link, at most."""
        questions = sum(map(len, self.askers.values()))
        yield Size("questions", questions, names * max(1, len(self.links)))

    def _ask_about(self, name: str) -> None:
        member = self.liveness.members[name]
        # Peers that asked here receive the question as well: it withdraws this node's vouch.
        askers = sorted(self.askers.pop(name, ()))
        links = {link.id: link for link in self.links.some()}
        links.update((id, self.links[id]) for id in askers)
        self.effects.send(links.values(), Ask(member.replica))
