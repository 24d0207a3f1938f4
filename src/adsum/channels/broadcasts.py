"""`Broadcasts`: the subscribed channels of a node, and the broadcasts between nodes.

There is one object for each node, shared by all of its sockets: a topic is the same on each of
them. A broadcast is sent to the clients of this node, many of them in slices, and to each other
node as one message. Each node encodes it once for each version of the protocol, and makes one
`Prepared` of it, however many clients receive it. It passes each file once::

      this node                                     each other node

    process.py, socket.py                             driver/
      |  Channel.broadcast, Socket.broadcast            |  message from a link
      v                                                 v
    broadcasts.py ------------------------------>     broadcasts.py
      |                          driver.publish,        |
      v                          one message            v
    deliveries.py      one pass over the subscribers
      |                                                 |
      |---> process.py   only if the channel has an intercept method for the event
      v                                                 v
    connection.py      written at once if nothing of the client waits and there is room, else:
      v                                                 v
    flow/outbox.py     a frame in the queue of one client
      v                                                 v
    carriers/          bytes
"""

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.quoting import printable, quoted
from adsum.replication.messages import Publish
from adsum.sparselog import SparseLogger
from adsum.values.limits import MAX_NODE_NAME, MAX_PAYLOAD
from adsum.values.names import RESERVED, checked_name

from .broadcastwindow import Acknowledgements, PublishWindow
from .deliveries import Delivery, LocalTopic, Subscriber, Together
from .flow.fairshare import RECIPIENT, FairShare
from .flow.slicedpass import SlicedPass
from .pernode import PerNode
from .wire.frames import Encoded, checked_event, is_reserved
from .wire.patterns import MAX_TOPIC
from .wire.payloads import encode

logger = logging.getLogger("adsum.channels")

#: Topics of messages between nodes; the topic of the broadcast is appended.
_TEXT = f"{RESERVED}channels/text/"
_BYTES = f"{RESERVED}channels/bytes/"
#: Topics of the marks among the broadcasts of a node, and of their acknowledgements; the event is
#: the number.
_MARK = f"{RESERVED}channels/mark"
_ACKNOWLEDGEMENT = f"{RESERVED}channels/acknowledgement"
_NUMBER = re.compile("[0-9]{1,18}")
#: Characters of JSON text, or bytes, in one broadcast: each client of a topic may queue it.
MAX_BROADCAST = MAX_PAYLOAD
#: Broadcasts under way or waiting on this node beyond which those of other nodes are not sliced.
MAX_UNFINISHED = 128


