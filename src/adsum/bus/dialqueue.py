"""`DialQueue`: the dials of `BusDials` that wait for a place, and those that have one. No I/O.

A node has `MAX_DIALS` handshakes of its own under way, so that many nodes can start at once on a
busy machine. Each holds its place until its end, or for `DIAL_PATIENCE`. A stopped process still
subscribes to its inbox and never answers, so many stopped nodes would hold all places again and
again, and living nodes would wait behind them.

So the dials are of two kinds. A life was *heard* if a message of it has arrived since it last had a
link or failed to answer: an announcement, or a heartbeat for others. It is forgotten `HEARD_FOR`
seconds after the last message that was checked. All others are *silent*. A dial to a life that was
heard begins before all silent ones, which have `MAX_SILENT_DIALS` of the places. So it waits for
dials to other lives that were heard alone, and these answer, unless they were stopped since. The
number of handshakes under way is the same as without the rule.

No more than `MAX_SILENT_WAITING` silent dials wait. More are refused at once, and the caller dials
again later, so that they do not use up the dials that it may have under way.
"""

from collections.abc import Mapping

from .limits import (
    DIAL_PATIENCE,
    HEARD_FOR,
    MAX_DIALS,
    MAX_HEARD,
    MAX_SILENT_DIALS,
    MAX_SILENT_WAITING,
)

_NEVER = float("inf")


class DialQueue:
    """The dials of one node, by life."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, None] = {}
        # When each dial under way leaves its place to the next one.
        self._places: dict[bytes, float] = {}
        # When the last message of each life that was heard arrived; the oldest is the first.
        self._heard: dict[bytes, float] = {}

    @property
    def heard(self) -> Mapping[bytes, float]:
        """The lives that were heard, with the time of the last noted message; read-only."""
        return self._heard

    def note(self, life: bytes, now: float) -> None:
        """Note a message of a life without a link."""
        if life in self._heard:
            del self._heard[life]
        self._heard[life] = now
        if len(self._heard) > MAX_HEARD:
            del self._heard[next(iter(self._heard))]

    def add(self, life: bytes) -> bool:
        """Let a dial wait for a place; returns False if it may not wait. Idempotent."""
        if life in self._waiting:
            return True
        if life not in self._heard:
            silent = sum(each not in self._heard for each in self._waiting)
            if silent >= MAX_SILENT_WAITING:
                return False
        self._waiting[life] = None
        return True

    def waits(self, life: bytes) -> bool:
        """Whether a dial to a life waits for a place."""
        return life in self._waiting

    def withdraw(self, life: bytes) -> bool:
        """Remove a waiting dial; returns whether there was one."""
        was_waiting = life in self._waiting
        self._waiting.pop(life, None)
        return was_waiting

    def end(self, life: bytes) -> None:
        """Note that a dial has ended, or that a link has opened: the place is free."""
        self._places.pop(life, None)
        self._heard.pop(life, None)

    def clear(self) -> list[bytes]:
        """Forget everything, as the bus is lost; returns the lives of the waiting dials."""
        lives = list(self._waiting)
        self._waiting.clear()
        self._places.clear()
        self._heard.clear()
        return lives

    def begin(self, now: float) -> list[bytes]:
        """Give the free places to waiting dials; returns their lives."""
        while self._heard and next(iter(self._heard.values())) <= now - HEARD_FOR:
            del self._heard[next(iter(self._heard))]
        if not self._waiting:
            return []
        self._places = {life: at for life, at in self._places.items() if at > now}
        begun = list[bytes]()
        while (life := self._next()) is not None:
            del self._waiting[life]
            begun.append(life)
            self._places[life] = now + DIAL_PATIENCE
        return begun

    @property
    def wake_at(self) -> float:
        """When to call `begin`, in monotonic seconds; never while no dial waits."""
        return min(self._places.values(), default=_NEVER) if self._waiting else _NEVER

    def _next(self) -> bytes | None:
        """The waiting dial that has the next place; None if none may begin."""
        if len(self._places) >= MAX_DIALS:
            return None
        for life in self._waiting:
            if life in self._heard:
                return life
        silent = sum(each not in self._heard for each in self._places)
        return next(iter(self._waiting), None) if silent < MAX_SILENT_DIALS else None
