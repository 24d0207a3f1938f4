"""Presence state and diffs of one topic, for all clients of this node that follow it.

Changes are batched and cut into numbered diffs: at once in a quiet room, at intervals in a busy
one. Each client has a number: that of the last diff sent to it. When the client can be sent a
frame, it is sent all changes since its number: the last diff, whose text all clients share, or
several diffs merged into one. So a slow client costs a number, not a queue.

Invariants:
- A client's first frame is the state at one of the cuts, and its number is that of the cut. So
  each change is either in the state or in a later diff, and never in both.
- Diffs are kept up to a bound. A client whose number is older is sent a new state, from which it
  works out the changes, or is disconnected, as configured.
- A diff is encoded once, and a state once for each cut, however many clients receive them.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Protocol

from adsum.channels.flow.fairshare import WORK, FairShare
from adsum.channels.wire.frames import Ref, Serializer, Wire
from adsum.presence import Presence
from adsum.replication.entry import KEY, Entry, Identity, Transition
from adsum.tasks import cancel_task, start_task
from adsum.watch import Extras, fold, group_in_slices

from .texts import beside, diff_text, state_text

#: Seconds between two diffs of a topic, at least and at most. Within this range, a room pauses for
#: as long as it took to send the last diff to all clients, so it uses at most half of the event
#: loop.
PAUSE, LONGEST_PAUSE = 0.005, 1.0
#: Changes kept for slow clients; as many as there are presences, if these are more.
REMEMBERED = 1000
#: Fraction of `counts_above` at which a counts-only room lists presences again.
_LIST_AGAIN = 0.8
#: Seconds by which timers of the event loop may fire early.
_CLOCK_RESOLUTION = 0.0005


class FeedListener(Protocol):
    """A client's channel, as the room uses it."""

    topic: str
    join_ref: Ref
    serializer: Serializer

    @property
    def longest_state(self) -> int | None:
        """Most characters of presences that the transport can carry; None if unlimited."""

    def ready(self, follower: "Follower") -> None:
        """A frame is due: call `follower.frame()` when the client can be sent one."""

    def too_slow(self) -> None:
        """The client missed diffs that are no longer kept, and must not be sent a new state."""

    def too_long(self, size: int) -> None:
        """The next state or diff has `size` characters, more than the transport can carry."""


class Follower:
    """One client's channel that follows a room."""

    __slots__ = ("announced", "feed", "listener", "number", "state", "waiting")

    def __init__(self, feed: "PresenceFeed", listener: FeedListener) -> None:
        self.feed = feed
        self.listener = listener
        #: Number of the last diff sent, or contained in the state; None while a state is due.
        self.number: int | None = None
        #: The state to send next, with the number of its cut.
        self.state: tuple[int, str] | None = None
        #: The last count sent, in a counts-only room.
        self.announced: int | None = None
        #: Whether `FeedListener.ready` was called and the frame has not been requested yet.
        self.waiting = False

    def frame(self) -> Wire | None:
        """The frame to send now; see `outbox.Source`."""
        self.waiting = False
        return self.feed.frame_for(self)

    def notify(self) -> None:
        """Call `FeedListener.ready`, once for each frame."""
        if not self.waiting:
            self.waiting = True
            self.listener.ready(self)


class FeedDiff:
    """The changes between two cuts, and their text."""

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


