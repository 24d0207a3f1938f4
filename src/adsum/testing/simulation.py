"""A cluster of real engines over a simulated network, in virtual time, driven by one seed.

The same seed gives the same run, on every machine and under every PYTHONHASHSEED: all randomness
comes from generators seeded with it, and all events from one queue. Every message goes through the
real codec. Nothing sleeps. `laws` has what is checked at each step.

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

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

from adsum.replication.codec import encode
from adsum.replication.effects import Deliver, Effect, Notice
from adsum.replication.engine import RESOLUTION, Engine
from adsum.replication.entry import ID, KEY, TOPIC, Entry, identity, ref
from adsum.replication.jsontext import encode_object
from adsum.replication.limits import MAX_META
from adsum.replication.messages import Delta, Message
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.run import Observer, Run

from .laws import BrokenLawError, Ledger, RecordedEngine, Witness
from .network import DIAL_TIMEOUT, Clock, Endpoint, Frame, Network
from .trace import describe

#: Refs by topic and key.
Refs = dict[str, dict[str, list[str]]]

#: Incarnations count up from here, and down for lives whose clock was set back.
FIRST_INCARNATION = 1_000_000


def settling(timing: Timing) -> float:
    """Within so many seconds of the end of all faults every node lists exactly what is tracked.

    A dial that got no answer gives up, the longest wait between two dials passes, the next dial
    succeeds; a newcomer whose name an older, dead life still has waits for two heartbeats more, and
    what does not come over its own link comes with the next heartbeat.
    """
    return DIAL_TIMEOUT + timing.redial_most + 3 * timing.heartbeat_interval


class Simulation:
    """A cluster in virtual time.

    Args:
        nodes: How many nodes to start, named ``n1``, ``n2`` and so on.
        seed: All randomness comes from it.
        timing: The durations of the protocol.
        latency: The least and the most seconds that a frame is under way.
        seeds_per_node: How many of the earlier nodes each node is told of.
        checked: Whether the laws are checked at each step. It costs about half of the time.
        unobserved: Topics that no observer follows, so that the usual path is taken as well.
        trace: Called with a line for each thing that happens.
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
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.timing = timing or Timing()
        self.clock = Clock()
        self.rng = Random(f"faults {seed}")
        self.network = Network(self.clock, Random(f"network {seed}"), latency)
        self.ledger = Ledger()
        self.checked = checked
        #: Who runs, or ran last, at each place. A place is an address; by default it is the name.
        self.nodes: dict[str, SimulatedNode] = {}
        self._names: dict[str, None] = {}
        self._unobserved = set(unobserved)
        self._trace = trace
        self._seeds_per_node = seeds_per_node
        self._lives = 0
        for index in range(nodes):
            self.start(f"n{index + 1}")

    def start(
        self, name: str, *, at: str | None = None, clock_back: bool = False
    ) -> "SimulatedNode":
        """Start a node, or start it again after it was killed or stopped.

        Args:
            name: The node's name.
            at: Where; at the place of its name by default. Two places may have one name.
            clock_back: The clock of its host was set back, so its incarnation is a lower one.
        """
        node = self.create(name, at=at, clock_back=clock_back)
        node.begin()
        return node

    def create(  # what a life of a node is made of
        self,
        name: str,
        *,
        at: str | None = None,
        clock_back: bool = False,
        timing: Timing | None = None,
        linger: float = 0.0,
        observers: list[Observer] | None = None,
    ) -> "SimulatedNode":
        """Make a node that `begin` starts."""
        place = at or name
        former = self.nodes.get(place)
        if former is not None and former.running:
            raise ValueError(f"at={place!r}: a node runs there; kill or stop it first")
        self._lives += 1
        incarnation = FIRST_INCARNATION + (-self._lives if clock_back else self._lives)
        known = [other for other in self.nodes if other != place][: self._seeds_per_node]
        node = self.nodes[place] = SimulatedNode(
            self, place, Replica(name, incarnation), timing or self.timing, linger, observers or []
        )
        self._names[name] = None
        for address in known:
            node.engine.add_seed(address, lasting=True)
        for topic in self.ledger.topics:
            self._observe(node, topic)
        return node

    def node(self, place: str) -> "SimulatedNode":
        """The node at a place in its present life."""
        return self.nodes[place]

    @property
    def alive(self) -> list["SimulatedNode"]:
        """The nodes that run, paused ones included."""
        return [node for node in self.nodes.values() if node.running]

    @property
    def names(self) -> int:
        """How many names the cluster ever had."""
        return len(self._names)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.now + seconds
        while self.clock.step(until):
            pass

    def settle(self) -> None:
        """Let pass the time within which, without faults, every node comes to agree."""
        self.run(settling(self.timing))

    def kill(self, place: str) -> None:
        """End a process without a word; the kernel closes its links."""
        self.nodes[place].abandon()

    def stop(self, place: str, linger: float = 0.0) -> None:
        """End a node with a goodbye."""
        self.nodes[place].leave(linger)

    def partition(self, *sides: Iterable[str]) -> None:
        """Let nothing through between places of different sides."""
        groups = [list(side) for side in sides]
        for index, group in enumerate(groups):
            for other in groups[index + 1 :]:
                for first in group:
                    for second in other:
                        self.network.cut(first, second)
                        self.network.cut(second, first)

    def heal(self) -> None:
        """Let everything through everywhere."""
        self.network.heal()

    def tracked(self) -> Refs:
        """What all running nodes track, by topic and key: what every list must come to say."""
        lives = [self.ledger.of(node.replica).tracked for node in self.alive]
        entries = [entry for tracked in lives for entry in tracked.values()]
        truth: Refs = {}
        for entry in sorted(entries, key=identity):
            truth.setdefault(entry[TOPIC], {}).setdefault(entry[KEY], []).append(ref(entry))
        return truth

    def check_agreement(self) -> None:
        """Check that every running node lists exactly what is tracked.

        Raises:
            BrokenLawError: One does not; says which, where, and the seed.
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
        """The seed and the time, for messages."""
        return f"seed {self.seed}, t={self.clock.now:.3f}"

    def say(self, what: str, *arguments: Any) -> None:
        """Add a line to the trace, if there is one."""
        if self._trace is not None:
            self._trace(f"{self.clock.now:10.4f}  {what.format(*arguments)}")

    def say_of(self, message: Message, source: str, target: str) -> None:
        """Add a message to the trace, if there is one."""
        if self._trace is not None:
            self.say("{} -> {}  {}", source, target, describe(message))

    def observe_everywhere(self, topic: str) -> None:
        """Let every node's witness follow a topic from now on."""
        for node in self.alive:
            self._observe(node, topic)

    def _observe(self, node: "SimulatedNode", topic: str) -> None:
        if node.witness is not None and topic not in self._unobserved:
            node.witness.watch(topic)


