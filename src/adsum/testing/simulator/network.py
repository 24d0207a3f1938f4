"""A simulated network in virtual time: links over lines that can be slowed, cut and severed.

A link behaves as TCP does: frames arrive in order, or the link breaks. On a line that is cut,
frames wait until it heals or the link is given up, since TCP would retransmit them.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count
from random import Random
from typing import Protocol

from adsum.replication.codec import decode
from adsum.replication.limits import MAX_IN_FLIGHT
from adsum.replication.messages import ProtocolMessage
from adsum.replication.state import Replica

#: Seconds that a dial waits for an answer.
DIAL_TIMEOUT = 3.0
#: Actions at one time, at most: one step of a trial has many, and each sets few others.
MOST_AT_ONCE = 200_000


class VirtualClock:
    """Virtual time: a queue of actions, each with the time at which it is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = count()
        # Actions since time last went on.
        self._at_once = 0

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        """Schedule an action at a time; actions due at the same time run in the order of calls."""
        heapq.heappush(self._queue, (max(at, self.now), next(self._serial), action))

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Schedule an action after some seconds."""
        self.call_at(self.now + delay, action)

    def step(self, until: float) -> bool:
        """Run the next action that is due by a time; returns whether there was one.

        Raises:
            RuntimeError: More than `MOST_AT_ONCE` actions ran at one time, so a timer is set for a
                time that has passed, again and again.
        """
        if not self._queue or self._queue[0][0] > until:
            self.now = max(self.now, until)
            return False
        at, _, action = heapq.heappop(self._queue)
        self._at_once = 0 if at > self.now else self._at_once + 1
        if self._at_once > MOST_AT_ONCE:
            raise RuntimeError(f"{MOST_AT_ONCE} actions ran at {self.now:.3f} s: {action}")
        self.now = max(self.now, at)
        action()
        return True


class SimulatedFrame:
    """One encoded message; the first receiver decodes it, and all share the result."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @cached_property
    def message(self) -> ProtocolMessage:
        """The decoded message; messages are immutable, so all receivers may share one."""
        return decode(self.data)


@dataclass(slots=True)
class Line:
    """One direction between two places: its latency, bandwidth and loss.

    Attributes:
        latency: The least and the most seconds that a frame is under way.
        bandwidth: Bytes a second for each link.
        loss: The fraction of frames, from 0 to 1, that is lost without a trace. TCP never does
            this; it shows that the protocol repairs a loss of any cause.
        cut: Whether no frame gets through.
    """

    latency: tuple[float, float]
    bandwidth: float = float("inf")
    loss: float = 0.0
    cut: bool = False


class Medium(Protocol):
    """Whatever carries the frames of simulated nodes: the network or the bus.

    Attributes:
        changed_at: Virtual time at which a way between nodes last opened, closed or slowed down.
    """

    changed_at: float

    @property
    def lossy(self) -> bool:
        """Whether it loses frames or is too narrow for them, so that nothing is in time."""


class Endpoint(Protocol):
    """The end of a link: one life of a node."""

    place: str
    #: Whether its process has not ended.
    running: bool

    @property
    def replica(self) -> Replica:
        """Its name and incarnation."""

    def link_opened(self, link: int, peer: "Endpoint", dialled: str | None) -> None:
        """A link has opened, to a dialled address or, if `dialled` is None, from the peer."""

    def frame_arrived(self, link: int, frame: SimulatedFrame) -> None:
        """A frame has arrived."""

    def link_broke(self, link: int) -> None:
        """A link has broken or was closed by the peer."""

    def dial_failed(self, address: str, refused: bool) -> None:
        """A dial has failed: refused, or not answered in time."""

    def writable_changed(self, link: int, writable: bool) -> None:
        """Too many bytes wait on the link for the peer to read, or it has read most of them."""


#: A frame, or an action that runs in order with frames.
Item = SimulatedFrame | Callable[[], None]


