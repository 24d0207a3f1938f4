"""What a worker process does where links over carriers and sockets are compared."""

import asyncio
import time
from typing import Any

from benchmarks.host import Host
from benchmarks.measure import sent_bytes

#: Seconds between joins that are counted one by one: more than changes are gathered for.
_INTERVAL = 0.1
_TOPIC = "room:joined"


class CarrierHost(Host):
    """Some nodes in one process, whose TCP connections are counted all together."""

    def __init__(self) -> None:
        super().__init__()
        self._joined = 0

    async def start_many(self, names: list[str], **settings: Any) -> None:
        """Start nodes at the same time."""
        await asyncio.gather(*(self.start(name, **settings) for name in names))

    async def join_some(self, count: int) -> tuple[int, float]:
        """Track presences one by one on the first node.

        Args:
            count: How many.

        Returns:
            The bytes that this process has sent meanwhile, and the seconds that it took.
        """
        before, began = sent_bytes(), time.perf_counter()
        for _ in range(count):
            self.track(_TOPIC, f"user:{self._joined}")
            self._joined += 1
            await asyncio.sleep(_INTERVAL)
        return sent_bytes() - before, time.perf_counter() - began

    async def rest(self, duration: float) -> int:
        """Do nothing for a while; returns the bytes that this process has sent meanwhile."""
        before = sent_bytes()
        await asyncio.sleep(duration)
        return sent_bytes() - before

    def cpu(self) -> float:
        """Seconds of CPU of this process so far."""
        return time.process_time()
