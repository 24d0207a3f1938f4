"""The read-only view of the presences that a node shows, for all code that is built on a node."""

from collections.abc import Collection
from typing import Any, Protocol

from adsum.replication.entry import Entry


class ReadOnlyView(Protocol):
    """The presences shown on this node, by topic and key. Reads never wait and never scan."""

    @property
    def topics(self) -> Collection[str]:
        """The topics that have at least one presence."""

    def render(self, topic: str) -> dict[str, Any]:
        """The presences of a topic in the format of Phoenix clients, in key order.

        The dict is a copy that the caller may alter; its values are read-only.
        """

    def page(self, topic: str, after: str, limit: int | None) -> dict[str, Any]:
        """The presences of the next keys above `after`, in the format and order of `render`.

        Args:
            topic: The topic.
            after: The last key of the page before, or "" for the first page.
            limit: The most keys to return; None for all.
        """

    def metas(self, topic: str, key: str) -> list[Any]:
        """The metas of one key on one topic, in the format of Phoenix clients."""

    def all_entries(self, topic: str) -> list[Entry]:
        """Every presence on a topic."""

    def count(self, topic: str) -> int:
        """The number of keys present on a topic."""
