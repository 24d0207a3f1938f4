"""When a node has joined: it lists all that the nodes it had to find list.

A node that has just started lists nobody, so a client that it accepts sees everybody leave and join
again, and a message that it publishes reaches nobody. It has *joined* once

* every address known at startup has answered: a link by name whose peer has sent its first frame, a
  refused dial, an address of its own, a peer of another cluster or secret, a goodbye;
* every peer that it requested a digest of has answered;
* every replica that it learned of meanwhile is linked or relayed and its slice has arrived up to
  the version that was named, or all its addresses refuse; likewise every replica that lingers.

A peer that refuses the name of this node closes the link before its first frame, so a node whose
name is refused has not joined. Two nodes that join at once wait for each other's slices alone.
"""

from .departures import Departures
from .effects import Joined, Outbox
from .exchange import Exchange
from .liveness import Liveness
from .messages import Delta, Message
from .state import Replica


class Joining:
    """The progress of one node from its start until it has joined; the parts are its engine's."""

    def __init__(
        self, liveness: Liveness, departures: Departures, exchange: Exchange, outbox: Outbox
    ) -> None:
        self._liveness = liveness
        self._departures = departures
        self._exchange = exchange
        self._outbox = outbox
        #: Whether the node has joined; stays true for the rest of its life.
        self.joined = False
        #: Grows with every step; a node that waits looks whether it does.
        self.progress = 0
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

    def settle_link(self, link: int) -> None:
        """A peer has sent both, or its link is gone."""
        self._settle(link in self._links)
        self._links.discard(link)

    def expect_slice(self, replica: Replica, version: int) -> None:
        """Wait for a slice up to a version."""
        if not self.joined:
            self._versions[replica] = max(version, self._versions.get(replica, 0))

    def settle_slice(self, replica: Replica) -> None:
        """A slice has arrived, or need not."""
        self._settle(replica in self._versions)
        self._versions.pop(replica, None)

    def receive(self, sender: Replica, message: Message) -> None:
        """A message was taken in: the slice of its sender or its own may have arrived."""
        if self.joined:
            return
        self._settle_arrived(sender)
        if isinstance(message, Delta):
            self.progress += 1
            self._settle_arrived(message.replica)
        self.check()

    def check_all(self) -> None:
        """Look at every slice that is waited for, as once in each heartbeat."""
        for replica in list(self._versions):
            self._settle_arrived(replica)

    def check(self) -> None:
        """Announce that the node has joined, if nothing is waited for any longer."""
        if self.joined or not self._started:
            return
        if not (self._addresses or self._links or self._versions):
            self.joined = True
            self._outbox.put(Joined())

    def _settle_arrived(self, replica: Replica) -> None:
        version = self._versions.get(replica)
        if version is None:
            return
        held = self._exchange.of(replica)
        gone = replica not in self._liveness and not self._departures.lingers(replica)
        if gone or (held is not None and held.shown and held.slice.horizon >= version):
            self.settle_slice(replica)

    @property
    def missing(self) -> list[str]:
        """The addresses and replicas that are still waited for, for the log."""
        return [*sorted(self._addresses), *(str(one) for one in sorted(self._versions))]

    def _settle(self, waited_for: bool) -> None:
        self.progress += waited_for
