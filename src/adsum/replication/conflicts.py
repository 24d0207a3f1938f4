"""Name conflicts: rate-limited error notices when two live nodes use one name."""

from collections.abc import Collection, Iterator

from .effects import EffectQueue, Severity
from .messages import Sighting
from .sizes import Size
from .state import Replica

#: Other incarnations of this node's own name that are remembered.
MAX_RIVALS = 16

_HINT = "give each node a name of its own, or none at all (is ADSUM_NAME set for all of them?)"


class Conflicts:
    """Logs names that two live nodes use.

    A refused newcomer may be a restart that outran the news of its own death, so nothing is logged
    until the node that holds the name proves alive.
    """

    def __init__(self, me: Replica, effects: EffectQueue) -> None:
        self._me = me
        self._effects = effects
        # The text to log about a refused newcomer, by name.
        self._refused: dict[str, str] = {}
        # The first counter seen of each other incarnation of this node's own name; a higher one
        # proves it alive.
        self._rivals: dict[Replica, int] = {}

    def refuse(self, replica: Replica, reason: str, names: Collection[str], now: float) -> None:
        """Record that a newcomer was refused.

        If its name is among `names`, the names in use, the notice waits for `prove`. Otherwise the
        refusal has another reason and is logged at once.
        """
        if replica.name in names:
            self._refused[replica.name] = f"{replica} was refused: {reason}; {_HINT}"
        else:
            self._notice("refusal", f"{replica} was refused: {reason}", now)

    def resolve(self, name: str) -> None:
        """Drop the pending notice of a name: only one incarnation of it is left."""
        self._refused.pop(name, None)

    def prove(self, name: str, now: float) -> None:
        """Log a pending refusal: the holder of the name is alive, so the refusal was right."""
        refused = self._refused.pop(name, None)
        if refused is not None:
            self._notice("name in use", refused, now)

    def log_namesake(self, namesake: Replica, now: float) -> str:
        """Log a link to a node of this node's own name; returns the reason for closing it."""
        text = f"the name {self._me.name!r} is in use by more than one live node"
        self._notice("namesake", f"{namesake} was refused: {text}; {_HINT}", now)
        return text

    def log_copy(self, sender: Replica, now: float) -> str:
        """Log a peer that knows changes of this incarnation that this process never made.

        Returns:
            The reason for closing the link to it.
        """
        text = f"{sender} relays changes of {self._me} that this node never made"
        copy = "a copy of this process runs elsewhere"
        self._notice("copy", f"{text}: {copy}", now)
        return "received changes of this node that it never made"

    def note_namesake(self, sighting: Sighting, now: float) -> None:
        """Log another incarnation of this node's own name once its counter advances in digests.

        The first sighting may be that of a former incarnation of this node, so it is not logged.
        """
        replica = sighting.replica
        if sighting.counter > self._rivals.setdefault(replica, sighting.counter):
            text = f"{replica} is alive elsewhere, with the name of this node, {self._me}"
            self._notice("namesake", f"{text}; {_HINT}", now)
        while len(self._rivals) > MAX_RIVALS:
            del self._rivals[next(iter(self._rivals))]

    def sizes(self, names: int) -> Iterator[Size]:
        """The numbers of other incarnations of this node's name, and of pending notices."""
        yield Size("rivals", len(self._rivals), MAX_RIVALS)
        yield Size("refusals", len(self._refused), names)

    def _notice(self, kind: str, text: str, now: float) -> None:
        self._effects.notice_once(Severity.ERROR, kind, text, now)
