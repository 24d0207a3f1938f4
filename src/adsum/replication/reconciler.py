"""Keeps slices, view, links and dials in agreement with the members.

Every change to a member ends in `reconcile`: the view shows the entries of a slice exactly while
its replica is up, suspect or lingering, every member without a link is dialled, and no link stays
open to a replica that another incarnation of its name has replaced.

Closing a link and reconciling are one part, because each leads to the other: the loss of the last
link changes its member, and a member that is replaced loses its links.
"""

from dataclasses import dataclass, field

from .clock import Clock
from .conflicts import Conflicts
from .departures import Departures
from .dialler import Dialler
from .effects import Close, EffectQueue
from .exchange import Exchange
from .joining import Joining
from .links import Links, PeerLink
from .liveness import Liveness
from .messaging import Messaging
from .reassembly import Reassembly, on_topic
from .state import Replica
from .suspicion import Suspicion
from .timing import Timing


@dataclass(slots=True, eq=False)
class Reconciler:
    """Applies changes of members and the end of links to all other parts of one engine.

    Attributes:
        replicas: The replica of each member, by name; its slice is held.
    """

    timing: Timing
    clock: Clock
    links: Links
    effects: EffectQueue
    exchange: Exchange
    liveness: Liveness
    departures: Departures
    joining: Joining
    dialler: Dialler
    conflicts: Conflicts
    messaging: Messaging
    reassembly: Reassembly
    suspicion: Suspicion
    replicas: dict[str, Replica] = field(default_factory=dict)

    def reconcile(self, name: str) -> None:
        """Make slices, view, links and dials agree with the member of a name."""
        member = self.liveness.members.get(name)
        former = self.replicas.get(name)
        if former is not None and (member is None or member.replica != former):
            self._forget_replica(former)
        if member is None:
            self.dialler.forget_peer(name)
            return
        self.replicas[name] = member.replica
        self.exchange.show(member.replica, member.alive)
        if name not in self.links.names:
            self.dialler.add_peer(name, member.addresses, self.clock.active)

    def close_link(self, link: PeerLink, reason: str) -> None:
        """Close a link, and forget it; the peer is sent the reason."""
        self.effects.put(Close(link.id, reason))
        self.forget_link(link)

    def close_dead_links(self) -> None:
        """Close the links that were silent or not read for `down_after`, and are not held."""
        patience = self.liveness.pace.down_after
        for link in self.links:
            if link.held:
                continue
            since = self.clock.active - patience
            if max(link.received_at, link.resumed_at) < since:
                self.close_link(link, f"no frame was received for {patience:g} s")
            elif not link.writable and max(link.stuck_at, link.resumed_at) < since:
                self.close_link(link, f"no frame was read for {patience:g} s")

    def hold(self, link: PeerLink, held: bool) -> None:
        """Let the silence of a link mean nothing, or let it count from now on. Idempotent."""
        if link.held != held:
            link.held, link.resumed_at = held, self.clock.active
            self.update_hold(link.replica)

    def update_hold(self, replica: Replica) -> None:
        """Note whether a replica is held, after one of its links has changed."""
        self.liveness.hold(replica, self.links.is_held(replica), self.clock.active)

    def forget_link(self, link: PeerLink, *, gone: bool = False) -> None:
        """Forget a closed link: follow its replica over another link, or suspect the replica.

        Args:
            link: The link.
            gone: Nobody has the address of the peer any more, see `Engine.link_down`.
        """
        name = link.replica.name
        self.links.remove(link)
        self.update_hold(link.replica)
        self.exchange.forget_link(link)
        awaited = self.joining.drop_link(link.id)
        self.suspicion.forget_link(link)
        self.messaging.links_changed(name)
        self.reassembly.interrupt(link.id)
        self.reassembly.interrupt(on_topic(link.id))
        rest = self.links.to_replica(link.replica)
        if rest:
            self.exchange.follow(rest[-1], self.clock.active)
            if link.direct and name not in self.links.direct_names:
                self._redial(link)  # over the rest it can be reached, but not directly
            return
        if awaited and link.replica not in self.departures:
            self.joining.expect_node(name)  # it is dialled again
        self.reconcile(name)
        self._redial(link, gone=gone)
        self.suspicion.lose_link(link.replica)

    def _redial(self, link: PeerLink, *, gone: bool = False) -> None:
        """Dial the replica of a link that was lost: at once, unless the link did not last.

        A short-lived link may have been refused by its peer, unless the peer is gone.
        """
        name = link.replica.name
        if self.clock.active - link.opened_at < self.timing.race_window and not gone:
            self.dialler.wait(name, self.clock.active)  # it was refused; do not insist
        else:
            self.dialler.hurry(name, self.clock.active)

    def _forget_replica(self, replica: Replica) -> None:
        """Clean up after a replica that is no longer a member; while it lingers, keep its slice."""
        del self.replicas[replica.name]
        if not self.departures.lingers(replica):
            self.exchange.drop(replica)
        self.suspicion.forget_name(replica.name)
        self.conflicts.resolve(replica.name)
        if replica in self.departures:
            return  # its owner may refute the goodbye over its links
        for link in self.links.to_replica(replica):
            self.close_link(link, f"{replica} was replaced by another incarnation of its name")
