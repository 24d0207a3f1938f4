"""Redundant links: which of several links to one replica is kept, and which end closes the others.

A *direct* link is preferred to one over a carrier, in whatever order they open. Both ends know the
kind of each link, so both decide alike: once a frame was received over a direct link, it is open at
the other end too, and the links over carriers are closed. A direct link is never closed in favour
of one over a carrier; a silent one ends by itself, as any dead link.

Among links of one kind: if the older link is young, both ends have dialled at once, and it may be
in the middle of a transfer: the smaller end closes the new one. Not so if the older one is held, as
after a loss of the carrier: the peer has dialled because it has lost that one. Otherwise the end
that dialled the new one decides. If the older one works here, that end closes the new one. Else it
sends a frame over the new one, and the smaller end then closes the older ones. So no end closes a
link that the other one sends over.
"""

from dataclasses import dataclass

from .clock import Clock
from .links import Links, PeerLink
from .reconciler import Reconciler
from .state import Replica
from .timing import Timing

#: Links kept to one replica besides the newest; older ones beyond this are closed.
SPARE_LINKS = 3


@dataclass(slots=True, eq=False)
class Redundancy:
    """Closes redundant links; all members are those of one engine.

    Attributes:
        me: This node.
    """

    me: Replica
    timing: Timing
    clock: Clock
    links: Links
    reconciler: Reconciler

    def close_redundant(self, new: PeerLink) -> None:
        """Close the new link or older ones to its replica, or leave the choice to its peer."""
        links = self.links.to_replica(new.replica)
        if not new.direct and any(self._is_direct_and_open(link) for link in links):
            self.reconciler.close_link(new, "a direct link is open already")
            return
        older = [link for link in links if link is not new and link.direct is new.direct]
        for link in older[:-SPARE_LINKS]:
            self.reconciler.close_link(link, "there are too many links")
        if not older:
            return
        if self.me > new.replica:
            redundant = new.dialled and any(self._is_usable(link) for link in older)
        else:
            redundant = new.dialled or (self._is_young(older[-1]) and not older[-1].held)
        if redundant:
            self.reconciler.close_link(new, "another link is open already")
        else:
            new.kept = False  # until its first frame

    def close_older(self, new: PeerLink) -> None:
        """Close the older links to a peer after its first frame over a new one, as smaller end."""
        links = self.links.to_replica(new.replica)
        if self.me < new.replica and new in links:
            for link in links[: links.index(new)]:
                if link.direct is new.direct:
                    self.reconciler.close_link(link, "it was replaced by a newer link")

    def prefer_direct(self, link: PeerLink) -> None:
        """Close the links to a peer over carriers, after a heartbeat over a direct one."""
        if link.direct:
            for other in self.links.to_replica(link.replica):
                if not other.direct:
                    self.reconciler.close_link(other, "it was replaced by a direct link")

    def _is_young(self, link: PeerLink) -> bool:
        return self.clock.active - link.opened_at < self.timing.race_window

    def _is_usable(self, link: PeerLink) -> bool:
        return self._is_live(link) and link.kept and not self._is_young(link)

    def _is_direct_and_open(self, link: PeerLink) -> bool:
        """Whether a link is direct and the peer has sent a frame over it, also a moment ago."""
        return link.direct and link.greeted and self._is_live(link)

    def _is_live(self, link: PeerLink) -> bool:
        since = self.clock.active - self.reconciler.liveness.pace.vouch_grace
        return link.received_at >= since and not link.held