class Broadcasts(Observer):
    """Sends each broadcast to the subscribers of this node and to the other nodes.

    Args:
        node: The node that carries the broadcasts.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = SparseLogger(logger)
        self._topics: dict[str, LocalTopic] = {}
        # Number of broadcasts to clients of this node so far.
        self._number = 0
        # Those that are not finished, oldest first.
        self._unfinished: dict[Delivery, None] = {}
        self._window = PublishWindow()
        self._acknowledgements = Acknowledgements()

    @staticmethod
    def of(node: Node) -> "Broadcasts":
        """The broadcasts of a node, created at the first call."""
        return _BROADCASTS.of(node)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Send the topic's broadcasts to a channel from now on."""
        topic = self._topics.get(subscriber.topic)
        if topic is None:
            topic = self._topics[subscriber.topic] = LocalTopic()
            for name in _wanted(subscriber.topic) if self._node.running else ():
                self._node.driver.want_topic(name)
        topic.subscribers[subscriber] = None
        topic.snapshot = None

    def unsubscribe(self, subscriber: Subscriber) -> bool:
        """Stop sending broadcasts to a channel; returns whether it was subscribed."""
        topic = self._topics.get(subscriber.topic)
        if topic is None or subscriber not in topic.subscribers:
            return False
        del topic.subscribers[subscriber]
        topic.snapshot = None
        if not topic.subscribers:
            del self._topics[subscriber.topic]
            for name in _wanted(subscriber.topic) if self._node.running else ():
                self._node.driver.unwant_topic(name)
        return True

    def recipients(self, topic: str) -> int:
        """Number of channels on a topic, over all sockets of this node."""
        found = self._topics.get(topic)
        return 0 if found is None else len(found.subscribers)

    async def broadcast(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        exclude: Subscriber | None = None,
    ) -> None:
        """Send an event to every client on a topic, on every node, except `exclude`.

        It is sent to the channels that are on the topic at the call, and still are at their turn.
        With up to `SLICE` of them on this node, all are sent it at once, unless an earlier
        broadcast on the topic is under way or ended in the same turn of the event loop; more are
        sent it in slices, before the call returns.
        Each client is sent the broadcasts on a topic in the order of the calls, and before
        everything that the caller sends it afterwards. Cancelling the call stops none of that.

        Waits for nodes under backpressure, as `PubSub.publish` does, and for nodes whose clients
        are far behind, see `broadcastwindow`; at most 1 s for each.

        Raises:
            NodeNotRunningError: The node is not running.
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: The topic, the event or the payload is too large, the payload is not
                finite, or the event is reserved.
        """
        topic = checked_name(topic, "topic", MAX_TOPIC)
        event = checked_event(event)
        if isinstance(payload, bytes) and not _fits(topic, event):
            raise ValueError(
                "topic and event of a binary broadcast must have at most 255 bytes each"
            )
        encoded = encode(payload, MAX_BROADCAST)
        driver = self._node.driver
        delivery = self._distribute(topic, event, encoded, exclude)
        marked = self._window.count()
        if self._window.published == 1:
            driver.watch_members()  # until the end of the run
        await driver.publish(_message(topic, event, encoded), None)
        if marked:
            driver.post(Publish(_MARK, str(self._window.mark()), "{}"), None)
            if self._window.is_first_burst and self._present():
                await self._window.known()
        await self._window.room()
        if delivery is not None:
            await delivery.wait()
        await asyncio.sleep(0)  # a loop that only broadcasts lets others run

    def _distribute(
        self, name: str, event: str, payload: Encoded, exclude: Subscriber | None
    ) -> "Delivery | None":
        """Begin to send a broadcast to the clients of this node; None if there are none."""
        topic = self._topics.get(name)
        if topic is None:
            return None
        self._number += 1
        delivery = Delivery(self._number, topic, name, event, payload, exclude)
        self._unfinished[delivery] = None
        topic.deliveries.append(delivery)
        if topic.work is None:
            self._next_pass(topic).run()
        return delivery

    def _next_pass(self, topic: "LocalTopic") -> SlicedPass["Subscriber"]:
        """One pass for the first broadcasts on a topic that go to the same channels."""
        together = topic.first_together()
        send = together[0].send if len(together) == 1 else Together(together).send
        finished = partial(self._finished, together)
        topic.work = SlicedPass(FairShare(), together[0].recipients, send, finished)
        return topic.work

    def _finished(self, together: "list[Delivery]") -> None:
        """Finish broadcasts; those that come later in this turn go together in the next one."""
        topic = together[0].topic
        if together[0] not in self._unfinished:
            return  # the node has stopped
        for delivery in together:
            del self._unfinished[delivery]
            topic.deliveries.popleft()
            delivery.finish()
        asyncio.get_running_loop().call_soon(self._continue, topic, topic.work)
        self._acknowledge()

    def _continue(self, topic: "LocalTopic", finished: SlicedPass["Subscriber"] | None) -> None:
        """Begin the next pass on a topic, unless it has begun since."""
        if topic.work is finished:
            topic.work = None
            if topic.deliveries:
                self._next_pass(topic).run()

    def _acknowledge(self) -> None:
        """Acknowledge the marks whose broadcasts have been passed to the clients."""
        first = next(iter(self._unfinished), None)
        passed = self._number if first is None else first.number - 1
        for member, number in self._acknowledgements.due(passed):
            self._node.driver.post(Publish(_ACKNOWLEDGEMENT, str(number), "{}"), member)

    def _present(self) -> set[str]:
        """The names of the other nodes that are up, or may be."""
        members = self._node.driver.members()
        return {member.name for member in members if member.status in ("up", "suspect")}

    # Events from the node.

    def wanted_topics(self) -> Iterable[str]:
        """See `Observer`: channels may outlive a run of the node."""
        return (name for topic in self._topics for name in _wanted(topic))

    def members_changed(self) -> None:
        """See `Observer`."""
        if self._node.running:
            self._window.keep(self._present())

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        if not self._node.running:
            return  # it arrived during the stop
        if message.topic in (_MARK, _ACKNOWLEDGEMENT):
            self._counted(sender, message)
            return
        if not message.topic.startswith((_TEXT, _BYTES)):
            return
        if is_reserved(message.event):
            text = "%s sent a broadcast of the reserved event %s, which was dropped"
            shown = printable(sender, MAX_NODE_NAME)
            self._log.warning(text, shown, quoted(message.event), key=sender)
        elif len(message.payload) > MAX_BROADCAST or not message.topic.startswith(_prefix(message)):
            text = "%s sent a broadcast of the wrong kind or size, which was dropped"
            self._log.warning(text, printable(sender, MAX_NODE_NAME), key=sender)
        else:
            topic = message.topic.removeprefix(_prefix(message))
            self._pass_on(topic, message.event, message.payload)

    def _counted(self, sender: str, message: Publish) -> None:
        """A mark or an acknowledgement of another node; anything else is dropped."""
        if sender == self._node.driver.replica.name or not _NUMBER.fullmatch(message.event):
            return
        number = int(message.event)
        if message.topic == _ACKNOWLEDGEMENT:
            self._window.acknowledge(sender, number)
        else:
            self._acknowledgements.mark(sender, number, self._number)
            self._acknowledge()

    def _pass_on(self, name: str, event: str, payload: Encoded) -> None:
        """Send another node's broadcast to local clients; charged to the budget of receiving.

        A member that does not wait may send any number. Beyond `MAX_UNFINISHED`, one of the topic
        is finished at once, which holds the event loop and so the reading of the links.
        """
        if isinstance(payload, bytes) and not _fits(name, event):
            self._log.warning(
                "a member sent a binary broadcast with a topic or event above 255 bytes"
            )
            return
        delivery = self._distribute(name, event, payload, None)
        if delivery is not None:
            if len(self._unfinished) > MAX_UNFINISHED:
                self._run_to_end(delivery.topic)
            self._node.driver.charge(RECIPIENT * len(delivery.recipients))

    def _run_to_end(self, topic: "LocalTopic") -> None:
        """Finish the first broadcasts on a topic at once."""
        work = topic.work
        if work is None or work.done:
            work = self._next_pass(topic)
        work.run_to_end()

    def closed(self) -> None:
        """See `Observer`."""
        self._log.flush()
        self._acknowledgements.drop()
        unfinished, self._unfinished = self._unfinished, {}
        for delivery in unfinished:
            delivery.topic.drop()
            delivery.finish()
        self._window.reset()

    def forked(self) -> None:
        """See `Observer`: the clients are connected to the parent."""
        self._topics = {}
        self._unfinished = {}
        self._window = PublishWindow()
        self._acknowledgements = Acknowledgements()


def _wanted(topic: str) -> tuple[str, ...]:
    """The topics of messages between nodes that a node with subscribers of a topic receives."""
    return _TEXT + topic, _BYTES + topic, _MARK


def _message(topic: str, event: str, payload: Encoded) -> Publish:
    prefix = _TEXT if isinstance(payload, str) else _BYTES
    return Publish(prefix + topic, event, payload)


def _prefix(message: Publish) -> str:
    """The prefix of the topics of text or binary broadcasts, by the payload."""
    return _TEXT if isinstance(message.payload, str) else _BYTES


def _fits(topic: str, event: str) -> bool:
    """Whether the binary form of a broadcast has room for its names."""
    return len(topic.encode()) <= 255 and len(event.encode()) <= 255


_BROADCASTS = PerNode(Broadcasts)
