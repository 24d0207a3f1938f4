"""A simulated node: one run of a node, with its engine, on a simulated network."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol

from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.replication.codec import encode
from adsum.replication.effects import Deliver, Effect, Notice, Sending
from adsum.replication.engine import RESOLUTION
from adsum.replication.entry import ID, Entry, ref
from adsum.replication.messages import Delta, ProtocolMessage, Publish
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.values.jsontext import encode_object
from adsum.values.limits import MAX_META

from .laws import BrokenLawError, Ledger, RecordedEngine, Witness
from .network import DIAL_TIMEOUT, Endpoint, Network, SimulatedFrame, VirtualClock

#: Refs by topic and key.
Refs = dict[str, dict[str, list[str]]]


class World(Protocol):
    """The environment of a simulated node, implemented by `Simulation`."""

    seed: int
    timing: Timing
    clock: VirtualClock
    network: Network
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
    """A run of a node in a simulation: made by `Simulation.start`, ended by `kill` or `stop`."""

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
        self._waking_at = float("inf")
        rng = Random(f"engine {simulation.seed} {replica}")
        self._recorded = engine = self._make_engine(replica, timing, rng, simulation.clock.now)
        super().__init__("simulated", engine, observers, running_loop())
        self.addresses = (place,)
        #: Checks the laws at each step.
        self.witness = Witness(engine, simulation.ledger, timing) if simulation.checked else None

    def _make_engine(
        self, replica: Replica, timing: Timing, rng: Random, now: float
    ) -> RecordedEngine:
        engine = RecordedEngine(replica, timing, rng, now)
        engine.ledger = self.simulation.ledger
        engine.topic_begins = self.simulation.observe_everywhere
        return engine

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
        for link in sorted(self.links):
            self.simulation.network.close(link, self)
        self.links.clear()

    async def close(self) -> None:
        """See `Driver`."""
        if self.running:
            self.leave(self._linger)

    def abandon(self) -> None:
        """End without a goodbye, as by SIGKILL; the kernel closes the links."""
        self.simulation.trace("{} is killed", self.replica)
        self._die(self.simulation.clock.now)
        for link in sorted(self.links):
            self.simulation.network.sever(link)
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
        self._waking_at = float("inf")  # the old timer was set for the old clock
        if self.running and not self.paused:
            if self._now() >= self.engine.wake_at:
                self.tick()
            else:
                self._wake_at(self.engine.wake_at)

    # Endpoint.

    def frame_arrived(self, link: int, frame: SimulatedFrame) -> None:
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

    def post(self, message: Publish, to: str | None) -> Sending:
        """See `Driver`; a paused process publishes when it resumes."""
        if self.paused:
            self._backlog.append(partial(self._post_late, message, to))
            return Sending(message, 0.0)
        return super().post(message, to)

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
            ran_since = max(self._resumed_at, min(now, self._stands_until))
            self.check(self.witness.sweep, now, ran_since, self.simulation.names)

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
        if at < self._waking_at:
            self._waking_at = at
            self.simulation.clock.call_at(at - self.clock_offset, partial(self._wake, at))

    def _wake(self, at: float) -> None:
        if at != self._waking_at:
            return
        self._waking_at = float("inf")
        if self._now() < at - RESOLUTION:
            self._wake_at(at)  # the clock was set back meanwhile
        elif self.running and not self.paused:
            self.tick()

    def _encode(self, message: ProtocolMessage) -> SimulatedFrame:
        return SimulatedFrame(encode(message))

    def _send(
        self, links: tuple[int, ...], message: ProtocolMessage, encoded: SimulatedFrame
    ) -> None:
        self.frames_sent += len(links)
        self.bytes_sent += len(links) * len(encoded.data)
        for link in links:
            peer = self.simulation.network.send(link, self, encoded)
            if peer is not None:
                self.simulation.trace_message(message, self.place, peer)

    def _close(self, link: int, reason: str) -> None:
        self.links.discard(link)
        self.simulation.trace("{} closes link {}: {}", self.place, link, reason)
        self.simulation.network.close(link, self)

    def _dial(self, address: str) -> None:
        delay = self.simulation.network.delay(self.place, address)
        self.simulation.clock.call_later(delay, partial(self._answer, address))

    def _answer(self, address: str) -> None:
        """Answer a dial at the far end: refused without a process, no answer, or a link."""
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
    """The event loop that runs in this thread; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
