"""A simulated bus in virtual time: a message engine with subjects, such as NATS or Redis.

Clients connect to one of its servers, and subscribe to subjects at any time. A message reaches
every subscriber that is connected at the moment at which the server routes it. It is lost with the
connection of its publisher or of its receiver, and is never sent again.

* Messages from one publisher to one receiver stay in order; those of several publishers do not. The
  server handles subscriptions and messages of one client in their order, too.
* A message with a probe is refused if its server knows no other subscriber of the subject.
* A server restarts, dies or is away for some time. Its clients notice, and return, each after its
  own delay.
* A paused process does not read. Its messages wait at the server up to a bound; beyond it, the
  server disconnects the client and drops them.
* The servers of a cluster may be cut from each other. Nobody is disconnected then, and messages
  reach, and refusals count, the clients of the own server only.
* A stranger with access records messages and publishes them again. Those on topics are not
  recorded, as one may be delivered that its receiver has not received.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Protocol

from adsum.bus.busmessages import Bulletin, claims

from .network import VirtualClock

#: Seconds after which a client returns to a bus that it lost, or tries again, least and most.
RETURN_DELAY = (0.02, 3.0)
#: Messages that a stranger has recorded, at most: the newest ones.
RECORDED_MOST = 2000
#: Bytes that wait for a client that does not read, at most.
PENDING_MOST = 16 * 1024 * 1024
#: Seconds of an absence of all servers up to which no node may be hidden because of it.
SHORT_ABSENCE = 20.0


class SimulatedClient(Protocol):
    """The end of a connection to the bus: one life of a node."""

    place: str
    #: Whether its process has not ended.
    running: bool
    #: Whether its process does not run at present.
    paused: bool

    @property
    def subjects(self) -> Iterable[str]:
        """The subjects to subscribe to with the next connection."""

    def bus_reached(self, session: "SimulatedSession") -> None:
        """The bus has accepted this client, and all of its subscriptions."""

    def bus_lost(self, session: "SimulatedSession") -> None:
        """The connection has ended."""

    def message_arrived(self, session: "SimulatedSession", data: bytes) -> None:
        """A message has arrived; call `SimulatedSession.take` when it is read."""

    def emission_refused(self, session: "SimulatedSession", probe: object) -> None:
        """Nobody else subscribes to the subject of the emission with this probe."""


@dataclass(slots=True, eq=False)
class SimulatedSession:
    """One connection of a client to a server.

    Attributes:
        open: Whether neither end has closed it.
        subjects: Its subscriptions, as the server knows them.
        waiting: Bytes of the messages that its client has not read.
        windowed: The part of them that the windows of links bound: all but messages on topics.
        backlog: Bytes that its client has published and the server has not received.
    """

    client: SimulatedClient
    server: int
    open: bool = True
    subjects: set[str] = field(default_factory=set)
    waiting: int = 0
    windowed: int = 0
    backlog: int = 0
    #: Virtual time at which everything that was published so far is at the server.
    routed_at: float = 0.0
    #: Virtual time at which everything routed so far has arrived, by receiver.
    arrived_at: "dict[SimulatedSession, float]" = field(default_factory=dict)

    def put(self, data: bytes) -> None:
        """Let a message wait for the client."""
        self.waiting += len(data)
        self.windowed += 0 if claims(data, Bulletin) else len(data)

    def take(self, data: bytes) -> bool:
        """Read a message; returns whether it was not dropped meanwhile."""
        self.waiting -= len(data)
        self.windowed -= 0 if claims(data, Bulletin) else len(data)
        return self.open


class SimulatedBus:
    """The servers of one bus and their clients.

    Args:
        clock: Virtual time.
        rng: Generates latencies, losses and choices of servers.
        latency: The least and the most seconds that a message is under way, from its publisher to
            the server and from there to a receiver.

    Attributes:
        loss: The fraction of messages, from 0 to 1, that is lost on the way to a receiver. No
            engine does this on a connection that stays open; a full buffer of a server does.
        duplication: The fraction of messages that arrive twice, the second time out of order.
        echo: Whether a publisher receives its own messages, as with Redis.
        changed_at: See `Medium`.
        messages: Messages that were published, for measurements.
        bytes: Their size.
        most_waiting: The most bytes that ever waited for one client, without messages on topics.
    """

    def __init__(self, clock: VirtualClock, rng: Random, latency: tuple[float, float]) -> None:
        self._clock = clock
        self._rng = rng
        self._latency = latency
        self._up = [True]
        self._cut = False
        #: The sessions by subject, in the order of subscription.
        self._subscribers: dict[str, dict[SimulatedSession, None]] = {}
        self._sessions: dict[SimulatedSession, None] = {}
        # Places whose connection ends with the first message that they do not read at once.
        self._choked: set[str] = set()
        self._away_since = float("inf")
        # Virtual time at which the last absence began, and at which it ended.
        self._went_at = self._came_back_at = float("-inf")
        self._harmed_at = 0.0
        self._harmed: dict[str, float] = {}
        self.loss = 0.0
        self.duplication = 0.0
        self.echo = False
        # The subjects and messages that a stranger has recorded; None if there is no stranger.
        self._recorded: deque[tuple[str, bytes]] | None = None
        self.changed_at = 0.0
        self.messages = self.bytes = 0
        self.most_waiting = 0

    @property
    def lossy(self) -> bool:
        """See `Medium`."""
        return self.loss > 0.0

    @property
    def servers(self) -> int:
        """The number of its servers, those that do not run included."""
        return len(self._up)

    # Clients.

    def connect(self, client: SimulatedClient) -> None:
        """Connect a client; it is tried again until a server accepts it or its process ends."""
        self._clock.call_later(self._delay(), partial(self._accept, client))

    def reconnect(self, client: SimulatedClient) -> None:
        """Connect a client that has lost the bus, after a delay of its own."""
        delay = self._rng.uniform(*RETURN_DELAY)
        self._clock.call_later(delay, partial(self.connect, client))

    def subscribe(self, session: SimulatedSession, subject: str) -> None:
        """Subscribe to one more subject."""
        self._send(session, partial(self._subscribe, session, subject))

    def unsubscribe(self, session: SimulatedSession, subject: str) -> None:
        """End a subscription."""
        self._send(session, partial(self._unsubscribe, session, subject))

    def publish(
        self, session: SimulatedSession, subject: str, data: bytes, probe: object | None
    ) -> None:
        """Publish a message; it is lost if the session has ended, or ends on its way."""
        self.messages += 1
        self.bytes += len(data)
        session.backlog += len(data)
        if self._recorded is not None and not claims(data, Bulletin):
            self._recorded.append((subject, data))
        self._send(session, partial(self._route, session, subject, data, probe))

    def close(self, session: SimulatedSession) -> None:
        """End the connection of a client after all that it has published."""
        self._clock.call_at(session.routed_at, partial(self._forget, session))

    def abort(self, session: SimulatedSession) -> None:
        """End the connection of a killed process; some of its messages under way are lost."""
        self._clock.call_later(self._delay(), partial(self._forget, session))

    def connected(self, first: SimulatedSession, second: SimulatedSession) -> bool:
        """Whether messages get through between two sessions."""
        return first.open and second.open and self._passes(first, second)

    # Faults.

    def add_server(self) -> None:
        """Add a server to the cluster; clients that connect from now on may choose it."""
        self._up.append(True)

    def restart(self) -> None:
        """Restart all servers: all clients lose their connections, and return by themselves."""
        for server in range(self.servers):
            self._end_all(server)

    def go_away(self) -> None:
        """Stop all servers."""
        if any(self._up):
            self._begin_absence()
        for server in range(self.servers):
            self._up[server] = False
            self._end_all(server)

    def come_back(self) -> None:
        """Start all servers that do not run; messages pass between all of them."""
        self._note_harm()
        self._up = [True] * self.servers
        self._cut = False
        if self._away_since < float("inf"):
            self._went_at, self._came_back_at = self._away_since, self._clock.now
        self._away_since = float("inf")
        self.changed_at = self._clock.now

    def kill(self, server: int) -> None:
        """End one server; its clients return, to another one if there is one."""
        if self.servers == 1:
            self.go_away()
        elif server < self.servers:
            self._up[server] = False
            self._end_all(server)
            if not any(self._up):
                self._begin_absence()
            self._harmed_at = self._clock.now

    def _begin_absence(self) -> None:
        """Begin an absence, or go on with the last one if clients have not returned since."""
        returning = self._clock.now - self._came_back_at <= 2 * RETURN_DELAY[1]
        self._away_since = self._went_at if returning else self._clock.now

    def cut(self) -> None:
        """Let no message pass between servers, without a sign to any client."""
        if self.servers > 1 and not self._cut:
            self._cut = True
            self.changed_at = self._clock.now

    def mend(self) -> None:
        """Let messages pass between servers again."""
        self._note_harm()
        self._cut = False
        self.changed_at = self._clock.now

    def choke(self, place: str) -> None:
        """Let the client at a place be disconnected by the first message that has to wait."""
        self._choked.add(place)

    def lose(self, place: str) -> None:
        """End the connection of the client at a place, as by a broken router."""
        for session in [each for each in self._sessions if each.client.place == place]:
            self._end(session)
            self._harmed[place] = self._clock.now

    def set_loss(self, loss: float) -> None:
        """Lose a fraction of the messages from now on."""
        self._note_harm()
        self.loss = loss
        self.changed_at = self._clock.now

    def record(self) -> None:
        """Let a stranger record all messages from now on."""
        self._recorded = deque(maxlen=RECORDED_MOST)

    def repeat(self, count: int) -> None:
        """Let the stranger publish some of the recorded messages again, in any order."""
        recorded = list(self._recorded or ())
        for subject, data in self._rng.sample(recorded, min(count, len(recorded))):
            for receiver in self._subscribers.get(subject, ()):
                self._clock.call_later(self._delay(), partial(self._arrive, receiver, data))

    def heal(self) -> None:
        """End all faults of the bus."""
        self.come_back()
        self._choked.clear()
        self.set_loss(0.0)
        self.duplication = 0.0

    def harmed_at(self, place: str) -> float:
        """Virtual time at which a fault last ended that may hide the node at a place.

        Neither a restart of the bus nor a short absence may hide a node. All the rest may: lost
        messages, a cut, the death of one server of several, the loss of the connection of this
        node alone, a long absence.
        """
        return max(self.all_harmed_at, self._harmed.get(place, 0.0))

    @property
    def all_harmed_at(self) -> float:
        """Virtual time at which a fault last ended that may hide any node.

        The loss of the connection of one node is none: it holds all others while it is away, and
        for some time after its return.
        """
        self._note_harm()
        return self._harmed_at

    def _note_harm(self) -> None:
        now = self._clock.now
        absent = now - self._away_since > SHORT_ABSENCE
        if self._cut or self.loss or absent or (any(self._up) and not all(self._up)):
            self._harmed_at = now

    # Sessions.

    def _accept(self, client: SimulatedClient) -> None:
        servers = [server for server, up in enumerate(self._up) if up]
        if not client.running:
            return
        if not servers or client.paused:
            self.reconnect(client)
            return
        session = SimulatedSession(client, self._rng.choice(servers))
        self._sessions[session] = None
        for subject in client.subjects:
            self._subscribe(session, subject)
        self.changed_at = self._clock.now
        self._notify(session, partial(client.bus_reached, session))

    def _end_all(self, server: int) -> None:
        for session in [each for each in self._sessions if each.server == server]:
            self._end(session)

    def _end(self, session: SimulatedSession) -> None:
        """End a session from the side of the server; the client learns of it."""
        self._forget(session)
        self._clock.call_later(self._delay(), partial(session.client.bus_lost, session))

    def _forget(self, session: SimulatedSession) -> None:
        if not session.open:
            return
        for subject in sorted(session.subjects):
            self._unsubscribe(session, subject)
        session.open = False
        del self._sessions[session]
        for other in self._sessions:
            other.arrived_at.pop(session, None)
        self.changed_at = self._clock.now

    def _subscribe(self, session: SimulatedSession, subject: str) -> None:
        if session.open:
            session.subjects.add(subject)
            self._subscribers.setdefault(subject, {})[session] = None

    def _unsubscribe(self, session: SimulatedSession, subject: str) -> None:
        if session.open and subject in session.subjects:
            session.subjects.remove(subject)
            del self._subscribers[subject][session]
            if not self._subscribers[subject]:
                del self._subscribers[subject]

    # Messages.

    def _send(self, session: SimulatedSession, action: Callable[[], None]) -> None:
        """Let a server handle something after all that the session has sent before."""
        session.routed_at = max(session.routed_at, self._clock.now + self._delay())
        self._clock.call_at(session.routed_at, action)

    def _route(
        self, session: SimulatedSession, subject: str, data: bytes, probe: object | None
    ) -> None:
        session.backlog -= len(data)
        if not session.open:
            return
        others = 0
        for receiver in self._subscribers.get(subject, ()):
            if receiver is session:
                if self.echo:
                    self._forward(session, receiver, data)
            elif self._passes(session, receiver):
                others += 1
                self._forward(session, receiver, data)
        if probe is not None and not others:
            self._notify(session, partial(session.client.emission_refused, session, probe))

    def _forward(self, session: SimulatedSession, receiver: SimulatedSession, data: bytes) -> None:
        if self.loss and self._rng.random() < self.loss:
            return
        at = max(session.arrived_at.get(receiver, 0.0), self._clock.now + self._delay())
        session.arrived_at[receiver] = at
        self._clock.call_at(at, partial(self._arrive, receiver, data))
        if self.duplication and self._rng.random() < self.duplication:
            again = at + self._delay() * self._rng.choice((1, 100))
            self._clock.call_at(again, partial(self._arrive, receiver, data))

    def _arrive(self, receiver: SimulatedSession, data: bytes) -> None:
        if not receiver.open:
            return
        client = receiver.client
        receiver.put(data)
        self.most_waiting = max(self.most_waiting, receiver.windowed)
        if client.paused and (receiver.waiting > PENDING_MOST or client.place in self._choked):
            self._harmed[client.place] = self._clock.now
            self._choked.discard(client.place)
            self._end(receiver)
        else:
            client.message_arrived(receiver, data)

    def _notify(self, session: SimulatedSession, event: Callable[[], None]) -> None:
        """Bring an answer of the server to a client, if the connection lasts so long."""
        self._clock.call_later(self._delay(), partial(_if_open, session, event))

    def _passes(self, first: SimulatedSession, second: SimulatedSession) -> bool:
        return not self._cut or first.server == second.server

    def _delay(self) -> float:
        return self._rng.uniform(*self._latency)


def _if_open(session: SimulatedSession, event: Callable[[], None]) -> None:
    if session.open:
        event()
