"""The progress of joining: from start until a node lists all presences of the nodes it must find.

A node that has just started lists no presences. A client that reconnects to it sees all of them
leave and join again, and a message that it publishes reaches no other node. It has *joined* once

* every address known at startup has answered: a link by name whose peer has sent its first frame, a
  refused dial, an address of its own, a peer of another cluster, secret or user, a host name that
  cannot be resolved, a goodbye;
* every peer that was sent a request for a digest has answered; if its link is lost before, its
  addresses are waited for again;
* every replica learned of meanwhile is linked or relayed, and its slice has arrived up to the
  stated version, or all its addresses refuse; the same holds for every replica that lingers.

A published message is sent over links only, and a digest may relay a replica before a dial links
it. So a relayed replica with an address is waited for until it is linked, or until no link has
opened and no replica was learned of for `LINK_PATIENCE`: some hosts cannot be dialled.

A replica is not waited for if it tracks nothing and has no address, or if it was silent for
`down_after`, also while it is held. A link that was held and silent for as long is not waited for
either, nor are its addresses. So a carrier that is away delays joining no longer than a peer that
falls silent. The version stated by the owner of a slice overrides versions stated by peers.

A peer that refuses the name of this node closes the link before its first frame, so a node with a
refused name has not joined. Two nodes that join at once wait only for each other's slices.
"""

from .clock import Clock
from .departures import Departures
from .dialler import Dialler
from .effects import EffectQueue, Joined
from .exchange import Exchange, Held
from .links import Links
from .liveness import Liveness, Member
from .messages import Delta, Digest, ProtocolMessage
from .state import Replica

#: Seconds of active time without a new link or replica after which relayed replicas need no link.
LINK_PATIENCE = 1.0

_NEVER = float("inf")


