"""What to say where two lives of one name are alive at once: loudly, but not again and again."""

from collections.abc import Collection

from .effects import Outbox, Severity
from .messages import Sighting
from .state import Replica

#: Other lives of this node's own name that are kept in mind.
MAX_RIVALS = 16

_HINT = "give each node a name of its own, or none at all (is ADSUM_NAME set for all of them?)"


class Conflicts:
    """Tells the operator of names that are used twice.

    A newcomer that is refused may just have been faster than the news of its former life's death,
    so nothing is said of it before the life that holds the name has proved alive.
    """

    def __init__(self, me: Replica, outbox: Outbox) -> None:
        self._me = me
        self._outbox = outbox
        # What to say of a newcomer that was refused, by name.
        self._refused: dict[str, str] = {}
        # The highest counter heard of each other life of this node's own name.
        self._rivals: dict[Replica, int] = {}

    def refuse(self, replica: Replica, reason: str, names: Collection[str], now: float) -> None:
        """A newcomer was refused: because of its name, if it is among those in use."""
        if replica.name in names:
            self._refused[replica.name] = f"refused {replica}: {reason}; {_HINT}"
        else:
            self._tell("refusal", f"refused {replica}: {reason}", now)

    def settle(self, name: str) -> None:
        """There is only one life of a name."""
        self._refused.pop(name, None)

    def prove(self, name: str, now: float) -> None:
        """The life that holds a name is alive, so whoever was refused was refused rightly."""
        refused = self._refused.pop(name, None)
        if refused is not None:
            self._tell("name in use", refused, now)

    def meet(self, namesake: Replica, now: float) -> str:
        """A link has opened to a node of this node's own name; returns why it is closed."""
        text = f"the name {self._me.name!r} is in use by more than one live node"
        self._tell("namesake", f"refused {namesake}: {text}; {_HINT}", now)
        return text

    def meet_copy(self, teller: Replica, now: float) -> str:
        """Somebody tells of changes of this very life that it never made; returns what is wrong."""
        text = f"{teller} tells of changes by {self._me} that this node never made"
        copy = "a copy of this process runs elsewhere"
        self._tell("copy", f"{text}: {copy}", now)
        return "you tell of changes that I never made"

    def hear_of_namesake(self, sighting: Sighting, now: float) -> None:
        """A digest tells of another life of this node's own name; the first may be a former one."""
        replica = sighting.replica
        if sighting.counter > self._rivals.setdefault(replica, sighting.counter):
            text = f"{replica} is alive elsewhere, with the name of this node, {self._me}"
            self._tell("namesake", f"{text}; {_HINT}", now)
        while len(self._rivals) > MAX_RIVALS:
            del self._rivals[next(iter(self._rivals))]

    def _tell(self, kind: str, text: str, now: float) -> None:
        self._outbox.notice_once(Severity.ERROR, kind, text, now)
