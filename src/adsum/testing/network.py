"""A simulated network: links with latency, cut off and severed at will, in virtual time.

A link behaves as TCP does: what is sent arrives in order, or the link breaks. Where a direction is
blocked, frames wait, as they would be retransmitted, until it heals or the link is given up.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Protocol

from adsum.replication.limits import MAX_IN_FLIGHT


class Clock:
    """Virtual time: a queue of what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = count()

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        """Do something at a time; what is due at the same time is done in the order of calls."""
        heapq.heappush(self._queue, (max(at, self.now), next(self._serial), action))

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Do something after some seconds."""
        self.call_at(self.now + delay, action)

    def step(self, until: float) -> bool:
        """Do the next thing that is due by a time; returns whether there was one."""
        if not self._queue or self._queue[0][0] > until:
            self.now = max(self.now, until)
            return False
        at, _, action = heapq.heappop(self._queue)
        self.now = max(self.now, at)
        action()
        return True


class Endpoint(Protocol):
    """Who is at the end of a link."""

    name: str

    def link_opened(self, link: int, peer: str, dialled: str | None) -> None:
        """A link has opened, by dialling an address or by being dialled."""

    def frame_arrived(self, link: int, data: bytes) -> None:
        """A frame has come."""

    def link_broke(self, link: int) -> None:
        """The link is gone."""

    def writable_changed(self, link: int, writable: bool) -> None:
        """The link took too much to be read in time, or it was read again."""


@dataclass(slots=True, eq=False)
class _Pipe:
    """One direction of a link."""

    source: Endpoint
    target: Endpoint
    #: Frames, and what else is to happen in order with them.
    waiting: deque[bytes | Callable[[], None]] = field(default_factory=deque)
    size: int = 0
    busy: bool = False
    closing: bool = False


@dataclass(slots=True, eq=False)
class _Link:
    id: int
    pipes: tuple[_Pipe, _Pipe]
    open: bool = True


class Network:
    """The links between endpoints.

    Args:
        clock: Virtual time.
        rng: Where latencies come from.
        latency: The least and the most seconds that a frame is under way.
    """

    def __init__(self, clock: Clock, rng: Random, latency: tuple[float, float]) -> None:
        self._clock = clock
        self._rng = rng
        self._latency = latency
        self._blocked: set[tuple[str, str]] = set()
        self._links: dict[int, _Link] = {}
        self._serial = count(1)
        #: The part of all frames that is lost without a trace, as no real link does: whatever
        #: happens above or below, the protocol finds out and mends it.
        self.loss = 0.0
        #: Bytes a second in each direction of each link.
        self.bandwidth = float("inf")
        #: Frames and bytes that were sent, for measurements.
        self.frames = self.bytes = 0

    def delay(self) -> float:
        """How long a frame is under way."""
        return self._rng.uniform(*self._latency)

    def block(self, source: str, target: str) -> None:
        """Let nothing through in one direction."""
        self._blocked.add((source, target))

    def unblock(self, source: str, target: str) -> None:
        """Let everything through again, what waits first."""
        self._blocked.discard((source, target))
        for link in list(self._links.values()):
            for pipe in link.pipes:
                self._move(link, pipe)

    def passes(self, source: str, target: str) -> bool:
        """Whether frames get through in one direction."""
        return (source, target) not in self._blocked

    def open(self, dialler: Endpoint, acceptor: Endpoint, address: str) -> None:
        """Make a link: the acceptor has it first, and its word of that precedes its frames."""
        link = _Link(next(self._serial), (_Pipe(dialler, acceptor), _Pipe(acceptor, dialler)))
        self._links[link.id] = link
        link.pipes[1].waiting.append(lambda: dialler.link_opened(link.id, acceptor.name, address))
        acceptor.link_opened(link.id, dialler.name, None)
        self._move(link, link.pipes[1])

    def between(self, first: str, second: str) -> list[int]:
        """The open links between two endpoints."""
        names = {first, second}
        return [
            link.id
            for link in self._links.values()
            if {pipe.source.name for pipe in link.pipes} == names
        ]

    def send(self, id: int, source: Endpoint, data: bytes) -> None:
        """Queue a frame."""
        link = self._links.get(id)
        if link is None:
            return
        pipe = self._pipe(link, source)
        self.frames += 1
        self.bytes += len(data)
        if self.loss and self._rng.random() < self.loss:
            return
        pipe.waiting.append(data)
        pipe.size += len(data)
        if pipe.size > MAX_IN_FLIGHT >= pipe.size - len(data):
            source.writable_changed(id, False)
        self._move(link, pipe)

    def close(self, id: int, source: Endpoint) -> None:
        """End a link after what was sent; the other end learns of it."""
        link = self._links.get(id)
        if link is not None:
            self._pipe(link, source).closing = True
            self._move(link, self._pipe(link, source))

    def sever(self, id: int) -> None:
        """Break a link; what is under way is lost, and both ends learn of it."""
        link = self._links.pop(id, None)
        if link is not None:
            link.open = False
            for pipe in link.pipes:
                self._clock.call_later(self.delay(), _Broke(pipe.target, id))

    def _pipe(self, link: _Link, source: Endpoint) -> _Pipe:
        first, second = link.pipes
        return first if first.source is source else second

    def _move(self, link: _Link, pipe: _Pipe) -> None:
        """Put what waits under way, one batch at a time, so that order is kept."""
        if pipe.busy or not link.open or not (pipe.waiting or pipe.closing):
            return
        if self.passes(pipe.source.name, pipe.target.name):
            pipe.busy = True
            batch = self._take(pipe)
            size = sum(len(item) for item in batch if isinstance(item, bytes))
            delay = self.delay() + size / self.bandwidth
            self._clock.call_later(delay, lambda: self._arrive(link, pipe, batch))

    def _take(self, pipe: _Pipe) -> list[bytes | Callable[[], None]]:
        """All that waits, or, where a line is narrow, the next frame."""
        if self.bandwidth < float("inf"):
            return [pipe.waiting.popleft()] if pipe.waiting else []
        batch = list(pipe.waiting)
        pipe.waiting.clear()
        return batch

    def _arrive(self, link: _Link, pipe: _Pipe, batch: list[bytes | Callable[[], None]]) -> None:
        pipe.busy = False
        for item in batch:
            if not link.open:
                break
            if not isinstance(item, bytes):
                item()
                continue
            full = pipe.size > MAX_IN_FLIGHT
            pipe.size -= len(item)
            pipe.target.frame_arrived(link.id, item)
            if full and pipe.size <= MAX_IN_FLIGHT:
                pipe.source.writable_changed(link.id, True)
        if pipe.closing and not pipe.waiting and link.open:
            link.open = False
            del self._links[link.id]
            pipe.target.link_broke(link.id)
        self._move(link, pipe)


@dataclass(frozen=True, slots=True)
class _Broke:
    target: Endpoint
    link: int

    def __call__(self) -> None:
        self.target.link_broke(self.link)
