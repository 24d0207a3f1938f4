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
    """I am alive: my counter advances. My slice is at `version`."""

    counter: int
    version: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """The highest counter and version heard of one replica.

    Attributes:
        addresses: Where it listens; left out where the same link was told before.
    """

    replica: Replica
    counter: int
    version: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Digest:
    """Every replica that is fresh here, but for the two ends of the link, which know better.

    Attributes:
        pull: Answer with a digest: I have no link to somebody whom I hear of.
    """

    sightings: tuple[Sighting, ...]
    pull: bool = False


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
class Leave:
    """I stop on purpose: forget me, after showing my presences for `linger` more seconds."""

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


Message = Sync | Delta | Heartbeat | Digest | Ask | Vouch | Leave | Publish
