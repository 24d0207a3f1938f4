"""Observers: they receive the presence changes and the published messages of one node."""

from collections.abc import Iterable

from adsum.replication.entry import Transition
from adsum.replication.messages import Publish


class Observer:
    """Base class of observers. A subclass overrides the events that it needs.

    An exception in one observer is logged; the others are notified all the same.
    """

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        """Presences on a watched topic changed."""

    def members_changed(self) -> None:
        """While the members are watched: a member, its status or its address changed."""

    def delivered(self, sender: str, message: Publish) -> None:
        """A member, or this node itself, published a message.

        On a carrier, messages for all members arrive on wanted topics only: see
        `Driver.want_topic`.
        """

    def wanted_topics(self) -> Iterable[str]:
        """The topics that it wants when a run begins; for later ones it calls `Driver.want_topic`.

        A topic that is returned n times takes n calls of `Driver.unwant_topic`.
        """
        return ()

    def stopping(self) -> None:
        """The process has been asked to stop, or the node is about to send its goodbye.

        Changes of presences made here are sent before the goodbye. Called once in a run, and not
        before a crash.
        """

    def closed(self) -> None:
        """The node has stopped. Must be idempotent: it may be called more than once."""

    def forked(self) -> None:
        """A forked child starts the node of its parent again: forget the parent's state.

        Only drop references. The parent still uses the tasks, connections and callbacks behind
        them, so an implementation must not end them or run code of the application.
        """
