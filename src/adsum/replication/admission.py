"""Admits the replicas at the other end of new links as members, or refuses their links.

A link is refused if the peer has the name of this node, if another live replica holds its name, or
if there are `MAX_MEMBERS` members. A link that is admitted may still close as redundant.
"""

from dataclasses import dataclass

from .clock import Clock
from .conflicts import Conflicts
from .departures import Departures
from .dialler import Dialler
from .digests import Digests
from .effects import Close, EffectQueue
from .exchange import Exchange
from .heartbeats import Heartbeats
from .joining import Joining
from .links import Links, PeerLink
from .liveness import Liveness
from .reconciler import Reconciler
from .redundancy import Redundancy
from .state import Replica
from .suspicion import Suspicion


@dataclass(slots=True, eq=False)
class Admission:
    """Admits or refuses new links; all members are those of one engine.

    Attributes:
        me: This node.
    """

    me: Replica
    clock: Clock
    links: Links
    effects: EffectQueue
    exchange: Exchange
    liveness: Liveness
    departures: Departures
    digests: Digests
    joining: Joining
    dialler: Dialler
    conflicts: Conflicts
    suspicion: Suspicion
    reconciler: Reconciler
    redundancy: Redundancy
    heartbeats: Heartbeats

    def link_up(
        self,
        id: int,
        replica: Replica,
        addresses: tuple[str, ...],
        dialled: str | None,
        *,
        direct: bool,
    ) -> None:
        """Register an opened link: admit its replica as a member, or refuse it and close the link.

        Args:
            id: The id of the link.
            replica: The replica at the other end, which has proved its identity.
            addresses: The addresses at which it listens.
            dialled: The address that was dialled; None if the other end dialled.
            direct: Whether it is a connection of its own, not a virtual link over a carrier.
        """
        now = self.clock.active
        if replica.name == self.me.name:
            self._refuse_namesake(id, replica, dialled)
            return
        if dialled is not None:
            self.suspicion.refuse_dials(self.dialler.answered(dialled, replica.name, now))
        link = PeerLink(
            id,
            replica,
            opened_at=now,
            received_at=now,
            dialled=dialled is not None,
            direct=direct,
            addresses=addresses,
            kept=self.me < replica,
        )
        if replica in self.departures:  # only a heartbeat over the link can refute its goodbye
            self.links.add(link)
            self.heartbeats.greet(link)
        elif self.admit(link):
            self.links.add(link)
            self.welcome(link)
            if any(other.greeted for other in self.links.to_replica(replica)):
                self.joining.node_done(replica.name)  # this link may close as redundant

    def admit(self, link: PeerLink) -> bool:
        """Admit the replica at the other end of a link as a member, unless its name is in use.

        Returns:
            Whether it was admitted; if not, the link is closed.
        """
        replica = link.replica
        rival = any(other.replica != replica for other in self.links.of(replica.name))
        refusal = self.liveness.admit(
            replica, link.addresses, self.clock.active, rival_linked=rival
        )
        if refusal is None:
            self.conflicts.resolve(replica.name)
            return True
        self.conflicts.refuse(replica, refusal, self.liveness.members, self.clock.active)
        self.dialler.wait(replica.name, self.clock.active)
        self.effects.put(Close(link.id, refusal))
        return False

    def welcome(self, link: PeerLink) -> None:
        """Greet and follow the peer of a new link, unless it closes as redundant."""
        self.reconciler.reconcile(link.replica.name)
        self.reconciler.update_hold(link.replica)
        self.redundancy.close_redundant(link)
        if link.id in self.links:
            self.joining.expect_link(link.id)
            self.heartbeats.greet(link)
            if self.links.should_introduce():
                self.digests.request_everything(link)
            self.exchange.follow(link, self.clock.active)

    def _refuse_namesake(self, id: int, replica: Replica, dialled: str | None) -> None:
        """Refuse the link to a node with the name of this node, or to this node itself."""
        now = self.clock.active
        if replica == self.me:
            if dialled is not None:
                self.dialler.answered_oneself(dialled, now)
            self.effects.put(Close(id, "this is the node's own address"))
        else:
            if dialled is not None:
                self.dialler.failed(dialled, False, now)
            self.effects.put(Close(id, self.conflicts.log_namesake(replica, now)))
