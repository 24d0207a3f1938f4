"""The messages of the replication protocol. `codec` encodes and decodes them.

A message is the statement of its sender about itself, or a relayed statement of the replica that
it names, never an opinion of one replica about another.
"""

from dataclasses import dataclass

from .entry import Change
from .state import Replica


@dataclass(frozen=True, slots=True)
class Sync:
    """A request for a slice: send the changes after a version.

    Attributes:
        replica: The owner of the slice.
        after: The horizon of the sender; it lacks the changes after it.
        follow: Keep the feed open: push later changes as they happen.
    """

    replica: Replica
    after: int
    follow: bool


@dataclass(slots=True)
class Delta:
    """The changes of one slice in the version interval ``(after, upto]``, in version order.

    Do not alter one: it is not frozen only because a frozen instance takes twice as long to make.

    Attributes:
        replica: The owner of the slice.
        after: The version after which the interval begins.
        upto: The last version of the interval.
        changes: The current entries and the removals of the interval.
        reset: The horizon of the sender when a reset began; 0 for any other delta. A reset starts
            at zero and replaces the slice. The number distinguishes it from a later reset.
        last: No change was left to send when this was cut. The receiver stages frames until then.
    """

    replica: Replica
    after: int
    upto: int
    changes: tuple[Change, ...]
    reset: int = 0
    last: bool = True


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of the sender: its advancing counter and the version of its slice.

    Attributes:
        counter: The heartbeat counter of the sender; it grows by one in each heartbeat interval.
        version: The horizon of the sender's own slice.
        members: The fingerprint of the replicas that are alive at the sender; a peer with another
            fingerprint pulls a digest.
        departed: The fingerprint of the replicas that linger at the sender; 0 if there are none.
    """

    counter: int
    version: int
    members: int = 0
    departed: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A relayed statement about one replica: the highest counter known, and the version held.

    Attributes:
        replica: The replica.
        counter: Its highest heartbeat counter known to the sender.
        version: The version up to which the sender holds its slice.
        addresses: The addresses at which it listens; empty if they were already sent over this
            link.
    """

    replica: Replica
    counter: int
    version: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Farewell:
    """The relayed goodbye of a replica.

    Attributes:
        replica: The replica that stopped.
        counter: Its last heartbeat counter.
        version: Its last version.
        remaining: Seconds for which its presences are still shown.
        held: The version up to which the sender holds its slice.
    """

    replica: Replica
    counter: int
    version: int
    remaining: float
    held: int


@dataclass(frozen=True, slots=True)
class Digest:
    """Relayed statements about third replicas: counters and versions, and goodbyes.

    Attributes:
        sightings: Replicas that are up at the sender.
        farewells: Replicas that stopped on purpose.
        last: This ends the answer to a request. False for a goodbye that is pushed without one.
    """

    sightings: tuple[Sighting, ...] = ()
    farewells: tuple[Farewell, ...] = ()
    last: bool = True


@dataclass(frozen=True, slots=True)
class Pull:
    """A request for a digest of every replica that lingers at the receiver, and of others.

    Attributes:
        replicas: Replicas to answer about, whether up, lingering or gone: the sender has no live
            link to them, or they linger there.
        everything: Answer with every replica that is up at the receiver, too.
    """

    replicas: tuple[Replica, ...] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """The indirect probe of SWIM: the sender lost its link to a replica and asks for a `Vouch`."""

    replica: Replica


@dataclass(frozen=True, slots=True)
class Vouch:
    """The answer to `Ask`: the sender has a live link to a replica; with its highest counter."""

    replica: Replica
    counter: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last message of a replica that stops on purpose: show it for a while, then forget it.

    Attributes:
        counter: Its last counter, higher than that of each heartbeat.
        version: Its last version.
        linger: Seconds for which its presences are still shown.
    """

    counter: int
    version: int
    linger: float


@dataclass(frozen=True, slots=True)
class Publish:
    """A published message for the subscribers of a topic; not part of the state.

    Attributes:
        topic: The topic.
        event: The name of the event.
        payload: A JSON object as text, or bytes. Bytes are sent as `Piece` messages.
    """

    topic: str
    event: str
    payload: str | bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a published message of bytes. Its pieces are sent in order, over one link.

    Attributes:
        number: The number of the message; the sender numbers its messages of bytes upwards.
        topic: The topic of the message.
        event: The name of the event.
        size: The bytes of the whole message.
        offset: The position of this piece in it: a multiple of `PIECE`.
        data: The bytes of this piece: `PIECE` bytes, or the rest. Empty only if the message is.
    """

    number: int
    topic: str
    event: str
    size: int
    offset: int
    data: bytes | memoryview

    @property
    def last(self) -> bool:
        """Whether the message ends with this piece."""
        return self.offset + len(self.data) == self.size


ProtocolMessage = Sync | Delta | Heartbeat | Digest | Ask | Vouch | Goodbye | Publish | Pull | Piece
