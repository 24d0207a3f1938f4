"""A victim engine with an honest and a hostile link, to which tests send single messages."""

from random import Random

from adsum.replication.codec import decode, encode
from adsum.replication.effects import Close, Effect, Notice, Send
from adsum.replication.engine import Engine
from adsum.replication.entry import Entry
from adsum.replication.messages import Delta, Digest, Heartbeat, ProtocolMessage, Sighting
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

ME, ANN, EVE = Replica("me", 5), Replica("ann", 5), Replica("eve", 5)
#: Links by whom they lead to.
TO_ANN, TO_EVE = 1, 2


def entry(replica: Replica, version: int, key: str, topic: str = "room", meta: str = "{}") -> Entry:
    return version, version, topic, key, meta, None, *replica


class AttackedEngine:
    """The victim, who knows one honest presence and has one of its own."""

    def __init__(self, *, ann_is_linked: bool = True) -> None:
        self.now = 0.0
        self.effects: list[Effect] = []
        self.engine = Engine(ME, Timing(), Random(1), 0.0)
        self.engine.track("room", "mine", "{}")
        self._ann_counter = 0
        self._ann_is_linked = ann_is_linked
        if ann_is_linked:
            self.engine.link_up(TO_ANN, ANN, ("ann:1",), None, 0.0)
            self.ann_says(Delta(ANN, 0, 1, (entry(ANN, 1, "ann"),)))
        self.link(TO_EVE, EVE)

    def link(self, id: int, replica: Replica) -> None:
        self.engine.link_up(id, replica, (f"{replica.name}:1",), None, self.now)
        self._settle()

    def ann_says(self, message: ProtocolMessage) -> None:
        self._hear(TO_ANN, message)

    def eve_says(self, *messages: ProtocolMessage) -> None:
        for message in messages:
            self._hear(TO_EVE, message)

    def wait(self, seconds: float) -> None:
        """Let time pass; whoever is honest and linked gives a sign of life."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(max(self.engine.wake_at, self.now + 0.001), until)
            self.engine.tick(self.now)
            self._settle()
            if self._ann_is_linked:
                self._ann_counter += 1
                self.engine.receive(TO_ANN, Heartbeat(self._ann_counter, 1), self.now)

    def shown(self) -> dict[str, list[str]]:
        view = self.engine.view
        return {topic: sorted(held.keys) for topic, held in sorted(view.topics.items())}

    def status(self, replica: Replica) -> str:
        """What the victim holds of a replica; "unknown" for a life that it does not know."""
        for member in self.engine.members():
            if (member.name, member.incarnation) == replica:
                return member.status
        return "unknown"

    def sent(self, link: int) -> list[ProtocolMessage]:
        return [e.message for e in self.effects if isinstance(e, Send) and link in e.links]

    def closed(self) -> set[int]:
        return {effect.link for effect in self.effects if isinstance(effect, Close)}

    def notices(self) -> list[str]:
        return [effect.text for effect in self.effects if isinstance(effect, Notice)]

    def _hear(self, link: int, message: ProtocolMessage) -> None:
        try:
            self.engine.receive(link, decode(encode(message)), self.now)
        finally:
            self._settle()

    def _settle(self) -> None:
        self.effects += self.engine.take_effects()


def told_of(
    replica: Replica, *counters: int, version: int = 0, at: str = ""
) -> list[ProtocolMessage]:
    """Digests that tell of one replica, with counters that grow."""
    addresses = (at,) if at else ()
    return [Digest((Sighting(replica, c, version, addresses),)) for c in counters]
