"""When a node has joined: it lists all that the nodes it had to find list.

A node that has just started lists nobody, so a client that it accepts sees everybody leave and join
again, and a message that it publishes reaches nobody. It has *joined* once

* every address known at startup has answered: a link by name whose peer has sent its first frame, a
  refused dial, an address of its own, a peer of another cluster, secret or user, a host name that
  cannot be resolved, a goodbye;
* every peer that it requested a digest of has answered; the addresses of one whose link is lost
  before that are waited for again;
* every replica that it learned of meanwhile is linked or relayed and its slice has arrived up to
  the version that was named, or all its addresses refuse; likewise every replica that lingers.

A published message is sent over links alone, and a digest may relay a replica sooner than a dial
links it. So a replica with an address that is relayed is waited for until it is linked, or until no
link has opened and no replica was learned of for `LINK_PATIENCE`: some hosts cannot be dialled.

A replica that tracks nothing and has no address is not waited for, nor is one that was silent for
`down_after`. What the owner of a slice states counts more than what others state of it.

A peer that refuses the name of this node closes the link before its first frame, so a node whose
name is refused has not joined. Two nodes that join at once wait for each other's slices alone.
"""

from .clock import Clock
from .departures import Departures
from .effects import Joined, Outbox
from .exchange import Exchange, Held
from .links import Links
from .liveness import Liveness, Member
from .messages import Delta, Digest, Message
from .state import Replica
from .timing import Timing

#: Seconds of active time without a new link or replica after which relayed replicas need no link.
LINK_PATIENCE = 1.0

_NEVER = float("inf")


class Joining:
    """The progress of one node from its start until it has joined; the parts are its engine's."""

    def __init__(
        self,
        clock: Clock,
        timing: Timing,
        links: Links,
        liveness: Liveness,
        departures: Departures,
        exchange: Exchange,
        outbox: Outbox,
    ) -> None:
        self._clock = clock
        self._timing = timing
        self._open_links = links
        self._liveness = liveness
        self._departures = departures
        self._exchange = exchange
        self._outbox = outbox
        #: Whether the node has joined; stays true for the rest of its life.
        self.joined = False
        #: Grows with every step; a node that waits looks whether it does.
        self.progress = 0
        #: When to call `stop_waiting_for_links`, in active time; until then, links are waited for.
        self.check_at = _NEVER
        self._started = False
        self._addresses: set[str] = set()
        self._links: set[int] = set()
        # The version up to which the slice of each replica has to arrive.
        self._versions: dict[Replica, int] = {}

    def start(self) -> None:
        """All addresses known at startup have been added."""
        self._started = True

    def expect_address(self, address: str) -> None:
        """Wait for an answer from an address."""
        if not self.joined:
            self._addresses.add(address)

    def settle_address(self, address: str) -> None:
        """An address has answered, or never will."""
        self._settle(address in self._addresses)
        self._addresses.discard(address)

    def expect_link(self, link: int) -> None:
        """Wait for the first frame of a peer, and for the digest that it was asked for."""
        if not self.joined:
            self._links.add(link)
            self._wait_for_links()

    def settle_link(self, link: int) -> None:
        """A peer has sent both."""
        self._settle(link in self._links)
        self._links.discard(link)

    def drop_link(self, link: int) -> bool:
        """A link is gone, which is no progress: a name that is refused is refused repeatedly.

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
        """The replicas whose slices are waited for."""
        return list(self._versions)

    def expect_slice(self, replica: Replica, version: int, *, learned: bool = False) -> None:
        """Wait for a slice up to a version; `learned` if its replica was not a member before."""
        if self.joined:
            return
        self._versions[replica] = max(version, self._versions.get(replica, 0))
        if learned:
            self._wait_for_links()

    def correct_slice(self, replica: Replica, version: int) -> None:
        """Wait for a slice up to the version that its owner states, whatever others stated."""
        if not self.joined:
            self._versions[replica] = version

    def stop_waiting_for_links(self) -> None:
        """No link has opened for a while: replicas that are relayed are enough."""
        self.check_at = _NEVER

    def settle_slice(self, replica: Replica) -> None:
        """A slice has arrived, or need not."""
        self._settle(replica in self._versions)
        self._versions.pop(replica, None)

    def advance(self) -> None:
        """A step that nothing was waiting for was made all the same."""
        self.progress += 1

    def receive(self, sender: Replica, message: Message) -> None:
        """A message was taken in: the slice of its sender or its own may have arrived."""
        if self.joined:
            return
        self._settle_arrived(sender)
        if isinstance(message, Delta):
            self.advance()
            self._settle_arrived(message.replica)
        elif isinstance(message, Digest):  # it may name slices that are here already
            self.check_all()
        self.check()

    def check_all(self) -> None:
        """Look at every slice that is waited for."""
        if self.joined:
            return
        for replica in list(self._versions):
            self._settle_arrived(replica)
        self.check()

    def check(self) -> None:
        """Announce that the node has joined, if nothing is waited for any longer."""
        if self.joined or not self._started:
            return
        if not (self._addresses or self._links or self._versions):
            self.joined = True
            self.check_at = _NEVER
            self._outbox.put(Joined())

    def _settle_arrived(self, replica: Replica) -> None:
        version = self._versions.get(replica)
        if version is None:
            return
        held, member = self._exchange.of(replica), self._liveness.of(replica)
        gone = member is None and not self._departures.lingers(replica)
        if member is not None and not member.alive:
            # It tracks nothing and cannot be dialled, or was silent for so long that it is dead.
            silent = self._clock.active - member.fresh_at > self._timing.down_after
            gone = silent or (version == 0 and not member.addresses)
        arrived = held is not None and self._is_shown_up_to(held, version)
        if gone or (arrived and not self._may_be_linked(member)):
            self.settle_slice(replica)

    def _may_be_linked(self, member: Member | None) -> bool:
        """Whether a member has no link, and one is waited for."""
        if member is None or not member.addresses or self.check_at == _NEVER:
            return False
        return not self._open_links.to_replica(member.replica)

    def _wait_for_links(self) -> None:
        """A replica was learned of, or a link has opened: links to others may follow."""
        self.check_at = self._clock.active + LINK_PATIENCE

    def _is_shown_up_to(self, held: Held, version: int) -> bool:
        moving = self._exchange.moving(held.slice.replica)
        return held.shown and not moving and held.slice.horizon >= version

    @property
    def missing(self) -> list[str]:
        """The addresses and replicas that are still waited for, for the log."""
        return [*sorted(self._addresses), *(str(one) for one in sorted(self._versions))]

    def _settle(self, waited_for: bool) -> None:
        self.progress += waited_for
