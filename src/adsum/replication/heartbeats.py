"""This node's statements about itself: heartbeats, whose counter only this node makes grow."""

from dataclasses import dataclass

from .departures import Departures
from .effects import EffectQueue
from .links import Links, PeerLink
from .liveness import Liveness
from .messages import Heartbeat
from .ownslice import OwnSlice


@dataclass(slots=True, eq=False)
class Heartbeats:
    """Sends heartbeats; all members are those of one engine.

    Attributes:
        counter: The heartbeat counter of this node.
    """

    own: OwnSlice
    liveness: Liveness
    departures: Departures
    links: Links
    effects: EffectQueue
    counter: int = 0

    def advance(self) -> int:
        """Advance the counter, for the next statement to all peers; returns it."""
        self.counter += 1
        return self.counter

    def beat(self) -> None:
        """Send the next heartbeat over every link."""
        self.advance()
        self.effects.send(self.links, self._heartbeat())

    def greet(self, link: PeerLink) -> None:
        """Send the first frame of a link: this node's version and fingerprints."""
        self.effects.send([link], self._heartbeat())

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self.counter,
            self.own.slice.horizon,
            self.liveness.fingerprint,
            self.departures.fingerprint,
        )
