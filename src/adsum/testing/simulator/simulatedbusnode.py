"""A simulated node on the simulated bus: an engine above a `BusCore`, in virtual time."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, NoReturn

from adsum.bus.buscore import BusCore
from adsum.bus.busevents import (
    Alone,
    Announced,
    Arrived,
    BusChanged,
    BusEvent,
    Closed,
    DialDone,
    Emit,
    Follow,
    Heard,
    HoldChanged,
    Opened,
    RoomChanged,
    Trouble,
    Unfollow,
)
from adsum.bus.topicroom import TopicRoom
from adsum.config import CARRIER_GRACE
from adsum.driver.faileddial import report_failed_dial
from adsum.replication.effects import Deliver, Effect, PublishOnTopic, Sending
from adsum.replication.engine import RESOLUTION
from adsum.replication.entry import KEY, Entry
from adsum.replication.messages import ProtocolMessage, Publish
from adsum.replication.state import Replica
from adsum.transport.contract import NodeIdentity

from .laws import BrokenLawError
from .network import SimulatedFrame
from .nodetimer import NodeTimer
from .simulatedbus import RETURN_DELAY, SimulatedBus, SimulatedSession
from .simulatednode import SimulatedNode
from .topicroutes import ARRIVES, CALM, CALM_AFTER_LOSS, ROUTED_TOPICS, LinkTimes, TopicWants

#: Seconds after which nodes without a link announce themselves again, at most, and find each other
#: after a split that none of them noticed.
FIND_AGAIN = 45.0
#: Seconds after the last cause to hide a living node in which it may still be hidden.
CALM_AFTER = 20.0
#: The address that stands for the other nodes on the bus, until one of them has answered.
CARRIER = "carrier"
SECRET = b"the secret of all simulated nodes"


class SimulatedBusNode(SimulatedNode):
    """A run of a node whose links are virtual ones over the bus."""

    recovery = RETURN_DELAY[1] + FIND_AGAIN

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        simulation, replica = self.simulation, self.replica
        rng = Random(f"life {simulation.seed} {replica}")
        identity = NodeIdentity(self.cluster, replica.name, replica.incarnation, ())
        self.core = BusCore(identity, SECRET, rng.randbytes)
        self.addresses = (self.core.address,)
        self.core.identity = replace(identity, addresses=self.addresses)
        #: The log lines of the core.
        self.troubles: list[Trouble] = []
        self._core_timer = NodeTimer(simulation.clock, self._now, self._core_timer_fired)
        self._session: SimulatedSession | None = None
        #: The replicas at the other ends of its links.
        self.peers: dict[int, Replica] = {}
        self._events: deque[BusEvent] = deque()
        # The links whose silence means nothing.
        self._held: set[int] = set()
        # Virtual time at which the silence of a peer last meant nothing.
        self._held_at = 0.0
        # When the grace of the carrier ends, in the time of its clock, and when it ended last.
        self._gives_up_at = float("inf")
        self._gave_up_at = 0.0
        self._paused_at = 0.0
        if self.witness is not None:
            self.witness.hiding_violation = self._hiding_violation
        # The subjects of topics that it follows, in the order of their subscriptions.
        self._followed: dict[str, None] = {}
        # Whether the bus is there, and has room for messages on topics.
        self._topics_open, self._topics_writable = False, True
        self._topic_room = TopicRoom(
            self._backlog_of_session, self._topic_room_changed, self._call_later
        )
        #: The topics that its observers want.
        self.wants = TopicWants()
        self._link_times = LinkTimes()
        #: The messages on `ROUTED_TOPICS` that were delivered here: their publishers and events.
        self.arrived: set[tuple[Replica, str]] = set()
        self._reached_at = simulation.clock.now
        for observer in self._observers:
            for topic in observer.wanted_topics():
                self.want_topic(topic)
        self.engine.set_topics(False, True, self._now())

    # The medium.

    @property
    def medium(self) -> SimulatedBus:
        """See `SimulatedNode`."""
        return self.simulation.bus

    def know(self, places: Sequence[str]) -> None:
        """See `SimulatedNode`: nodes on the bus find each other."""

    def linked_to(self, peer: SimulatedNode) -> bool:
        """See `SimulatedNode`."""
        if not isinstance(peer, SimulatedBusNode) or self._session is None or peer.session is None:
            return False
        linked = peer.replica in self.peers.values() and self.replica in peer.peers.values()
        return linked and self.medium.connected(self._session, peer.session)

    @property
    def session(self) -> SimulatedSession | None:
        """Its connection to the bus, as far as it knows."""
        return self._session

    @property
    def calm_since(self) -> float:
        """Virtual time of the last event that is a cause to hide this node elsewhere."""
        return max(self.steady_since, self.medium.harmed_at(self.place))

    @property
    def patient_since(self) -> float:
        """Virtual time of the last event that is a cause to hide others here.

        The loss of the bus is none until the grace of the carrier ends.
        """
        return max(self.steady_since, self.medium.all_harmed_at, self._gave_up_at)

    @property
    def subjects(self) -> tuple[str, ...]:
        """See `SimulatedClient`."""
        return (*self.core.subjects, *self._followed)

    # Topics, as of `CarrierDriver`.

    def want_topic(self, topic: str) -> None:
        """See `Driver`."""
        self.wants.want(topic, self.simulation.clock.now)
        self.core.want_topic(topic, self._now())
        self._carry_out()

    def unwant_topic(self, topic: str) -> None:
        """See `Driver`."""
        self.wants.unwant(topic, self.simulation.clock.now)
        self.core.unwant_topic(topic, self._now())
        self._carry_out()

    def _publish_on_topic(self, sending: Sending, encoded: SimulatedFrame) -> None:
        self.frames_sent += 1
        self.bytes_sent += len(encoded.data)
        topic = sending.message.topic
        self.core.publish_topic(topic, encoded.data, sending.apart, self._now())
        self._carry_out()
        self._topic_room.check()

    def _topic_room_changed(self, has_room: bool) -> None:
        self._topics_writable = has_room
        self._note_topics()

    def _note_topics(self) -> None:
        self._call(self.engine.set_topics, self._topics_open, self._topics_writable)

    def _backlog_of_session(self) -> int:
        return self._session.backlog if self._session is not None else 0

    def _call_later(self, delay: float, action: Callable[[], None]) -> None:
        event = partial(self._when_awake, partial(action))
        self.simulation.clock.call_later(delay, event)

    # Lifecycle.

    def begin(self) -> None:
        """See `SimulatedNode`."""
        self.engine.expect_address(CARRIER)
        super().begin()
        self.medium.connect(self)

    def pause(self) -> None:
        """See `SimulatedNode`."""
        if not self.paused:
            self._paused_at = self.simulation.clock.now
        super().pause()

    def set_clock(self, seconds: float) -> None:
        """See `SimulatedNode`; the grace of the carrier is in active time, which does not jump."""
        self._gives_up_at += max(0.0, seconds)
        super().set_clock(seconds)

    def resume(self) -> None:
        """See `SimulatedNode`; the grace of the carrier is in active time, without the pause."""
        if self.paused:
            self._gives_up_at += self.simulation.clock.now - self._paused_at
            self.paused = False
            self._core_timer_fired()
            self.paused = True
        super().resume()

    def _set_timers_again(self) -> None:
        super()._set_timers_again()
        self._core_timer.clear()
        self._carry_out()

    def _hang_up(self) -> None:
        for link in sorted(self.peers):
            self.core.close(link, "the node is stopped", self._now())
        self._emit_rest()
        if self._session is not None:
            self.medium.close(self._session)

    def _vanish(self) -> None:
        if self._session is not None:
            self.medium.abort(self._session)

    def _emit_rest(self) -> None:
        """Publish what the core has to say at the end; the engine takes no more events."""
        for event in self.core.take_events():
            if isinstance(event, Emit):
                self._emit(event)

    # Events of the bus.

    def bus_reached(self, session: SimulatedSession) -> None:
        """See `SimulatedClient`."""
        self._when_awake(partial(self._reached, session))

    def bus_lost(self, session: SimulatedSession) -> None:
        """See `SimulatedClient`."""
        self._when_awake(partial(self._lost, session))

    def message_arrived(self, session: SimulatedSession, data: bytes) -> None:
        """See `SimulatedClient`."""
        self._when_awake(partial(self._read, session, data))

    def emission_refused(self, session: SimulatedSession, probe: object) -> None:
        """See `SimulatedClient`."""
        self._when_awake(partial(self._refused, session, probe))

    def _reached(self, session: SimulatedSession) -> None:
        if not session.open:  # `bus_lost` follows
            return
        self.simulation.trace("{} is on the bus, at server {}", self.place, session.server)
        self._session, self._reached_at = session, self.simulation.clock.now
        self._subscribe_to_the_rest(session)
        self._gives_up_at = float("inf")
        self.core.connected(self._now())
        self._carry_out()

    def _subscribe_to_the_rest(self, session: SimulatedSession) -> None:
        """Let the server know the subscriptions that began or ended while it was connected."""
        for subject in self.subjects:
            if subject not in session.subjects:
                self.medium.subscribe(session, subject)
        for subject in sorted(session.subjects.difference(self.subjects)):
            self.medium.unsubscribe(session, subject)

    def _lost(self, session: SimulatedSession) -> None:
        if self._session is session:
            self.simulation.trace("{} has lost the bus", self.place)
            self._session = None
            self._gives_up_at = self._now() + CARRIER_GRACE
            self._core_timer.set(self._gives_up_at)
            self.core.disconnected(self._now())
            self._carry_out()
        self.medium.reconnect(self)

    def _read(self, session: SimulatedSession, data: bytes) -> None:
        if session.take(data) and session is self._session:
            self.core.received(data, self._now())
            self._carry_out()

    def _refused(self, session: SimulatedSession, probe: object) -> None:
        if session is self._session:
            self.core.refused(probe, self._now())
            self._carry_out()

    def _core_timer_fired(self) -> None:
        if not self.running or self.paused:
            return
        now = self._now()
        if now >= self._gives_up_at - RESOLUTION:
            self.simulation.trace("{} gives its links up", self.place)
            self._gives_up_at = float("inf")
            self._gave_up_at = self.simulation.clock.now
            self.core.give_up(now)
        self.core.tick(now)
        self._carry_out()

    # Events of the core.

    def _carry_out(self) -> None:
        """Carry out the events of the core, in order.

        A call from inside, by a send, carries out the rest first, so a link that is full is not
        written to again.
        """
        self._events.extend(self.core.take_events())
        while self._events:
            self._handle(self._events.popleft())
            self._events.extend(self.core.take_events())
        if self.running:
            self._core_timer.set(min(self.core.wake_at, self._gives_up_at))

    def _handle(self, event: BusEvent) -> None:  # noqa: C901  # a case an event
        match event:
            case Emit():
                self._emit(event)
            case Opened(link, peer, dialled, _):
                replica = Replica(peer.name, peer.incarnation)
                self.peers[link] = replica
                self._link_times.note(replica, 1, self.simulation.clock.now)
                self.links.add(link)
                self.simulation.trace("{} has link {} to {}", self.place, link, replica)
                self.engine.address_done(CARRIER)
                link_up = partial(self.engine.link_up, direct=False)
                self._call(link_up, link, replica, peer.addresses, dialled)
            case Arrived(link, payload):
                frame = SimulatedFrame(payload)
                peer_name = self.peers[link].name
                self.simulation.trace_message(frame.message, peer_name, self.place)
                self._receive(link, frame)
            case Heard(link, payload):
                frame = SimulatedFrame(payload)
                self.simulation.trace_message(frame.message, self.peers[link].name, self.place)
                self._call(self.engine.receive_on_topic, link, frame.message)
            case Follow() | Unfollow():
                self._follow(event)
            case BusChanged(connected):
                self._topics_open = connected
                self._note_topics()
            case RoomChanged(link, writable):
                self._call(self.engine.link_writable, link, writable)
            case Closed(link, reason, gone):
                self.simulation.trace("{}: link {} closed: {}", self.place, link, reason)
                self._link_times.note(self.peers.pop(link), -1, self.simulation.clock.now)
                self.links.discard(link)
                if link in self._held:
                    self._held.discard(link)
                    self._held_at = self.simulation.clock.now
                self._call(partial(self.engine.link_down, gone=gone), link)
            case DialDone(address, error):
                self._dial_done(address, error)
            case Announced(address):
                self._dial_at_once(address)
            case Alone():
                self.engine.address_done(CARRIER)
                self.wake()
            case HoldChanged(links, held):
                self.simulation.trace("{}: links {} held: {}", self.place, links, held)
                self._hold(links, held)
            case Trouble(text):
                self.troubles.append(event)
                self.simulation.trace("{}: {}", self.place, text)

    def _dial_at_once(self, address: str) -> None:
        """Dial a node that has announced itself, as `CarrierDriver` does."""
        self.engine.remove_seed(address)
        self.engine.add_seed(address, lasting=False, direct=False)
        self.wake()

    def _emit(self, event: Emit) -> None:
        if self._session is None:
            raise BrokenLawError(f"{self.simulation.where}: {self.place} emits without a bus")
        self.medium.publish(self._session, event.subject, event.data, event.probe)

    def _follow(self, event: Follow | Unfollow) -> None:
        match event:
            case Follow(subject):
                self._followed[subject] = None
                if self._session is not None:
                    self.medium.subscribe(self._session, subject)
            case Unfollow(subject):
                del self._followed[subject]
                if self._session is not None:
                    self.medium.unsubscribe(self._session, subject)

    def _dial_done(self, address: str, error: Exception | None) -> None:
        if error is None:
            return
        self.simulation.trace("{}: dial of {}: {!r}", self.place, address, error)
        report_failed_dial(self.engine, address, error, self._now())
        self._drive()

    def _hold(self, links: tuple[int, ...], held: bool) -> None:
        """Let the silence of peers mean nothing, or count again."""
        self._held_at = self.simulation.clock.now
        self._held = self._held | {*links} if held else self._held - {*links}
        self._call(self.engine.hold, links, held)

    # Effects of the engine.

    def _send(
        self, links: tuple[int, ...], message: ProtocolMessage, encoded: SimulatedFrame
    ) -> None:
        self._count_sent(links, encoded)
        self.core.send(links, encoded.data, self._now())
        self._carry_out()

    def _close(self, link: int, reason: str) -> None:
        self.simulation.trace("{} closes link {}: {}", self.place, link, reason)
        self.core.close(link, reason, self._now())
        self._carry_out()

    def _dial(self, address: str) -> None:
        self.core.dial(address, self._now())
        self._carry_out()

    # Laws.

    def post_checked(self, message: Publish, *, to_all: bool = False) -> None:
        """Publish a message on a topic, and check later that it has arrived where it has to.

        Args:
            message: A message of `Ledger.new_message` on one of `ROUTED_TOPICS`.
            to_all: Whether every other node has to receive it.
        """
        published_at, sending = self.simulation.clock.now, self.post(message, None)
        check = partial(self._check_arrival, sending, published_at, to_all)
        self.simulation.clock.call_later(ARRIVES, check)

    def _check_arrival(self, sending: Sending, published_at: float, to_all: bool) -> None:
        message = sending.message
        for other in self.simulation.alive:
            if not isinstance(other, SimulatedBusNode) or other is self:
                continue
            calm_since = self._calm_with(other, message.topic)
            if calm_since + CALM > published_at:
                if to_all:
                    self._fail(f"{other.place} is not calm since {calm_since:g}, as it has to be")
            elif (self.replica, message.event) not in other.arrived:
                self._fail(
                    f"message {message.event} on {message.topic!r} misses {other.place}; its "
                    f"publisher counted {sending.missed} misses"
                )

    def _calm_with(self, other: "SimulatedBusNode", topic: str) -> float:
        """Virtual time of the last event that lets a message to another node be lost.

        Infinite while one is lost in any case.
        """
        medium = self.medium
        if not self.linked_to(other) or medium.lossy or self._shares_name() or other._shares_name():
            return float("inf")
        if self.paused or other.paused or not self.running:
            return float("inf")
        return max(
            self._calm_alone,
            other._calm_alone,
            other.wants.since(topic),
            self._link_times.since(other.replica),
            other._link_times.since(self.replica),
        )

    @property
    def _calm_alone(self) -> float:
        """Virtual time of the last change to this node, to its clock or to its connection."""
        harmed_at = self.medium.harmed_at(self.place)
        return max(self._timers_run_since, self._reached_at, harmed_at + CALM_AFTER_LOSS)

    @property
    def _timers_run_since(self) -> float:
        return max(self.steady_since, SimulatedNode._could_hide_since(self))

    def _fail(self, violation: str) -> NoReturn:
        raise BrokenLawError(f"{self.simulation.where}: {self.place}: {violation}")

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, PublishOnTopic):
            self._publish_on_topic(effect.sending, self._encoded_for_topic(effect))
        super()._perform(effect)
        if isinstance(effect, Deliver) and effect.message.topic in ROUTED_TOPICS:
            self._note_arrival(effect.sender, effect.message)

    def _note_arrival(self, sender: str, message: Publish) -> None:
        incarnation = int(message.event.split(".")[0])
        self.arrived.add((Replica(sender, incarnation), message.event))
        now = self.simulation.clock.now
        violation = self.wants.violation(message.topic, now, self._timers_run_since)
        if violation is not None:
            self._fail(violation)

    def _could_hide_since(self) -> float:
        held_at = self.simulation.clock.now if self._held else self._held_at
        return max(super()._could_hide_since(), held_at)

    def _hiding_violation(self, entry: Entry, replica: Replica) -> str | None:
        """The violation if a presence of a living node is hidden without a cause."""
        now, nodes = self.simulation.clock.now, self.simulation.nodes.values()
        owner = next((node for node in nodes if node.running and node.replica == replica), None)
        if not isinstance(owner, SimulatedBusNode) or owner.paused:
            return None
        if self._shares_name() or owner._shares_name():
            return None  # the other members hide one of the two
        calm = now - max(self.patient_since, owner.calm_since)
        if calm <= CALM_AFTER:
            return None
        return f"{entry[KEY]!r} of {replica} leaves, though both nodes were well for {calm:.1f} s"

    def _shares_name(self) -> bool:
        """Whether another life has the name of this one, or had it a moment ago."""
        simulation = self.simulation
        recent = simulation.clock.now - CALM_AFTER
        return any(
            node.name == self.name
            and node is not self
            and simulation.ledger.of(node.replica).died_at > recent
            for node in simulation.nodes.values()
        )
