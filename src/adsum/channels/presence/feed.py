"""Presence state and diffs of one topic, for all clients of this node that follow it.

Changes are batched and cut into numbered diffs. Each follower has a number: that of the last diff
sent to it. When its client can be sent a frame, the follower is sent all changes since its number:
the last diff, whose text all clients share, or several diffs merged into one. So a slow client
costs a number, not a queue. The number line of one feed, after cut 9::

    cuts       0    1    2    3    4    5    6    7    8    9    pending changes: cut 10
               |----|----|----|----|----|----|----|----|----|....
    diffs        d1   d2   d3   d4   d5   d6   d7   d8   d9
                 [---- dropped ----] [----- remembered -----]

    follower at 9   has everything                      nothing is due
    follower at 8   is sent d9, one text for all        then its number is 9
    follower at 6   is sent d7+d8+d9 merged, one        then its number is 9
                    text for all that are at 6
    follower at 3   fell behind: d4 is dropped          is sent the state of the next cut, whose
                                                        number it gets, or is disconnected
    newcomer        is sent the state of the next cut   then its number is that of the cut

A follower at 4 is the last one that the remembered diffs serve. The state is the text of all
presences at one cut. It is made when a follower needs it, and valid until the next diff.

Invariants:
- A client's first frame is the state at one of the cuts, and its number is that of the cut. So
  each change is either in the state or in a later diff, and never in both.
- Diffs are kept up to a bound. A client whose number is older is sent a new state, from which it
  works out the changes, or is disconnected, as configured.
- A diff is encoded once, and a state once for each cut, however many clients receive them. Their
  frames are shared by the clients with the same version and `join_ref`.
- A cut is one pass over the followers. One that has everything before the cut is written the diff
  at once, if nothing waits for its client and there is room. All others, and all that the pass of
  a later cut meets first, are sent frames by number when their turn comes.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from adsum.channels.flow.slicedpass import SlicedPass
from adsum.channels.wire.frames import Ref, Serializer, Wire
from adsum.channels.wire.prepared import Prepared
from adsum.presence import Presence
from adsum.replication.entry import KEY, Entry, Identity, Transition
from adsum.tasks import cancel_task, start_task
from adsum.watch import Extras, fold, group_in_slices

from .history import FeedDiff, History
from .pace import Pace
from .sharedtext import SharedText
from .texts import beside, state_text

#: Fraction of `counts_above` at which a counts-only feed lists presences again.
_LIST_AGAIN = 0.8


class FeedListener(Protocol):
    """A client's channel, as its feed uses it."""

    topic: str
    join_ref: Ref
    serializer: Serializer

    @property
    def longest_state(self) -> int | None:
        """Most characters of presences that the transport can carry; None if unlimited."""

    def write(self, frame: Prepared) -> bool:
        """Write a frame to the client at once, if no other waits and there is room.

        Returns:
            False if the client must be sent it when its turn comes.
        """

    def ready(self, follower: "Follower") -> None:
        """A frame is due: call `follower.frame()` when the client can be sent one."""

    def too_slow(self) -> None:
        """The client missed diffs that are no longer kept, and must not be sent a new state."""

    def too_long(self, size: int) -> None:
        """The next state or diff has `size` characters, more than the transport can carry."""


