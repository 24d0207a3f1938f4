"""Delivery of published messages to members, with an ordered queue and backpressure for each.

A message to a member is sent over the newest link that both ends keep. While that link has no room,
messages wait in a queue for this member, and later ones wait behind them, so each member is sent
its messages in the order of their publication. No member waits for another.

A peer that reads is sent every message. If a link had no room for `PATIENCE`, its peer counts as
not reading: its queue is dropped, and later messages are missed at once until there is room again.
So a peer that does not read delays a publisher once, not each time. A publisher waits no longer
than `PATIENCE`, even for peers that read: if there was room within the last half of it, the message
stays queued and is sent later, else it is missed. `MAX_WAITING` bounds each queue; a message counts
with its names and `MESSAGE_COST`, so that small ones are bounded too.

A message of bytes is sent in frames of one piece, others in one frame. It always passes the queues,
which remember the next frame and the link that it belongs to. If a queue goes on over another link,
its first message starts again there: the other end drops the pieces of a link that closes. The
message leaves the queue with its last frame, so no member is sent the last one twice, and a member
that gives up before has missed the message once.

Members that are linked over a carrier alone are sent a message for all on the subject of its topic,
so that the engine of the carrier passes it to those with subscribers. The topics are one more
queue, named `TOPICS`, with a link that has room while the carrier accepts messages: the same order,
patience and bounds apply. A message that the carrier has accepted may still be missed, uncounted;
one that it has not is missed by all of these members. Which members are sent a message over links
is decided when it is published, and the frames on the topic name them, so none is sent it twice.

The state never waits behind these queues: `Engine.take_effects` sends due deltas before each
round of frames, and heartbeats need no room. A round sends one frame to each member. It ends for
this turn of the event loop after `ROUND_BUDGET`, so that neither a link that always has room nor
many links let everything else wait for large messages. A frame counts once, also for many members.
Those that had no frame are first in the next round.
"""

from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from .effects import EffectQueue, PublishOnTopic, Released, Sending
from .limits import MAX_WAITING, ROUND_BUDGET
from .links import Links, PeerLink
from .messages import Publish
from .state import Replica

#: Seconds, at most, to wait for a link without room, and for a publisher to wait.
PATIENCE = 1.0

#: The queue of messages on topics; no member has this name.
TOPICS = ""

_NEVER = float("inf")


