"""The law of agreement: nodes with a working link between them agree on the replicas that linger.

A goodbye is replicated. Regardless of its path, two nodes with a link between them agree within a
heartbeat, so nodes joined by a path of k links agree within k heartbeats. The check is on the
single link: a disagreement about one replica lasts no longer than `LASTS` heartbeats, while

* the link works in both directions, and no way of the network changed in that time;
* both nodes ran all that time, and their clocks did not jump;
* neither receives from the replica directly. Its own messages count more than a relayed goodbye.
"""

from collections.abc import Iterator
from itertools import combinations

from adsum.replication.state import Replica

from .laws import BrokenLawError
from .simulatednode import World

#: Heartbeats for which two linked nodes may disagree: one to notice, and one if the first request
#: was spent on other news.
LASTS = 2.0
#: Checks in each heartbeat.
CHECKS = 4

#: A node with a place, its peer, and the replica that lingers at the first and not at the second.
Disagreement = tuple[str, str, Replica]


class Agreement:
    """Watches a simulation for lasting disagreements."""

    def __init__(self, simulation: World) -> None:
        self._simulation = simulation
        # For each present disagreement, the virtual time since which every check found it.
        self._since: dict[Disagreement, float] = {}

    def check(self) -> None:
        """Compare all linked nodes.

        Raises:
            BrokenLawError: Two nodes disagree for too long; names them, and the replica.
        """
        now = self._simulation.clock.now
        found = set(self._disagreements())
        self._since = {one: since for one, since in self._since.items() if one in found}
        most = LASTS * self._simulation.timing.heartbeat_interval
        for one in sorted(found):
            place, other, replica = one
            since = max(self._since.setdefault(one, now), self._steady_since(place, other))
            if now - since > most:
                raise BrokenLawError(
                    f"{self._simulation.where}: {replica} lingers at {place} and not at {other}, "
                    f"{now - since:.1f} s after both could agree; {most:g} at most"
                )

    def _steady_since(self, place: str, other: str) -> float:
        """Virtual time of the last change to the nodes at two places or to the network."""
        nodes = self._simulation.nodes
        return max(
            nodes[place].medium.changed_at,
            nodes[place].steady_since,
            nodes[other].steady_since,
        )

    def _disagreements(self) -> Iterator[Disagreement]:
        awake = [node for node in self._simulation.alive if not node.paused]
        if any(node.medium.lossy for node in awake):
            return
        lingering = {node.place: node.engine.lingering() for node in awake}
        if not any(lingering.values()):
            return
        for node, peer in combinations(awake, 2):
            if node.linked_to(peer):
                for one, two in ((node, peer), (peer, node)):
                    for replica, departure in lingering[one.place].items():
                        missing = replica not in lingering[two.place]
                        if departure.sure and missing and not two.engine.has_live_link(replica):
                            yield one.place, two.place, replica
