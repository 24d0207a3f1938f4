"""How a slice travels: feeds that send it, and catch-ups that take it in.

A feed is a cursor into a slice, for one link. What it has to send is computed from the slice when
it is sent, so a feed that waits costs nothing, and feeds at one cursor share one message.

A catch-up of more than one frame is staged: half of it is a state that never existed, because an
entry that was updated meanwhile has moved to a later frame. It is not shown, not relayed, and
without effect if it is interrupted. It is installed as a whole, in one step.
"""

from dataclasses import dataclass, field

from .entry import ID, VERSION, Change, Transition
from .limits import DELTA_BUDGET
from .messages import Delta
from .state import Slice, replacement
from .view import View
from .visibility import Visibility


@dataclass(slots=True)
class Feed:
    """What one link was sent of one slice.

    Attributes:
        cursor: The version up to which the peer was sent everything.
        follow: Whether to go on with new changes.
        reset: Not 0 if this began at zero because removals are forgotten; it is the horizon when it
            began, and what was removed before, it does not contain.
        owed: An answer is due even if there is nothing to tell.
    """

    cursor: int
    follow: bool
    reset: int = 0
    owed: bool = True

    def position(self, slice: Slice) -> tuple[int, int]:
        """What decides the next message; a feed that the floor overtook starts again."""
        if slice.floor > max(self.cursor, self.reset):
            self.cursor, self.reset = 0, slice.horizon
        return self.cursor, self.reset

    def advance(self, delta: Delta) -> bool:
        """Note what was sent; returns whether the feed is over."""
        self.cursor, self.owed = delta.upto, False
        if delta.last:
            self.reset = 0
        return delta.last and not self.follow


def cut(slice: Slice, cursor: int, reset: int) -> Delta:
    """The next message of all feeds at one position."""
    changes, upto = slice.changes_after(cursor, DELTA_BUDGET)
    upto = max(cursor, upto)
    last = upto == slice.horizon
    return Delta(slice.replica, cursor, upto, tuple(changes), reset=reset, last=last)


class Staging:
    """A slice that is being taken in over several frames, aside.

    A slice that is sent from zero is built and indexed anew, frame by frame, so that installing it
    is one short step however large it is. Otherwise the changes are kept and merged in the end.
    """

    def __init__(self, current: Slice, delta: Delta) -> None:
        self.horizon = delta.after
        self._reset = delta.reset
        self._current = current
        self._changes: list[Change] = []
        self._built = Slice(current.replica) if delta.after == 0 else None
        self._index = View()

    def add(self, delta: Delta) -> bool:
        """Take the next frame; returns whether it was the next.

        A reset that began anew is another one: what was removed meanwhile, nobody will tell.
        """
        if not delta.after <= self.horizon <= delta.upto or delta.reset != self._reset:
            return False
        if self._built is None:
            self._changes += [c for c in delta.changes if c[VERSION] > self.horizon]
        else:
            changes = [self._known(change) for change in delta.changes]
            for old, new in self._built.apply(changes, delta.upto):
                self._index.change(old, new)
        self.horizon = delta.upto
        return True

    def install(self, visibility: Visibility, *, shown: bool) -> Slice:
        """Bring the current slice up to the staged one, and the view with it.

        Args:
            visibility: The way into the view.
            shown: Whether the slice is shown.

        Returns:
            The slice that is current from now on.
        """
        current = self._current
        if self.horizon <= current.horizon:  # it was overtaken by a relay
            return current
        if self._built is None:
            transitions = current.apply(self._changes, self.horizon)
            visibility.change(current.replica, transitions, shown=shown)
            return current
        if self._reset:
            self._built.forget_removals()
        if shown and not current.entries:
            visibility.fill(self._built, self._index)
        elif shown or current.replica in visibility:
            transitions = difference(current, self._built)
            visibility.change(current.replica, transitions, shown=shown)
        return self._built

    def _known(self, change: Change) -> Change:
        """The entry that is there already, so that no second copy of it is kept."""
        known = self._current.entries.get(change[ID])
        return known if known is not None and known == change else change


@dataclass(slots=True)
class CatchUp:
    """A request for a slice that is under way.

    Attributes:
        link: Whom it was made of.
        until: When it may be made again, unless there is progress.
    """

    link: int
    until: float
    staging: Staging | None = field(default=None)


def difference(old: Slice, new: Slice) -> list[Transition]:
    """What an observer sees when a slice is replaced: leaves, then joins and updates."""
    transitions: list[Transition] = [
        (entry, None) for id, entry in old.entries.items() if id not in new.entries
    ]
    for id, entry in new.entries.items():
        known = old.entries.get(id)
        if known is not entry and known != entry:
            transitions += replacement(known, entry)
    return transitions
