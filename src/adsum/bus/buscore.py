"""`BusCore`: the virtual links of one node over an unreliable bus, without any I/O.

Theory of operation
===================

A node subscribes to two subjects: one of the whole cluster, and its inbox, which is named by its
*life*, random bytes of this run. `busmessages` lists the messages.

* **Discovery.** A node announces its life to all when it reaches the bus, and from time to time.
  Nodes without a link to it dial it. A recorded announcement leads nowhere: the handshake is that
  of sockets, with new nonces of both ends, so it needs a living process that knows the secret.
  If both ends dial, the dial of the smaller life goes on, and the other end takes part in it. Few
  dials are under way at a time, see `busdials`.
* **Links.** Each is ordered and complete, or closes: see `buswindows`. A frame is published
  once if it is for at least half of the *audience*, the nodes that would receive it: those with a
  link, and others that were heard. It names the links that it is not for.
* **Topics.** A message for all members is published on the subject of its topic, see `bustopics`,
  so the engine passes it to the nodes that want the topic. It is sent at most once, without credit.
* **Credit.** The bus has no backpressure. A receiver acknowledges the bytes that it has handled,
  and a link with too many bytes in flight is not writable.
* **Death.** The engine itself says that nobody subscribes to an inbox: see `busring`. A refused
  probe closes the links to that life, and is announced; every other node probes for itself. A
  stopped process still subscribes: its silence is left to the heartbeats.
* **Absence of the bus.** All links are *held*: their peers' silence means nothing. After the
  return each stays held until its peer answers a new random question, which no recorded message
  does, for a bounded time in which no refusal counts: the others are returning, too. Both ends
  then state how far they are, and repeat lost messages. If the bus is lost again and again before
  the end of this time, a link whose peer is not heard meanwhile closes.
"""

import re
from collections.abc import Callable, Collection
from hashlib import blake2b

from adsum.errors import DialError, DialRefusedError, HandshakeError, ProtocolError
from adsum.quoting import printable
from adsum.transport.contract import NodeIdentity
from adsum.transport.framing import FrameReader, encode_payload, payload_of
from adsum.transport.handshake import VERSIONS, Handshake, SelfDialError, encode_hello

from .busdials import BusDials, address_of, life_of
from .busevents import (
    Alone,
    Announced,
    Arrived,
    BusChanged,
    BusEvent,
    Closed,
    DialDone,
    Emit,
    Follow,
    Heard,
    HoldChanged,
    Opened,
    RoomChanged,
    Trouble,
    Unfollow,
)
from .busmessages import (
    LIFE_BYTES,
    NOTHING,
    QUESTION_BYTES,
    SITE_BYTES,
    Announce,
    Bulletin,
    BusCodec,
    BusMessage,
    Cast,
    Greet,
    Lost,
    Probe,
    Report,
    Shut,
    Single,
    claims,
    sender_of,
)
from .busring import Ring
from .bustopics import BusTopics
from .buswindows import CastLog, SendWindow
from .limits import (
    ANNOUNCE_INTERVAL,
    DIAL_TIMEOUT,
    GREETING_INTERVAL,
    MAX_EXCLUDED,
    MAX_SILENT_WAITING,
    PROBE_INTERVAL,
    REPORT_EVERY,
    REPORT_PATIENCE,
    RESOLUTION,
    RETURN_GRACE,
    WINDOW,
)
from .topicslots import slot_of
from .virtuallink import VirtualGreeting, VirtualLink

_NEVER, _PAST = float("inf"), float("-inf")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_DIGITS = re.compile("[0-9]+")
_ANNOUNCEMENT = "announcement"


def prefix_of(cluster: str) -> str:
    """The beginning of every subject of a cluster; its hash where its name is no word."""
    if _PLAIN.fullmatch(cluster):
        return f"adsum.{cluster}"
    return f"adsum.-{blake2b(cluster.encode(), digest_size=16).hexdigest()}"


