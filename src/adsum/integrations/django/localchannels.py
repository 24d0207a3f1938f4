"""`LocalChannels`: the channels and group memberships of one process, for all of its threads.

Consumers may run in several event loops: in that of the server, and in one for each call of
`async_to_sync`. Messages of other processes arrive in the event loop of the node. One lock, held
for the length of a few dictionary operations, guards the channels.

Invariants:

- A message is taken by one reader.
- A membership is in `_groups` exactly while it is in the `groups` of its mailbox.
- Other processes add no channels. A channel is kept while they may send to it: until a sweep after
  the one that announced that nobody receives on it.
- A group is followed at the node from its first membership on, and not long after its last.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from adsum.errors import NodeNotRunningError
from adsum.quoting import quoted

from .layermailbox import ChannelName, LayerMailbox, Unread, wake


class Swept(NamedTuple):
    """The result of `LocalChannels.sweep`.

    Attributes:
        expired: The number of messages that have expired unread, by channel.
        changed: Channels on which this process no longer receives, or has messages for others.
        emptied: Followed groups without a channel of this process.
    """

    expired: dict[str, int]
    changed: list[str]
    emptied: set[str]


class LocalChannels:
    """The channels of one process.

    Args:
        expiry: Seconds for which an unread message is kept.
        capacity: The capacity of a channel, by its name.
    """

    def __init__(self, expiry: float, capacity: Callable[[str], int]) -> None:
        self._expiry = expiry
        self._capacity = capacity
        # Reentrant, because a signal handler may send a message.
        self._lock = threading.RLock()
        self._channels: dict[str, LayerMailbox] = {}
        # The channels of each group.
        self._groups: dict[str, set[str]] = {}
        # Groups whose messages the node passes on.
        self._followed: set[str] = set()
        # The number of messages that have expired since the last sweep, by channel.
        self._expired: dict[str, int] = {}
        self._closed = False
        #: Called in any thread after a channel has become full, or was read, or has no reader.
        self.on_change: Callable[[str], None] = lambda channel: None

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def followed(self) -> frozenset[str]:
        """The groups whose messages the node passes on."""
        with self._lock:
            return frozenset(self._followed)

    def waiting(self, channel: str) -> int:
        """The number of readers that wait for a message of a channel."""
        with self._lock:
            mailbox = self._channels.get(channel)
            return 0 if mailbox is None else len(mailbox.waiting)

    def create(self, name: ChannelName) -> None:
        """Create a channel, which lives as long as its name at least."""
        with self._lock:
            self._create(str(name), name)

    # Messages.

    def send(self, channel: str, data: bytes) -> bool:
        """As `put`, but drops a message to a process-specific channel that has ended."""
        with self._lock:
            return channel not in self._channels or self.put(channel, data)

    def put(self, channel: str, data: bytes) -> bool:
        """Add a message of this process; returns False if the channel is full."""
        with self._lock:
            mailbox = self._mailbox(channel)
            if mailbox.is_full:
                self._expire(channel, mailbox)
            if mailbox.is_full:
                return False
            readers = self._put(channel, mailbox, data)
        wake(readers)
        return True

    def deliver(self, channel: str, data: bytes) -> bool:
        """Add a message of another process, also over the capacity of the channel.

        A message to a process-specific channel that has ended is dropped.

        Returns:
            False if twice as many messages wait as the channel may have.

        Raises:
            LookupError: The channel is a normal one, and nobody receives on it in this process.
                Senders choose a process that receives, so no layer has sent this message.
        """
        with self._lock:
            mailbox = self._channels.get(channel)
            if mailbox is None:
                if "!" in channel:
                    return True
                raise LookupError(f"nobody receives on channel {quoted(channel)} in this process")
            if mailbox.is_overrun:
                return False
            readers = self._put(channel, mailbox, data)
        wake(readers)
        return True

    def deliver_group(self, group: str, data: bytes) -> tuple[int, int]:
        """Add a message to all channels of a group but those that are full.

        Returns:
            The numbers of full channels and of all channels.
        """
        with self._lock:
            channels = self._groups.get(group, ())
            readers, full = self._put_each(channels, data)
            of = len(channels)
        wake(readers)
        return full, of

    def deliver_each(self, channels: Iterable[str], data: bytes) -> None:
        """Add a message to each of these channels that has not ended and is not full."""
        with self._lock:
            readers, _ = self._put_each([one for one in channels if one in self._channels], data)
        wake(readers)

    async def take(self, channel: str) -> bytes:
        """Wait for the next message of a channel, and take it.

        Raises:
            NodeNotRunningError: The node has stopped.
        """
        while True:
            with self._lock:
                self.check_open()
                mailbox = self._mailbox(channel)
                mailbox.is_read_by(channel)
                mailbox.cancelled, mailbox.used_at = False, time.monotonic()
                message = self._take(channel, mailbox)
                if message is not None:
                    return message.data
                reader = asyncio.get_running_loop().create_future()
                mailbox.waiting.append(reader)
            try:
                await reader
            except BaseException:
                self._cancelled(channel, mailbox, reader)
                raise

    # Normal channels, whose messages go to any process that receives.

    def begin_receiving(self, channel: str) -> None:
        """Receive on a channel from now on, until the last reader is cancelled."""
        with self._lock:
            mailbox = self._mailbox(channel)
            mailbox.used_at = time.monotonic()
            if not mailbox.is_receiving:
                mailbox.is_receiving = True
                self.on_change(channel)

    def end_receiving(self) -> None:
        """Receive on no normal channel any more, at the end of the process."""
        with self._lock:
            for channel, mailbox in self._channels.items():
                if mailbox.is_receiving:
                    mailbox.is_receiving = False
                    self.on_change(channel)

    def held(self) -> dict[str, int]:
        """The number of messages that wait for another process, by channel."""
        with self._lock:
            return {one: len(self._channels[one]) for one in self._channels if self.holds(one)}

    def is_receiving(self, channel: str) -> bool:
        """Whether this process receives on a channel."""
        with self._lock:
            return channel in self._channels and self._channels[channel].is_receiving

    def is_full(self, channel: str) -> bool:
        """Whether other processes should not send to a channel: it is full, or not read yet."""
        with self._lock:
            mailbox = self._channels.get(channel)
            return mailbox is not None and mailbox.is_announced_full

    def holds(self, channel: str) -> bool:
        """Whether messages of a normal channel wait for another process: nobody receives here."""
        if "!" in channel:
            return False
        with self._lock:
            mailbox = self._channels.get(channel)
            return mailbox is not None and len(mailbox) > 0 and not mailbox.is_receiving

    def take_held(self, channel: str) -> Unread | None:
        """Take the oldest message that waits for another process."""
        with self._lock:
            return self._take(channel, self._channels[channel]) if self.holds(channel) else None

    def put_back(self, channel: str, message: Unread) -> None:
        """Keep a message that no other process has received."""
        with self._lock:
            mailbox = self._mailbox(channel)
            mailbox.put_back(message)
            reader = mailbox.next_reader()
        wake([] if reader is None else [reader])

    # Groups.

    def join(self, group: str, channel: str) -> bool:
        """Add a channel to a group; returns whether the node has to follow the group.

        Does nothing if the channel has ended, as it gets no messages either.
        """
        channel = str(channel)  # not the name that the consumer refers to
        with self._lock:
            mailbox = self._channels.get(channel)
            if mailbox is None:
                return False
            mailbox.groups.add(group)
            self._groups.setdefault(group, set()).add(channel)
            return group not in self._followed

    def leave(self, group: str, channel: str) -> bool:
        """Remove a channel from a group; returns whether that was the last of this process."""
        with self._lock:
            mailbox = self._channels.get(channel)
            if mailbox is None or group not in mailbox.groups:
                return False
            mailbox.groups.discard(group)
            return self._leave(group, channel)

    def follow(self, group: str) -> bool:
        """Note that the node passes the messages of a group on exactly if it has channels.

        Returns:
            Whether it has.
        """
        with self._lock:
            if group in self._groups:
                self._followed.add(group)
                return True
            self._followed.discard(group)
            return False

    # Ends.

    def check_open(self) -> None:
        """Raise if the node has stopped.

        Raises:
            NodeNotRunningError: It has.
        """
        if self._closed:
            raise NodeNotRunningError("the channel layer is closed: its node has stopped")

    def close(self) -> None:
        """Note that the node has stopped: waiting readers raise, and later ones."""
        with self._lock:
            self._closed = True
            readers = [one for mailbox in self._channels.values() for one in mailbox.waiting]
            for mailbox in self._channels.values():
                mailbox.waiting.clear()
        wake(readers)

    def clear(self) -> set[str]:
        """Drop all messages and groups; returns the groups. Readers wait on."""
        with self._lock:
            emptied = set(self._groups)
            self._groups.clear()
            for channel, mailbox in self._channels.items():
                mailbox.clear()
                self._check_room(channel, mailbox)
            return emptied

    def sweep(self) -> Swept:
        """Drop expired messages and abandoned channels."""
        changed = list[str]()
        with self._lock:
            # Also those after a call that was cancelled before the node knew.
            emptied = self._followed - self._groups.keys()
            unused_since = time.monotonic() - self._expiry
            for channel, mailbox in list(self._channels.items()):
                self._expire(channel, mailbox)
                mailbox.forget_lost_readers()
                if mailbox.is_unused(unused_since):
                    emptied |= self._abandon(channel, mailbox)
                    changed.append(channel)
                elif self.holds(channel):
                    changed.append(channel)
            expired, self._expired = self._expired, {}
        return Swept(expired, changed, emptied)

    def _abandon(self, channel: str, mailbox: LayerMailbox) -> set[str]:
        """End a channel without a reader; returns the groups without a channel.

        A normal channel ends later if other processes may still send to it, or if it has messages,
        which are for other processes.
        """
        was_receiving, mailbox.is_receiving = mailbox.is_receiving, False
        if was_receiving or (mailbox and "!" not in channel):
            return set()
        del self._channels[channel]
        return {group for group in mailbox.groups if self._leave(group, channel)}

    def _leave(self, group: str, channel: str) -> bool:
        channels = self._groups[group]
        channels.discard(channel)
        if not channels:
            del self._groups[group]
        return not channels

    def _cancelled(
        self, channel: str, mailbox: LayerMailbox, reader: "asyncio.Future[None]"
    ) -> None:
        """A reader gives up; if it was woken already, another one is woken in its place."""
        successor = None
        with self._lock:
            if reader in mailbox.waiting:
                mailbox.waiting.remove(reader)
            elif mailbox:
                successor = mailbox.next_reader()
            mailbox.used_at = time.monotonic()
            mailbox.cancelled = not mailbox.waiting and successor is None
            if mailbox.cancelled and mailbox.is_receiving:
                mailbox.is_receiving = False
                self.on_change(channel)
        wake([] if successor is None else [successor])

    def _mailbox(self, channel: str) -> LayerMailbox:
        mailbox = self._channels.get(channel)
        return self._create(channel, None) if mailbox is None else mailbox

    def _create(self, channel: str, name: ChannelName | None) -> LayerMailbox:
        mailbox = LayerMailbox(self._capacity(channel), time.monotonic(), name)
        self._channels[channel] = mailbox
        return mailbox

    def _put(
        self, channel: str, mailbox: LayerMailbox, data: bytes
    ) -> "list[asyncio.Future[None]]":
        now = time.monotonic()
        reader = mailbox.put(Unread(now + self._expiry, data))
        self._check_room(channel, mailbox)
        if reader is None:
            return []
        mailbox.used_at = now  # it is not abandoned before the reader runs
        return [reader]

    def _put_each(
        self, channels: Iterable[str], data: bytes
    ) -> "tuple[list[asyncio.Future[None]], int]":
        """Add a message to channels; returns the readers to wake, and the number of full ones."""
        readers, full = list[asyncio.Future[None]](), 0
        for channel in channels:
            mailbox = self._channels[channel]
            if mailbox.is_full:
                full += 1
            else:
                readers += self._put(channel, mailbox, data)
        return readers, full

    def _take(self, channel: str, mailbox: LayerMailbox) -> Unread | None:
        """Take the oldest message that has not expired."""
        self._expire(channel, mailbox)
        message = mailbox.take()
        self._check_room(channel, mailbox)
        return message

    def _expire(self, channel: str, mailbox: LayerMailbox) -> None:
        count = mailbox.expire(time.monotonic())
        if count:
            self._expired[channel] = self._expired.get(channel, 0) + count
            self._check_room(channel, mailbox)

    def _check_room(self, channel: str, mailbox: LayerMailbox) -> None:
        """Announce that the channel is full, or is no longer."""
        before = mailbox.is_announced_full
        if mailbox.is_ready_again if before else mailbox.is_full:
            mailbox.is_announced_full = not before
            self.on_change(channel)
