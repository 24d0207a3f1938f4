"""Logs failures of adsum's own code and of observers: one line of each kind in an interval."""

import logging
import traceback

from adsum.replication.state import Replica
from adsum.sparselog import error_text

logger = logging.getLogger("adsum.node")

#: Seconds between two log lines about the same kind of failure.
FAILURE_LOG_INTERVAL = 10.0


class FailureLog:
    """Logs the failures of one run of a node.

    Args:
        replica: The name and incarnation of the node in this run.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        # Monotonic time until which failures of one function, by its name, are not logged.
        self._silent_until: dict[str, float] = {}

    def log(self, action: str, error: Exception, now: float) -> None:
        """Log a failure, once for each kind in an interval; the trace is cut to a page.

        Args:
            action: The kind: the function that failed.
            error: The exception that it raised.
            now: The current time in monotonic seconds.
        """
        if now < self._silent_until.get(action, now):
            return
        self._silent_until[action] = now + FAILURE_LOG_INTERVAL
        stack = "".join(traceback.format_tb(error.__traceback__))
        logger.error(
            "%s: %s failed: %s\n%s", self._replica, action, error_text(error), stack[-3000:]
        )