class Follower:
    """One client's channel that follows a feed."""

    __slots__ = ("announced", "feed", "listener", "number", "state", "waiting")

    def __init__(self, feed: "PresenceFeed", listener: FeedListener) -> None:
        self.feed = feed
        self.listener = listener
        #: Number of the last diff sent, or contained in the state; None while a state is due.
        self.number: int | None = None
        #: The state to send next, with the number of its cut.
        self.state: tuple[int, SharedText] | None = None
        #: The last count sent, while counting.
        self.announced: int | None = None
        #: Whether `FeedListener.ready` was called and the frame has not been requested yet.
        self.waiting = False

    def frame(self) -> Wire | Prepared | None:
        """The frame to send now; see `outbox.FrameSource`."""
        self.waiting = False
        return self.feed.frame_for(self)

    def notify(self) -> None:
        """Call `FeedListener.ready`, once for each frame."""
        if not self.waiting:
            self.waiting = True
            self.listener.ready(self)


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
        #: Whether followers are sent counts only.
        self.counting = False
        self._presence = presence
        self._counts_above = counts_above
        self._state_if_slow = state_if_slow
        self._followers: set[Follower] = set()
        # Followers that are due a state at the next cut.
        self._newcomers: dict[Follower, None] = {}
        # Changes since the last cut: each presence as it was then, and as it is now.
        self._pending: dict[Identity, Transition] = {}
        self._history = History()
        # The state at the last cut, if a client needed it.
        self._state: SharedText | None = None
        self._count = 0
        # The `fetch` call for a cut; set until its result is handled.
        self._cutting: asyncio.Task[Extras] | None = None
        self._closed = False
        self._pace = Pace(self._cut)

    @property
    def number(self) -> int:
        """The number of the last cut."""
        return self._history.number

    # Followers.

    def enter(self, listener: FeedListener) -> Follower:
        """Start following the feed; the state is sent at the next cut."""
        follower = Follower(self, listener)
        self._newcomers[follower] = None
        self._schedule()
        return follower

    def leave(self, follower: Follower) -> None:
        """Stop following the feed. Idempotent."""
        self._followers.discard(follower)
        self._newcomers.pop(follower, None)

    @property
    def followers(self) -> int:
        """Number of followers."""
        return len(self._followers | self._newcomers.keys())

    @property
    def empty(self) -> bool:
        """Whether the feed has no followers."""
        return not self._followers and not self._newcomers

    def frame_for(self, follower: Follower) -> Wire | Prepared | None:
        """The next frame for a follower, counted as sent; None if nothing is due."""
        listener = follower.listener
        if follower not in self._followers:
            return None  # it left before its turn came
        if self.counting:
            return self._count_for(follower)
        if follower.state is not None:
            (follower.number, state), follower.state = follower.state, None
            if self._is_behind(follower):
                follower.notify()  # the diffs since then come next
            return _frame(listener, state)
        if follower.number is None or not self._is_behind(follower):
            return None
        diff = self._history.since(follower.number)
        if diff is None:
            self._fell_behind(follower)
            return None
        follower.number = self.number
        changes = diff.shared(self.topic)
        return None if changes is None else _frame(listener, changes)

    # Events from the node.

    def changed(self, transitions: list[Transition]) -> None:
        """Add changes of presences to the next diff."""
        fold(self._pending, transitions)
        self._schedule()

    def close(self) -> None:
        """Drop all followers and cancel pending work: it is empty or the node has stopped."""
        self._closed = True
        self._pace.cancel()
        cancel_task(self._cutting)
        self._followers.clear()
        self._newcomers.clear()

    # Cutting.

    def flush_presences(self) -> bool:
        """Make the pending cut now, for tests; returns whether a `fetch` call is under way."""
        self._pace.flush()
        return self._cutting is not None

    def _schedule(self) -> None:
        if self._cutting is None:
            self._pace.schedule()

    def _cut(self) -> None:
        """Make the diff, and the state for newcomers, at the same point of the history."""
        try:
            self._presence.node.driver.notify_observers()
        finally:
            self._pace.begun()
        pending, self._pending = self._pending, {}
        newcomers, self._newcomers = self._newcomers, {}
        self._followers.update(newcomers)
        transitions = list(pending.values())
        self._switch_mode(newcomers)
        if self.counting:
            self._install([], {}, newcomers, self._pace.cpu_time())
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
        began = self._pace.cpu_time()
        if transitions:
            self._state = None
        if entries is not None:
            text = state_text(entries, fetched)
            self._state = SharedText(self.topic, "presence_state", text)
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
        """Number the cut, and send it to the followers in one pass.

        Args:
            transitions: The changes.
            fetched: The extras of the changed keys.
            newcomers: The followers that are due a state.
            began: The CPU time at which work on the cut began, see `Pace`.
        """
        changes: SharedText | None = None
        if transitions:
            diff = FeedDiff(transitions, fetched)
            self._history.add(diff, self._presence.count(self.topic))
            changes = diff.shared(self.topic)
        followers = [one for one in newcomers if one in self._followers]  # one may have left
        if self._state is not None:
            for follower in followers:
                follower.state = self.number, self._state
        if transitions or self.counting:
            followers = list(self._followers)
        self._pace.hold(self._pace.cpu_time() - began)
        send = partial(self._send, self.number, changes)
        SlicedPass(self._pace.share, followers, send, self._pace.release).run()

    def _send(self, number: int, changes: SharedText | None, followers: Sequence[Follower]) -> int:
        """Send a cut to some of the followers; returns the number of frames written at once.

        Args:
            number: The number of the cut.
            changes: Its diff, for followers that have everything before it.
            followers: The followers; those that have left meanwhile are sent nothing.
        """
        began, written, queued = self._pace.cpu_time(), 0, False
        for follower in followers:
            if follower not in self._followers:
                continue
            if changes is not None and follower.number == number - 1:
                listener = follower.listener
                if listener.write(changes.frame(listener.serializer, listener.join_ref)):
                    follower.number = number
                    written += 1
                    continue
            follower.notify()
            queued = True
        self._pace.note(self._pace.cpu_time() - began, queued=queued)
        return written

    def _is_behind(self, follower: Follower) -> bool:
        return follower.number is not None and follower.number < self.number

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
            self._history.drop()
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
        message = listener.serializer.message
        return message(listener.join_ref, None, self.topic, "presence_count", body)


def _frame(listener: FeedListener, shared: SharedText) -> Prepared | None:
    """The frame of a text for a client, unless its transport cannot carry the text."""
    if listener.longest_state is not None and len(shared.text) > listener.longest_state:
        listener.too_long(len(shared.text))
        return None
    return shared.frame(listener.serializer, listener.join_ref)
