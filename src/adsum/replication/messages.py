"""What replicas say to each other. `codec` turns these into bytes and back.

A message is the statement of its sender about itself, or a relayed statement of the replica that
it names, never an opinion of one replica about another.
"""

from dataclasses import dataclass

from .entry import Change
from .state import Replica


@dataclass(frozen=True, slots=True)
class Sync:
    """Send me this slice from `after` on.

    Attributes:
        replica: Whose slice.
        after: The horizon of the asker.
        follow: Keep the stream open: push changes as they happen.
    """

    replica: Replica
    after: int
    follow: bool


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes of one slice in the version interval ``(after, upto]``, in version order.

    Attributes:
        reset: The stream that this frame belongs to began at zero and replaces the slice; this is
            the owner's version when it began, which tells it from a later one. 0 for any other.
        last: Nothing was left to send when this was cut; until then the frames are staged.
    """

    replica: Replica
    after: int
    upto: int
    changes: tuple[Change, ...]
    reset: int = 0
    last: bool = True


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I am alive: my counter advances. My slice is at `version`.

    Attributes:
        members: The fingerprint of the replicas that are alive here; a peer with another one pulls.
        departed: The fingerprint of the replicas that linger here; 0 while there are none.
    """

    counter: int
    version: int
    members: int = 0
    departed: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The highest counter and version known of one replica.

    Attributes:
        addresses: Where it listens; left out where this link has already carried them.
    """

    replica: Replica
    counter: int
    version: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Farewell:
    """The goodbye of a replica, relayed.

    Attributes:
        replica: The replica that stopped.
        counter: Its last heartbeat counter.
        version: Its last version.
        remaining: Seconds for which its presences are still shown.
        held: The version up to which the sender of this holds its slice.
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
        sightings: Replicas that are fresh at the sender.
        farewells: Replicas that stopped on purpose.
        last: This ends the answer to a request. Not set in a goodbye that is sent unasked.
    """

    sightings: tuple[Sighting, ...] = ()
    farewells: tuple[Farewell, ...] = ()
    last: bool = True


@dataclass(frozen=True, slots=True)
class Pull:
    """Answer with a digest: every replica that lingers with you, and ...

    Attributes:
        replicas: ... these, from which nothing reaches me directly.
        everything: ... every replica that is fresh with you.
    """

    replicas: tuple[Replica, ...] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """I have lost my link to this replica; do you hear it? The indirect probe of SWIM."""

    replica: Replica


@dataclass(frozen=True, slots=True)
class Vouch:
    """I have a live link to this replica, and the highest counter I heard is this."""

    replica: Replica
    counter: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """I stop on purpose. Show my presences for `linger` more seconds, then forget me.

    Attributes:
        counter: My last counter, higher than that of each heartbeat.
        version: My last version.
        linger: Seconds.
    """

    counter: int
    version: int
    linger: float


@dataclass(frozen=True, slots=True)
class Publish:
    """One message for the subscribers of a topic; not part of the state.

    Attributes:
        payload: A JSON object as text.
    """

    topic: str
    event: str
    payload: str


Message = Sync | Delta | Heartbeat | Digest | Ask | Vouch | Goodbye | Publish | Pull
