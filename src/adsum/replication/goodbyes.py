"""Says, receives, relays and refutes goodbyes; `departures` has their theory and keeps them.

A goodbye is received from its owner (`receive`) or relayed by a peer (`receive_relayed`).
`apply_goodbye` ends the membership of its replica in both cases. A heartbeat that proves the
replica alive refutes it (`refute`).
"""

from dataclasses import dataclass, replace

from .admission import Admission
from .clock import Clock
from .departures import Departures
from .digests import Digests
from .effects import EffectQueue, Severity
from .exchange import Exchange
from .heartbeats import Heartbeats
from .joining import Joining
from .links import Links, PeerLink
from .liveness import Liveness
from .messages import Farewell, Goodbye
from .ownslice import OwnSlice
from .reconciler import Reconciler
from .state import Replica

#: Heartbeats, at least, of an unsure linger: peers state the remainder within this time.
UNSURE_LINGER = 2.5


@dataclass(slots=True, eq=False)
class Goodbyes:
    """Handles goodbyes; all members are those of one engine.

    Attributes:
        me: This node.
    """

    me: Replica
    clock: Clock
    own: OwnSlice
    links: Links
    effects: EffectQueue
    exchange: Exchange
    liveness: Liveness
    departures: Departures
    digests: Digests
    joining: Joining
    reconciler: Reconciler
    admission: Admission
    heartbeats: Heartbeats

    def send(self, linger: float) -> None:
        """Send the goodbye of this node over every link."""
        counter = self.heartbeats.advance()
        self.effects.send(self.links, Goodbye(counter, self.own.slice.horizon, linger))

    def receive(self, link: PeerLink, goodbye: Goodbye) -> None:
        """Apply a goodbye that a replica sent on its own link, and close its links."""
        replica, version = link.replica, goodbye.version
        self.apply_goodbye(Farewell(replica, goodbye.counter, version, goodbye.linger, held=0))
        self.joining.node_done(replica.name)
        for other in self.links.to_replica(replica):
            self.reconciler.close_link(other, "received a goodbye")

    def receive_relayed(self, link: PeerLink, farewell: Farewell) -> None:
        """Apply a relayed goodbye, unless its replica has a live link or a higher counter."""
        replica = farewell.replica
        member = self.liveness.of(replica)
        if replica == self.me or self.digests.has_live_link(replica, self.clock.active):
            return
        if member is not None and farewell.counter <= member.counter:
            return
        known = replica in self.departures
        self.apply_goodbye(farewell)
        if not known:  # its links are silent; a living owner dials again, and refutes the goodbye
            for silent in self.links.to_replica(replica):
                self.reconciler.close_link(silent, "received a goodbye over a relay")
        held = self.exchange.of(replica)
        if held is None or farewell.held <= held.slice.horizon:
            return
        self.joining.expect_slice(replica, farewell.held)
        self.exchange.ask(held, link, self.clock.active)

    def apply_goodbye(self, farewell: Farewell) -> None:
        """Apply a goodbye: its replica is no longer a member, and is shown while it lingers."""
        replica = farewell.replica
        member = self.liveness.of(replica)
        known = replica in self.departures
        absence = self.clock.recent_absence
        if absence:  # it may have waited in a buffer all that time
            least = min(farewell.remaining, UNSURE_LINGER * self.liveness.pace.longest_interval)
            farewell = replace(farewell, remaining=max(least, farewell.remaining - absence))
        if not self.departures.note(farewell, self.clock.elapsed, sure=not absence):
            return
        self.liveness.remove(replica)
        if self.departures.lingers(replica) and farewell.remaining > 0:
            self.exchange.show(replica, visible=True)
        self.reconciler.reconcile(replica.name)
        departure = self.departures.get(replica)
        if departure is not None and not known:
            self.digests.push(departure, self.clock.elapsed)
        if member is not None:
            self.effects.notice(Severity.INFO, f"{replica} has sent a goodbye")

    def refute(self, link: PeerLink, counter: int) -> bool:
        """Refute the goodbye of a replica if a heartbeat on its own link proves it alive.

        After its goodbye a replica neither advances its counter nor opens links. A link to it has
        opened since, so a counter above that of the goodbye is proof, and so is a second counter.

        Returns:
            Whether the replica is a member and the link is open.
        """
        departure = self.departures.get(link.replica)
        if departure is None:
            return True
        if link.first_counter is None:
            link.first_counter = counter
        if counter <= min(link.first_counter, departure.counter):
            return False
        self.departures.refute(link.replica)
        if not self.admission.admit(link):
            self.exchange.drop(link.replica)
            self.reconciler.forget_link(link)
            return False
        self.admission.welcome(link)
        return link.id in self.links

    def expire(self, elapsed: float) -> None:
        """Drop the slices of replicas whose linger has ended, in elapsed time."""
        sure = not self.clock.recent_absence
        for replica in self.departures.expire(elapsed, sure=sure):
            self.exchange.drop(replica)
            self.joining.slice_done(replica)
