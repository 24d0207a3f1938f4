"""The load generator: a process full of WebSocket clients that each know who is in their room."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.dialects import Dialect, Phoenix, SocketIO
from benchmarks.figures import percentile
from benchmarks.waiting import until
from benchmarks.websocket import WebSocket
from benchmarks.workload import key, meta

DIALECTS: dict[str, type[Dialect]] = {"adsum": Phoenix, "python-socketio": SocketIO}
#: No step takes longer, in seconds.
_PATIENCE = 100.0
#: Seconds between two looks at all clients.
_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Entered:
    """How a crowd came in.

    Attributes:
        seconds: From the first attempt to connect until every client knew all of its room.
        cpu: Seconds of CPU of this process meanwhile.
        frames: Received by each client.
        received: Bytes received by each client.
    """

    seconds: float
    cpu: float
    frames: list[int]
    received: list[int]


@dataclass(frozen=True, slots=True)
class Changed:
    """How changes reached a crowd.

    Attributes:
        seconds: During which changes were made.
        cpu: Seconds of CPU of this process meanwhile.
        changes: Made by the clients.
        told: Changes that clients were told, one for each change and client.
        frames: Received by all clients together.
        median: Seconds from a change to its receipt, over all changes and clients.
        p95: The same, of which one in twenty took longer.
    """

    seconds: float
    cpu: float
    changes: int
    told: int
    frames: int
    median: float
    p95: float


class Member(WebSocket):
    """One client: it enters, and folds all that it receives into a set of keys."""

    def __init__(self, crowd: "Crowd", number: int, room: str, compressed: bool) -> None:
        super().__init__(crowd.dialect.path, compressed)
        self._crowd, self._dialect, self._room = crowd, crowd.dialect, room
        self.key, self._meta = key(number), meta(number)
        self.keys: set[str] = set()
        # Done once the list has come.
        self.entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The latest time stamp that it was told.
        self.told_until = 0
        # Called when a change of its own comes back.
        self.on_own_change: Callable[[], None] | None = None

    def change(self) -> int:
        """Put a time stamp into one's meta; returns it."""
        now = time.monotonic_ns()
        self.send(self._dialect.change(self._room, {**self._meta, "at": now}))
        return now

    def opened(self) -> None:
        hello = self._dialect.hello(self._room, self.key, self._meta)
        if hello:
            self.send(hello)

    def message(self, payload: bytes) -> None:
        news = self._dialect.read(payload)
        if news.joins:
            self.keys |= news.joins
        if news.leaves:
            self.keys -= news.leaves
        if news.stamps is not None:
            self._note_changes(news.stamps)
        elif news.answer:
            self.send(self._dialect.answer(news.answer, self._room, self.key, self._meta))
        elif news.listed and not self.entered.done():
            self.entered.set_result(None)

    def _note_changes(self, stamps: dict[str, int]) -> None:
        now = time.monotonic_ns()
        self._crowd.delays += [now - at for at in stamps.values()]
        self.told_until = max(self.told_until, *stamps.values())
        if self.on_own_change is not None and self.key in stamps:
            self.on_own_change()

    def lost(self, why: str) -> None:
        self._crowd.failed(f"{self.key}: {why}")
        if not self.entered.done():
            self.entered.set_exception(ConnectionError(why))


class Crowd:
    """Many clients of one side; every method is an order from the parent process."""

    def __init__(self) -> None:
        self.dialect: Dialect = Phoenix()
        self.delays: list[int] = []
        self._members: list[Member] = []
        self._failure = ""

    def failed(self, why: str) -> None:
        """Some client has lost its connection; no figure may come from such a run."""
        self._failure = self._failure or why

    def _check(self) -> None:
        if self._failure:
            raise RuntimeError(self._failure)

    async def enter(
        self,
        side: str,
        ports: list[int],
        count: int,
        *,
        at_once: int,
        per_room: int,
        room: str = "r",
        compressed: bool = False,
    ) -> Entered:
        """Let clients in, spread evenly over the servers.

        Args:
            side: One of `DIALECTS`.
            ports: Where the servers are.
            count: How many clients.
            at_once: How many may be between connecting and their list at any time.
            per_room: Members of a room; the last may have fewer.
            room: What the names of the rooms begin with.
            compressed: Whether clients offer permessage-deflate.
        """
        self.dialect = DIALECTS[side]()
        began, cpu = time.perf_counter(), time.process_time()
        first = len(self._members)
        coming = [
            Member(self, number, f"{room}{number // per_room}", compressed)
            for number in range(first, first + count)
        ]
        self._members += coming
        turns = asyncio.Semaphore(at_once)
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(
                *[_enter(one, ports[n % len(ports)], turns) for n, one in enumerate(coming)]
            )
            await self._until_all_know(coming, per_room)
        return Entered(
            time.perf_counter() - began,
            time.process_time() - cpu,
            [one.frames for one in coming],
            [one.received for one in coming],
        )

    async def _until_all_know(self, coming: list[Member], per_room: int) -> None:
        """Wait until each knows as many keys as its room has members."""
        missing = [
            (one, min(per_room, len(coming) - number // per_room * per_room))
            for number, one in enumerate(coming)
        ]
        while missing:
            missing = [(one, size) for one, size in missing if len(one.keys) < size]
            self._check()
            await asyncio.sleep(_PAUSE)

    async def change(self, changers: int, seconds: float, rate: float) -> Changed:
        """Let some members change their metas for a while.

        Args:
            changers: How many of them change.
            seconds: For how long.
            rate: Changes per second of all of them together; 0: each changes again as soon as it
                has seen its change come back.
        """
        self.delays = []
        frames = sum(one.frames for one in self._members)
        began, cpu = time.perf_counter(), time.process_time()
        actors = self._members[:: len(self._members) // changers][:changers]
        made = await (_steadily(actors, seconds, rate) if rate else _in_turn(actors, seconds))
        last = actors[0].change()  # the changes before reach everybody before this one

        def told() -> bool:
            self._check()
            return all(one.told_until >= last for one in self._members)

        await until(told, pause=_PAUSE, patience=_PATIENCE)
        return Changed(
            time.perf_counter() - began,
            time.process_time() - cpu,
            made + 1,
            len(self.delays),
            sum(one.frames for one in self._members) - frames,
            percentile(self.delays, 50) / 1e9,
            percentile(self.delays, 95) / 1e9,
        )

    def leave(self) -> None:
        """Drop all connections."""
        for one in self._members:
            one.close()
        self._members.clear()


async def _enter(one: Member, port: int, turns: asyncio.Semaphore) -> None:
    async with turns:
        await asyncio.get_running_loop().create_connection(lambda: one, "127.0.0.1", port)
        await one.entered


async def _steadily(actors: list[Member], seconds: float, rate: float) -> int:
    began, made = time.perf_counter(), int(seconds * rate)
    for number in range(made):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        actors[number % len(actors)].change()
    return made


async def _in_turn(actors: list[Member], seconds: float) -> int:
    """Each changes as soon as it has seen its last change; returns how many were made."""
    made = 0
    until = time.perf_counter() + seconds
    done = [asyncio.Event() for _ in actors]

    def follow(one: Member, ended: asyncio.Event) -> Callable[[], None]:
        def seen() -> None:
            nonlocal made
            if time.perf_counter() < until:
                made += 1
                one.change()
            else:
                ended.set()

        return seen

    for one, ended in zip(actors, done, strict=True):
        one.on_own_change = follow(one, ended)
        made += 1
        one.change()
    async with asyncio.timeout(seconds + _PATIENCE):
        for ended in done:
            await ended.wait()
    for one in actors:
        one.on_own_change = None
    return made
