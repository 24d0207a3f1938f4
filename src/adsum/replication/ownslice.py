"""This node's own slice: the presences that it tracks, and the only slice that it changes."""

from .entry import ID, KEY, TOPIC, VERSION, Entry
from .exchange import Exchange
from .interning import known, share
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
        self._name, self._incarnation = self.slice.replica
        self._exchange = exchange
        self._view = view

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Add a presence."""
        own = self.slice
        topic = known(topic) or share(topic)
        version = own.horizon + 1
        entry = (version, version, topic, key, meta, None, self._name, self._incarnation)
        own.add(entry)
        self._view.change(None, entry)
        self._exchange.changed()
        return entry

    def update(self, old: Entry, meta: str) -> Entry:
        """Replace the meta of a presence in place."""
        own = self.slice
        version, id, topic, key = own.horizon + 1, old[ID], old[TOPIC], old[KEY]
        new = (version, id, topic, key, meta, old[VERSION], self._name, self._incarnation)
        own.put(new)
        self._view.change(old, new)
        self._exchange.changed()
        return new

    def untrack(self, entry: Entry) -> None:
        """Remove a presence."""
        own = self.slice
        own.remove((own.horizon + 1, entry[ID]))
        self._view.change(entry, None)
        self._exchange.changed()
