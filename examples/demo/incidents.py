"""What was done to a node, and how long each of the others took to notice."""

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: What makes a node's people leave everybody's lists; the other actions bring them back.
HIDING = ("kill", "pause", "stop")


@dataclass(slots=True)
class Incident:
    """One signal to one node.

    Attributes:
        id: Counts up from 1.
        node: Whom it was sent to.
        action: ``kill``, ``pause``, ``stop``, ``resume`` or ``start``.
        at: When the signal was sent, or the process started, in monotonic seconds.
        wall: The same in seconds since the epoch, for people.
        waiting: The nodes that will notice and have not yet.
        noticed: Milliseconds from `at` until a node's watch showed the leaves or joins.
        ready: Milliseconds that a process took to start; None for what starts no process.
    """

    id: int
    node: str
    action: str
    at: float
    wall: float
    waiting: set[str]
    noticed: dict[str, float] = field(default_factory=dict)
    ready: float | None = None

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
        self, action: str, node: str, observers: Iterable[str], at: float, wall: float
    ) -> None:
        """A signal is about to be sent; expects news from those whom it makes a difference to."""
        waiting = {
            observer
            for observer in observers
            if observer != node and self._will_notice(action, node, observer)
        }
        for earlier in self.recent:
            earlier.waiting.discard(node)  # it has other things on its mind
            if earlier.node == node:
                earlier.waiting.clear()  # too late to be noticed
        incident = Incident(next(self._ids), node, action, at, wall, waiting)
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
            incident.waiting.discard(node)

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
            if observer not in incident.waiting or at < incident.at:
                continue
            hides = incident.action in HIDING
            if (not present.get(incident.node)) if hides else (incident.node in joined):
                incident.waiting.discard(observer)
                incident.noticed[observer] = _milliseconds(incident, at)
                measured = True
        return measured

    def _will_notice(self, action: str, node: str, observer: str) -> bool:
        shown = bool(self._present.get(observer, {}).get(node))
        return action == "start" or shown == (action in HIDING)


def _milliseconds(incident: Incident, at: float) -> float:
    return round(1000 * (at - incident.at), 1)
