"""Waits for a condition, checked often enough not to distort a measured time.

The tests have waits of their own, in `tests/support`: those fail a test, and check less often.
"""

import asyncio
import time
from collections.abc import Callable

#: Seconds after which a condition counts as missed, by default.
PATIENCE = 60.0


async def until(
    condition: Callable[[], bool], *, pause: float = 0.001, patience: float = PATIENCE
) -> None:
    """Wait for a condition.

    Args:
        condition: Is checked in each turn. An exception that it raises ends the wait.
        pause: Seconds between two checks: the precision of a time that ends with the wait.
        patience: Seconds to wait at most.

    Raises:
        TimeoutError: The condition did not become true.
    """
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110  # no event accompanies such a condition
            await asyncio.sleep(pause)


def block_until(condition: Callable[[], bool], *, pause: float, patience: float) -> None:
    """As `until`, for code without an event loop.

    Raises:
        TimeoutError: The condition did not become true.
    """
    give_up_at = time.monotonic() + patience
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError
        time.sleep(pause)