def _differ(shown: Refs, truth: Refs) -> str:
    """The first place where what is shown is not what is tracked."""
    for topic in sorted(shown.keys() | truth.keys()):
        here, there = shown.get(topic, {}), truth.get(topic, {})
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                return f"shows {here.get(key)} as {key!r} on {topic!r}, not {there.get(key)}"
    return "agrees"


class SimulatedNode(Run):
    """A run of a node in a simulation: made by `Simulation.start`, ended by `kill` or `stop`."""

    def __init__(
        self,
        simulation: Simulation,
        place: str,
        replica: Replica,
        timing: Timing,
        linger: float,
        observers: list[Observer],
    ) -> None:
        self.simulation = simulation
        #: Where it runs: what others dial.
        self.place = place
        #: Whether it is begun, and its process not ended.
        self.running = False
        self.paused = False
        self.links: set[int] = set()
        self.notices: list[Notice] = []
        self.delivered: list[Deliver] = []
        self._linger = linger
        self._offset = 0.0
        self._swept_at = 0.0
        self._backlog: list[partial[None]] = []
        self._waking_at = float("inf")
        rng = Random(f"engine {simulation.seed} {replica}")
        engine = self._make_engine(replica, timing, rng, simulation.clock.now)
        super().__init__("simulated", engine, observers, running_loop())
        self.addresses = (place,)
        #: Checks the laws at each step.
        self.witness = Witness(engine, simulation.ledger, timing) if simulation.checked else None

    def _make_engine(self, replica: Replica, timing: Timing, rng: Random, now: float) -> Engine:
        engine = RecordedEngine(replica, timing, rng, now)
        engine.ledger = self.simulation.ledger
        engine.topic_begins = self.simulation.observe_everywhere
        return engine

    # What an application does.

    @property
    def name(self) -> str:
        """The node's name."""
        return self.replica.name

    @property
    def tracked(self) -> dict[int, Entry]:
        """What this node tracks, by id."""
        return self.simulation.ledger.of(self.replica).tracked

    def track(self, topic: str, key: str, meta: dict[str, Any] | None = None) -> Entry:
        """Track a presence."""
        entry = self.engine.track(topic, key, encode_object(meta or {}, "meta", MAX_META))
        self._settle()
        return entry

    def update(self, entry: Entry, meta: dict[str, Any]) -> Entry:
        """Update a presence."""
        new = self.engine.update(self.tracked[entry[ID]], encode_object(meta, "meta", MAX_META))
        self._settle()
        return new

    def untrack(self, entry: Entry) -> None:
        """End a presence."""
        self.engine.untrack(self.tracked[entry[ID]])
        self._settle()

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

    def begin(self) -> None:
        """Start."""
        self.running = True
        self.simulation.say("{} starts as {}", self.place, self.replica)
        self._settle()

    async def open(self) -> None:
        """See `Run`."""
        self.begin()

    def leave(self, linger: float) -> None:
        """End with a goodbye."""
        self.simulation.say("{} says goodbye", self.replica)
        self._end()
        self.engine.leave(linger)
        self._settle()
        self._die(self.simulation.clock.now + linger)
        for link in sorted(self.links):
            self.simulation.network.close(link, self)
        self.links.clear()

    async def close(self) -> None:
        """See `Run`."""
        if self.running:
            self.leave(self._linger)

    def abandon(self) -> None:
        """End without a word, as by SIGKILL; the kernel closes the links."""
        self.simulation.say("{} is killed", self.replica)
        self._die(self.simulation.clock.now)
        for link in sorted(self.links):
            self.simulation.network.sever(link)
        self.links.clear()
        self._end()

    def _die(self, at: float) -> None:
        self.running = False
        self.simulation.ledger.of(self.replica).died_at = at

    def pause(self) -> None:
        """Stop, as by SIGSTOP: nothing is read and no timer fires, until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Go on: the timers that are due come first, then what waited to be read."""
        if not self.paused:
            return
        self.paused = False
        self.tick()
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            if self.running:
                event()

    def set_clock(self, seconds: float) -> None:
        """The monotonic clock of its host jumps, forwards or back."""
        self._offset += seconds
        if self.running and not self.paused and self._now() >= self.engine.wake_at:
            self.tick()

    # What the network tells.

    def frame_arrived(self, link: int, frame: Frame) -> None:
        """See `Endpoint`."""
        self._when_awake(partial(self._receive, link, frame))

    def link_broke(self, link: int) -> None:
        """See `Endpoint`."""
        self.links.discard(link)
        self._when_awake(partial(self._call, self.engine.link_down, link))

    def writable_changed(self, link: int, writable: bool) -> None:
        """See `Endpoint`."""
        self._when_awake(partial(self._call, self.engine.link_writable, link, writable))

    def link_opened(self, link: int, peer: Endpoint, dialled: str | None) -> None:
        """See `Endpoint`."""
        self.links.add(link)
        args = (link, peer.replica, (peer.place,), dialled)
        self._when_awake(partial(self._call, self.engine.link_up, *args))

    def dial_failed(self, address: str, refused: bool) -> None:
        """See `Endpoint`."""
        self._when_awake(partial(self._call, self.engine.dial_failed, address, refused))

    def _receive(self, link: int, frame: Frame) -> None:
        message = frame.message
        self.frames_received += 1
        self.bytes_received += len(frame.data)
        self._call(self.engine.receive, link, message)
        if isinstance(message, Delta) and self.witness is not None:
            self.check(self.witness.took_in, message.replica)

    def _call(self, method: Any, *args: Any) -> None:
        method(*args, self._now())
        self._settle()

    def _when_awake(self, event: partial[None]) -> None:
        if self.paused:
            self._backlog.append(event)
        elif self.running:
            event()

    # What a run is made of.

    def poke(self) -> None:
        """See `Run`."""
        self._wake_at(self._now())

    def tell_observers(self) -> None:
        """See `Run`."""
        for topic, transitions in self.engine.take_changes().items():
            if self.witness is not None:
                self.check(self.witness.tell, topic, transitions)
            for observer in list(self._observers):
                observer.changed(topic, transitions)
        self._sweep_when_due()

    def check(self, law: Callable[..., None], *arguments: Any) -> None:
        """Check a law, and say where it does not hold."""
        try:
            law(*arguments)
        except BrokenLawError as broken:
            raise BrokenLawError(f"{self.simulation.where}: {self.place}: {broken}") from None

    def _sweep_when_due(self) -> None:
        now = self.simulation.clock.now
        if (
            self.witness is not None
            and now - self._swept_at >= self.simulation.timing.heartbeat_interval
        ):
            self._swept_at = now
            self.check(self.witness.sweep, now, self.simulation.names)

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        action(*arguments)  # a simulation hides no error

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Notice):
            self.notices.append(effect)
            self.simulation.say("{}: {}", self.place, effect.text)
            return
        if isinstance(effect, Deliver):
            self.delivered.append(effect)
        super()._perform(effect)

    def _now(self) -> float:
        return self.simulation.clock.now + self._offset

    def _wake_at(self, at: float) -> None:
        if at < self._waking_at:
            self._waking_at = at
            self.simulation.clock.call_at(at - self._offset, partial(self._wake, at))

    def _wake(self, at: float) -> None:
        if at != self._waking_at:
            return
        self._waking_at = float("inf")
        if self._now() < at - RESOLUTION:
            self._wake_at(at)  # the clock was set back meanwhile
        elif self.running and not self.paused:
            self.tick()

    def _send(self, links: tuple[int, ...], message: Message) -> None:
        frame = Frame(encode(message))
        self.frames_sent += len(links)
        self.bytes_sent += len(links) * len(frame.data)
        for link in links:
            peer = self.simulation.network.send(link, self, frame)
            if peer is not None:
                self.simulation.say_of(message, self.place, peer)

    def _close(self, link: int, reason: str) -> None:
        self.links.discard(link)
        self.simulation.say("{} closes link {}: {}", self.place, link, reason)
        self.simulation.network.close(link, self)

    def _dial(self, address: str) -> None:
        delay = self.simulation.network.delay(self.place, address)
        self.simulation.clock.call_later(delay, partial(self._answer, address))

    def _answer(self, address: str) -> None:
        """What the far end makes of a dial: no process, no answer, or a link."""
        network, clock = self.simulation.network, self.simulation.clock
        peer = self.simulation.nodes.get(address)
        reachable = network.passes(self.place, address) and network.passes(address, self.place)
        if not self.running:
            return
        if not reachable or (peer is not None and peer.running and peer.paused):
            clock.call_later(DIAL_TIMEOUT, partial(self.dial_failed, address, False))
        elif peer is None or not peer.running:
            delay = network.delay(address, self.place)
            clock.call_later(delay, partial(self.dial_failed, address, True))
        elif peer is self:
            self.engine.dialled_self(address)
        else:
            network.open(self, peer, address)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
