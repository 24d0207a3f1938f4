"""A cluster of real engines over a simulated network, in virtual time, driven by one seed.

The same seed gives the same run, on every machine and under every PYTHONHASHSEED: all randomness
comes from generators seeded with it, and all events from one queue. Every message goes through the
real codec. Nothing sleeps. `laws` lists the invariants that are checked at each step.

Example:
    >>> from adsum.testing import Simulation
    >>> simulation = Simulation(nodes=3, seed=7)
    >>> phone = simulation.node("n1").track("room:1", "ann", {"device": "phone"})
    >>> simulation.run(0.5)
    >>> list(simulation.node("n3").present("room:1"))
    ['ann']
    >>> simulation.kill("n1")
    >>> simulation.run(1.0)
    >>> simulation.node("n3").present("room:1")
    {}
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from adsum.driver.observer import Observer
from adsum.replication.entry import KEY, TOPIC, identity, ref
from adsum.replication.messages import ProtocolMessage
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

from .agreement import CHECKS, Agreement
from .laws import BrokenLawError, Ledger
from .network import DIAL_TIMEOUT, Network, VirtualClock
from .networknode import SimulatedNetworkNode
from .simulatedbus import SimulatedBus
from .simulatednode import Refs, SimulatedNode
from .trace import describe

#: Incarnations count up from this number, and down for lives after their clock was set back.
FIRST_INCARNATION = 1_000_000


def settling(timing: Timing) -> float:
    """Seconds, at most, from the end of all faults until every node lists the tracked presences.

    In that time a dial without an answer is given up, the longest wait between two dials passes,
    and the next dial succeeds. A newcomer waits for two more heartbeats if an older, dead life
    still holds its name. Changes that do not come over their own link come with the next heartbeat.
    """
    return DIAL_TIMEOUT + timing.redial_most + 3 * timing.heartbeat_interval


class Simulation:
    """A simulated cluster in virtual time, reproducible from a seed.

    Args:
        nodes: The number of nodes to start, named ``n1``, ``n2`` and so on.
        seed: All randomness comes from it.
        timing: The durations of the protocol.
        latency: The least and the most seconds that a frame is under way.
        seeds_per_node: The number of earlier nodes that each node has as peers.
        checked: Whether the laws are checked at each step. It costs a fifth of the time.
        unobserved: Topics without an observer, so that the path without observers runs as well.
        kind: The class of its nodes: on the network, or `SimulatedBusNode` on the bus.
        trace: Called with a line for each event.
    """

    def __init__(
        self,
        nodes: int,
        *,
        seed: int,
        timing: Timing | None = None,
        latency: tuple[float, float] = (0.0002, 0.002),
        seeds_per_node: int = 2,
        checked: bool = True,
        unobserved: Iterable[str] = (),
        kind: type[SimulatedNode] = SimulatedNetworkNode,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.timing = timing or Timing()
        self.clock = VirtualClock()
        self.rng = Random(f"faults {seed}")
        self.network = Network(self.clock, Random(f"network {seed}"), latency)
        self.bus = SimulatedBus(self.clock, Random(f"bus {seed}"), latency)
        self.ledger = Ledger()
        self.kind = kind
        self.checked = checked
        #: The node that runs, or ran last, at each place. A place is an address, by default the
        #: name of the node.
        self.nodes: dict[str, SimulatedNode] = {}
        self._names: dict[str, None] = {}
        self._unobserved = set(unobserved)
        self._trace = trace
        self._seeds_per_node = seeds_per_node
        self._lives = 0
        self._agreement = Agreement(self)
        if checked:
            self._check_lingering()
        for index in range(nodes):
            self.start(f"n{index + 1}")

    def start(self, name: str, *, at: str | None = None, clock_back: bool = False) -> SimulatedNode:
        """Start a node, or start it again after it was killed or stopped.

        Args:
            name: The node's name.
            at: The place, by default the one named like the node. Nodes at two places may have one
                name.
            clock_back: Whether the clock of its host was set back, so that its incarnation is lower
                than that of its former life.

        Returns:
            The running node.

        Raises:
            ValueError: A node runs at that place already.
        """
        node = self.create(name, at=at, clock_back=clock_back)
        node.begin()
        return node

    def create(
        self,
        name: str,
        *,
        at: str | None = None,
        clock_back: bool = False,
        timing: Timing | None = None,
        linger: float = 0.0,
        observers: list[Observer] | None = None,
        kind: type[SimulatedNode] | None = None,
    ) -> SimulatedNode:
        """Make a node without starting it; its `begin` does.

        Args:
            name: The node's name.
            at: The place, by default the one named like the node.
            clock_back: Whether the clock of its host was set back, so that its incarnation is lower
                than that of its former life.
            timing: The durations of its protocol, by default those of the simulation.
            linger: Seconds that the other nodes go on showing its presences after it was stopped.
            observers: The observers that it notifies.
            kind: The class of the node, by default that of the simulation.

        Raises:
            ValueError: A node runs at that place already.
        """
        place = at or name
        former = self.nodes.get(place)
        if former is not None and former.running:
            raise ValueError(f"at={place!r}: a node runs there; kill or stop it first")
        self._lives += 1
        incarnation = FIRST_INCARNATION + (-self._lives if clock_back else self._lives)
        known = [other for other in self.nodes if other != place][: self._seeds_per_node]
        node = self.nodes[place] = (kind or self.kind)(
            self, place, Replica(name, incarnation), timing or self.timing, linger, observers or []
        )
        self._names[name] = None
        node.know(known)
        for topic in self.ledger.topics:
            self._observe(node, topic)
        return node

    def node(self, place: str) -> SimulatedNode:
        """The node that runs, or ran last, at a place.

        Raises:
            ValueError: No node was ever started there.
        """
        if place not in self.nodes:
            known = ", ".join(map(repr, self.nodes)) or "none yet"
            raise ValueError(f"place={place!r}: must be a place where a node was started: {known}")
        return self.nodes[place]

    @property
    def alive(self) -> list[SimulatedNode]:
        """The nodes that run, paused ones included."""
        return [node for node in self.nodes.values() if node.running]

    @property
    def names(self) -> int:
        """The number of names that the cluster ever had."""
        return len(self._names)

    def run(self, seconds: float) -> None:
        """Let virtual time pass, in seconds."""
        until = self.clock.now + seconds
        while self.clock.step(until):
            pass

    def settle(self) -> None:
        """Let the time pass within which all nodes come to agree, if there are no faults."""
        self.run(settling(self.timing) + self.kind.recovery)

    def kill(self, place: str) -> None:
        """End a process without a goodbye, as by SIGKILL; the kernel closes its links."""
        self.node(place).abandon()

    def stop(self, place: str, linger: float = 0.0) -> None:
        """Stop a node with a goodbye; its presences linger for some seconds."""
        self.node(place).leave(linger)

    def partition(self, *sides: Iterable[str]) -> None:
        """Cut all lines between places of different sides."""
        groups = [list(side) for side in sides]
        for index, group in enumerate(groups):
            for other in groups[index + 1 :]:
                for first in group:
                    for second in other:
                        self.network.cut(first, second)
                        self.network.cut(second, first)

    def heal(self) -> None:
        """Make every line as usual: not cut, and with the usual latency, bandwidth and loss."""
        self.network.heal()

    def tracked(self) -> Refs:
        """The refs of all presences of running nodes, by topic and key: the list to agree on."""
        lives = [self.ledger.of(node.replica).tracked for node in self.alive]
        entries = [entry for tracked in lives for entry in tracked.values()]
        truth: Refs = {}
        for entry in sorted(entries, key=identity):
            truth.setdefault(entry[TOPIC], {}).setdefault(entry[KEY], []).append(ref(entry))
        return truth

    def lingering(self) -> float:
        """Seconds until no stopped replica and no broken presence lingers any longer.

        Broken presences count if their nodes run and have no faults.
        """
        graces = [node.grace_left for node in self.alive]
        return max(0.0, self.ledger.last_death - self.clock.now, *graces)

    def check_agreement(self) -> None:
        """Check that every running node lists exactly the tracked presences.

        Raises:
            BrokenLawError: A node does not; the message names it, the difference, the time and the
                seed.
        """
        truth = self.tracked()
        for node in self.alive:
            if node.witness is not None:
                node.check(node.witness.check_fold)
            shown = node.shown()
            if shown != truth:
                raise BrokenLawError(f"{self.where}: {node.place} {_differ(shown, truth)}")

    @property
    def where(self) -> str:
        """The seed and the virtual time, for messages."""
        return f"seed {self.seed}, t={self.clock.now:.3f}"

    def trace(self, event: str, *arguments: Any) -> None:
        """Add a line to the trace, if there is one."""
        if self._trace is not None:
            self._trace(f"{self.clock.now:10.4f}  {event.format(*arguments)}")

    def trace_message(self, message: ProtocolMessage, source: str, target: str) -> None:
        """Add a message to the trace, if there is one."""
        if self._trace is not None:
            self.trace("{} -> {}  {}", source, target, describe(message))

    def observe_everywhere(self, topic: str) -> None:
        """Let the witness of every node watch a topic from now on."""
        for node in self.alive:
            self._observe(node, topic)

    def _check_lingering(self) -> None:
        """Check the law of agreement several times in each heartbeat."""
        self._agreement.check()
        interval = self.timing.heartbeat_interval / CHECKS
        self.clock.call_later(interval, self._check_lingering)

    def _observe(self, node: SimulatedNode, topic: str) -> None:
        if node.witness is not None and topic not in self._unobserved:
            node.witness.watch(topic)


def _differ(shown: Refs, truth: Refs) -> str:
    """Describe the first key with a difference between the shown and the tracked refs."""
    for topic in sorted(shown.keys() | truth.keys()):
        here, there = shown.get(topic, {}), truth.get(topic, {})
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                return f"shows {here.get(key)} as {key!r} on {topic!r}, not {there.get(key)}"
    return "agrees"
