"""The last diffs of a feed, by number, and merged ones for followers that missed several."""

from collections import deque

from adsum.replication.entry import Identity, Transition
from adsum.watch import fold

from .sharedtext import SharedText
from .texts import diff_text

#: Changes kept for slow clients; as many as there are presences, if these are more.
REMEMBERED = 1000


class FeedDiff:
    """The changes between two cuts, and their text.

    Args:
        transitions: The changes; each presence occurs once.
        beside: Text to add beside the metas of the changed keys, see `texts.Beside`.
    """

    __slots__ = ("_shared", "beside", "transitions")

    def __init__(self, transitions: list[Transition], beside: dict[str, str]) -> None:
        self.transitions = transitions
        self.beside = beside
        # None until `shared` makes it, after `drop_text`, and if nothing changed.
        self._shared: SharedText | None = None

    def shared(self, topic: str) -> SharedText | None:
        """The text for all clients of the topic, made once; None if nothing changed."""
        if self._shared is None:
            text = diff_text(self.transitions, self.beside)
            if text is not None:
                self._shared = SharedText(topic, "presence_diff", text)
        return self._shared

    def drop_text(self) -> None:
        """Drop the text and its frames; they are made again if a client still needs them."""
        self._shared = None


class History:
    """Numbers the cuts that changed something, and keeps the last diffs up to a bound."""

    def __init__(self) -> None:
        #: The number of the last cut.
        self.number = 0
        # The last diffs, the oldest first; the newest has the number of the last cut.
        self._diffs: deque[FeedDiff] = deque()
        # Number of changes in these diffs.
        self._remembered = 0
        # Several diffs merged, by the number of the cut they start from; valid for the last cut.
        self._merged: dict[int, FeedDiff] = {}

    def add(self, diff: FeedDiff, presences: int) -> None:
        """Number a cut and keep its diff; drops the oldest diffs beyond the bound.

        Args:
            diff: The changes of the cut, at least one.
            presences: Number of presences on the topic; as many changes are kept at least.
        """
        self.number += 1
        self._merged.clear()
        if self._diffs:
            self._diffs[-1].drop_text()
        self._diffs.append(diff)
        self._remembered += len(diff.transitions)
        limit = max(REMEMBERED, presences)
        while len(self._diffs) > 1 and self._remembered > limit:
            self._remembered -= len(self._diffs.popleft().transitions)

    def drop(self) -> None:
        """Drop all diffs; the numbers go on."""
        self._diffs.clear()
        self._merged.clear()
        self._remembered = 0

    def since(self, number: int) -> FeedDiff | None:
        """All changes since an earlier cut, as one diff; None if they are no longer kept."""
        missing = self.number - number
        if missing == 1:
            return self._diffs[-1]
        if missing > len(self._diffs):
            return None
        merged = self._merged.get(number)
        if merged is None:
            merged = self._merged[number] = _merge(list(self._diffs)[-missing:])
        return merged


def _merge(diffs: list[FeedDiff]) -> FeedDiff:
    pending: dict[Identity, Transition] = {}
    beside: dict[str, str] = {}
    for diff in diffs:
        fold(pending, diff.transitions)
        beside.update(diff.beside)
    return FeedDiff(list(pending.values()), beside)
