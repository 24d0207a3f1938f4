"""Showing and hiding slices in steps, a part in each turn of the event loop.

Showing or hiding a slice costs time in proportion to its entries. A small slice is shown or hidden
at once. A large one takes a *move* of several steps, so no turn of the event loop takes as long as
a whole slice. A move that is reversed continues from its current state.

Invariant: the view holds exactly the entries of the slices that are shown, except for the entries
that are `left` of a move: they are not in the view yet, or still in it. An entry that changes
meanwhile is shown or hidden at once, so the entries left are always current entries of the slice.
"""

from .entry import ID, Entry, Transition
from .state import Replica, Slice
from .view import View

#: Entries shown or hidden in one step, of all slices together; each takes 1 to 4 us.
STEP = 2000


class Move:
    """The gradual showing or hiding of one slice.

    Args:
        view: The view in which the slice is shown.
        visible: True to show it, False to hide it.
        left: The entries that are not shown or hidden yet, by id.
    """

    __slots__ = ("_view", "left", "released", "visible")

    def __init__(self, view: View, visible: bool, left: dict[int, Entry]) -> None:
        self._view = view
        self.visible = visible
        self.left = left
        #: Whether the slice was discarded; a later slice of the same replica is another copy.
        self.released = False

    def step(self, most: int) -> int:
        """Show or hide at most `most` of the remaining entries; returns their number."""
        count = min(most, len(self.left))
        for _ in range(count):
            _, entry = self.left.popitem()
            self._view.change(*((None, entry) if self.visible else (entry, None)))
        return count

    def change(self, old: Entry | None, new: Entry | None) -> None:
        """Apply one change of the slice: a join (`old` is None), an update, or a leave.

        The entry is shown or hidden at once, if its turn had not come.
        """
        entry = new or old
        waited = self.left.pop(entry[ID], None) if entry is not None else None
        if self.visible:
            self._view.change(None if waited is not None else old, new)
        elif waited is not None:
            self._view.change(waited, None)


class Visibility:
    """Shows and hides slices in a view; large ones take several steps.

    Args:
        view: The view in which slices are shown.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        # The moves, oldest first.
        self._moves: dict[Replica, Move] = {}
        # Entries shown or hidden since the last step began.
        self._spent = 0

    def __contains__(self, replica: Replica) -> bool:
        """Whether the slice of a replica is being shown or hidden."""
        return replica in self._moves

    def __bool__(self) -> bool:
        """Whether any slice is being shown or hidden, so that `step` is due."""
        return bool(self._moves)

    def turn(self, slice: Slice, visible: bool) -> None:
        """Show or hide a slice: at once, or as much of it as one step allows.

        A move of the slice in the other direction is reversed.
        """
        left = dict(slice.entries)
        move = self._moves.pop(slice.replica, None)
        if move is not None and move.released:
            move.step(len(move.left))
        elif move is not None:
            left = {id: entry for id, entry in left.items() if id not in move.left}
        self._moves[slice.replica] = Move(self._view, visible, left)
        self._continue_move(slice.replica)

    def release(self, replica: Replica) -> None:
        """Note that the slice of a replica was discarded; its entries continue to be hidden."""
        move = self._moves.get(replica)
        if move is not None:
            move.released = True

    def change(self, replica: Replica, transitions: list[Transition], *, shown: bool) -> None:
        """Apply changes of a slice to the view, if it is shown or being shown or hidden."""
        target = self._moves.get(replica) or (self._view if shown else None)
        if target is not None:
            for old, new in transitions:
                target.change(old, new)

    def fill(self, slice: Slice, index: View) -> None:
        """Show a whole slice that arrived for a replica that is shown and had no entries.

        Args:
            slice: The slice.
            index: A view of only its entries; do not use it afterwards.
        """
        if self._view.cost_of(index, STEP) <= STEP:
            self._view.absorb(index)
        else:
            self.turn(slice, True)

    def step(self) -> None:
        """Continue showing and hiding slices, up to `STEP` entries."""
        self._spent = 0
        for replica in list(self._moves):
            self._continue_move(replica)
            if self._spent >= STEP:
                break

    def _continue_move(self, replica: Replica) -> None:
        move = self._moves[replica]
        self._spent += move.step(STEP - self._spent)
        if not move.left:
            del self._moves[replica]
