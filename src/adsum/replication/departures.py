"""Goodbyes: replicas that stopped on purpose, while they linger and as long as they are remembered.

Theory of operation
===================

A goodbye is a statement of its owner, versioned as a heartbeat is, relayed by everybody, and final
for that incarnation. It says for how long the presences of the replica are still shown (it
*lingers*), so that clients that reconnect elsewhere neither leave nor join.

* **It hides no living replica.** It carries the last counter of its owner. While the owner is heard
  directly a relayed goodbye is not applied, nor if a higher counter is known. Silent links to the
  owner are closed with it; on a later link a higher counter refutes it, and so do two heartbeats.
* **It may show a slice again** that was hidden because its replica was down: the goodbye proves
  that the silence was a stop, and the slice is shown until the linger ends. This is the one
  exception to the rule that nothing relayed about a dead replica shows it again.
* **Its time only runs down.** Linger counts monotonic time, also while this process does not run,
  and of two statements about one goodbye the shorter remainder counts.
* **Old news lingers nowhere.** A goodbye that this process received right after it had not run may
  have waited in a buffer all that time. It is *unsure*: shown here for the time that may be left,
  but for 2.5 heartbeats at least, in which peers state the remainder; never relayed, and replaced
  by the statement of a peer.
* **Peers agree on its end.** A peer whose lingering replicas differ names its own in a request, and
  is answered which of them linger no longer; so all end with the shortest remainder.
* **A life lingers beside its successor.** Departures are kept by replica, members by name, so a
  restart under the same name ends no linger, and a goodbye never takes a name from a living member.

`peers` applies goodbyes: `receive_goodbye` those of owners, `_receive_farewell` relayed ones.

A replica whose linger is over is remembered for `forget_after`, as a dead one is, so that late
digests do not make it a newcomer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .fingerprint import mark
from .limits import MAX_MEMBERS
from .messages import Farewell
from .state import Replica
from .timing import Timing


@dataclass(slots=True)
class Departure:
    """One replica that said goodbye.

    Attributes:
        replica: Its name and incarnation.
        counter: Its last heartbeat counter.
        version: Its last version.
        until: When its linger ends; after that, when it is forgotten. In elapsed seconds.
        lingers: Its presences are shown.
        sure: The remainder is known to be no older than the way it took.
    """

    replica: Replica
    counter: int
    version: int
    until: float
    lingers: bool = True
    sure: bool = True


class Departures:
    """The replicas that said goodbye, as far as this node knows.

    All times are elapsed seconds: monotonic time, which runs while the process does not.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        # In the order in which they became known.
        self._known: dict[Replica, Departure] = {}
        # Those that linger no longer, in the order in which they ended.
        self._ended: dict[Replica, None] = {}
        #: The fingerprint of the replicas that linger here for sure; 0 if there are none.
        self.fingerprint = 0
        #: The earliest deadline that `expire` acts on.
        self.check_at = float("inf")

    def __contains__(self, replica: Replica) -> bool:
        return replica in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, replica: Replica) -> Departure | None:
        """The departure of this very replica."""
        return self._known.get(replica)

    def lingering(self) -> Iterator[Departure]:
        """The replicas whose presences are shown."""
        return (departure for departure in self._known.values() if departure.lingers)

    def lingers(self, replica: Replica) -> bool:
        """Whether the presences of a replica are shown because it said goodbye."""
        departure = self._known.get(replica)
        return departure is not None and departure.lingers

    def note(self, farewell: Farewell, now: float, *, sure: bool) -> bool:
        """Take in a goodbye.

        Args:
            farewell: The goodbye; its remainder counts from now.
            now: Elapsed seconds.
            sure: It did not wait for this process to run.

        Returns:
            Whether this changes what is known.
        """
        until = now + farewell.remaining
        known = self._known.get(farewell.replica)
        if known is None:
            if not self._make_room():
                return False
            known = Departure(farewell.replica, farewell.counter, farewell.version, until)
            known.lingers = False
            self._known[farewell.replica] = known
        elif not _supersedes(known, until, sure):
            return False
        self._set(known, lingers=True, sure=sure)
        known.until = until
        self.check_at = min(self.check_at, until)
        return True

    def refute(self, replica: Replica) -> None:
        """Forget a goodbye that its replica has refuted."""
        departure = self._known.pop(replica, None)
        if departure is not None:
            self._set(departure, lingers=False, sure=True)
            del self._ended[replica]

    def expire(self, now: float, *, sure: bool) -> list[Replica]:
        """Act on the deadlines that have passed.

        Args:
            now: Elapsed seconds.
            sure: This process ran when they passed, so peers may be told that they have.

        Returns:
            The replicas whose linger has ended.
        """
        if now < self.check_at:
            return []
        ended: list[Replica] = []
        for departure in list(self._known.values()):
            if departure.until > now:
                continue
            if departure.lingers:
                self._set(departure, lingers=False, sure=departure.sure and sure)
                departure.until = now + self._timing.forget_after
                ended.append(departure.replica)
            else:
                self._forget(departure.replica)
        self.check_at = min((one.until for one in self._known.values()), default=float("inf"))
        return ended

    def _set(self, departure: Departure, *, lingers: bool, sure: bool) -> None:
        """Change the state of a departure; the only place that does."""
        counted = departure.lingers and departure.sure
        departure.lingers, departure.sure = lingers, sure
        if lingers:
            self._ended.pop(departure.replica, None)
        else:
            self._ended[departure.replica] = None
        if counted != (lingers and sure):
            self.fingerprint ^= mark(departure.replica)

    def _make_room(self) -> bool:
        """Keep the number of departures bounded: those that ended first go first."""
        if len(self._known) >= MAX_MEMBERS and self._ended:
            self._forget(next(iter(self._ended)))
        return len(self._known) < MAX_MEMBERS

    def _forget(self, replica: Replica) -> None:
        del self._known[replica], self._ended[replica]


def _supersedes(known: Departure, until: float, sure: bool) -> bool:
    """Whether a statement replaces the known one: a sure one does, if that is unsure or longer."""
    if not known.sure:
        return sure
    return sure and known.lingers and until < known.until
