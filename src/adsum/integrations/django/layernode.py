"""`LayerNode`: the traffic of a channel layer with other processes, in the event loop of its node.

- A group is a topic. A message to it is published once, and each process delivers it to its own
  members. So a membership is a fact of one process, and ends with it.
- A message to a process-specific channel is sent to its process, which the name contains.
- A process that receives on a normal channel is present on the topic of the channel. A sender picks
  one of these processes. While there is none, it keeps the message.
- A channel that is full is present on a topic too, so that senders in other processes are refused.
- A normal channel in a group is present on a topic of the group, because any process may receive
  its messages.

Invariants:

- A message to a channel is sent to one process. It is sent to another one only if it is known that
  the first one has not received it.
- Messages that wait for a receiver are sent in their order, before later ones.
- A malformed message or presence of another process is logged, and changes nothing.
- A channel of another process has joined a group when the call returns: that process has answered,
  so it receives messages to the group that this one sends from then on.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from channels.exceptions import ChannelFull

from adsum.errors import NodeNotRunningError
from adsum.integrations.unreadlog import UnreadLog
from adsum.node import Node
from adsum.presence import Presence
from adsum.pubsub import Message, PubSub, Subscription
from adsum.quoting import LIMIT, described, printable, quoted
from adsum.sparselog import SparseLogger, error_text
from adsum.tasks import resolve, start_task
from adsum.tracked import Tracked
from adsum.values.limits import MAX_NAME, MAX_NODE_NAME
from adsum.values.names import checked_name, is_name

from .layerlimits import ANSWER_WITHIN, HAND_OVER, INBOX_BYTES, INBOX_MESSAGES, SWEEPS
from .localchannels import LocalChannels

logger = logging.getLogger("adsum.integrations.django")

_PREFIX = "django.channels:"
#: Messages to one channel; the event of a message is the name of the channel.
_INBOX = f"{_PREFIX}inbox"
#: Requests to other processes: joins and discards of their channels, and flushes.
_REQUESTS = f"{_PREFIX}requests"
#: Presences of full channels.
_FULL = f"{_PREFIX}full"
#: Topics of groups, of receivers on a channel, and of normal channels in a group.
_GROUP, _RECEIVERS, _MEMBERS = f"{_PREFIX}group:", f"{_PREFIX}receivers:", f"{_PREFIX}members:"
#: Characters in the name of a channel or a group that another process gives; with each of the
#: prefixes above it is a topic.
_MAX_NAME = MAX_NAME - len(_RECEIVERS)
#: Bytes of the hash that addresses a process in the names of its channels.
_ADDRESS_BYTES = 8
#: Characters of that address.
_ADDRESS_LENGTH = 2 * _ADDRESS_BYTES


class LayerNode:
    """Sends and receives the messages of a channel layer. Used in the event loop of the node.

    Args:
        node: The node.
        presence: The presences of the node.
        pubsub: The messages of the node.
        local: The channels of this process.
        expiry: Seconds for which an unread message is kept.
    """

    def __init__(
        self, node: Node, presence: Presence, pubsub: PubSub, local: LocalChannels, expiry: float
    ) -> None:
        self._node, self._presence, self._pubsub = node, presence, pubsub
        self._local = local
        self._expiry = expiry
        #: The event loop of the node, from the first call of `begin` on.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: This process in the names of its channels, from then on.
        self.address = ""
        self._subscription: Subscription
        # The names of nodes by their addresses.
        self._nodes: dict[str, str] = {}
        # Normal channels whose waiting messages a task passes on.
        self._passing_on: dict[str, asyncio.Task[None]] = {}
        # The requests that wait for an answer, by number.
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        # Presences of this process, by topic and key.
        self._tracked: dict[tuple[str, str], Tracked] = {}
        self._log = SparseLogger(logger)
        self._unread = UnreadLog(logger, INBOX_MESSAGES, INBOX_BYTES)

    def begin(self) -> None:
        """Receive messages of other processes from now on. Idempotent."""
        if self.loop is not None:
            return
        self.address = _address(self._node.name)
        self._subscription = self._pubsub.subscribe(
            _INBOX, limit=INBOX_MESSAGES, limit_bytes=INBOX_BYTES
        )
        self._subscription.add(_REQUESTS)
        self._local.on_change = self._changed_in_any_thread
        self.loop = asyncio.get_running_loop()
        work = (self._receive(), self._watch_receivers(), self._sweep())
        self._tasks = [start_task(each) for each in work]
        self._tasks[0].add_done_callback(lambda _: self._local.close())  # the node has stopped

    async def end(self) -> None:
        """Receive no more on normal channels, and pass unread messages on, before the node stops.

        Messages that no other process receives are logged.
        """
        self._local.end_receiving()
        await asyncio.sleep(0)  # the announcements
        for channel in self._local.held():
            self._pass_on(channel)
        if self._passing_on:
            await asyncio.wait(self._passing_on.values(), timeout=HAND_OVER)
        for channel, count in self._local.held().items():
            text = "channel %s: %d messages are lost, nobody receives"
            self._log.warning(text, _shown(channel), count)
        self._log.flush()

    # Sending.

    async def send(self, channel: str, data: bytes) -> None:
        """Send a message to a channel of any process.

        Raises:
            ChannelFull: The channel is full.
        """
        if "!" not in channel:
            await self._send_to_receiver(channel, data)
            return
        node = self._node_at(address_of(channel))
        if node is None:
            text = "the process of channel %s has ended, a message was dropped"
            self._log.log(logging.DEBUG, text, _shown(channel))
            return
        if self._presence.get(_FULL, channel):
            raise ChannelFull(channel)
        missed = await self._pubsub.publish(_INBOX, data, event=channel, to=node)
        self._check_missed(f"a message to channel {_shown(channel)}", missed, "channel")

    async def send_group(self, group: str, data: bytes, full: int, of: int) -> None:
        """Send a message to the members of a group in other processes, and to normal channels.

        Args:
            group: The group.
            data: The message, which the members of this process have received.
            full: The number of members here that have missed it, because they are full.
            of: The number of members here.
        """
        self._check_full(group, full, of)
        missed = await self._pubsub.publish(f"{_GROUP}{group}", data, exclude=self._subscription)
        self._check_missed(f"a message to group {_shown(group)}", missed, "group")
        for channel in self._keys(f"{_MEMBERS}{group}", _is_normal_channel):
            try:
                await self._send_to_receiver(channel, data)
            except ChannelFull:
                self._check_full(group, 1, 1)

    async def _send_to_receiver(self, channel: str, data: bytes) -> None:
        """Send a message to one of the processes that receive on a normal channel, or keep it."""
        waits = channel in self._passing_on or self._local.holds(channel)
        if not waits and await self._sent_to_receiver(channel, data):
            return
        if not self._local.put(channel, data):
            raise ChannelFull(channel)
        self._pass_on(channel)

    async def _sent_to_receiver(self, channel: str, data: bytes) -> bool:
        """Send a message to a random receiver; returns whether there was one.

        Raises:
            ChannelFull: All receivers are full.
        """
        receivers = self._keys(f"{_RECEIVERS}{channel}", _is_node)
        ready = [name for name, entry in receivers.items() if not _is_full(entry)]
        if receivers and not ready:
            raise ChannelFull(channel)
        for receiver in random.sample(ready, len(ready)):
            if await self._is_sent(channel, data, receiver):
                return True
        return False

    async def _is_sent(self, channel: str, data: bytes, receiver: str) -> bool:
        """Send a message to a receiver; returns whether it may have received it."""
        if receiver == self._node.name:
            return self._local.is_receiving(channel) and self._local.put(channel, data)
        return not await self._pubsub.publish(_INBOX, data, event=channel, to=receiver)

    # Messages that wait for a receiver.

    def _pass_on(self, channel: str) -> None:
        """Send the waiting messages of a channel, in their order, while there are receivers."""
        if not self._node.running:
            return
        others = self._presence.count(f"{_RECEIVERS}{channel}")
        if others and channel not in self._passing_on and self._local.holds(channel):
            task = start_task(self._pass_on_all(channel))
            self._passing_on[channel] = task
            task.add_done_callback(lambda _: self._passing_on.pop(channel, None))

    async def _pass_on_all(self, channel: str) -> None:
        while (message := self._local.take_held(channel)) is not None:
            try:
                sent = await self._sent_to_receiver(channel, message.data)
            except (ChannelFull, NodeNotRunningError):
                sent = False
            if not sent:
                self._local.put_back(channel, message)
                return

    async def _watch_receivers(self) -> None:
        async for diff in self._presence.watch_topics(_RECEIVERS):
            if diff.joins or diff.updates:
                self._pass_on(diff.topic.removeprefix(_RECEIVERS))

    # Groups.

    def follow(self, group: str) -> None:
        """Receive the messages of a group if this process has members, and no others."""
        change = self._subscription.add if self._local.follow(group) else self._subscription.remove
        change(f"{_GROUP}{group}")

    async def join(self, group: str, channel: str) -> None:
        """Add a channel to a group that is not one of this process."""
        if "!" not in channel:
            self._be_present(f"{_MEMBERS}{group}", channel, {})
            return
        node = self._node_at(address_of(channel))
        if node is None:
            return
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            names = {"group": group, "channel": channel}
            if not await self._request("join", to=node, number=number, **names):
                await asyncio.wait_for(answer, ANSWER_WITHIN)
        except TimeoutError:
            text = "no answer to a request to join group %s within %g s"
            self._log.warning(text, _shown(group), ANSWER_WITHIN, key="joined")
        finally:
            del self._answers[number]

    async def leave(self, group: str, channel: str) -> None:
        """Remove a channel that is not one of this process from a group.

        A normal channel may be a member by several processes.
        """
        self._be_present(f"{_MEMBERS}{group}", channel, None)
        node = self._node_at(address_of(channel)) if "!" in channel else None
        if node is not None or "!" not in channel:
            await self._request("leave", to=node, group=group, channel=channel)

    async def flush(self) -> None:
        """Drop all messages and groups, in all processes."""
        self._flush()
        await self._request("flush")

    def _flush(self) -> None:
        for group in self._local.clear():
            self.follow(group)
        for topic, key in list(self._tracked):
            if topic.startswith(_MEMBERS):
                self._be_present(topic, key, None)

    # Presences of this process.

    def _changed(self, channel: str) -> None:
        """Announce whether this process receives on a channel, and whether it is full."""
        full = self._local.is_full(channel)
        if "!" in channel:
            self._be_present(_FULL, channel, {} if full else None)
            return
        meta = {"full": full} if self._local.is_receiving(channel) else None
        self._be_present(f"{_RECEIVERS}{channel}", self._node.name, meta)
        self._pass_on(channel)

    def _be_present(self, topic: str, key: str, meta: dict[str, Any] | None) -> None:
        """Track, update or untrack a presence of this process."""
        place = topic, key
        if meta is None:
            if place in self._tracked:
                self._tracked.pop(place).untrack()
        elif place in self._tracked:
            self._tracked[place].update(meta)
        else:
            self._tracked[place] = self._presence.track(topic, key, meta, owner=None)

    def _changed_in_any_thread(self, channel: str) -> None:
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and its presences have ended
                self.loop.call_soon_threadsafe(self._changed_while_running, channel)

    def _changed_while_running(self, channel: str) -> None:
        with suppress(NodeNotRunningError):
            self._changed(channel)

    # Receiving.

    async def _receive(self) -> None:
        async for message in self._subscription:
            try:
                self._received(message)
            except Exception as error:
                text = "a message of node %s was dropped: %s"
                sender = message.sender
                self._log.warning(text, quoted(sender), error_text(error), key=sender)
            self._unread.check(self._subscription.dropped)

    def _received(self, message: Message) -> None:
        if message.topic == _REQUESTS:
            self._requested(message.sender, **message.payload)
        elif message.topic == _INBOX:
            self._deliver(_checked(message.event, "channel"), _data_of(message))
        else:
            group = message.topic.removeprefix(_GROUP)
            full, of = self._local.deliver_group(group, _data_of(message))
            self._check_full(group, full, of)

    def _deliver(self, channel: str, data: bytes) -> None:
        if not self._local.deliver(channel, data):
            text = "channel %s is full, a message to it was dropped"
            self._log.warning(text, _shown(channel), key=channel)
        if "!" not in channel:
            self._pass_on(channel)  # if this process has meanwhile ended to receive

    def _requested(
        self, sender: str, do: str, group: str = "", channel: str = "", number: int = 0
    ) -> None:
        """Do as another process asks for a channel of this one."""
        if do == "flush":
            self._flush()
            return
        if do == "joined":
            resolve(self._answers.get(number), None)
            return
        group, channel = _checked(group, "group"), _checked(channel, "channel")
        if do == "leave":
            self._be_present(f"{_MEMBERS}{group}", channel, None)
            if self._local.leave(group, channel):
                self.follow(group)
        elif do == "join":
            if self._local.join(group, channel):
                self.follow(group)
            start_task(self._answer(sender, number))
        else:
            raise ValueError(f"do={quoted(do)}: no such request")

    async def _answer(self, sender: str, number: int) -> None:
        with suppress(NodeNotRunningError):
            await self._request("joined", to=sender, number=number)

    async def _request(self, do: str, to: str | None = None, **arguments: str | int) -> int:
        """Send a request; returns the number of processes that have missed it."""
        request = {"do": do, **arguments}
        missed = await self._pubsub.publish(_REQUESTS, request, to=to, exclude=self._subscription)
        self._check_missed(f"the request to {do}", missed, do)
        return missed

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._expiry / SWEEPS)
            swept = self._local.sweep()
            for channel, count in swept.expired.items():
                text = "channel %s: %d messages have expired unread"
                self._log.warning(text, _shown(channel), count, key=channel)
            with suppress(NodeNotRunningError):
                for channel in swept.changed:
                    self._changed(channel)
                for group in swept.emptied:
                    self.follow(group)

    def _keys(self, topic: str, is_valid: Callable[[str], bool]) -> dict[str, Mapping[str, Any]]:
        """The presences of a topic by key, without those that no layer has tracked."""
        found = dict[str, Mapping[str, Any]]()
        for key, entry in self._presence.list(topic).items():
            if is_valid(key):
                found[key] = entry
            else:
                text = "a presence of another program was skipped: %s on topic %s"
                self._log.warning(text, quoted(key), quoted(topic))
        return found

    def _check_full(self, group: str, full: int, of: int) -> None:
        if full:
            text = "%d of %d channels over capacity in group %s"
            self._log.warning(text, full, of, _shown(group), key=group)

    def _check_missed(self, what: str, missed: int, kind: str) -> None:
        if missed:
            self._log.warning("%s was missed by %d processes", what, missed, key=kind)

    def _node_at(self, address: str) -> str | None:
        """The name of the node at an address, if it is known."""
        name = self._nodes.get(address)
        if name is None:
            self._nodes = {_address(one.name): one.name for one in self._node.members()}
            name = self._nodes.get(address)
        return name


def address_of(channel: str) -> str:
    """The address of the process of a process-specific channel."""
    return channel.partition("!")[0][-_ADDRESS_LENGTH:]


def _is_normal_channel(key: str) -> bool:
    """Whether a key can be a normal channel, whose receivers have a topic."""
    return "!" not in key and is_name(key, _MAX_NAME)


def _is_node(key: str) -> bool:
    """Whether a key can be the name of a node."""
    return is_name(key, MAX_NODE_NAME)


def _checked(name: object, field: str) -> str:
    """Check the name of a channel or a group that another process has given; returns it."""
    return checked_name(name, field, _MAX_NAME)


def _shown(name: str) -> str:
    """The name of a channel or a group, which another process may have chosen, in a log line."""
    return printable(name, LIMIT)


def _data_of(message: Message) -> bytes:
    """The encoded message of a channel or a group."""
    if not isinstance(message.payload, bytes):
        raise TypeError(f"payload must be bytes, not {described(message.payload)}")
    return message.payload


def _address(name: str) -> str:
    return blake2b(name.encode(), digest_size=_ADDRESS_BYTES).hexdigest()


def _is_full(entry: Mapping[str, Any]) -> bool:
    return all(meta.get("full") is True for meta in entry["metas"])
