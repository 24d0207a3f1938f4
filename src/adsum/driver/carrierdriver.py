"""A run of a node whose links to other hosts run over a carrier: an engine such as NATS or Redis.

Siblings are linked directly, through sockets of this host, and all other nodes over the carrier.
Nodes that announce the same *site*, the directory of the sockets of siblings, find each other
there. If that fails, they are linked over the carrier after `SIBLING_PATIENCE`. A node that is
linked both ways keeps the direct link, see `Engine.link_up`.

Messages for all members go over links to nodes with a direct link, and to the others on the subject
of their topic, see `adsum.bus.topicslots`. So this node subscribes to the topics that its observers
want.
"""

import hashlib
import os
from collections import Counter
from functools import partial
from pathlib import Path

from adsum.activetime import ActiveTimer
from adsum.bus.buslink import BusLink
from adsum.bus.busmessages import SITE_BYTES
from adsum.bus.bustransport import BusTransport
from adsum.bus.carrierurl import make_client, mask
from adsum.config import Settings
from adsum.replication.codec import decode
from adsum.replication.effects import Effect, PublishOnTopic, Sending
from adsum.transport.contract import Link
from adsum.transport.framing import Payload

from .combinedtransport import CombinedTransport
from .observer import Observer
from .socketdriver import CHECK_INTERVAL, SocketDriver