class Messaging:
    """Sends published messages to members, and queues them for members without room.

    Args:
        links: The open links.
        effects: The queue for messages to peers.
    """

    def __init__(self, links: Links, effects: EffectQueue) -> None:
        self._links = links
        self._effects = effects
        # The queues by member name; none is empty.
        self._queues: dict[str, _Queue] = {}
        # The link to the topics of a carrier, and whether it is open; None without a carrier.
        self._topics: PeerLink | None = None
        self._topics_open = False
        # Messages with a waiting publisher, oldest first.
        self._unreleased: dict[Sending, None] = {}
        # The number of the last message of bytes.
        self._number = 0
        # Characters or bytes that may still be sent from the queues in this turn of the event loop.
        self._budget = ROUND_BUDGET
        #: Members that may have room now; `send_next` sends them their next frame.
        self.ready: dict[str, None] = {}
        #: When to call `expire`, in active time.
        self.check_at = _NEVER
        #: Missed messages, counted once for each member that missed one.
        self.missed = 0

    def publish(
        self, message: Publish, names: Iterable[str], now: float, *, by_topic: bool = False
    ) -> Sending:
        """Send a message to members that have room, and queue it for the others.

        Args:
            message: The message.
            names: The names of the members.
            now: Active time.
            by_topic: Whether members on a carrier are sent it on the subject of its topic.
        """
        sending = self._new_sending(message, now + PATIENCE)
        if by_topic and self._topics is not None:
            names = self._split(sending, list(names))
        links = []
        for name in names:
            link = self._link_to(name)
            has_room = link is not None and link.writable and name not in self._queues
            if link is not None and has_room and isinstance(message.payload, str):
                links.append(link)
            elif not self._queue(name, sending, now):
                sending.missed += _weight(name, sending)
            elif has_room:
                self.ready[name] = None
        self._send(links, sending, 0, reused=bool(sending.waiting))
        self.missed += sending.missed
        if sending.waiting:
            self._unreleased[sending] = None
            self.check_at = min(self.check_at, sending.until)
        return sending

    def set_topics(self, is_open: bool, writable: bool, now: float) -> None:
        """Note whether the topics of a carrier are open, and accept messages at present."""
        if self._topics is None:
            self._topics = PeerLink(0, Replica(TOPICS, 0), now, now)
        if self._topics.writable and not writable:
            self._topics.stuck_at = now
        self._topics.writable, self._topics_open = writable, is_open
        self.links_changed(TOPICS)

    def links_changed(self, name: str) -> None:
        """Note that the links of a member changed, or that one of them gained or lost its room.

        If it has room, its queue is resumed. If it has no link left, its queue is dropped.
        """
        if name not in self._queues:
            return
        if not self._links_of(name):
            self._drop(name)
            return
        since = self._no_room_since(name)
        if since == _NEVER:
            self.ready[name] = None
        self.check_at = min(self.check_at, since + PATIENCE)

    def new_turn(self) -> None:
        """Renew the budget of a turn of the event loop."""
        self._budget = ROUND_BUDGET

    @property
    def may_send(self) -> bool:
        """Whether to call `send_next` in this turn: a member is ready, and the budget not spent."""
        return bool(self.ready) and self._budget > 0

    def send_next(self) -> None:
        """Send one frame to each member that is ready and has room, within the budget.

        Call it again after the frames were sent: they may have filled their links.
        """
        rounds: dict[tuple[Sending, int], list[PeerLink]] = {}
        for name in list(self.ready):
            link, queue = self._link_to(name), self._queues.get(name)
            if queue is None or link is None or not link.writable:
                del self.ready[name]
            else:
                self._take(name, queue, link, rounds)
        for (sending, index), links in rounds.items():
            count = sum(_weight(link.replica.name, sending) for link in links)
            # A frame that no other member needs later is not kept, nor its memory.
            self._send(
                links, sending, index, reused=bool(sending.encoded) or sending.waiting > count
            )
            if index == sending.frames - 1:
                self._leave_queues(sending, count)

    def expire(self, now: float) -> None:
        """Drop the queues of members that do not read, and release publishers after `PATIENCE`."""
        releases = self._first_release <= now
        for name, queue in list(self._queues.items()):
            no_room_for = now - self._no_room_since(name)
            if no_room_for >= PATIENCE:
                self._drop(name)
            elif releases and no_room_for >= PATIENCE / 2:
                while queue and queue.first.until <= now:
                    self._count_missed(name, queue.take())
                if not queue:
                    del self._queues[name]
        for sending in list(takewhile(lambda one: one.until <= now, self._unreleased)):
            del self._unreleased[sending]
            self._effects.put(Released(sending))
        since = min(map(self._no_room_since, self._queues), default=_NEVER)
        self.check_at = min(since + PATIENCE, self._first_release)

    def withdraw(self, sending: Sending) -> None:
        """Count a message as missed where it still waits; its place in queues is skipped."""
        sending.missed += sending.waiting
        self.missed += sending.waiting
        sending.waiting = 0
        self._unreleased.pop(sending, None)

    @property
    def _first_release(self) -> float:
        """When the first publisher stops waiting, in active time; infinite if none waits."""
        return next((sending.until for sending in self._unreleased), _NEVER)

    def close(self) -> None:
        """Drop every queued message."""
        for name in list(self._queues):
            self._drop(name)

    def _queue(self, name: str, sending: Sending, now: float) -> bool:
        """Queue a message, unless the member has no link, does not read, or its queue is full.

        Returns:
            Whether it was queued.
        """
        dropped_at = self._no_room_since(name) + PATIENCE
        queue = self._queues.get(name) or _Queue()
        if dropped_at <= now or not queue.add(sending):
            return False
        sending.waiting += _weight(name, sending)
        self._queues[name] = queue
        self.check_at = min(self.check_at, dropped_at)
        return True

    def _no_room_since(self, name: str) -> float:
        """The active time since which a member has had no link with room.

        Infinite if it has room now; minus infinity if it has no link.
        """
        links = self._links_of(name)
        if not links:
            return -_NEVER
        link = self._link_to(name)
        if link is None:
            return links[-1].opened_at
        return _NEVER if link.writable else link.stuck_at

    def _link_to(self, name: str) -> PeerLink | None:
        """The link for messages to a member, or to the topics of the carrier."""
        if name == TOPICS:
            return self._topics if self._topics_open else None
        return self._links.to(name)

    def _links_of(self, name: str) -> list[PeerLink]:
        """The links to a member, or to the topics of the carrier."""
        if name == TOPICS:
            return [self._topics] if self._topics is not None and self._topics_open else []
        return self._links.of(name)

    def _split(self, sending: Sending, names: list[str]) -> list[str]:
        """Let a message reach members on a carrier by its topic; returns the queues for it."""
        apart = [name for name in names if not self._links.lacks_direct(name)]
        sending.apart = frozenset(apart)
        sending.carried = len(names) - len(apart)
        return [*apart, TOPICS] if sending.carried else apart

    def _send(self, links: list[PeerLink], sending: Sending, index: int, *, reused: bool) -> None:
        """Send one frame over links, of which one may be that to the topics."""
        near = [link for link in links if link is not self._topics]
        on_topic = len(near) < len(links)
        reused = reused or (on_topic and bool(near))
        self._effects.send(near, sending.frame(index), sending if reused else None, index)
        if on_topic:
            self._effects.put(PublishOnTopic(sending, index, reused))

    def _new_sending(self, message: Publish, until: float) -> Sending:
        if isinstance(message.payload, bytes):
            self._number += 1
        return Sending(message, until, self._number)

    def _take(
        self,
        name: str,
        queue: "_Queue",
        link: PeerLink,
        rounds: dict[tuple[Sending, int], list[PeerLink]],
    ) -> None:
        """Add the next frame for a member to the frames of a round, if the budget allows.

        A message leaves the queue with its last frame; those that were withdrawn are skipped.
        """
        while queue and not queue.first.waiting:
            queue.take()
        if queue:
            frame = queue.next_frame(link)
            if frame not in rounds:
                if self._budget <= 0:
                    return  # in a later turn
                sending, index = frame
                self._budget -= sending.cost(index)
            rounds.setdefault(frame, []).append(link)
            queue.advance(link)
        del self.ready[name]
        if queue:
            self.ready[name] = None  # behind those that had no frame
        else:
            del self._queues[name]

    def _drop(self, name: str) -> None:
        queue = self._queues.pop(name)
        while queue:
            self._count_missed(name, queue.take())

    def _count_missed(self, name: str, sending: Sending) -> None:
        if sending.waiting:
            count = _weight(name, sending)
            sending.missed += count
            self.missed += count
            self._leave_queues(sending, count)

    def _leave_queues(self, sending: Sending, count: int) -> None:
        sending.waiting -= count
        if not sending.waiting:
            self._unreleased.pop(sending, None)
            self._effects.put(Released(sending))


