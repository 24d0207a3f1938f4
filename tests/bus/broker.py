"""A bus in the hands of a test: cores publish on it, and the test decides what arrives."""

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from random import Random

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
    Unfollow,
)
from adsum.transport.contract import NodeIdentity

SECRET = b"a secret of a cluster"


class Peer:
    """One node: a core, and everything that it reported."""

    def __init__(self, broker: "Broker", name: str, secret: bytes, site: bytes) -> None:
        self.broker = broker
        self.name = name
        self.core = BusCore(NodeIdentity("test", name, 1, ()), secret, broker.random_bytes, site)
        self.subscribed = False
        self.subjects = list(self.core.subjects)
        self.heard: list[tuple[int, bytes]] = []
        self.changes: list[bool] = []
        self.opened: dict[int, Opened] = {}
        self.frames: dict[int, list[bytes]] = defaultdict(list)
        self.writable: dict[int, bool] = {}
        self.closed: dict[int, str] = {}
        self.gone: set[int] = set()
        self.dials: dict[str, Exception | None] = {}
        self.announced: list[Announced] = []
        self.alone = 0
        self.held: set[int] = set()
        self.dials_who_announce = True

    def link_to(self, name: str) -> int:
        """The number of the newest open link to a node."""
        return [n for n, one in self.opened.items() if one.peer.name == name and self.is_open(n)][
            -1
        ]

    def is_open(self, link: int) -> bool:
        return link in self.opened and link not in self.closed

    @property
    def links(self) -> list[int]:
        return [link for link in self.opened if self.is_open(link)]

    def drain(self) -> None:
        """Carry out the events of the core."""
        for event in self.core.take_events():
            if isinstance(event, Emit):
                self.broker.publish(self, event)
            else:
                self._note(event)
                self._note_link(event)

    def _note_link(self, event: BusEvent) -> None:
        match event:
            case Opened():
                self.opened[event.link] = event
            case Arrived():
                self.frames[event.link].append(event.payload)
            case Heard():
                assert self.is_open(event.link)
                self.heard.append((event.link, event.payload))
            case RoomChanged():
                self.writable[event.link] = event.writable
            case Closed():
                assert event.link in self.opened
                assert event.link not in self.closed
                self.closed[event.link] = event.reason
                if event.gone:
                    self.gone.add(event.link)
                self.held.discard(event.link)

    def _note(self, event: BusEvent) -> None:
        match event:
            case DialDone():
                self.dials[event.address] = event.error
            case Announced():
                self.announced.append(event)
                if self.dials_who_announce:
                    self.core.dial(event.address, self.broker.now)
                    self.drain()
            case Alone():
                self.alone += 1
            case Follow():
                assert event.subject not in self.subjects
                self.subjects.append(event.subject)
            case Unfollow():
                self.subjects.remove(event.subject)
            case BusChanged():
                self.changes.append(event.connected)
            case HoldChanged():
                (self.held.update if event.held else self.held.difference_update)(event.links)


class Broker:
    """The bus and its time. Messages wait in order until `run` delivers them.

    Attributes:
        loses: Whether to lose a message, by publisher and receiver.
        repeats: The probability that a message arrives twice.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.peers: list[Peer] = []
        self.emitted: list[tuple[str, Emit]] = []
        self.loses: Callable[[str, str], bool] = lambda sender, receiver: False
        self.repeats = 0.0
        self.waiting: deque[Callable[[], None]] = deque()

    def random_bytes(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def join(self, name: str, *, secret: bytes = SECRET, site: bytes = b"") -> Peer:
        """A node that has reached the bus."""
        peer = Peer(self, name, secret, site)
        self.peers.append(peer)
        self.come(peer)
        return peer

    def come(self, peer: Peer) -> None:
        peer.subscribed = True
        peer.core.connected(self.now)
        peer.drain()

    def go(self, peer: Peer) -> None:
        """The connection of a node breaks."""
        peer.subscribed = False
        peer.core.disconnected(self.now)
        peer.drain()

    def kill(self, peer: Peer) -> None:
        """The process of a node ends."""
        peer.subscribed = False
        self.peers.remove(peer)

    def restart(self) -> None:
        """The engine restarts: messages under way are lost, and all connections."""
        self.waiting.clear()
        for peer in self.peers:
            if peer.subscribed:
                self.go(peer)

    def publish(self, sender: Peer, emit: Emit) -> None:
        if not sender.subscribed:
            return
        self.emitted.append((sender.name, emit))
        receivers = [
            peer
            for peer in self.peers
            if peer is not sender and peer.subscribed and emit.subject in peer.subjects
        ]
        if emit.probe is not None and not receivers:
            self.waiting.append(lambda: self._refuse(sender, emit.probe))
        for receiver in receivers:
            times = 0 if self.loses(sender.name, receiver.name) else 1
            times += self.random.random() < self.repeats
            for _ in range(times):
                self.waiting.append(partial(self._deliver, receiver, emit.data))

    def _deliver(self, receiver: Peer, data: bytes) -> None:
        if receiver.subscribed and receiver in self.peers:
            receiver.core.received(data, self.now)
            receiver.drain()

    def _refuse(self, sender: Peer, probe: object) -> None:
        if sender.subscribed and sender in self.peers:
            sender.core.refused(probe, self.now)
            sender.drain()

    def run(self, seconds: float = 0.0) -> None:
        """Deliver everything, and let time pass with all its timers."""
        end = self.now + seconds
        self._deliver_all()
        while (at := min((peer.core.wake_at for peer in self.peers), default=end)) <= end:
            self.now = max(self.now, at)
            for peer in list(self.peers):
                if peer.core.wake_at <= self.now:
                    peer.core.tick(self.now)
                    peer.drain()
            self._deliver_all()
        self.now = end

    def _deliver_all(self) -> None:
        while self.waiting:
            self.waiting.popleft()()
