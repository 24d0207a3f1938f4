"""`Flag`: a flag that tasks wait for, as `asyncio.Event`, in a tenth of its memory."""

import asyncio
from typing import Literal

from adsum.tasks import resolve


class Flag:
    """An event that is set at first, and that may be set and cleared again.

    While nobody waits it has no queue of waiters: an empty one takes 0.7 kB in each event of
    `asyncio`.
    """

    __slots__ = ("_change", "_set")

    def __init__(self) -> None:
        self._set = True
        # Done at the next `set`; None while nobody waits.
        self._change: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._set

    def set(self) -> None:
        """Set the flag, and wake all that wait. Idempotent."""
        self._set = True
        change, self._change = self._change, None
        resolve(change)

    def clear(self) -> None:
        """Clear the flag. Idempotent."""
        self._set = False

    async def wait(self) -> Literal[True]:
        """Wait until the flag is set, or was set meanwhile; returns at once if it is."""
        if not self._set:
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._change])  # several may wait
        return True
