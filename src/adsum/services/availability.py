"""`Availability`: the members whose instances are skipped, because they may be gone."""

from adsum.driver.driver import Driver

#: Statuses of the members whose instances are used.
_AVAILABLE = ("self", "up")


class Availability:
    """The members that are suspect or not up.

    Reading them costs one comparison while no member changes.

    Args:
        driver: The run of the node.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._revision = -1
        self._version = 0
        #: Names of members that may be gone; valid after `version`.
        self.doubtful: frozenset[str] = frozenset()

    def version(self) -> int:
        """A number that grows when `doubtful` changes."""
        revision = self._driver.members_revision
        if revision != self._revision:
            self._revision = revision
            self._refresh()
        return self._version

    def _refresh(self) -> None:
        members = self._driver.members()
        available = {member.name for member in members if member.status in _AVAILABLE}
        # A name whose former incarnation is down or has left may be up again.
        doubtful = frozenset(member.name for member in members) - available
        if doubtful != self.doubtful:
            self.doubtful = doubtful
            self._version += 1