#: The name of the carrier among the addresses that joining waits for.
CARRIER = "the carrier"
#: Seconds of active time after the announcement of a node after which, if it is linked to siblings
#: alone, they count as all nodes: any other would have dialled it by then.
SIBLINGS_ONLY_AFTER = 0.5
#: Seconds after its announcement after which a node of the same site that is not linked is dialled
#: over the carrier. Within this time both ends have checked their sockets, see `siblings`.
SIBLING_PATIENCE = 2 * CHECK_INTERVAL
#: Announcements of nodes of the same site that are remembered for this; further ones are ignored,
#: as each node repeats its own.
MAX_MISSED = 256

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class CarrierDriver(SocketDriver):
    """A run of a node with a carrier.

    Args:
        settings: The settings of the node; `carrier`, `cluster` and `secret` are set.
        observers: The observers to notify; the list is read at each event.
    """

    transport: CombinedTransport

    def __init__(self, settings: Settings, observers: list[Observer]) -> None:
        super().__init__(settings, observers)
        self.transport = CombinedTransport(self.sockets)
        # Whether a link to a sibling suffices to stop waiting for an answer over the carrier.
        self._siblings_suffice = False
        # Runs until then.
        self._patience: ActiveTimer | None = None
        # When to dial nodes of the same site over the carrier, by address, in monotonic seconds.
        self._missed: dict[str, float] = {}
        # How often each topic is wanted; none is 0.
        self._wanted = Counter(topic for each in observers for topic in each.wanted_topics())
        # Whether the carrier is connected, and accepts messages on topics.
        self._topics_open, self._topics_writable = False, True
        self._note_topics()

    async def find_others(self) -> None:
        """Connect to the carrier and announce this node.

        Raises:
            CarrierError: The carrier cannot be reached.
        """
        bus = self.transport.bus = self._make_bus()
        for topic in self._wanted:
            bus.want_topic(topic)
        self._bound = (bus.address,)
        self._advertise()
        self.engine.expect_address(CARRIER)
        await bus.listen()
        if not self._ended:
            self._patience = ActiveTimer(SIBLINGS_ONLY_AFTER, self._accept_siblings, self.loop)

    def clean_up(self) -> None:
        """See `LinkDriver`."""
        if self._patience is not None:
            self._patience.cancel()
        super().clean_up()

    def link_opened(self, link: Link) -> None:
        """See `LinkHandler`."""
        super().link_opened(link)
        if isinstance(link, BusLink) or self._siblings_suffice:
            self._carrier_answered()

    def _is_gone(self, link: Link) -> bool:
        return isinstance(link, BusLink) and link.gone

    def counters(self) -> dict[str, int]:
        """See `Driver`."""
        bus = self.transport.bus
        return {
            **super().counters(),
            "carrier_connected": int(bus is not None and bus.connected),
        }

    # Topics.

    def want_topic(self, topic: str) -> None:
        """See `Driver`."""
        self._wanted[topic] += 1
        if self._wanted[topic] == 1 and self.transport.bus is not None and not self._ended:
            self.transport.bus.want_topic(topic)

    def unwant_topic(self, topic: str) -> None:
        """See `Driver`."""
        self._wanted[topic] -= 1
        if self._wanted[topic] > 0:
            return
        del self._wanted[topic]
        if self.transport.bus is not None and not self._ended:
            self.transport.bus.unwant_topic(topic)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case PublishOnTopic(sending):
                self._publish_on_topic(sending, self._encoded_for_topic(effect))
            case _:
                super()._perform(effect)

    def _publish_on_topic(self, sending: Sending, encoded: Payload) -> None:
        self.frames_sent += 1
        self.bytes_sent += len(encoded)
        if self.transport.bus is not None:
            self.transport.bus.publish_topic(sending.message.topic, encoded, sending.apart)

    def _note_topics(self) -> None:
        self.engine.set_topics(self._topics_open, self._topics_writable, self._now())
        self._drive()

    # CarrierHandler.

    def topics_open(self, is_open: bool) -> None:
        """See `CarrierHandler`."""
        self._topics_open = is_open
        self._note_topics()

    def topics_writable(self, writable: bool) -> None:
        """See `CarrierHandler`."""
        self._topics_writable = writable
        self._note_topics()

    def topic_received(self, link: Link, payload: bytes) -> None:
        """See `CarrierHandler`."""
        self.frames_received += 1
        self.bytes_received += len(payload)
        message = decode(payload)
        try:
            self.engine.receive_on_topic(self._ids[link], message, self._now())
        finally:
            self._drive()

    def node_announced(self, address: str, sibling: bool) -> None:
        """See `CarrierHandler`: dial the node at once, unless it is to be found as a sibling."""
        if self._is_linked(address):
            return
        if not sibling:
            self._dial_now(address)
        elif len(self._missed) < MAX_MISSED:
            self._missed.setdefault(address, self._now() + SIBLING_PATIENCE)

    def found_alone(self) -> None:
        """See `CarrierHandler`."""
        self._carrier_answered()

    async def _check_siblings(self) -> None:
        await super()._check_siblings()
        due = [address for address, at in self._missed.items() if at <= self._now()]
        for address in due:
            del self._missed[address]
            if not self._is_linked(address):
                self._dial_now(address)

    def _dial_now(self, address: str) -> None:
        """Dial an address over the carrier at once, even if earlier dials have failed."""
        self.engine.remove_seed(address)
        self.engine.add_seed(address, lasting=False, direct=False)
        self.wake()  # once for the announcements of a crowd

    def _is_linked(self, address: str) -> bool:
        return any(address in link.peer.addresses for link in self._links.values())

    def _make_bus(self) -> BusTransport:
        settings = self.settings
        assert settings.carrier is not None and settings.secret is not None  # noqa: S101, PT018 - by the settings
        return BusTransport(
            self.sockets.identity,
            self,
            partial(make_client, settings.carrier, name=self.replica.name),
            secret=settings.secret,
            carrier=mask(settings.carrier),
            grace=settings.carrier_grace,
            turns=self.sockets.turns,
            site=site_of(self._siblings.address),
        )

    def _advertise(self) -> None:
        super()._advertise()
        if self.transport.bus is not None:
            self.transport.bus.identity = self.sockets.identity

    def _accept_siblings(self) -> None:
        """Wait no longer for an answer over the carrier if siblings are linked."""
        self._siblings_suffice = True
        if self._links:
            self._carrier_answered()

    def _carrier_answered(self) -> None:
        """Let joining go on: a node or the engine has answered over the carrier."""
        self.engine.address_done(CARRIER)
        self.tick()


def site_of(address: str | None) -> bytes:
    """Identify the directory with the socket of a node, on this boot of this host.

    Args:
        address: The address at which siblings dial the node; None if it has none.

    Returns:
        Equal bytes for two nodes only if both see one directory; empty where that is unknown.
    """
    if address is None:
        return b""
    try:
        boot = _BOOT_ID.read_bytes()
        directory = os.stat(Path(address.removeprefix("unix:")).parent)
    except OSError:
        return b""
    place = b"%s %d %d" % (boot, directory.st_dev, directory.st_ino)
    return hashlib.sha256(place).digest()[:SITE_BYTES]
