"""What was done to the cluster, and how long each server took to notice."""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What makes people leave lists; the other actions bring them back.
HIDING = ("kill", "pause", "stop", "split")


@dataclass(slots=True)
class Incident:
    """One signal to one node, or one cut of the network.

    Attributes:
        id: Counts up from 1.
        node: Whom it was done to; for the network, the last one before the cut.
        action: ``kill``, ``pause``, ``stop``, ``resume``, ``start``, ``split`` or ``heal``; of the
            engine ``outage`` or ``return``, which no server notices in its list.
        at: When the signal was sent, or the process started, in monotonic seconds.
        wall: The same in seconds since the epoch, for people.
        waiting: The observers that will notice, each with the nodes it has yet to notice.
        noticed: Milliseconds from `at` until an observer's watch showed all leaves or joins.
        ready: Milliseconds that a process took to start; None for what starts no process.
    """

    id: int
    node: str
    action: str
    at: float
    wall: float
    waiting: dict[str, set[str]]
    noticed: dict[str, float] = field(default_factory=dict)
    ready: float | None = None

    def forget(self, node: str) -> None:
        """Expect no news from a node, nor of it."""
        self.waiting.pop(node, None)
        for observer, nodes in [*self.waiting.items()]:
            nodes.discard(node)
            if not nodes:
                del self.waiting[observer]

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            "node": self.node,
            "action": self.action,
            "wall": self.wall,
            "waiting": sorted(self.waiting),
            "noticed": dict(sorted(self.noticed.items())),
            "ready": self.ready,
        }


class Incidents:
    """The last incidents, timed by what the nodes report."""

    def __init__(self, keep: int = 30) -> None:
        self.recent: deque[Incident] = deque(maxlen=keep)
        self._ids = itertools.count(1)
        # By observer, then by node: how many people of the node the observer shows.
        self._present: dict[str, dict[str, int]] = {}

    def begin(
        self,
        action: str,
        node: str,
        concerns: Mapping[str, Iterable[str]],
        at: float,
        wall: float,
    ) -> None:
        """Something is about to be done; expects news from those whom it makes a difference to.

        Args:
            action: What is done.
            node: Whom it is done to.
            concerns: By observer, the nodes that will go from its list, or come.
            at: When, in monotonic seconds.
            wall: When, in seconds since the epoch.
        """
        network = action in ("split", "heal")
        for earlier in self.recent:
            if not network:
                earlier.forget(node)  # it has other things on its mind, and is too late to notice
            elif earlier.action in ("split", "heal"):
                earlier.waiting.clear()
        incident = Incident(next(self._ids), node, action, at, wall, {})
        for observer, nodes in concerns.items():
            noticeable = {node for node in nodes if self._will_notice(action, node, observer)}
            if noticeable:
                incident.waiting[observer] = noticeable
        self.recent.append(incident)

    def started(self, node: str, at: float) -> None:
        """A process that was started is ready to serve."""
        for incident in self.recent:
            if incident.node == node and incident.action == "start" and incident.ready is None:
                incident.ready = _milliseconds(incident, at)

    def ended(self, node: str) -> None:
        """A process is gone, and with it all that it saw."""
        self._present.pop(node, None)
        for incident in self.recent:
            incident.waiting.pop(node, None)

    def reported(
        self, observer: str, at: float, joined: Iterable[str], present: dict[str, int]
    ) -> bool:
        """A node's watch showed something.

        Returns:
            Whether that was what somebody waited for, and is now measured.
        """
        self._present[observer] = present
        measured = False
        for incident in self.recent:
            nodes = incident.waiting.get(observer)
            if nodes is None or at < incident.at:
                continue
            if incident.action in HIDING:
                nodes.intersection_update([*filter(present.get, present)])
            else:
                nodes.difference_update(joined)
            if not nodes:
                del incident.waiting[observer]
                incident.noticed[observer] = _milliseconds(incident, at)
                measured = True
        return measured

    def _will_notice(self, action: str, node: str, observer: str) -> bool:
        shown = bool(self._present.get(observer, {}).get(node))
        return action == "start" or shown == (action in HIDING)


def _milliseconds(incident: Incident, at: float) -> float:
    return round(1000 * (at - incident.at), 1)
