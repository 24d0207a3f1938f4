"""`UnreadLog`: the warning about messages that were dropped because nothing read them in time."""

import logging

from adsum.sparselog import SparseLog


class UnreadLog:
    """Logs how many messages of one subscription were dropped, rate-limited.

    Each line has the number since the subscription began, so a line that is held back loses none.

    Args:
        logger: The logger of the integration.
        messages: Unread messages at most.
        size: Bytes of them at most.
    """

    def __init__(self, logger: logging.Logger, messages: int, size: int) -> None:
        self._log = SparseLog(
            logger,
            f"%d messages were dropped unread so far: at most {messages} with {size} bytes may wait"
            " in this process",
        )
        self._dropped = 0

    def begin(self) -> None:
        """Count from 0 again: the subscription is a new one."""
        self._dropped = 0

    def check(self, dropped: int) -> None:
        """Log the number of dropped messages of the subscription if it has grown."""
        if dropped > self._dropped:
            self._log.log(dropped)
        self._dropped = dropped