def _weight(name: str, sending: Sending) -> int:
    """The number of members that a queue stands for, for one message."""
    return sending.carried if name == TOPICS else 1


class _Queue:
    """The queued messages of one member, oldest first."""

    def __init__(self) -> None:
        self._sendings: deque[Sending] = deque()
        # The sizes of all messages.
        self._size = 0
        # The next frame of the first message, and the link over which the earlier ones were sent.
        self._index = 0
        self._link: PeerLink | None = None

    def __len__(self) -> int:
        return len(self._sendings)

    @property
    def first(self) -> Sending:
        """The oldest message."""
        return self._sendings[0]

    def add(self, sending: Sending) -> bool:
        """Append a message; returns False if the queue would exceed `MAX_WAITING`."""
        if self._size + sending.size > MAX_WAITING:
            return False
        self._size += sending.size
        self._sendings.append(sending)
        return True

    def take(self) -> Sending:
        """Remove and return the oldest message."""
        sending = self._sendings.popleft()
        self._size -= sending.size
        self._index = 0
        return sending

    def next_frame(self, link: PeerLink) -> tuple[Sending, int]:
        """The next frame over a link, as its message and its index in that."""
        return self.first, self._index if link is self._link else 0

    def advance(self, link: PeerLink) -> None:
        """Note that the next frame is sent over a link; a message is removed with its last one."""
        sending, index = self.next_frame(link)
        self._link, self._index = link, index + 1
        if self._index == sending.frames:
            self.take()