class BusCore:
    """The virtual links of one node.

    Args:
        identity: The identity of the node; see the attribute.
        secret: The shared secret of the cluster.
        random_bytes: Makes random bytes, like `secrets.token_bytes`.
        site: Identifies the directory in which siblings find each other, `SITE_BYTES` long; empty
            if this node has none.

    Attributes:
        identity: The identity that this node sends in new handshakes; replace it when its
            addresses change.
        address: The address of this node on the bus, for its identity: ``bus:<life>``.
        subjects: The subjects to subscribe to from the beginning; `Follow` names further ones.

    Raises:
        ConfigurationError: No peer would accept the identity.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        secret: bytes,
        random_bytes: Callable[[int], bytes],
        site: bytes = b"",
    ) -> None:
        encode_hello(identity, VERSIONS, bytes(32), False)
        self.identity = identity
        self._life = random_bytes(LIFE_BYTES)
        self.address = address_of(self._life)
        self._prefix = prefix_of(identity.cluster)
        self._all = f"{self._prefix}.all"
        self.subjects = (self._all, self._inbox(self._life))
        self._secret = secret
        self._random_bytes = random_bytes
        self._site = site or bytes(SITE_BYTES)
        self._codec = BusCodec(secret, identity.cluster)
        self._events: list[BusEvent] = []
        self._links: dict[int, VirtualLink] = {}
        self._by_key: dict[bytes, VirtualLink] = {}
        self._by_life: dict[bytes, dict[int, VirtualLink]] = {}
        self._next_id = 1
        self._dials = BusDials(self._new_handshake, random_bytes)
        self._topics = BusTopics(self._life)
        self._ring = Ring(self._life)
        self._log = CastLog()
        # The links with a single since the last cast: its number by the key of the link.
        self._needs: dict[bytes, int] = {}
        # The links on which a message is missing.
        self._incomplete: dict[int, VirtualLink] = {}
        # The links without room, and when to ask the peer for a report: its last may be lost.
        self._full: dict[int, float] = {}
        self._is_connected = self._was_away = False
        # The question of the last return to the bus, to the peers of all links.
        self._question = NOTHING
        self._probe_at = self._announce_at = _NEVER
        # When the bus was last reached.
        self._reached_at = _PAST
        # Until when refusals mean nothing, after a return to the bus.
        self._settled_at = _PAST

    # Inputs.

    def connected(self, now: float) -> None:
        """The bus is reached, at first or again, and all subjects are subscribed to."""
        self._reached_at = now
        self._probe_at = now + PROBE_INTERVAL
        self._settled_at = now + RETURN_GRACE if self._was_away else _PAST
        self._is_connected, self._was_away = True, False
        self._announce(now, self._question)
        self._full = dict.fromkeys(self._full, now + REPORT_PATIENCE)
        self._events.append(BusChanged(True))

    def disconnected(self, now: float) -> None:
        """The bus is lost: nothing is sent until `connected`, and all links are held."""
        self._is_connected, self._was_away = False, True
        self._question = self._random_bytes(QUESTION_BYTES)
        self._probe_at = self._announce_at = _NEVER
        self._settled_at = _PAST
        for address in self._dials.clear():
            self._events.append(DialDone(address, DialError(f"{address}: the carrier is away")))
        # A process may have been stopped for some time: no connection counts for longer than this.
        seconds = min(now - self._reached_at, RETURN_GRACE)
        # Each peer may give its link up meanwhile.
        unheard = [each for each in self._links.values() if each.lose_bus(seconds, self._question)]
        self._incomplete.clear()
        self._full = dict.fromkeys(self._full, _NEVER)
        self._topics.lose_bus()
        self._events.append(BusChanged(False))
        self._hold([link for link in self._links.values() if not link.held], held=True)
        for link in unheard:
            self._forget(link, "its peer was not heard over several connections to the carrier")

    def received(self, data: bytes, now: float) -> None:
        """Handle a message of the bus; one that no member has sent is dropped."""
        claimed = sender_of(data)
        if claimed == self._life:
            return  # some engines return the messages of a node to itself
        if claims(data, Cast) and claimed in self._dials.heard and claimed not in self._by_life:
            return  # it is for others: most messages are, while many nodes start at once
        try:
            sender, message = self._codec.decode(data)
        except ProtocolError as error:
            text = f"a message on the subjects of {self._prefix!r} was dropped: {error}"
            # Without the numbers, which a stranger may vary.
            self._events.append(Trouble(text, _DIGITS.sub("", str(error))))
            return
        if sender not in self._by_life:
            self._dials.note(sender, now)
        self._handle(sender, message, len(data), now)
        self._begin_dials(now)

    def refused(self, probe: object, now: float) -> None:
        """The engine says that nobody else receives the emission with this probe."""
        if not self._is_connected:
            return
        if probe == _ANNOUNCEMENT:
            if not self._links:
                self._events.append(Alone())
        elif isinstance(probe, VirtualGreeting):
            sort = DialError if now < self._settled_at else DialRefusedError
            self._fail(probe, sort(f"{probe.dialled}: nobody subscribes to its inbox"))
            self._begin_dials(now)
        elif isinstance(probe, bytes) and now >= self._settled_at:
            self._lose(probe, now)

    def tick(self, now: float) -> None:
        """Act on all deadlines that have passed."""
        now += RESOLUTION  # or a timer that fires a moment early is set again at once, for ever
        self._expire_dials(now)
        if self._topics.slots.sweep_at <= now:
            idle = self._topics.slots.sweep()
            self._events += [Unfollow(self._subject_of(slot)) for slot in idle]
        if not self._is_connected:
            return
        self._begin_dials(now)
        for link in list(self._incomplete.values()):
            self._check_gap(link, now)
        for id in [id for id, at in self._full.items() if at <= now]:
            self._full[id] = now + REPORT_PATIENCE
            self._report(self._links[id], ask=True)
        if _PAST < self._settled_at <= now:
            self._settled_at = _PAST
            self._hold([link for link in self._links.values() if link.held], held=False)
        if self._announce_at <= now:
            self._announce(now)
        if self._probe_at <= now:
            self._probe_at = now + PROBE_INTERVAL
            self._probe(self._ring.neighbour)

    def dial(self, address: str, now: float) -> None:
        """Open a link to the node at an address; `DialDone` follows.

        Beyond `MAX_DIALS` the dial waits for the end of others, see `dialqueue`.
        """
        life = life_of(address)
        error: Exception | None = None
        if life is None:
            error = DialError(f"{address}: not the address of a node on a carrier")
        elif life == self._life:
            error = SelfDialError(f"node {self.identity.name!r} dialled itself")
        elif not self._is_connected:
            error = DialError(f"{address}: the carrier is away")
        elif not self._dials.dial(life):
            error = DialError(f"{address}: not heard, as {MAX_SILENT_WAITING} others that wait")
        if life is None or error is not None:
            self._events.append(DialDone(address, error))
            return
        self._begin_dials(now)

    def send(self, links: Collection[int], payload: bytes, now: float) -> None:
        """Send a frame over these links, published once if that costs fewer deliveries.

        All nodes receive what is published once, also those without a link.

        Raises:
            ValueError: The payload is above the frame limit.
        """
        body = encode_payload(payload)
        named = [self._links[id] for id in links if id in self._links]
        excluded = len(self._links) - len(named)
        idle = excluded + len(self._dials.heard)
        if len(named) > 1 and idle <= len(named) and excluded <= MAX_EXCLUDED:
            self._cast(named, body, now)
        else:
            for link in named:
                self._send_single(link, body, now)

    def want_topic(self, topic: str, now: float) -> None:
        """Receive the messages on one more topic; call `unwant_topic` once for each call."""
        slot = slot_of(topic)
        if self._topics.slots.want(slot):
            self._events.append(Follow(self._subject_of(slot)))

    def unwant_topic(self, topic: str, now: float) -> None:
        """Undo one `want_topic`; the messages on the topic may arrive for some time."""
        self._topics.slots.unwant(slot_of(topic), now)

    def publish_topic(
        self, topic: str, payload: bytes, excluded: Collection[str], now: float
    ) -> None:
        """Publish a frame on the subject of a topic, at most once; not while the bus is away.

        Args:
            topic: The topic.
            payload: The frame.
            excluded: The names of the nodes that are sent it in another way.
            now: Monotonic seconds.

        Raises:
            ValueError: The payload is above the frame limit.
        """
        body = encode_payload(payload)
        if not self._is_connected:
            return
        links = self._links.values() if excluded else ()
        lives = [link.life for link in links if link.peer.name in excluded]
        message = self._topics.issue(topic, lives, body)
        self._emit(self._subject_of(message.slot), message)

    def close(self, link: int, reason: str, now: float) -> None:
        """Close a link and send the peer the reason; `Closed` follows. Idempotent."""
        if link in self._links:
            self._shut(self._links[link], reason)

    def give_up(self, now: float) -> None:
        """Close all links without a word: the bus has been away for too long, or for ever."""
        for link in list(self._links.values()):
            self._forget(link, "the carrier is away")

    # Outputs.

    @property
    def wake_at(self) -> float:
        """When to call `tick`, in monotonic seconds; other calls may change it."""
        gaps = [link.ask_at for link in self._incomplete.values()]
        settled = _NEVER if self._settled_at == _PAST else self._settled_at
        return min(
            self._probe_at,
            self._announce_at,
            self._topics.slots.sweep_at,
            self._dials.wake_at,
            settled,
            *gaps,
            *self._full.values(),
        )

    def take_events(self) -> list[BusEvent]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    # Messages.

    def _handle(self, sender: bytes, message: BusMessage, size: int, now: float) -> None:
        match message:
            case Announce(site, question, issued):
                self._consider(sender, site, question, now)
                self._topics.expire(sender, issued)
            case Lost(life):
                if life in self._by_life:
                    self._probe(life)
            case Cast():
                self._receive_cast(sender, message, size, now)
            case Bulletin():
                self._receive_bulletin(sender, message, now)
            case Greet() | Shut() | Single() | Report() if message.target == self._life:
                self._handle_private(sender, message, size, now)

    def _handle_private(
        self, sender: bytes, message: Greet | Shut | Single | Report, size: int, now: float
    ) -> None:
        match message:
            case Greet(_, key, frames):
                self._receive_greeting(sender, key, frames, now)
            case Shut(_, key, reason):
                self._receive_shut(sender, key, reason)
            case Single():
                self._receive_single(sender, message, size, now)
            case Report():
                self._receive_report(sender, message, now)

    def _consider(self, life: bytes, site: bytes, question: bytes, now: float) -> None:
        """Handle an announcement: a node without a link is dialled.

        Over a link, a node that has returned to the bus and this one state how far they are. It
        may have given the link up; then it answers with that. A stranger may repeat announcements,
        so they are answered at most every `GREETING_INTERVAL`; the next frame shows the rest.
        """
        for link in self._by_life.get(life, {}).values() if question != NOTHING else ():
            if link.greeted_at + GREETING_INTERVAL <= now:
                link.greeted_at = now
                self._report(link, ask=True, answer=question)
        if question != NOTHING:
            self._repeat_greeting(life, now)
        # A node that has returned has forgotten the handshakes that it had begun before.
        is_met = self._dials.meets(life) if question == NOTHING else self._dials.dial_to(life)
        if life not in self._by_life and not is_met and not self._dials.waits(life):
            sibling = site == self._site != bytes(SITE_BYTES)
            self._events.append(Announced(address_of(life), sibling))

    def _repeat_greeting(self, life: bytes, now: float) -> None:
        """Send the last frames of a dial again to a node that has returned.

        The engine may have passed them on before the client of that node was ready. A node that
        has forgotten the handshake begins it again or refuses it; any other one ignores them.
        A stranger may repeat announcements, so they are sent at most every `GREETING_INTERVAL`.
        """
        greeting = self._dials.dial_to(life)
        if greeting is not None and greeting.repeated_at + GREETING_INTERVAL <= now:
            greeting.repeated_at = now
            self._emit(self._inbox(life), Greet(life, greeting.key, greeting.sent))

    def _receive_greeting(self, sender: bytes, key: bytes, frames: bytes, now: float) -> None:
        greeting = self._dials.get(key)
        if greeting is None:
            if key in self._by_key:
                return  # a repetition
            if self._life < sender and self._dials.dial_to(sender):
                return  # both ends have dialled: the other one takes part in this dial
            greeting = self._dials.answer(key, sender, now)
        if greeting.life != sender:
            return
        try:
            answer = greeting.receive(frames)
        except (HandshakeError, ProtocolError) as error:
            self._emit(self._inbox(sender), Shut(sender, key, str(error)))
            self._fail(greeting, _as_handshake_error(error))
            return
        if answer:
            greeting.sent = answer
            self._dials.extend(greeting, now)
            self._emit(self._inbox(sender), Greet(sender, key, answer))
        if greeting.handshake.peer is not None:
            self._open(greeting, greeting.handshake.peer, now)

    def _receive_shut(self, sender: bytes, key: bytes, reason: str) -> None:
        shown = printable(reason, 512)
        link, greeting = self._by_key.get(key), self._dials.get(key)
        if link is not None and link.life == sender:
            self._forget(link, f"peer closed: {shown}")
        elif greeting is not None and greeting.life == sender:
            # It may have forgotten the handshake if it has returned meanwhile.
            sort = HandshakeError if greeting.repeated_at == _PAST else DialError
            self._fail(greeting, sort(f"{greeting.dialled}: {shown}"))

    def _receive_single(self, sender: bytes, message: Single, size: int, now: float) -> None:
        link = self._link_of(sender, message.key)
        if link is not None:
            link.receiving.single(message.number, message.after, message.body)
            self._receive_from(link, size, now)

    def _receive_cast(self, sender: bytes, message: Cast, size: int, now: float) -> None:
        links = list(self._by_life.get(sender, {}).values())
        if not links:
            return
        needs, excluded = dict(message.needs), set(message.excluded)
        for link in links:
            body = None if link.key in excluded else message.body
            link.receiving.cast(message.number, needs.get(link.key, 0), body)
            self._receive_from(link, size, now)

    def _receive_bulletin(self, sender: bytes, message: Bulletin, now: float) -> None:
        """Pass on a message on a topic, unless it is a repetition or not for this node.

        Without a link that has begun and that its sender is known to have still, it waits for one,
        and the sender is asked.
        """
        links = list(self._by_life.get(sender, {}).values())
        link = next((each for each in links if each.receiving.begun and each.confirmed), None)
        if link is not None:
            if self._topics.accept(sender, message):
                self._deliver_bulletin(link, message)
        elif links:
            self._topics.store(sender, message)
            for each in links:
                self._check_gap(each, now)

    def _deliver_bulletin(self, link: VirtualLink, message: Bulletin) -> None:
        try:
            self._events.append(Heard(link.id, _payload(message.body)))
        except ProtocolError as error:
            self._break(link, error)

    def _receive_from(self, link: VirtualLink, size: int, now: float) -> None:
        """Pass on the frames whose turn has come, and ask for missing messages."""
        if not link.confirmed:
            self._check_gap(link, now)
            return
        self._hear(link)
        had_begun = link.receiving.begun
        try:
            for body in link.receiving.take():
                self._events.append(Arrived(link.id, _payload(body)))
        except ProtocolError as error:
            self._break(link, error)
            return
        if link.receiving.begun and not had_begun:
            self._topics.begin(link.life, link.receiving.opening)
        link.unreported += size
        if link.unreported >= REPORT_EVERY:
            self._report(link)
        self._check_gap(link, now)
        self._release_topics(link)

    def _release_topics(self, link: VirtualLink) -> None:
        """Pass on the messages on topics that waited until this link is known to be there still."""
        if link.receiving.begun and link.id in self._links:
            for bulletin in self._topics.release(link.life):
                if link.id in self._links:
                    self._deliver_bulletin(link, bulletin)

    def _receive_report(self, sender: bytes, report: Report, now: float) -> None:
        link = self._link_of(sender, report.key)
        if link is None:
            return
        link.confirmed = link.confirmed or report.answer == link.question
        if not link.sending.acknowledge(report.received):
            self._shut(link, "a report of frames that were never sent")
            return
        self._trim()
        if report.resend and not self._resend(link, report):
            return
        link.receiving.expect(report.sent)
        self._check_room(link, now)
        if report.question != NOTHING:
            asks = not link.confirmed and link.note_gap(now)
            self._report(link, resend=asks, ask=asks, answer=report.question)
        self._receive_from(link, 0, now)

    def _resend(self, link: VirtualLink, report: Report) -> bool:
        """Send the messages again that the peer lacks, or close the link; returns if it is open."""
        missing = link.sending.beyond(report.received)
        if missing is None:
            self._shut(link, "frames were lost, and are no longer kept")
            return False
        for data in missing:
            self._publish(self._inbox(link.life), data)
        return True

    # Links.

    def _new_handshake(self, dialling: bool) -> Handshake:
        # The tags of messages authenticate frames, so the handshake has to agree on none.
        return Handshake(
            self.identity,
            dialling=dialling,
            secret=self._secret,
            protected=True,
            nonce=self._random_bytes,
        )

    def _begin_dials(self, now: float) -> None:
        """Begin the dials that have a place."""
        for greeting in self._dials.begin(now):
            greeting.sent = greeting.handshake.start()
            message = Greet(greeting.life, greeting.key, greeting.sent)
            self._emit(self._inbox(greeting.life), message, probe=greeting)

    def _expire_dials(self, now: float) -> None:
        for address in self._dials.expire(now):
            error = DialError(f"{address}: no answer within {DIAL_TIMEOUT:g} s")
            self._events.append(DialDone(address, error))

    def _fail(self, greeting: VirtualGreeting, error: Exception) -> None:
        """End a handshake without a link, if it is under way still."""
        if self._dials.end(greeting) and greeting.dialled is not None:
            self._events.append(DialDone(greeting.dialled, error))

    def _open(self, greeting: VirtualGreeting, peer: NodeIdentity, now: float) -> None:
        self._dials.end(greeting)
        if greeting.dialled is None:
            greeting.dialled = self._dials.take_over(greeting.life)
        link = VirtualLink(
            self._next_id,
            greeting.key,
            greeting.life,
            peer,
            SendWindow(self._log),
            self._random_bytes(QUESTION_BYTES),
        )
        self._next_id += 1
        self._links[link.id] = self._by_key[link.key] = link
        earlier = list(self._by_life.get(link.life, {}).values())
        if not earlier:
            self._ring.add(link.life)
        # Before an earlier one may close: the life stays in the ring while it has any link.
        self._by_life.setdefault(link.life, {})[link.id] = link
        for older in earlier:
            # The peer may have dialled as it lost that one.
            older.doubt(self._random_bytes(QUESTION_BYTES))
            self._check_gap(older, now)
        self._incomplete[link.id] = link
        link.await_first(now, now - greeting.began_at)
        self._send_single(link, self._topics.opening, now)
        version = greeting.handshake.version
        self._events.append(Opened(link.id, peer, greeting.dialled, version))
        if greeting.dialled is not None:
            self._events.append(DialDone(greeting.dialled, None))

    def _break(self, link: VirtualLink, error: ProtocolError) -> None:
        """Close a link whose peer broke the protocol."""
        self._events.append(Trouble(f"link to {link.peer.name} closed: {error}", link.peer.name))
        self._shut(link, str(error))

    def _shut(self, link: VirtualLink, reason: str) -> None:
        """Close a link, and send the peer the reason."""
        self._emit(self._inbox(link.life), Shut(link.life, link.key, reason))
        self._forget(link, reason)

    def _forget(self, link: VirtualLink, reason: str, *, gone: bool = False) -> None:
        """Close a link, if it is open still."""
        if self._links.pop(link.id, None) is None:
            return
        del self._by_key[link.key], self._by_life[link.life][link.id]
        if not self._by_life[link.life]:
            del self._by_life[link.life]
            self._topics.forget(link.life)
            self._ring.remove(link.life)
        self._needs.pop(link.key, None)
        self._incomplete.pop(link.id, None)
        self._full.pop(link.id, None)
        self._trim()
        self._events.append(Closed(link.id, reason, gone))

    def _link_of(self, sender: bytes, key: bytes) -> VirtualLink | None:
        """The link of a message; without one, its sender is answered."""
        link = self._by_key.get(key)
        if link is not None and link.life == sender:
            return link
        if self._dials.get(key) is None:
            self._emit(self._inbox(sender), Shut(sender, key, "there is no such link"))
        return None

    def _cast(self, named: list[VirtualLink], body: bytes, now: float) -> None:
        chosen = {link.key for link in named}
        excluded = tuple(key for key in self._by_key if key not in chosen)
        message = Cast(self._log.head + 1, tuple(self._needs.items()), excluded, body)
        self._needs.clear()
        data = self._codec.encode(self._life, message)
        self._log.add(data)
        self._publish(self._all, data)
        for link in self._links.values():
            self._check_room(link, now)

    def _send_single(self, link: VirtualLink, body: bytes, now: float) -> None:
        number = link.sending.head + 1
        message = Single(link.life, link.key, number, self._log.head, body)
        data = self._codec.encode(self._life, message)
        link.sending.add(data)
        self._needs[link.key] = number
        self._publish(self._inbox(link.life), data)
        self._check_room(link, now)

    def _trim(self) -> None:
        """Drop the casts that no peer lacks."""
        acknowledged = [link.sending.acknowledged.cast for link in self._links.values()]
        self._log.trim(min(acknowledged, default=self._log.head))

    def _check_room(self, link: VirtualLink, now: float) -> None:
        in_flight = link.sending.in_flight
        writable = in_flight <= (WINDOW if link.writable else WINDOW // 4)
        if writable is not link.writable:
            link.writable = writable
            if writable:
                del self._full[link.id]
            else:
                self._full[link.id] = now + REPORT_PATIENCE if self._is_connected else _NEVER
            self._events.append(RoomChanged(link.id, writable))

    def _check_gap(self, link: VirtualLink, now: float) -> None:
        """Ask for missing messages, again and again, or close the link after some time."""
        if link.hopeless(now):
            self._shut(link, "frames were lost")
            return
        if link.note_gap(now):
            self._report(link, resend=True, ask=not link.confirmed)
        if link.missing_since is None:
            self._incomplete.pop(link.id, None)
        elif link.id in self._links:
            self._incomplete[link.id] = link

    def _report(
        self,
        link: VirtualLink,
        *,
        resend: bool = False,
        ask: bool = False,
        answer: bytes = NOTHING,
    ) -> None:
        """Send the peer how far both directions are; `ask` for the same, as the answer to it."""
        link.unreported = 0
        received, sent = link.receiving.received, link.sending.sent
        question = link.question if ask else NOTHING
        message = Report(link.life, link.key, received, sent, resend, question, answer)
        self._emit(self._inbox(link.life), message)

    # Presence on the bus.

    def _announce(self, now: float, question: bytes = NOTHING) -> None:
        jitter = self._random_bytes(1)[0] / 256
        self._announce_at = now + ANNOUNCE_INTERVAL * (0.75 + jitter / 2)
        message = Announce(self._site, question, self._topics.issued)
        self._emit(self._all, message, probe=_ANNOUNCEMENT)

    def _probe(self, life: bytes | None) -> None:
        if life is not None:
            self._emit(self._inbox(life), Probe(), probe=life)

    def _lose(self, life: bytes, now: float) -> None:
        """Close the links to a life whose probe was refused, and announce the loss."""
        links = list(self._by_life.get(life, {}).values())
        if not links:
            return
        for link in links:
            self._forget(link, "the carrier reports that its process is gone", gone=True)
        self._emit(self._all, Lost(life))
        self._probe_at = now + PROBE_INTERVAL
        self._probe(self._ring.neighbour)

    def _hear(self, link: VirtualLink) -> None:
        if link.held and self._is_connected:
            self._hold([link], held=False)

    def _hold(self, links: list[VirtualLink], *, held: bool) -> None:
        for link in links:
            link.held = held
        if links:
            self._events.append(HoldChanged(tuple(link.id for link in links), held))

    # Bus.

    def _inbox(self, life: bytes) -> str:
        return f"{self._prefix}.node.{life.hex()}"

    def _subject_of(self, slot: int) -> str:
        return f"{self._prefix}.topic.{slot:03x}"

    def _emit(self, subject: str, message: BusMessage, probe: object | None = None) -> None:
        self._publish(subject, self._codec.encode(self._life, message), probe)

    def _publish(self, subject: str, data: bytes, probe: object | None = None) -> None:
        if self._is_connected:  # the windows repair the loss
            self._events.append(Emit(subject, data, probe))


def _payload(body: bytes) -> bytes:
    """The payload of a frame as `encode_payload` makes it.

    Raises:
        ProtocolError: It is no such frame.
    """
    reader = FrameReader(len(body))
    reader.feed(body)
    frame = reader.take()
    if frame is None or len(reader):
        raise ProtocolError("a part of a frame, or several, in one message")
    return payload_of(*frame)


def _as_handshake_error(error: Exception) -> HandshakeError:
    return error if isinstance(error, HandshakeError) else HandshakeError(str(error))
