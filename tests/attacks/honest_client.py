"""An honest client: it asks for an echo again and again, and notes what it is sent."""

import asyncio
import json
import statistics
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

ROOM = "room:calm"
#: Seconds between a reply and the next request.
PAUSE = 0.02


@dataclass
class Notes:
    """The observations of a bystander between two moments.

    Attributes:
        began: When they begin.
        ended: When they end.
        trips: Seconds that each round trip took; the last one may be unfinished.
        ticks: When each tick of the other server arrived.
        lost: How many of its ticks did not arrive, though later ones did.
        left: The honest clients that were announced as gone.
    """

    began: float
    ended: float = 0.0
    trips: list[float] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)
    lost: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the round trips, in seconds."""
        return statistics.median(self.trips)

    @property
    def longest(self) -> float:
        """The longest round trip, in seconds."""
        return max(self.trips)

    @property
    def silence(self) -> float:
        """The longest time without a tick, in seconds."""
        times = [self.began, *self.ticks, self.ended]
        return max(times[index + 1] - times[index] for index in range(len(times) - 1))


class HonestClient:
    """See the module; made by `honest_client`.

    Args:
        connection: Its connection; it has joined the room.
        key: Its key in the room.
        other: The node whose ticks it counts.
        honest: The keys that must not leave.
    """

    def __init__(
        self, connection: ClientConnection, key: str, other: str, honest: set[str]
    ) -> None:
        self._connection = connection
        self._key = key
        self._other = other
        self._honest = honest
        self._sent: deque[float] = deque()
        self._replied = asyncio.Event()
        self._next_tick: int | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._ask())]
        self._notes = Notes(self._now())

    def take_notes(self) -> Notes:
        """The observations since the last call; an unfinished round trip counts as it is.

        Raises:
            AssertionError: The server has closed the connection.
        """
        for task in self._tasks:
            if task.done():
                task.result()
        notes, self._notes = self._notes, Notes(self._now())
        notes.ended = self._now()
        notes.trips += [notes.ended - sent for sent in self._sent]
        return notes

    async def stop(self) -> None:
        """Ask and read no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def has_been_answered(self) -> None:
        """Wait for a reply."""
        await self._replied.wait()

    async def _ask(self) -> None:
        """Send a request, and the next one a pause after its reply, until cancelled."""
        while True:
            self._replied.clear()
            self._sent.append(self._now())
            await self._connection.send(frame("echo", {}))
            await self._replied.wait()
            await asyncio.sleep(PAUSE)

    async def _read(self) -> None:
        """Note everything that is sent, until cancelled."""
        async for text in self._connection:
            _, _, _, event, payload = json.loads(text)
            if event == "phx_reply":
                self._notes.trips.append(self._now() - self._sent.popleft())
                self._replied.set()
            elif event == "tick" and payload["node"] == self._other:
                self._note_tick(payload["number"])
            elif event == "presence_diff":
                self._notes.left += self._honest.intersection(payload["leaves"])
        raise AssertionError(f"the server closed the connection of {self._key}")

    def _note_tick(self, number: int) -> None:
        self._notes.ticks.append(self._now())
        if self._next_tick is not None:
            self._notes.lost += number - self._next_tick
        self._next_tick = number + 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


@asynccontextmanager
async def honest_client(
    port: int, key: str, *, other: str = "", honest: Iterable[str] = ()
) -> AsyncIterator[HonestClient]:
    """An honest client that is present in the room."""
    url = f"ws://127.0.0.1:{port}/socket/websocket?vsn=2.0.0"
    async with connect(
        url, ping_interval=None, max_size=None, compression=None, proxy=None
    ) as connection:
        await connection.send(frame("phx_join", {"user": key}))
        reply = json.loads(await connection.recv())
        assert reply[4] == {"status": "ok", "response": {}}, reply
        made = HonestClient(connection, key, other, set(honest))
        try:
            yield made
        finally:
            await made.stop()


def frame(event: str, payload: Any) -> str:
    return json.dumps(["3", "3", ROOM, event, payload])
