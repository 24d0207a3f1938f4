"""The presences of one topic, on their way to all clients of this node that follow it.

Changes are gathered, and cut into numbered diffs: at once in a quiet room, every so often in a busy
one. A client has a number too, that of the last diff that it was sent. When it can be sent
something, it is sent what changed since its number: the last diff, whose text all share, or several
merged into one. So a slow client costs a number, and not a queue.

Invariants:
- A client's first frame is the state at one of the cuts, and its number is that of the cut. So
  each change is in the state or in a later diff, and in one of them only.
- Diffs are remembered up to a bound. A client whose number is older is sent a new state, from which
  it works out what changed, or is disconnected, as configured.
- A diff is put into text once, and a state once for each cut, whoever gets them.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Protocol

from adsum.presence import Presence
from adsum.replication.entry import KEY, Entry, Identity, Transition
from adsum.tasks import cancel_task, start_task
from adsum.watching import Extras, fold, group_in_slices

from .fairshare import WORK, FairShare
from .frames import Ref, Serializer, Wire
from .presences import beside, diff_text, state_text

#: Seconds between two diffs of a topic, at least and at most. Between these, a room pauses for as
#: long as it took to tell everybody of the last one, so it has half of the event loop and no more.
PAUSE, LONGEST_PAUSE = 0.005, 1.0
#: Changes remembered for slow clients: so many, or as many as are present.
REMEMBERED = 1000
#: A room that is counts-only lists again when it has shrunk to this part of its limit.
_LIST_AGAIN = 0.8
#: Timers of the event loop may ring this much early.
_CLOCK_RESOLUTION = 0.0005


class Listener(Protocol):
    """A client's channel, as a room sees it."""

    topic: str
    join_ref: Ref
    serializer: Serializer

    @property
    def longest_state(self) -> int | None:
        """Characters of presences that its transport can carry; None if any number."""

    def ready(self, follower: "Follower") -> None:
        """There is something to be sent: ask the follower for its frame when it can be."""

    def too_slow(self) -> None:
        """The client is further behind than is remembered, and is not to be sent a new state."""

    def too_long(self, size: int) -> None:
        """What the client is to be sent is longer than its transport can carry."""


class Follower:
    """One client's channel that follows a room."""

    __slots__ = ("announced", "listener", "number", "room", "state", "waiting")

    def __init__(self, room: "Room", listener: Listener) -> None:
        self.room = room
        self.listener = listener
        #: The last diff that it was sent, or was part of its state; None while it waits for one.
        self.number: int | None = None
        #: The state that it is to be sent next, with the number of its cut.
        self.state: tuple[int, str] | None = None
        #: The last count that it was sent, in a room that is counts-only.
        self.announced: int | None = None
        #: Whether its listener was told to ask for a frame, and has not yet.
        self.waiting = False

    def frame(self) -> Wire | None:
        """What to send now; see `outbox.Source`."""
        self.waiting = False
        return self.room.frame_for(self)

    def notify(self) -> None:
        """Have the frame asked for, once."""
        if not self.waiting:
            self.waiting = True
            self.listener.ready(self)


class Diff:
    """What changed between two cuts, and its text."""

    __slots__ = ("_text", "beside", "transitions")

    def __init__(self, transitions: list[Transition], beside: dict[str, str]) -> None:
        self.transitions = transitions
        self.beside = beside
        self._text: str | None = ""

    def text(self) -> str | None:
        """The text for all clients; None if nothing changed."""
        if self._text == "":
            self._text = diff_text(self.transitions, self.beside)
        return self._text


