"""A simulated node: one run of a node, with its engine, in virtual time."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol

from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.replication.codec import encode
from adsum.replication.effects import Deliver, Effect, Notice, Sending
from adsum.replication.entry import ID, Entry, ref
from adsum.replication.messages import Delta, ProtocolMessage, Publish
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.values.jsontext import encode_object
from adsum.values.limits import MAX_META

from .laws import BrokenLawError, Ledger, RecordedEngine, Witness
from .network import Medium, Network, SimulatedFrame, VirtualClock
from .nodetimer import NodeTimer
from .simulatedbus import SimulatedBus

#: Refs by topic and key.
Refs = dict[str, dict[str, list[str]]]


class World(Protocol):
    """The environment of a simulated node, implemented by `Simulation`."""

    seed: int
    timing: Timing
    clock: VirtualClock
    network: Network
    bus: SimulatedBus
    ledger: Ledger
    checked: bool

    @property
    def nodes(self) -> "Mapping[str, SimulatedNode]":
        """The node that runs, or ran last, at each place."""

    @property
    def alive(self) -> "Sequence[SimulatedNode]":
        """The nodes that run, paused ones included."""

    @property
    def names(self) -> int:
        """The number of names that the cluster ever had."""

    @property
    def where(self) -> str:
        """The seed and the virtual time, for messages."""

    def observe_everywhere(self, topic: str) -> None:
        """Let the witness of every node watch a topic from now on."""

    def trace(self, event: str, *arguments: Any) -> None:
        """Add a line to the trace, if there is one."""

    def trace_message(self, message: ProtocolMessage, source: str, target: str) -> None:
        """Add a message to the trace, if there is one."""


class SimulatedNode(Driver):
    """A run of a node in a simulation: made by `Simulation.start`, ended by `kill` or `stop`.

    A subclass connects it to a medium: the simulated network or the simulated bus.
    """

    #: Seconds, at most, that a medium without faults takes to connect all nodes again, beside the
    #: time that their engines need.
    recovery = 0.0

    def __init__(
        self,
        simulation: World,
        place: str,
        replica: Replica,
        timing: Timing,
        linger: float,
        observers: list[Observer],
    ) -> None:
        self.simulation = simulation
        #: The address at which it runs and that other nodes dial.
        self.place = place
        #: Whether it has begun and its process has not ended.
        self.running = False
        self.paused = False
        self.links: set[int] = set()
        self.notices: list[Notice] = []
        self.delivered: list[Deliver] = []
        self._linger = linger
        #: Seconds that its monotonic clock is ahead of virtual time; negative if it is behind.
        self.clock_offset = 0.0
        self._swept_at = 0.0
        self._resumed_at = 0.0
        # Virtual time until which timers stand still, because the clock was set back.
        self._stands_until = 0.0
        #: Virtual time at which the process last started or resumed, or its clock last jumped.
        self.steady_since = simulation.clock.now
        self._backlog: list[partial[None]] = []
        self._timer = NodeTimer(simulation.clock, self._now, self._timer_fired)
        rng = Random(f"engine {simulation.seed} {replica}")
        self._recorded = engine = self._make_engine(replica, timing, rng, simulation.clock.now)
        super().__init__("simulated", engine, observers, running_loop())
        #: Checks the laws at each step.
        self.witness = Witness(engine, simulation.ledger, timing) if simulation.checked else None

    def _make_engine(
        self, replica: Replica, timing: Timing, rng: Random, now: float
    ) -> RecordedEngine:
        engine = RecordedEngine(replica, timing, rng, now)
        engine.ledger = self.simulation.ledger
        engine.topic_begins = self.simulation.observe_everywhere
        return engine

    # The medium.

    @property
    @abstractmethod
    def medium(self) -> Medium:
        """Whatever carries the frames of this node."""

    @abstractmethod
    def know(self, places: Sequence[str]) -> None:
        """Learn the places of earlier nodes, before `begin`."""

    @abstractmethod
    def linked_to(self, peer: "SimulatedNode") -> bool:
        """Whether a link to a peer works in both directions."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Close all links after the goodbye; queued frames arrive."""

    @abstractmethod
    def _vanish(self) -> None:
        """Lose all links, as a process does that is killed."""

    # Calls of an application.

    @property
    def name(self) -> str:
        """The node's name."""
        return self.replica.name

    @property
    def own_entries(self) -> dict[int, Entry]:
        """The entries that this node tracks, by id."""
        return self.simulation.ledger.of(self.replica).tracked

    def track(self, topic: str, key: str, meta: str | dict[str, Any] | None = None) -> Entry:
        """Track a presence; `meta` is a text, as of `Driver.track`, or an object.

        With an object the change is queued for the links at once, with a text at the next tick.
        """
        if isinstance(meta, str):
            return super().track(topic, key, meta)
        entry = self.engine.track(topic, key, encode_object(meta or {}, "meta", MAX_META))
        self._drive()
        return entry

    def update(self, entry: Entry, meta: str | dict[str, Any]) -> Entry:
        """Update a presence, in the same two ways."""
        if isinstance(meta, str):
            return super().update(entry, meta)
        old, text = self.own_entries[entry[ID]], encode_object(meta, "meta", MAX_META)
        new = self.engine.update(old, text)
        self._drive()
        return new

    def untrack(self, entry: Entry) -> None:
        """End a presence, given any of its entries; the change is queued for the links at once."""
        self.engine.untrack(self.own_entries[entry[ID]])
        self._drive()

    def lingers(self, entry: Entry) -> bool:
        """Whether a presence of this node lingers."""
        return entry[ID] in self._recorded.graces.pending

    @property
    def grace_left(self) -> float:
        """Active seconds until no presence of this node lingers any longer."""
        return self._recorded.graces.left(self._recorded.active)

    def present(self, topic: str) -> dict[str, Any]:
        """The presences on a topic, in the form of `Presence.list`."""
        return dict(self.engine.view.render(topic))

    def shown(self) -> Refs:
        """The refs of all shown presences, by topic and key."""
        return {
            name: {key: [ref(entry) for entry in topic.entries(key)] for key in sorted(topic.keys)}
            for name, topic in self.engine.view.topics.items()
        }

    # Lifecycle and faults.

    def begin(self) -> None:
        """Start the node."""
        self.running = True
        self.simulation.trace("{} starts as {}", self.place, self.replica)
        self.engine.seeds_complete()
        self._drive()

    async def open(self) -> None:
        """See `Driver`."""
        self.begin()

    def leave(self, linger: float) -> None:
        """Stop with a goodbye; presences linger for some seconds on the other nodes."""
        self.simulation.trace("{} has sent a goodbye", self.replica)
        self.announce_stop()
        self._end()
        self.engine.leave(linger)
        self._drive()
        self._die(self.simulation.clock.now + linger)
        self._hang_up()
        self.links.clear()

    async def close(self) -> None:
        """See `Driver`."""
        if self.running:
            self.leave(self._linger)

    def abandon(self) -> None:
        """End without a goodbye, as by SIGKILL; the kernel closes the links."""
        self.simulation.trace("{} is killed", self.replica)
        self._die(self.simulation.clock.now)
        self._vanish()
        self.links.clear()
        self._end()

    def _die(self, at: float) -> None:
        self.running = False
        self.simulation.ledger.of(self.replica).died_at = at

    def pause(self) -> None:
        """Suspend, as by SIGSTOP: nothing is read and no timer fires, until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Resume: due timers fire first, then waiting frames and other events are handled."""
        if not self.paused:
            return
        self.paused = False
        self._resumed_at = self._swept_at = self.steady_since = self.simulation.clock.now
        self.tick()
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            if self.running:
                event()

    def set_clock(self, seconds: float) -> None:
        """Let the monotonic clock of its host jump, forwards or back.

        No kernel sets it back. If it is set back, timers stand still until it has caught up;
        incoming frames are handled meanwhile.
        """
        self.clock_offset += seconds
        now = self.simulation.clock.now
        self._stands_until = max(now, max(now, self._stands_until) - seconds)
        self.steady_since = self.simulation.clock.now
        self._set_timers_again()

    def _set_timers_again(self) -> None:
        """Set the timers for a clock that has jumped."""
        self._timer.clear()
        if self.running and not self.paused:
            if self._now() >= self.engine.wake_at:
                self.tick()
            else:
                self._wake_at(self.engine.wake_at)

    # Events of links.

    def _receive(self, link: int, frame: SimulatedFrame) -> None:
        message = frame.message
        self.frames_received += 1
        self.bytes_received += len(frame.data)
        self._call(self.engine.receive, link, message)
        if isinstance(message, Delta) and self.witness is not None:
            self.check(self.witness.applied, message.replica)

    def _call(self, method: Any, *args: Any) -> None:
        method(*args, self._now())
        self._drive()

    def _when_awake(self, event: partial[None]) -> None:
        if self.paused:
            self._backlog.append(event)
        elif self.running:
            event()

    # Run.

    async def publish(self, message: Publish, to: str | None) -> int:
        """See `Driver`; never waits, since virtual time may stand still.

        A member that misses the message later is counted in `missed_messages` only.
        """
        return self.post(message, to).missed

    def post(self, message: Publish, to: str | None, *, over_links: bool = False) -> Sending:
        """See `Driver`; a paused process publishes when it resumes."""
        if self.paused:
            self._backlog.append(partial(self._post_late, message, to))
            return Sending(message, 0.0)
        return super().post(message, to, over_links=over_links)

    def _post_late(self, message: Publish, to: str | None) -> None:
        super().post(message, to)

    def wake(self) -> None:
        """See `Driver`."""
        self._wake_at(self._now())

    def notify_observers(self) -> None:
        """See `Driver`."""
        for topic, transitions in self.engine.take_changes().items():
            if self.witness is not None:
                self.check(self.witness.notify, topic, transitions)
            for observer in list(self._observers):
                observer.changed(topic, transitions)
        if self.witness is not None:
            self.check(self.witness.check_own_graces)
        self._sweep_when_due()

    def check(self, law: Callable[..., None], *arguments: Any) -> None:
        """Check a law; the error of a broken law names the seed, the time and the place."""
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
            self.check(self.witness.sweep, now, self._could_hide_since(), self.simulation.names)

    def _could_hide_since(self) -> float:
        """Virtual time since which this node notices the death of others."""
        return max(self._resumed_at, min(self.simulation.clock.now, self._stands_until))

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        action(*arguments)  # a simulation hides no error

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Notice):
            self.notices.append(effect)
            self.simulation.trace("{}: {}", self.place, effect.text)
            return
        if isinstance(effect, Deliver):
            self.delivered.append(effect)
            if self.witness is not None:
                self.check(self.witness.delivered, effect.sender, effect.message)
        super()._perform(effect)

    def _now(self) -> float:
        return self.simulation.clock.now + self.clock_offset

    def _wake_at(self, at: float) -> None:
        self._timer.set(at)

    def _timer_fired(self) -> None:
        if self.running and not self.paused:
            self.tick()

    def _count_sent(self, links: tuple[int, ...], encoded: SimulatedFrame) -> None:
        self.frames_sent += len(links)
        self.bytes_sent += len(links) * len(encoded.data)

    def _encode(self, message: ProtocolMessage) -> SimulatedFrame:
        return SimulatedFrame(encode(message))


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
