"""This node's own slice: the presences that it tracks, and the only slice that it changes."""

from .entry import ID, Entry, tracked, updated
from .exchange import Exchange
from .interning import share
from .view import View


class OwnSlice:
    """Changes this node's slice. Every change is in the view, and due to be sent, at once.

    Args:
        exchange: Holds the slice, and sends its changes.
        view: The view in which the slice is shown.
    """

    def __init__(self, exchange: Exchange, view: View) -> None:
        #: The slice; it is the same object for the whole life of the node.
        self.slice = exchange.own.slice
        self._exchange = exchange
        self._view = view

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Add a presence."""
        own = self.slice
        entry = tracked(own.replica, own.horizon + 1, share(topic), key, meta)
        own.add(entry)
        self._changed(None, entry)
        return entry

    def update(self, old: Entry, meta: str) -> Entry:
        """Replace the meta of a presence in place."""
        own = self.slice
        new = updated(own.replica, own.horizon + 1, old, meta)
        own.put(new)
        self._changed(old, new)
        return new

    def untrack(self, entry: Entry) -> None:
        """Remove a presence."""
        own = self.slice
        own.remove((own.horizon + 1, entry[ID]))
        self._changed(entry, None)

    def _changed(self, old: Entry | None, new: Entry | None) -> None:
        self._view.change(old, new)
        self._exchange.changed()
