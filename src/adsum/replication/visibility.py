"""Slices on their way into the view, or out of it: a part in each turn of the event loop.

Showing or hiding a slice costs its entries. A small slice is shown or hidden at once. A large one
is a *move* of several steps, so that no turn is as long as a slice is large. A move that is turned
round goes back from where it is.

Invariant: the view holds exactly the entries of the slices that are shown, but for those that are
`left` of a move: they are not in the view yet, or still in it. An entry that changes meanwhile
takes its turn at once, so what is left is what the slice holds.
"""

from .entry import ID, Entry, Transition
from .state import Replica, Slice
from .view import View

#: Entries that are shown or hidden in one step, of all slices together; one takes 1 to 4 us.
STEP = 2000


class Move:
    """The way of one slice into the view or out of it.

    Args:
        view: Where the slice is shown.
        visible: Whether it is to be shown, or hidden.
        left: The entries whose turn has not come, by id.
    """

    __slots__ = ("_view", "left", "released", "visible")

    def __init__(self, view: View, visible: bool, left: dict[int, Entry]) -> None:
        self._view = view
        self.visible = visible
        self.left = left
        #: Whether the slice is not held any more, so what comes under its name is another copy.
        self.released = False

    def step(self, most: int) -> int:
        """Show or hide some of the entries that are left; returns how many."""
        count = min(most, len(self.left))
        for _ in range(count):
            _, entry = self.left.popitem()
            self._view.change(*((None, entry) if self.visible else (entry, None)))
        return count

    def change(self, old: Entry | None, new: Entry | None) -> None:
        """The slice changed: a join (no old), an update, or a leave (no new)."""
        entry = new or old
        waited = self.left.pop(entry[ID], None) if entry is not None else None
        if self.visible:
            self._view.change(None if waited is not None else old, new)
        elif waited is not None:
            self._view.change(waited, None)


class Visibility:
    """Which slices are on their way into a view, or out of it.

    Args:
        view: Where slices are shown.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        # Those that wait longest come first.
        self._moves: dict[Replica, Move] = {}
        # Entries that were shown or hidden since the last step.
        self._spent = 0

    def __contains__(self, replica: Replica) -> bool:
        """Whether the slice of a replica is on its way."""
        return replica in self._moves

    def __bool__(self) -> bool:
        """Whether any slice is on its way, so that `step` is due."""
        return bool(self._moves)

    def turn(self, slice: Slice, visible: bool) -> None:
        """Show or hide a slice: at once, or as much of it as one step allows."""
        left = dict(slice.entries)
        move = self._moves.pop(slice.replica, None)
        if move is not None and move.released:
            move.step(len(move.left))
        elif move is not None:
            left = {id: entry for id, entry in left.items() if id not in move.left}
        self._moves[slice.replica] = Move(self._view, visible, left)
        self._go_on(slice.replica)

    def release(self, replica: Replica) -> None:
        """The slice of a replica is not held any more; it goes on its way out."""
        move = self._moves.get(replica)
        if move is not None:
            move.released = True

    def change(self, replica: Replica, transitions: list[Transition], *, shown: bool) -> None:
        """Show what changed in a slice, if it is shown or on its way."""
        target = self._moves.get(replica) or (self._view if shown else None)
        if target is not None:
            for old, new in transitions:
                target.change(old, new)

    def fill(self, slice: Slice, index: View) -> None:
        """Show a slice that was shown and empty, and has come whole.

        Args:
            slice: The slice.
            index: A view of its entries alone; it is used up.
        """
        if self._view.cost_of(index, STEP) <= STEP:
            self._view.absorb(index)
        else:
            self.turn(slice, True)

    def step(self) -> None:
        """Let slices go on their way."""
        self._spent = 0
        for replica in list(self._moves):
            self._go_on(replica)
            if self._spent >= STEP:
                break

    def _go_on(self, replica: Replica) -> None:
        move = self._moves[replica]
        self._spent += move.step(STEP - self._spent)
        if not move.left:
            del self._moves[replica]