class PresenceFeed:
    """Batches the presence changes of one topic and sends them to its followers.

    Args:
        topic: The topic.
        presence: The presences of the node.
        counts_above: With more keys than this, only counts are sent; None never switches to counts.
        state_if_slow: Whether a client that is too far behind is sent a new state; otherwise
            `FeedListener.too_slow` is called.
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
        # Followers that are due a state at the next cut.
        self._newcomers: dict[Follower, None] = {}
        # Changes since the last cut: each presence as it was then, and as it is now.
        self._pending: dict[Identity, Transition] = {}
        # The last diffs, the oldest first; the newest has the number of the last cut.
        self._diffs: deque[FeedDiff] = deque()
        self._remembered = 0
        # Several diffs merged, by the number of the cut they start from; valid for this cut.
        self._merged: dict[int, FeedDiff] = {}
        # The state at the last cut, if a client needed it.
        self._state: str | None = None
        self._count = 0
        self._next_cut_at = 0.0
        self._timer: asyncio.Handle | None = None
        # The `fetch` call for a cut; set until its result is handled.
        self._cutting: asyncio.Task[Extras] | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._share = FairShare()

    # Followers.

    def enter(self, listener: FeedListener) -> Follower:
        """Start following the room; the state is sent at the next cut."""
        follower = Follower(self, listener)
        self._newcomers[follower] = None
        self._schedule()
        return follower

    def leave(self, follower: Follower) -> None:
        """Stop following the room. Idempotent."""
        self._followers.discard(follower)
        self._newcomers.pop(follower, None)

    @property
    def followers(self) -> int:
        """Number of followers."""
        return len(self._followers | self._newcomers.keys())

    @property
    def empty(self) -> bool:
        """Whether the room has no followers."""
        return not self._followers and not self._newcomers

    def frame_for(self, follower: Follower) -> Wire | None:
        """The next frame for a follower, counted as sent; None if nothing is due."""
        listener = follower.listener
        if follower not in self._followers:
            return None  # it left before its turn came
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

    def _push(self, listener: FeedListener, event: str, text: str) -> Wire | None:
        """A frame with the `join_ref` of one join, around a body that all clients share.

        Diffs carry the `join_ref` too. Otherwise a client that leaves and rejoins at once would
        apply diffs that are still in flight to the state of its new join.
        """
        if listener.longest_state is not None and len(text) > listener.longest_state:
            listener.too_long(len(text))
            return None
        return listener.serializer.message(listener.join_ref, None, self.topic, event, text)

    # Events from the node.

    def changed(self, transitions: list[Transition]) -> None:
        """Add changes of presences to the next diff."""
        fold(self._pending, transitions)
        self._schedule()

    def close(self) -> None:
        """Drop all followers and cancel pending work: the room is empty or the node has stopped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        cancel_task(self._cutting)
        self._followers.clear()
        self._newcomers.clear()

    # Cutting.

    def flush_presences(self) -> bool:
        """Make the pending cut now, for tests; returns whether a `fetch` call is under way."""
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
            self._schedule()  # sending took longer than was known when the timer was set
        else:
            self._cut()

    def _cut(self) -> None:
        """Make the diff, and the state for newcomers, at the same point of the history."""
        try:
            self._presence.node.driver.notify_observers()
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
            entries = self._presence.node.driver.view.all_entries(self.topic)
        if not self._presence.enrich:
            self._finish(transitions, entries, {}, newcomers)
        else:
            # No other cut is made until this one ends.
            self._cutting = start_task(self._look_up(transitions, entries or []))
            self._cutting.add_done_callback(
                partial(self._looked_up, transitions, entries, newcomers)
            )

    async def _look_up(self, transitions: list[Transition], entries: list[Entry]) -> Extras:
        """Call the `fetch` function once for all keys of a cut."""
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
        """Make the cut with the result of `fetch`, or without extras if it was cancelled."""
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
        if fetched:  # a diff keeps only the extras of its own keys
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
        """Number the cut and notify all followers.

        Args:
            transitions: The changes.
            fetched: The extras of the changed keys.
            newcomers: The followers that are due a state.
            began: When work on the cut began, in seconds of the event loop.
        """
        self._next_cut_at = self._loop.time() + PAUSE
        if transitions:
            self._remember(FeedDiff(transitions, fetched))
        if transitions or self.counting:
            for follower in list(self._followers):
                follower.notify()
        for follower in newcomers.keys() & self._followers:  # one may have left in between
            if self._state is not None:
                follower.state = self.number, self._state
            follower.notify()
        # Each notified client starts to send at once or queues for its turn, and sends in a later
        # turn of the loop. This callback runs after all of them.
        self._loop.call_soon(self._tell_later, began)

    def _tell_later(self, began: float) -> None:
        def sent() -> None:
            self._loop.call_soon(self._told, began)

        self._share.call(WORK, sent)

    def _told(self, began: float) -> None:
        now = self._loop.time()
        self._next_cut_at = now + min(max(PAUSE, now - began), LONGEST_PAUSE)

    def _remember(self, diff: FeedDiff) -> None:
        self.number += 1
        self._merged.clear()
        self._diffs.append(diff)
        self._remembered += len(diff.transitions)
        limit = max(REMEMBERED, self._presence.count(self.topic))
        while len(self._diffs) > 1 and self._remembered > limit:
            self._remembered -= len(self._diffs.popleft().transitions)

    def _is_behind(self, follower: Follower) -> bool:
        return follower.number is not None and follower.number < self.number

    def _since(self, number: int) -> FeedDiff | None:
        """All changes since a cut, as one diff; None if they are no longer kept."""
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
            merged = self._merged[number] = FeedDiff(list(pending.values()), fetched)
        return merged

    def _fell_behind(self, follower: Follower) -> None:
        if self._state_if_slow:
            self._newcomers[follower] = None
            self._schedule()
        else:
            follower.listener.too_slow()

    # Counting.

    def _switch_mode(self, newcomers: dict[Follower, None]) -> None:
        """Switch to counts only, or back to listing, after which all followers are due a state."""
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
