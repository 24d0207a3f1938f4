"""`Endings`: ends presences of this node, at once or after a linger.

A presence ends by its handle, with its owner, or because it broke. If it broke, it stays listed for
its own linger, and may be taken over until then, see `replication/grace.py`. In every other case it
ends at once, or after the `linger` of a node that is about to stop.
"""

import asyncio
from collections.abc import Hashable
from typing import Any

from adsum.driver.driver import Driver
from adsum.node import Node
from adsum.owners import Hold, Owners, claim_of, id_of, linger_of
from adsum.replication.entry import KEY, TOPIC, Entry
from adsum.replication.grace import Claim
from adsum.tasks import has_failed
from adsum.values.names import Place

#: Seconds that a presence lingers, at most, after its owner was cancelled; 0 if the node's `linger`
#: is 0. Some servers cancel handlers and stop the node right afterwards, without a signal.
CANCEL_GRACE = 1.0


class Endings:
    """Ends the presences that owners of one `Presence` track.

    Args:
        node: The node that tracks them.

    Attributes:
        node: The node that tracks them.
        owners: The presences of each owner.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.owners = Owners(self.task_ended)

    def release(self, owner: Hashable, linger: float, *, broken: bool) -> int:
        """End all presences that an owner tracks, see `Presence.release`."""
        self.node.check_running()
        if owner not in self.owners:
            return 0
        owned = self.owners.remove(owner)
        claim = claim_of(owner) if broken else None
        for hold in owned.values():
            self._end(hold, linger, claim)
        return len(owned)

    def release_lingering(
        self, owner: Hashable, linger: float, topic: str | None, key: str | None
    ) -> int:
        """End presences that linger since an owner broke, see `Presence.release_lingering`."""
        driver = self.node.driver
        entries = [
            entry
            for entry in driver.lingering_of(claim_of(owner))
            if topic is None or (entry[TOPIC], entry[KEY]) == (topic, key)
        ]
        for entry in entries:
            _end_after(driver, entry, linger)
        return len(entries)

    def end_owned(
        self, entry: Entry, owner: Hashable, place: Place, *, broken: bool, cancelled: bool
    ) -> None:
        """End one presence that an owner tracks.

        Args:
            entry: The current entry of the presence.
            owner: The owner.
            place: The topic and key of the presence.
            broken: Whether it broke, so that it stays for its own linger.
            cancelled: Whether it ends by the cancellation of a task.
        """
        owned = self.owners.get(owner)
        if owned is None:
            return
        hold = owned.pop(place)
        if not owned:
            self.owners.remove(owner)
        linger = self.linger(cancelled)
        if broken:
            self._end(hold, linger, claim_of(owner))
        else:
            _end_after(self.node.driver, entry, linger)

    def end_grace(self, hold: Hold, run: object) -> None:
        """End a presence that lingers since it broke, unless it was taken over.

        Args:
            hold: The hold of the owner that has lost it.
            run: The token of the run that the presence belongs to.
        """
        if not self.node.running:
            return
        driver, id = self.node.driver, id_of(hold)
        entry = driver.tracked(id)
        if driver.token is run and entry is not None and driver.lingers_since(id, hold):
            _end_after(driver, entry, self.linger())

    def linger(self, cancelled: bool = False) -> float:
        """Seconds that a presence lingers if it ends now, unless it broke."""
        linger = self.node.settings.linger
        if not linger or self.node.stopping:
            return linger
        return min(linger, CANCEL_GRACE) if cancelled else 0.0

    def task_ended(self, task: "asyncio.Task[Any]") -> None:
        """End the presences of a task that has ended."""
        if task in self.owners and self.node.running:
            self.release(task, self.linger(task.cancelled()), broken=has_failed(task))

    def _end(self, hold: Hold, linger: float, claim: Claim | None) -> None:
        """End a presence without an owner, after `linger` seconds.

        With a claim it has broken: it stays for its own linger at least, and may be taken over.
        """
        driver = self.node.driver
        entry = driver.tracked(id_of(hold))
        if entry is None:
            return
        grace = 0.0 if claim is None else linger_of(hold)
        if grace:
            driver.linger(entry, max(grace, linger), claim, hold)
        else:
            _end_after(driver, entry, linger)


def _end_after(driver: Driver, entry: Entry, linger: float) -> None:
    """End a presence after some seconds; nobody may take it over."""
    if linger:
        driver.linger(entry, linger)
    else:
        driver.untrack(entry)
