"""Logs joining: the result, the addresses that did not answer, and later members.

A node logs one line when it has joined, one if it has not joined within `join_timeout`, and from
then on at most one line a second about new members. Names come from peers, so a line lists a few
and counts the rest.
"""

import asyncio
import logging

from adsum.quoting import printable
from adsum.replication.engine import Engine
from adsum.replication.state import Replica

logger = logging.getLogger("adsum.node")

#: Seconds between two lines about new members.
INTERVAL = 1.0
#: Names in one line at most; the others are counted.
MAX_NAMED = 5


class JoinLog:
    """Logs how one run of a node joins its cluster.

    Args:
        cluster: The name of the cluster.
        engine: The engine of the run.
        loop: The event loop of the run.
    """

    def __init__(self, cluster: str, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._cluster = cluster
        self._engine = engine
        self._loop = loop
        self._began_at = loop.time()
        self._joined = False
        # The members at the last line, None until the first line; and the fingerprint then.
        self._members: set[Replica] | None = None
        self._fingerprint = 0
        # Runs for `INTERVAL` after each check for new members; the next check waits for its end.
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Log that the node has joined, or the names of new members; call it after each event."""
        if self._engine.joined and not self._joined:
            self._log_joined()
        elif (
            self._members is not None
            and self._timer is None
            and self._engine.fingerprint != self._fingerprint
        ):
            self._log_new_members(self._members)

    def give_up(self) -> None:
        """Log that the node starts without having joined."""
        logger.warning(
            "%s: not joined after %.1f s, starting without: %s",
            self._engine.replica,
            self._seconds,
            _some(self._engine.join_missing),
        )
        self._note_members()

    def close(self) -> None:
        """Stop logging, and cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._members, self._joined = None, True

    @property
    def _seconds(self) -> float:
        return self._loop.time() - self._began_at

    def _log_joined(self) -> None:
        self._joined = True
        count = len(self._note_members())
        nodes = f"{count} nodes, {self._engine.shown:,} presences, {self._seconds:.2f} s"
        logger.info(
            "joined %r as %s: %s",
            self._cluster,
            self._engine.replica.name,
            nodes if count > 1 else "alone",
        )

    def _log_new_members(self, former: set[Replica]) -> None:
        members = self._note_members()
        self._timer = self._loop.call_later(INTERVAL, self._release)
        new = [str(replica) for replica in sorted(members - former)]
        if new:
            me, count = self._engine.replica, len(members)
            logger.info("%s: new members: %s (%d nodes)", me, _some(new), count)

    def _release(self) -> None:
        self._timer = None
        self.check()

    def _note_members(self) -> set[Replica]:
        members = {
            Replica(member.name, member.incarnation)
            for member in self._engine.members()
            if member.status in ("self", "up", "suspect")
        }
        self._members, self._fingerprint = members, self._engine.fingerprint
        return members


def _some(names: list[str]) -> str:
    """The first names of a list, and the number of the others."""
    rest = len(names) - MAX_NAMED
    named = [printable(name, 320) for name in names[:MAX_NAMED]]
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")
