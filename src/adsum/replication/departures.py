"""Goodbyes of replicas that stopped on purpose: how long they linger and are remembered.

Theory of operation
===================

A goodbye is a statement of its owner, versioned like a heartbeat, relayed by all nodes, and final
for that incarnation. It states for how long the presences of the replica are still shown (it
*lingers*), so that clients that reconnect elsewhere neither leave nor join.

* **It hides no living replica.** It carries the last counter of its owner. A relayed goodbye is not
  applied while there is a live link to the owner or a higher counter is known. When it is applied,
  silent links to the owner are closed; on a later link a higher counter refutes it, and so do two
  heartbeats.
* **It may show a slice again** that was hidden because its replica was down: the goodbye proves
  that the silence was a stop, and the slice is shown until the linger ends. This is the one
  exception to the rule that nothing relayed about a dead replica shows it again.
* **Its time only runs down.** Linger counts monotonic time, also while this process does not run,
  and of two statements about one goodbye the shorter remainder counts.
* **An old goodbye does not linger in full.** A goodbye that this process received right after it
  had not run may have waited in a buffer all that time. It is *unsure*: the replica is shown for
  the time that may be left, but for at least 2.5 heartbeats, in which peers state the remainder.
  An unsure goodbye is never relayed, and the statement of a peer replaces it.
* **Peers agree on its end.** Peers with different sets of lingering replicas name their own in a
  request; the answer lists those that linger no longer. So all end with the shortest remainder.
* **A replica lingers beside its successor.** Departures are kept by replica, members by name, so a
  restart under the same name ends no linger, and a goodbye never takes a name from a living member.

`goodbyes` applies goodbyes: `Goodbyes.receive` those of owners, `receive_relayed` relayed ones.

After the end of its linger a replica is remembered for `forget_after`, like a dead one, so that
late digests do not make it a newcomer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .fingerprint import mark
from .limits import MAX_MEMBERS
from .messages import Farewell
from .sizes import Size
from .state import Replica
from .timing import Timing


@dataclass(slots=True)
class Departure:
    """One replica that said goodbye.

    Attributes:
        replica: Its name and incarnation.
        counter: Its last heartbeat counter.
        version: Its last version.
        until: When its linger ends, in elapsed seconds; after that, when it is forgotten.
        lingers: Whether its presences are still shown.
        sure: Whether the goodbye did not wait in a buffer, so its remainder is trusted.
    """

    replica: Replica
    counter: int
    version: int
    until: float
    lingers: bool = True
    sure: bool = True


class Departures:
    """The replicas from which a goodbye was received, directly or relayed.

    All times are elapsed seconds: monotonic time, which also counts while the process does not run.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        # All departures, in the order of their first receipt.
        self._known: dict[Replica, Departure] = {}
        # Replicas that linger no longer, in the order in which their linger ended.
        self._ended: dict[Replica, None] = {}
        #: The fingerprint of the lingering replicas that are sure; 0 if there are none.
        self.fingerprint = 0
        #: Grows whenever a replica begins or ends to linger.
        self.revision = 0
        #: The earliest deadline that `expire` acts on.
        self.check_at = float("inf")

    def __contains__(self, replica: Replica) -> bool:
        return replica in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, replica: Replica) -> Departure | None:
        """The departure of a replica, or None if no goodbye of this incarnation is known."""
        return self._known.get(replica)

    def lingering(self) -> Iterator[Departure]:
        """The departures of replicas that still linger: their presences are shown."""
        return (departure for departure in self._known.values() if departure.lingers)

    def lingers(self, replica: Replica) -> bool:
        """Whether a replica said goodbye and its presences are still shown."""
        departure = self._known.get(replica)
        return departure is not None and departure.lingers

    def note(self, farewell: Farewell, now: float, *, sure: bool) -> bool:
        """Record a goodbye.

        Idempotent: of two sure statements about one replica, the shorter remainder counts.

        Args:
            farewell: The goodbye; its remainder counts from now.
            now: Elapsed seconds.
            sure: It did not wait in a buffer while this process did not run.

        Returns:
            Whether the departure is new or changed. It is False for a new one if there is no room.
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
        """Forget the goodbye of a replica that proved alive."""
        departure = self._known.pop(replica, None)
        if departure is not None:
            self._set(departure, lingers=False, sure=True)
            del self._ended[replica]

    def expire(self, now: float, *, sure: bool) -> list[Replica]:
        """Act on the deadlines that have passed.

        Args:
            now: Elapsed seconds.
            sure: This process ran when they passed, so the ends may be relayed to peers.

        Returns:
            The replicas that linger no longer.
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

    def sizes(self) -> Iterator[Size]:
        """The number of departures, lingering and remembered ones."""
        yield Size("departures", len(self), MAX_MEMBERS)

    def _set(self, departure: Departure, *, lingers: bool, sure: bool) -> None:
        """Change the state of a departure; the only place that does."""
        counted = departure.lingers and departure.sure
        if departure.lingers is not lingers:
            self.revision += 1
        departure.lingers, departure.sure = lingers, sure
        if lingers:
            self._ended.pop(departure.replica, None)
        else:
            self._ended[departure.replica] = None
        if counted != (lingers and sure):
            self.fingerprint ^= mark(departure.replica)

    def _make_room(self) -> bool:
        """Keep the number of departures bounded: drop the first of the ended ones.

        Returns:
            Whether there is room for another one.
        """
        if len(self._known) >= MAX_MEMBERS and self._ended:
            self._forget(next(iter(self._ended)))
        return len(self._known) < MAX_MEMBERS

    def _forget(self, replica: Replica) -> None:
        del self._known[replica], self._ended[replica]


def _supersedes(known: Departure, until: float, sure: bool) -> bool:
    """Whether a statement replaces the known one.

    A sure statement does, if the known one is unsure, or still lingers and ends later.
    """
    if not known.sure:
        return sure
    return sure and known.lingers and until < known.until
