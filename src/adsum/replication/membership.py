"""Applies what peers state about the liveness of replicas: heartbeats, digests and vouches.

`liveness` decides which replicas are up; every change of a member ends in `Reconciler.reconcile`.
"""

from dataclasses import dataclass, replace

from .clock import Clock
from .conflicts import Conflicts
from .departures import Departures
from .digests import Digests
from .effects import EffectQueue, Severity
from .exchange import Exchange
from .goodbyes import Goodbyes
from .heartbeats import Heartbeats
from .joining import Joining
from .links import Links, PeerLink
from .liveness import Liveness, Status
from .messages import Digest, Heartbeat, Sighting, Vouch
from .ownslice import OwnSlice
from .reconciler import Reconciler
from .redundancy import Redundancy
from .state import Replica
from .suspicion import Suspicion


@dataclass(slots=True, eq=False)
class Membership:
    """Applies liveness messages to the members; all other parts are those of one engine.

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
    conflicts: Conflicts
    suspicion: Suspicion
    reconciler: Reconciler
    redundancy: Redundancy
    heartbeats: Heartbeats
    goodbyes: Goodbyes

    def receive_heartbeat(self, link: PeerLink, heartbeat: Heartbeat) -> None:
        """Apply a heartbeat that a replica sent on its own link."""
        replica = link.replica
        if replica in self.departures and not self.goodbyes.refute(link, heartbeat.counter):
            return
        counter, version = heartbeat.counter, heartbeat.version
        newest = self.links.of(replica.name)[-1] is link
        if not self.liveness.note_heartbeat(
            replica, counter, version, self.clock.active, newest=newest
        ):
            return
        self.reconciler.reconcile(replica.name)
        self.conflicts.prove(replica.name, self.clock.active)
        held = self.exchange.of(replica)
        if held is not None and (heartbeat.version > held.slice.horizon or held.followed is None):
            self.exchange.follow(link, self.clock.active)
        self.suspicion.vouch(replica, heartbeat.counter)
        self.digests.compare(link, heartbeat, self.clock.active)
        self.redundancy.prefer_direct(link)
        if not link.greeted:
            self._receive_first_heartbeat(link, version)

    def receive_digest(self, link: PeerLink, digest: Digest) -> None:
        """Apply a digest: sightings and goodbyes of third replicas, relayed by a peer."""
        if digest.last:
            link.awaiting = False
        for sighting in digest.sightings:
            if link.id not in self.links:
                return  # one of the statements has closed it
            self._receive_sighting(link, sighting)
        if digest.sightings:
            self.liveness.pace.expect(self.liveness.listed())
        for farewell in digest.farewells:
            if link.id in self.links:
                self.goodbyes.receive_relayed(link, farewell)
        if digest.last and link.greeted:
            self.joining.link_done(link.id)

    def receive_vouch(self, link: PeerLink, vouch: Vouch) -> None:
        """Apply a vouch of a peer that has a live link to a replica."""
        self.liveness.vouch(vouch.replica, vouch.counter, link.replica.name, self.clock.active)
        self.reconciler.reconcile(vouch.replica.name)

    def refuse_copy(self, link: PeerLink) -> None:
        """Close the link to a peer that knows changes of this node that were never made here."""
        self.reconciler.close_link(link, self.conflicts.log_copy(link.replica, self.clock.active))

    def expire(self, active: float) -> None:
        """Act on the deadlines of members, in active time."""
        for name in self.liveness.expire(active):
            self._note_down(name)
            self.reconciler.reconcile(name)

    def _receive_first_heartbeat(self, link: PeerLink, version: int) -> None:
        """Note that a peer is ready: replace older links, and settle its addresses for joining."""
        link.greeted = True
        self.redundancy.close_older(link)
        self.joining.correct_slice(link.replica, version)
        self.joining.node_done(link.replica.name)
        if not link.awaiting:
            self.joining.link_done(link.id)

    def _receive_sighting(self, link: PeerLink, sighting: Sighting) -> None:
        replica = sighting.replica
        if replica.name == self.me.name:
            self._compare_with_own(link, sighting)
            return
        if replica in self.departures:
            return
        if sighting.addresses and replica.name in self.links.names:
            member = self.liveness.of(replica)
            if member is not None and member.addresses:  # addresses from its own link take priority
                sighting = replace(sighting, addresses=())
        known = replica in self.liveness
        if self.liveness.note_sighting(sighting, self.clock.active):
            self.joining.advance()
            self.reconciler.reconcile(replica.name)
        if self.liveness.of(replica) is None:
            return
        if not any(other.greeted for other in self.links.to_replica(replica)):
            self.joining.expect_slice(replica, sighting.version, learned=not known)
        self._fetch_slice(link, sighting)

    def _fetch_slice(self, link: PeerLink, sighting: Sighting) -> None:
        """Request the missing changes of a replica from the peer that relayed its version."""
        replica = sighting.replica
        held = self.exchange.of(replica)
        if held is None or not held.shown or sighting.version <= held.slice.horizon:
            return
        if replica == link.replica or self.digests.has_live_link(replica, self.clock.active):
            return  # its owner pushes them
        self.exchange.ask(held, link, self.clock.active)

    def _compare_with_own(self, link: PeerLink, sighting: Sighting) -> None:
        """Compare a sighting of this node's own name with this node."""
        if sighting.replica != self.me:
            self.conflicts.note_namesake(sighting, self.clock.active)
            return
        horizon, counter = self.own.slice.horizon, self.heartbeats.counter
        if sighting.version > horizon or sighting.counter > counter:
            self.refuse_copy(link)

    def _note_down(self, name: str) -> None:
        member = self.liveness.members.get(name)
        if member is not None and member.status is Status.DOWN:
            self.joining.slice_done(member.replica)
            self.effects.notice(Severity.INFO, f"{member.replica} is down")
