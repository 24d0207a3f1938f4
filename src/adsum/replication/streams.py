"""The two ends of a slice transfer: feeds that send it, and catch-ups that receive it.

A feed is a cursor into a slice, for one link. Its next delta is computed from the slice when it is
sent, so an idle feed costs nothing, and feeds at the same position share one message.

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
class SliceFeed:
    """The progress of sending one slice over one link.

    Attributes:
        cursor: The version up to which all changes were sent to the peer.
        follow: Whether to push later changes as they happen.
        reset: The horizon when a reset began; 0 if this is not a reset. A reset starts at zero
            because removals were dropped from the log. It contains no removals from before it
            began.
        owed: An answer is due even if there are no changes to send.
    """

    cursor: int
    follow: bool
    reset: int = 0
    owed: bool = True

    def position(self, slice: Slice) -> tuple[int, int]:
        """The cursor and reset that determine the next delta.

        A feed whose cursor has fallen below the floor starts again, as a reset.
        """
        if slice.floor > max(self.cursor, self.reset):
            self.cursor, self.reset = 0, slice.horizon
        return self.cursor, self.reset

    def advance(self, delta: Delta) -> bool:
        """Move the cursor past a delta that was sent; returns whether the feed is complete."""
        self.cursor, self.owed = delta.upto, False
        if delta.last:
            self.reset = 0
        return delta.last and not self.follow


def cut(slice: Slice, cursor: int, reset: int) -> Delta:
    """Cut the next delta from a slice, for all feeds at one position."""
    changes, upto = slice.changes_after(cursor, DELTA_BUDGET)
    upto = max(cursor, upto)
    last = upto == slice.horizon
    return Delta(slice.replica, cursor, upto, tuple(changes), reset=reset, last=last)


class Staging:
    """A catch-up received so far, kept apart from the current slice until its last frame.

    A slice that is sent from zero is built and indexed separately, frame by frame, so installing it
    is one short step at any size. Otherwise the changes are collected and merged at the end.
    """

    def __init__(self, current: Slice, delta: Delta) -> None:
        self.horizon = delta.after
        self._reset = delta.reset
        self._current = current
        self._changes: list[Change] = []
        self._built = Slice(current.replica) if delta.after == 0 else None
        self._index = View()

    def add(self, delta: Delta) -> bool:
        """Add a frame if it continues this catch-up; returns whether it did.

        A reset that restarted is a different reset; continuing the old one would miss removals made
        in between.
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
        """Merge the staged changes into the current slice or replace it, and update the view.

        A catch-up that is not ahead of the current slice is discarded.

        Args:
            visibility: Shows changes and slices in the view.
            shown: Whether the slice is shown.

        Returns:
            The slice to hold from now on.
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
        """The equal entry of the current slice, if there is one, so that no copy of it is kept."""
        known = self._current.entries.get(change[ID])
        return known if known is not None and known == change else change


@dataclass(slots=True)
class CatchUp:
    """An open request for missing changes of a slice.

    Attributes:
        link: The id of the link over which it was sent.
        until: When it may be made again, in active time; progress extends it.
        staging: The frames received so far, if the answer takes more than one.
    """

    link: int
    until: float
    staging: Staging | None = field(default=None)


def difference(old: Slice, new: Slice) -> list[Transition]:
    """The transitions for observers when a slice is replaced: leaves, then joins and updates."""
    transitions: list[Transition] = [
        (entry, None) for id, entry in old.entries.items() if id not in new.entries
    ]
    for id, entry in new.entries.items():
        known = old.entries.get(id)
        if known is not entry and known != entry:
            transitions += replacement(known, entry)
    return transitions
