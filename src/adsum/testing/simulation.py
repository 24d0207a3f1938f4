"""A cluster of real engines over a simulated network, in virtual time, driven by one seed.

The same seed gives the same run, on every machine and under every PYTHONHASHSEED: all randomness
comes from generators seeded with it, and all events from one queue. Every message goes through the
real codec. Nothing sleeps.

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

from collections.abc import Iterable
from functools import partial
from random import Random
from typing import Any

from adsum.replication.codec import decode, encode
from adsum.replication.effects import Close, Deliver, Dial, Notice, Send
from adsum.replication.engine import Engine
from adsum.replication.entry import (
    ID,
    KEY,
    TOPIC,
    VERSION,
    Entry,
    Identity,
    Transition,
    identity,
    ref,
)
from adsum.replication.jsontext import encode_object
from adsum.replication.limits import MAX_META
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

from .network import Clock, Network

#: Refs by topic and key.
Refs = dict[str, dict[str, list[str]]]

#: How long a dial waits for an answer.
DIAL_TIMEOUT = 3.0


class Simulation:
    """A cluster in virtual time.

    Args:
        nodes: How many nodes to start, named ``n1``, ``n2`` and so on.
        seed: All randomness comes from it.
        timing: The durations of the protocol.
        latency: The least and the most seconds that a frame is under way.
        seeds_per_node: How many of the earlier nodes each node is told of.
    """

    def __init__(
        self,
        nodes: int,
        *,
        seed: int,
        timing: Timing | None = None,
        latency: tuple[float, float] = (0.0002, 0.002),
        seeds_per_node: int = 2,
    ) -> None:
        self.seed = seed
        self.timing = timing or Timing()
        self.clock = Clock()
        self.rng = Random(f"faults {seed}")
        self.network = Network(self.clock, Random(f"network {seed}"), latency)
        self.nodes: dict[str, SimulatedNode] = {}
        self._seeds_per_node = seeds_per_node
        self._incarnations = 0
        for index in range(nodes):
            self.start(f"n{index + 1}")

    def start(self, name: str) -> "SimulatedNode":
        """Start a node, or start it again after it was killed or stopped."""
        self._incarnations += 1
        node = SimulatedNode(self, Replica(name, self._incarnations))
        known = [other for other in self.nodes if other != name][: self._seeds_per_node]
        self.nodes[name] = node
        for address in known:
            node.engine.add_seed(address, lasting=True)
        node.settle()
        return node

    def node(self, name: str) -> "SimulatedNode":
        """The node of a name in its present life."""
        return self.nodes[name]

    @property
    def alive(self) -> list["SimulatedNode"]:
        """The nodes that run, paused ones included."""
        return [node for node in self.nodes.values() if node.running]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.now + seconds
        while self.clock.step(until):
            pass

    def kill(self, name: str) -> None:
        """End a process without a word; the kernel closes its links."""
        self.nodes[name].kill()

    def stop(self, name: str, linger: float = 0.0) -> None:
        """End a node with a goodbye."""
        node = self.nodes[name]
        node.engine.leave(linger)
        node.settle()
        node.running = False
        for link in sorted(node.links):
            self.network.close(link, node)
        node.links.clear()

    def partition(self, *sides: Iterable[str]) -> None:
        """Let nothing through between nodes of different sides."""
        groups = [list(side) for side in sides]
        for index, group in enumerate(groups):
            for other in groups[index + 1 :]:
                for first in group:
                    for second in other:
                        self.network.block(first, second)
                        self.network.block(second, first)

    def heal(self) -> None:
        """Let everything through everywhere."""
        for first in self.nodes:
            for second in self.nodes:
                self.network.unblock(first, second)

    def tracked(self) -> Refs:
        """What all running nodes track, by topic and key: what every list must come to say."""
        entries = [entry for node in self.alive for entry in node.tracked.values()]
        truth: Refs = {}
        for entry in sorted(entries, key=identity):
            truth.setdefault(entry[TOPIC], {}).setdefault(entry[KEY], []).append(ref(entry))
        return truth

    def check_agreement(self) -> None:
        """Check that every running node lists exactly what is tracked.

        Raises:
            AssertionError: One does not; says which, where, and the seed.
        """
        truth = self.tracked()
        for node in self.alive:
            node.check_observed()
            shown = node.shown()
            if shown != truth:
                raise AssertionError(
                    f"seed {self.seed}, t={self.clock.now:.3f}: {node.name} {_differ(shown, truth)}"
                )


def _differ(shown: Refs, truth: Refs) -> str:
    """The first place where what is shown is not what is tracked."""
    for topic in sorted(shown.keys() | truth.keys()):
        here, there = shown.get(topic, {}), truth.get(topic, {})
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                return f"shows {here.get(key)} as {key!r} on {topic!r}, not {there.get(key)}"
    return "agrees"


class SimulatedNode:
    """An engine with its share of the simulated world."""

    def __init__(self, simulation: Simulation, replica: Replica) -> None:
        self.simulation = simulation
        self.name = replica.name
        self.replica = replica
        self.running = True
        self.paused = False
        self.links: set[int] = set()
        #: What this node tracks, by id.
        self.tracked: dict[int, Entry] = {}
        #: What an observer of each watched topic was told, folded.
        self.observed: dict[str, dict[Identity, Entry]] = {}
        self.notices: list[Notice] = []
        self.delivered: list[Deliver] = []
        self._backlog: list[partial[None]] = []
        self._wake_at = float("inf")
        seed = f"engine {simulation.seed} {replica}"
        self.engine = Engine(replica, simulation.timing, Random(seed), simulation.clock.now)

    # What an application does.

    def track(self, topic: str, key: str, meta: dict[str, Any] | None = None) -> Entry:
        """Track a presence."""
        entry = self.engine.track(topic, key, encode_object(meta or {}, "meta", MAX_META))
        self.tracked[entry[ID]] = entry
        self.settle()
        return entry

    def update(self, entry: Entry, meta: dict[str, Any]) -> Entry:
        """Update a presence."""
        new = self.engine.update(self.tracked[entry[ID]], encode_object(meta, "meta", MAX_META))
        self.tracked[entry[ID]] = new
        self.settle()
        return new

    def untrack(self, entry: Entry) -> None:
        """End a presence."""
        self.engine.untrack(self.tracked.pop(entry[ID]))
        self.settle()

    def watch(self, topic: str) -> None:
        """Observe a topic: what it is told is folded in `observed` and checked at each step."""
        self.engine.view.watch(topic)
        present = self.engine.view.all_entries(topic)
        self.observed[topic] = {identity(entry): entry for entry in present}

    def present(self, topic: str) -> dict[str, Any]:
        """What is present on a topic."""
        return dict(self.engine.view.render(topic))

    def shown(self) -> Refs:
        """The refs of everything in the view, by topic and key."""
        return {
            name: {key: [ref(entry) for entry in topic.entries(key)] for key in sorted(topic.keys)}
            for name, topic in self.engine.view.topics.items()
        }

    # What happens to it.

    def kill(self) -> None:
        """End without a word."""
        self.running = False
        for link in sorted(self.links):
            self.simulation.network.sever(link)
        self.links.clear()

    def pause(self) -> None:
        """Stop, as by SIGSTOP: nothing is read and no timer fires, until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Go on: the timers that are due come first, then what waited to be read."""
        self.paused = False
        self._tick()
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            event()

    # What the network tells.

    def frame_arrived(self, link: int, data: bytes) -> None:
        """A frame has come."""
        self._when_awake(partial(self._receive, link, data))

    def link_broke(self, link: int) -> None:
        """A link is gone."""
        self.links.discard(link)
        self._when_awake(partial(self._call, self.engine.link_down, link))

    def writable_changed(self, link: int, writable: bool) -> None:
        """A link is read no more, or again."""
        self._when_awake(partial(self._call, self.engine.link_writable, link, writable))

    def link_opened(self, link: int, peer: str, dialled: str | None) -> None:
        """A link has opened, by dialling an address or by being dialled."""
        self.links.add(link)
        args = (link, self.simulation.nodes[peer].replica, (peer,), dialled)
        self._when_awake(partial(self._call, self.engine.link_up, *args))

    def settle(self) -> None:
        """Do what the engine asks for, and see to it that it is called when it wants to be."""
        for effect in self.engine.take_effects():
            self._perform(effect)
        for topic, transitions in self.engine.take_changes().items():
            self._observe(topic, transitions)
        wake_at = self.engine.wake_at
        if wake_at < self._wake_at:
            self._wake_at = wake_at
            self.simulation.clock.call_at(wake_at, partial(self._wake, wake_at))

    def _receive(self, link: int, data: bytes) -> None:
        self._call(self.engine.receive, link, decode(data))

    def _call(self, method: Any, *args: Any) -> None:
        method(*args, self.simulation.clock.now)
        self.settle()

    def _when_awake(self, event: partial[None]) -> None:
        if self.paused:
            self._backlog.append(event)
        elif self.running:
            event()

    def _wake(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = float("inf")
            if self.running and not self.paused:
                self._tick()

    def _tick(self) -> None:
        self._wake_at = float("inf")
        self._call(self.engine.tick)

    def _perform(self, effect: object) -> None:
        network = self.simulation.network
        match effect:
            case Send(links, message):
                data = encode(message)
                for link in links:
                    network.send(link, self, data)
            case Dial(address):
                self._dial(address)
            case Close(link, _):
                self.links.discard(link)
                network.close(link, self)
            case Deliver():
                self.delivered.append(effect)
            case Notice():
                self.notices.append(effect)

    def _dial(self, address: str) -> None:
        network, clock = self.simulation.network, self.simulation.clock
        clock.call_later(network.delay(), partial(self._answer, address))

    def _answer(self, address: str) -> None:
        """What the far end makes of a dial: no process, no answer, or a link."""
        network, clock = self.simulation.network, self.simulation.clock
        peer = self.simulation.nodes.get(address)
        reachable = network.passes(self.name, address) and network.passes(address, self.name)
        if not self.running:
            return
        if not reachable or (peer is not None and peer.running and peer.paused):
            clock.call_later(DIAL_TIMEOUT, partial(self._give_up, address, False))
        elif peer is None or not peer.running:
            clock.call_later(network.delay(), partial(self._give_up, address, True))
        else:
            network.open(self, peer, address)

    def _give_up(self, address: str, refused: bool) -> None:
        self._when_awake(partial(self._call, self.engine.dial_failed, address, refused))

    def _observe(self, topic: str, transitions: "list[Transition]") -> None:
        """Fold what an observer is told; every join, update and leave must fit what went before."""
        seen = self.observed[topic]
        for old, new in transitions:
            if old is not None:
                before = seen.pop(identity(old), None)
                self._require(before is not None, f"{ref(old)} leaves without a join")
                known = before is not None and before[VERSION] == old[VERSION]
                self._require(known, f"{ref(old)} is not the version that was told last")
            if new is not None:
                self._require(identity(new) not in seen, f"{ref(new)} joins twice")
                seen[identity(new)] = new
        for entry in [new or old for old, new in transitions]:
            if entry is not None:
                shown = {identity(e): e for e in self.engine.view.entries(topic, entry[KEY])}
                same = shown.get(identity(entry)) is seen.get(identity(entry))
                self._require(same, f"what it tells of {ref(entry)} is not what it shows")

    def check_observed(self) -> None:
        """Check that what observers were told folds to exactly what is shown.

        Raises:
            AssertionError: It does not; says where, and the seed.
        """
        for topic, seen in self.observed.items():
            held = self.engine.view.topics.get(topic)
            shown = {identity(entry): entry[VERSION] for entry in held or ()}
            told = {key: entry[VERSION] for key, entry in seen.items()}
            self._require(shown == told, f"what it told of {topic!r} is not what it shows")

    def _require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            where = f"seed {self.simulation.seed}, t={self.simulation.clock.now:.3f}"
            raise AssertionError(f"{where}: {self.name}: {otherwise}")