class Room:
    """See the module.

    Args:
        topic: The topic.
        presence: Who is there.
        counts_above: Above so many keys only counts are told; None never.
        state_if_slow: Whether a client that is too far behind is sent a new state; else it is told
            to its listener.
    """

    def __init__(
        self, topic: str, presence: Presence, counts_above: int | None, state_if_slow: bool
    ) -> None:
        self.topic = topic
        #: The number of the last cut.
        self.number = 0
        self.counting = False
        self._presence = presence
        self._counts_above = counts_above
        self._state_if_slow = state_if_slow
        self._followers: set[Follower] = set()
        # Those who wait for a state, which they get at the next cut.
        self._newcomers: dict[Follower, None] = {}
        # What changed since the last cut: what each presence was then, and what it is now.
        self._pending: dict[Identity, Transition] = {}
        # The last diffs, the oldest first; the newest has the number of the last cut.
        self._diffs: deque[Diff] = deque()
        self._remembered = 0
        # Several diffs merged, by the number of the first that is in it; valid for this cut.
        self._merged: dict[int, Diff] = {}
        # The state at the last cut, if somebody asked for it.
        self._state: str | None = None
        self._count = 0
        self._next_cut_at = 0.0
        self._timer: asyncio.Handle | None = None
        # The look-up for a cut; it is stored until its end is handled.
        self._cutting: asyncio.Task[Extras] | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._share = FairShare()

    # What clients do.

    def enter(self, listener: Listener) -> Follower:
        """Follow the room from now on; the state comes with the next cut."""
        follower = Follower(self, listener)
        self._newcomers[follower] = None
        self._schedule()
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow it no longer. Idempotent."""
        self._followers.discard(follower)
        self._newcomers.pop(follower, None)

    @property
    def followers(self) -> int:
        """How many follow it."""
        return len(self._followers | self._newcomers.keys())

    @property
    def empty(self) -> bool:
        """Whether nobody follows it."""
        return not self._followers and not self._newcomers

    def frame_for(self, follower: Follower) -> Wire | None:
        """What a client is to be sent now; it counts as sent."""
        listener = follower.listener
        if follower not in self._followers:
            return None  # it has left while its turn came
        if self.counting:
            return self._count_for(follower)
        if follower.state is not None:
            (follower.number, text), follower.state = follower.state, None
            if self._is_behind(follower):
                follower.notify()  # the diffs since then come next
            return self._push(listener, "presence_state", text)
        if follower.number is None or not self._is_behind(follower):
            return None
        diff = self._since(follower.number)
        if diff is None:
            self._fell_behind(follower)
            return None
        follower.number = self.number
        changes = diff.text()
        return None if changes is None else self._push(listener, "presence_diff", changes)

    def _push(self, listener: Listener, event: str, text: str) -> Wire | None:
        """A frame for one joining of the topic, whose body all clients share.

        Diffs too name the joining, so that a client that leaves and joins at once does not take
        those that are still on their way for diffs of the state that it gets next.
        """
        if listener.longest_state is not None and len(text) > listener.longest_state:
            listener.too_long(len(text))
            return None
        return listener.serializer.message(listener.join_ref, None, self.topic, event, text)

    # What the node tells.

    def changed(self, transitions: list[Transition]) -> None:
        """Presences changed."""
        fold(self._pending, transitions)
        self._schedule()

    def close(self) -> None:
        """Nobody follows it any more, or the node has stopped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        cancel_task(self._cutting)
        self._followers.clear()
        self._newcomers.clear()

    # Cutting.

    def settle(self) -> bool:
        """Cut now whatever waits for a cut; whether something is still asked for.

        For tests, which do not wait.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._cut()
        return self._cutting is not None

    def _schedule(self) -> None:
        if self._timer is None and self._cutting is None:
            delay = self._next_cut_at - self._loop.time()
            self._timer = (
                self._loop.call_later(delay, self._on_timer)
                if delay > 0
                else self._loop.call_soon(self._on_timer)
            )

    def _on_timer(self) -> None:
        if self._next_cut_at - self._loop.time() > _CLOCK_RESOLUTION:
            self._timer = None
            self._schedule()  # telling everybody took longer than was known when it was set
        else:
            self._cut()

    def _cut(self) -> None:
        """Make a diff of what changed, and the state for those who wait for it, at one point."""
        try:
            self._presence.node.runtime.tell_observers()
        finally:
            self._timer = None
        pending, self._pending = self._pending, {}
        newcomers, self._newcomers = self._newcomers, {}
        self._followers.update(newcomers)
        transitions = list(pending.values())
        self._switch_mode(newcomers)
        if self.counting:
            self._install([], {}, newcomers, self._loop.time())
            return
        entries = None
        if newcomers and (transitions or self._state is None):
            entries = self._presence.node.runtime.engine.view.all_entries(self.topic)
        if not self._presence.enriches:
            self._finish(transitions, entries, {}, newcomers)
        else:
            # Meanwhile nothing else is cut.
            self._cutting = start_task(self._look_up(transitions, entries or []))
            self._cutting.add_done_callback(
                partial(self._looked_up, transitions, entries, newcomers)
            )

    async def _look_up(self, transitions: list[Transition], entries: list[Entry]) -> Extras:
        """Call the `fetch` function once for all that a cut concerns."""
        changed = [entry for pair in transitions for entry in pair if entry is not None]
        concerned = list({id(entry): entry for entry in [*changed, *entries]}.values())
        return await self._presence.enrich(self.topic, await group_in_slices(concerned))

    def _looked_up(
        self,
        transitions: list[Transition],
        entries: list[Entry] | None,
        newcomers: dict[Follower, None],
        task: "asyncio.Task[Extras]",
    ) -> None:
        """Make the cut, without extras if the look-up was cancelled."""
        self._cutting = None
        if self._closed:
            return
        extras = {} if task.cancelled() else task.result()
        fetched = beside(self.topic, extras, self._presence.log)
        self._finish(transitions, entries, fetched, newcomers)
        if self._pending or self._newcomers:
            self._schedule()

    def _finish(
        self,
        transitions: list[Transition],
        entries: list[Entry] | None,
        fetched: dict[str, str],
        newcomers: dict[Follower, None],
    ) -> None:
        began = self._loop.time()
        if transitions:
            self._state = None
        if entries is not None:
            self._state = state_text(entries, fetched)
        if fetched:  # a diff keeps what belongs to it alone
            keys = {entry[KEY] for pair in transitions for entry in pair if entry is not None}
            fetched = {key: fetched[key] for key in keys if key in fetched}
        self._install(transitions, fetched, newcomers, began)

    def _install(
        self,
        transitions: list[Transition],
        fetched: dict[str, str],
        newcomers: dict[Follower, None],
        began: float,
    ) -> None:
        """Number the cut, whose making began at a time, and tell everybody who follows."""
        self._next_cut_at = self._loop.time() + PAUSE
        if transitions:
            self._remember(Diff(transitions, fetched))
        if transitions or self.counting:
            for follower in list(self._followers):
                follower.notify()
        for follower in newcomers.keys() & self._followers:  # one may have left meanwhile
            if self._state is not None:
                follower.state = self.number, self._state
            follower.notify()
        # Whoever was notified begins to send at once or stands in line for it, and sends in a later
        # turn of the loop. This comes after them.
        self._loop.call_soon(self._tell_later, began)

    def _tell_later(self, began: float) -> None:
        def sent() -> None:
            self._loop.call_soon(self._told, began)

        self._share.call(WORK, sent)

    def _told(self, began: float) -> None:
        now = self._loop.time()
        self._next_cut_at = now + min(max(PAUSE, now - began), LONGEST_PAUSE)

    def _remember(self, diff: Diff) -> None:
        self.number += 1
        self._merged.clear()
        self._diffs.append(diff)
        self._remembered += len(diff.transitions)
        limit = max(REMEMBERED, self._presence.count(self.topic))
        while len(self._diffs) > 1 and self._remembered > limit:
            self._remembered -= len(self._diffs.popleft().transitions)

    def _is_behind(self, follower: Follower) -> bool:
        return follower.number is not None and follower.number < self.number

    def _since(self, number: int) -> Diff | None:
        """All that changed since a cut, as one diff; None if that is not remembered."""
        missing = self.number - number
        if missing == 1:
            return self._diffs[-1]
        if missing > len(self._diffs):
            return None
        merged = self._merged.get(number)
        if merged is None:
            pending: dict[Identity, Transition] = {}
            fetched: dict[str, str] = {}
            for diff in list(self._diffs)[-missing:]:
                fold(pending, diff.transitions)
                fetched.update(diff.beside)
            merged = self._merged[number] = Diff(list(pending.values()), fetched)
        return merged

    def _fell_behind(self, follower: Follower) -> None:
        if self._state_if_slow:
            self._newcomers[follower] = None
            self._schedule()
        else:
            follower.listener.too_slow()

    # Counting.

    def _switch_mode(self, newcomers: dict[Follower, None]) -> None:
        """Begin to tell counts only, or to list again; then everybody needs a state."""
        self._count = self._presence.count(self.topic)
        if self._counts_above is None:
            return
        if not self.counting and self._count > self._counts_above:
            self.counting = True
            self._diffs.clear()
            self._remembered = 0
            self._state = None
            for follower in self._followers:
                follower.number = follower.state = None
        elif self.counting and self._count <= self._counts_above * _LIST_AGAIN:
            self.counting = False
            self._state = None
            newcomers.update(dict.fromkeys(self._followers))
            for follower in newcomers:
                follower.announced = None

    def _count_for(self, follower: Follower) -> Wire | None:
        if follower.announced == self._count:
            return None
        follower.announced = self._count
        listener = follower.listener
        body = f'{{"count":{self._count}}}'
        return self._push(listener, "presence_count", body)