@dataclass(slots=True, eq=False)
class _Pipe:
    """One direction of a link."""

    source: Endpoint
    target: Endpoint
    waiting: deque[Item] = field(default_factory=deque)
    #: Frames and actions under way.
    flying: list[Item] = field(default_factory=list)
    #: Bytes of the frames that have not arrived.
    size: int = 0
    #: Whether too many bytes wait. The link is not writable then until most have arrived.
    full: bool = False
    busy: bool = False
    closing: bool = False


@dataclass(slots=True, eq=False)
class _Link:
    id: int
    pipes: tuple[_Pipe, _Pipe]
    #: The dialled address, until the dialler has learned that the link is open.
    dialled: str | None
    open: bool = True


class Network:
    """The links between endpoints.

    Args:
        clock: Virtual time.
        rng: Generates latencies and losses.
        latency: The least and the most seconds that a frame is under way.
    """

    def __init__(self, clock: VirtualClock, rng: Random, latency: tuple[float, float]) -> None:
        self._clock = clock
        self._rng = rng
        self._links: dict[int, _Link] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        # Ends of broken links that cannot learn of the break yet, because their line is cut.
        self._unnotified: list[tuple[_Link, _Pipe]] = []
        self._serial = count(1)
        #: The settings of every line that was not altered itself.
        self.usual = Line(latency)
        #: Frames and bytes that were sent, for measurements.
        self.frames = self.bytes = 0
        #: Virtual time at which a line was last cut, mended or slowed, or a link severed.
        self.changed_at = 0.0
        #: The most bytes that ever waited in one direction of a link.
        self.most_waiting = 0

    def line(self, source: str, target: str) -> Line:
        """The line from one place to another, to be altered; `usual` no longer affects it."""
        self.changed_at = self._clock.now
        return self._lines.setdefault((source, target), replace(self.usual))

    @property
    def lossy(self) -> bool:
        """See `Medium`."""
        return bool(self.usual.loss) or self.usual.bandwidth < float("inf")

    def delay(self, source: str, target: str) -> float:
        """Draw the seconds that a frame is under way."""
        return self._rng.uniform(*self._line(source, target).latency)

    def cut(self, source: str, target: str) -> None:
        """Cut one direction: no frame gets through."""
        self.line(source, target).cut = True

    def mend(self, source: str, target: str) -> None:
        """Mend one direction: frames get through again, waiting ones first."""
        self.line(source, target).cut = False
        self._move_all()

    def heal(self) -> None:
        """Make every line as usual: nothing is cut, and none has its own latency or loss."""
        self._lines.clear()
        self.changed_at = self._clock.now
        self._move_all()

    def passes(self, source: str, target: str) -> bool:
        """Whether frames get through in one direction."""
        return not self._line(source, target).cut

    def open(self, dialler: Endpoint, acceptor: Endpoint, address: str) -> None:
        """Open a link: at the acceptor first; the dialler learns of it before its first frame."""
        link = _Link(
            next(self._serial), (_Pipe(dialler, acceptor), _Pipe(acceptor, dialler)), address
        )
        self._links[link.id] = link
        link.pipes[1].waiting.append(partial(self._opened, link))
        acceptor.link_opened(link.id, dialler, None)
        self._move(link, link.pipes[1])
        self._clock.call_later(DIAL_TIMEOUT, partial(self._give_up, link))

    def between(self, first: str, second: str) -> list[int]:
        """The open links between two places."""
        places = {first, second}
        return [
            link.id
            for link in self._links.values()
            if {pipe.source.place for pipe in link.pipes} == places
        ]

    def send(self, id: int, source: Endpoint, frame: SimulatedFrame) -> str | None:
        """Queue a frame; returns the place of the receiver, or None if the link is gone."""
        link = self._links.get(id)
        if link is None:
            return None
        pipe = self._pipe(link, source)
        size = len(frame.data)
        self.frames += 1
        self.bytes += size
        loss = self._line(source.place, pipe.target.place).loss
        if loss and self._rng.random() < loss:
            return pipe.target.place
        pipe.waiting.append(frame)
        pipe.size += size
        self.most_waiting = max(self.most_waiting, pipe.size)
        if pipe.size > MAX_IN_FLIGHT and not pipe.full:
            pipe.full = True
            source.writable_changed(id, False)
        self._move(link, pipe)
        return pipe.target.place

    def close(self, id: int, source: Endpoint) -> None:
        """Close a link after all queued frames have arrived; the other end is notified."""
        link = self._links.get(id)
        if link is not None:
            self._pipe(link, source).closing = True
            self._move(link, self._pipe(link, source))

    def sever(self, id: int) -> None:
        """Break a link: some frames under way arrive, the rest is lost; both ends are notified.

        An end behind a line that is cut is notified once the line is mended.
        """
        link = self._links.pop(id, None)
        self.changed_at = self._clock.now
        if link is not None:
            link.open = False
            for pipe in link.pipes:
                pipe.flying = pipe.flying[: self._rng.randint(0, len(pipe.flying))]
                self._notify_break(link, pipe)

    def _notify_break(self, link: _Link, pipe: _Pipe) -> None:
        source, target = pipe.source.place, pipe.target.place
        if self.passes(source, target):
            delay = self.delay(source, target)
            self._clock.call_later(delay, partial(self._break, link, pipe))
        else:
            self._unnotified.append((link, pipe))

    def _opened(self, link: _Link) -> None:
        dialler, acceptor = link.pipes[0].source, link.pipes[0].target
        if not dialler.running:  # the kernel of its host answers with a reset
            self.sever(link.id)
            return
        dialled, link.dialled = link.dialled, None
        dialler.link_opened(link.id, acceptor, dialled)

    def _give_up(self, link: _Link) -> None:
        """Give up a dial that was not answered in time."""
        if link.dialled is not None:
            self.sever(link.id)

    def _break(self, link: _Link, pipe: _Pipe) -> None:
        for item in pipe.flying:
            if isinstance(item, SimulatedFrame):
                pipe.target.frame_arrived(link.id, item)
        if link.dialled is not None and pipe is link.pipes[1]:
            pipe.target.dial_failed(link.dialled, False)
        else:
            pipe.target.link_broke(link.id)

    def _pipe(self, link: _Link, source: Endpoint) -> _Pipe:
        first, second = link.pipes
        return first if first.source is source else second

    def _line(self, source: str, target: str) -> Line:
        return self._lines.get((source, target), self.usual) if self._lines else self.usual

    def _move_all(self) -> None:
        unnotified, self._unnotified = self._unnotified, []
        for link, pipe in unnotified:
            self._notify_break(link, pipe)
        for link in list(self._links.values()):
            for pipe in link.pipes:
                self._move(link, pipe)

    def _move(self, link: _Link, pipe: _Pipe) -> None:
        """Put waiting frames under way, one batch at a time, so that they stay in order."""
        if pipe.busy or not link.open or not (pipe.waiting or pipe.closing):
            return
        line = self._line(pipe.source.place, pipe.target.place)
        if line.cut:
            return
        pipe.busy = True
        delay = self._rng.uniform(*line.latency)
        if line.bandwidth < float("inf"):  # the line is narrow: frame by frame
            pipe.flying = [pipe.waiting.popleft()] if pipe.waiting else []
            size = sum(len(item.data) for item in pipe.flying if isinstance(item, SimulatedFrame))
            delay += size / line.bandwidth
        else:
            pipe.flying = list(pipe.waiting)
            pipe.waiting.clear()
        self._clock.call_later(delay, partial(self._arrive, link, pipe))

    def _arrive(self, link: _Link, pipe: _Pipe) -> None:
        pipe.busy = False
        flying, pipe.flying = pipe.flying, []
        for item in flying:
            if not link.open:
                break
            if isinstance(item, SimulatedFrame):
                self._deliver(link, pipe, item)
            else:
                item()
        if pipe.closing and not pipe.waiting and link.open:
            link.open = False
            del self._links[link.id]
            pipe.target.link_broke(link.id)
        self._move(link, pipe)

    def _deliver(self, link: _Link, pipe: _Pipe, frame: SimulatedFrame) -> None:
        pipe.size -= len(frame.data)
        pipe.target.frame_arrived(link.id, frame)
        if pipe.full and pipe.size <= MAX_IN_FLIGHT // 4:
            pipe.full = False
            pipe.source.writable_changed(link.id, True)