class Joining:
    """Tracks the addresses, links and slices that one node waits for until it has joined.

    The arguments are the parts of its engine.
    """

    def __init__(
        self,
        clock: Clock,
        links: Links,
        liveness: Liveness,
        departures: Departures,
        exchange: Exchange,
        dialler: Dialler,
        effects: EffectQueue,
    ) -> None:
        self._clock = clock
        self._open_links = links
        self._liveness = liveness
        self._departures = departures
        self._exchange = exchange
        self._dialler = dialler
        self._effects = effects
        #: Whether the node has joined; stays true for the rest of its life.
        self.joined = False
        #: Grows with every step, so a waiting node can detect that joining is stuck.
        self.progress = 0
        #: When to call `stop_waiting_for_links`, in active time; until then it waits for links.
        self.check_at = _NEVER
        self._started = False
        self._addresses: set[str] = set()
        self._links: set[int] = set()
        # The version that the slice of each awaited replica has to reach.
        self._versions: dict[Replica, int] = {}

    def start(self) -> None:
        """Let joining end once nothing is waited for: all addresses known at startup are added."""
        self._started = True

    def expect_address(self, address: str) -> None:
        """Wait for an answer from an address."""
        if not self.joined:
            self._addresses.add(address)

    def address_done(self, address: str) -> None:
        """Stop waiting for an address: it has answered, or never will."""
        self._count_step(address in self._addresses)
        self._addresses.discard(address)

    def expect_node(self, name: str) -> None:
        """Wait for an answer from the addresses at which a node of this name has answered."""
        for address in self._dialler.seeds_of(name):
            self.expect_address(address)

    def node_done(self, name: str) -> None:
        """Stop waiting for the addresses at which a node of this name has answered."""
        for address in self._dialler.seeds_of(name):
            self.address_done(address)

    def expect_link(self, link: int) -> None:
        """Wait for the first frame of a peer, and for its answer to a digest request."""
        if not self.joined:
            self._links.add(link)
            self._wait_for_links()

    def link_done(self, link: int) -> None:
        """Stop waiting for a link: its first frame and its digest have arrived."""
        self._count_step(link in self._links)
        self._links.discard(link)

    def drop_link(self, link: int) -> bool:
        """Stop waiting for a link that has closed.

        This is no progress: a name that is refused is refused again and again.

        Returns:
            Whether its peer still owed an answer.
        """
        awaited = link in self._links
        self._links.discard(link)
        return awaited

    @property
    def links(self) -> list[int]:
        """The links on which a first frame or a digest is waited for."""
        return list(self._links)

    @property
    def replicas(self) -> list[Replica]:
        """The replicas of the slices that are waited for."""
        return list(self._versions)

    def expect_slice(self, replica: Replica, version: int, *, learned: bool = False) -> None:
        """Wait until a slice has arrived up to a version.

        Args:
            replica: The owner of the slice.
            version: The version to wait for; a higher one that is already waited for is kept.
            learned: The replica was not a member before.
        """
        if self.joined:
            return
        self._versions[replica] = max(version, self._versions.get(replica, 0))
        if learned:
            self._wait_for_links()

    def correct_slice(self, replica: Replica, version: int) -> None:
        """Wait for a slice up to the version stated by its owner, not a version stated by peers."""
        if not self.joined:
            self._versions[replica] = version

    def stop_waiting_for_links(self) -> None:
        """Accept relayed replicas without a link: no link has opened for `LINK_PATIENCE`."""
        self.check_at = _NEVER

    def slice_done(self, replica: Replica) -> None:
        """Stop waiting for a slice: it has arrived, or need not."""
        self._count_step(replica in self._versions)
        self._versions.pop(replica, None)

    def advance(self) -> None:
        """Count a step of progress that completes no expected address, link or slice."""
        self.progress += 1

    def receive(self, sender: Replica, message: ProtocolMessage) -> None:
        """Check for slices that arrived with a message: of its sender, or of the delta's owner."""
        if self.joined:
            return
        self._check_arrival(sender)
        if isinstance(message, Delta):
            self.advance()
            self._check_arrival(message.replica)
        elif isinstance(message, Digest):  # it may name slices that are here already
            self.check_all()
        self.check()

    def check_all(self) -> None:
        """Check every slice that is waited for."""
        if self.joined:
            return
        for link in [self._open_links[id] for id in self._links]:
            if link.held and self._is_over(link.received_at):
                self.link_done(link.id)
                self.node_done(link.replica.name)
        for replica in list(self._versions):
            self._check_arrival(replica)
        self.check()

    def check(self) -> None:
        """Emit `Joined` if nothing is waited for any longer."""
        if self.joined or not self._started:
            return
        if not (self._addresses or self._links or self._versions):
            self.joined = True
            self.check_at = _NEVER
            self._effects.put(Joined())

    def _check_arrival(self, replica: Replica) -> None:
        version = self._versions.get(replica)
        if version is None:
            return
        held, member = self._exchange.of(replica), self._liveness.of(replica)
        gone = member is None and not self._departures.lingers(replica)
        if member is not None and (not member.alive or member.held_at is not None):
            # It tracks nothing and cannot be dialled, or was silent for `down_after` and is dead.
            silent = self._is_over(member.fresh_at)
            gone = silent or (not member.alive and version == 0 and not member.addresses)
        arrived = held is not None and self._is_shown_up_to(held, version)
        if gone or (arrived and not self._may_be_linked(member)):
            self.slice_done(replica)

    def _is_over(self, since: float) -> bool:
        """Whether `down_after` has passed since an active time."""
        return self._clock.active - since > self._liveness.pace.down_after

    def _may_be_linked(self, member: Member | None) -> bool:
        """Whether a member has no link, and joining still waits for one."""
        if member is None or not member.addresses or self.check_at == _NEVER:
            return False
        return not self._open_links.to_replica(member.replica)

    def _wait_for_links(self) -> None:
        """Extend the wait for links: a replica was learned of, or a link has opened."""
        self.check_at = self._clock.active + LINK_PATIENCE

    def _is_shown_up_to(self, held: Held, version: int) -> bool:
        moving = self._exchange.moving(held.slice.replica)
        return held.shown and not moving and held.slice.horizon >= version

    @property
    def missing(self) -> list[str]:
        """The addresses and replicas that are still waited for, as text for the log."""
        return [*sorted(self._addresses), *(str(one) for one in sorted(self._versions))]

    def _count_step(self, waited_for: bool) -> None:
        self.progress += waited_for
