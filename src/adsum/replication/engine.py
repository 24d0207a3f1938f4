"""The engine: one node's part in the cluster, without any I/O; the replication core's interface.

The driver of an engine passes it local changes, received messages, opened and closed links, and the
passing of time. The engine returns effects (`take_effects`: send, dial, close), the changes that
observers of watched topics see (`take_changes`), and the time of the next call (`wake_at`). It uses
no clock, no socket and no randomness except its arguments, so a whole cluster of engines runs in a
test, in virtual time, and replays from a seed.

`parts` lists the parts of an engine.
"""

from collections.abc import Collection, Iterator
from random import Random

from adsum.errors import ProtocolError

from .departures import Departure
from .effects import Deliver, Dial, Effect, Sending
from .entry import ID, META, Entry, Transition
from .exchange import Held
from .grace import Claim
from .links import PeerLink
from .memberinfo import MemberInfo, list_members
from .messages import (
    Ask,
    Delta,
    Digest,
    Goodbye,
    Heartbeat,
    Piece,
    ProtocolMessage,
    Publish,
    Pull,
    Sync,
    Vouch,
)
from .parts import Parts
from .reassembly import on_topic
from .sizes import Size
from .state import Replica, Slice
from .timing import Timing

#: Seconds before a deadline at which it is due: two floats for the same moment may differ slightly.
RESOLUTION = 1e-6
#: Flushes, at most, that send the remaining changes before a goodbye.
MAX_LAST_FLUSHES = 128
#: Heartbeats between two checks that drop the renderings not read in between.
AGE_AFTER = 60


class Engine(Parts):
    """One node's part in the cluster.

    Args:
        replica: The name and incarnation of this node.
        timing: The durations of the protocol.
        rng: The only source of randomness.
        now: The present, in monotonic seconds.
    """

    def __init__(self, replica: Replica, timing: Timing, rng: Random, now: float) -> None:
        super().__init__(replica, timing, rng, now)
        self._heartbeat_at = 0.0

    # Local operations.

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Track a presence: add it to this node's slice. It is in the view when this returns."""
        return self._own.track(topic, key, meta)

    def update(self, old: Entry, meta: str) -> Entry:
        """Replace the meta of a presence in place; no observer sees the key leave."""
        return self._own.update(old, meta)

    def untrack(self, entry: Entry) -> None:
        """Untrack a presence: remove it from this node's slice and from the view."""
        self._grace.forget(entry[ID])
        self._own.untrack(entry)

    # Grace. A change of a lingering presence leaves its deadline as it is.

    def linger(
        self, entry: Entry, seconds: float, claim: Claim | None, hold: object, now: float
    ) -> None:
        """Keep a presence whose owner is gone for some more seconds of active time; see `grace`.

        Beyond `MAX_LINGERING` presences, one of a key that has the most of them ends; beyond
        `MAX_LINGERING_SIZE`, the one with the largest meta.

        Args:
            entry: The current entry of the presence. If it lingers already, this is its new grace.
            seconds: Seconds from now until it ends.
            claim: Its owner, and so who may take it over; None if nobody may.
            hold: For `lingers_since`.
            now: Monotonic seconds.
        """
        self._advance(now)
        self._grace.keep(entry, self._clock.active + seconds, claim, hold)
        excess = self._grace.excess
        if excess is not None:
            self.untrack(self.own_slice.entries[excess])

    def take_over(self, topic: str, key: str, meta: str, claim: Claim) -> Entry | None:
        """Give a lingering presence to a new owner, and replace its meta in place.

        Returns:
            Its entry, unchanged if the meta is; None if the owner may take over none.
        """
        id = self._grace.heritage(topic, key, claim)
        if id is None:
            return None
        entry = self.own_slice.entries[id]
        self._grace.forget(id)
        return entry if entry[META] == meta else self.update(entry, meta)

    def lingering_of(self, claim: Claim) -> list[Entry]:
        """The entries of the presences that an owner had and that linger."""
        return [self.own_slice.entries[id] for id in self._grace.of(claim)]

    def lingers_since(self, id: int, hold: object) -> bool:
        """Whether a presence lingers, and was passed to `linger` with this very hold."""
        return self._grace.is_held(id, hold)

    def expire(self, entry: Entry) -> None:
        """End a lingering presence whose deadline has passed; `tick` calls this."""
        self.untrack(entry)

    def publish(
        self, message: Publish, to: str | None, now: float, *, over_links: bool = False
    ) -> Sending:
        """Publish a message to every member, or to one; `messaging` documents queues and timeouts.

        Args:
            message: The message.
            to: The name of the only receiver; None sends to every member that is alive.
            now: Monotonic seconds.
            over_links: Whether members on a carrier are sent it over their links, too, wherever
                they are subscribed, and not on the subject of its topic.

        Returns:
            The progress of the delivery. If the message waits for a member, a `Released` effect
            follows.
        """
        self._advance(now)
        names = [to] if to is not None else self._liveness.alive_names()
        by_topic = to is None and not over_links
        return self._messaging.publish(message, names, self._clock.active, by_topic=by_topic)

    def withdraw(self, sending: Sending) -> None:
        """Cancel the queued sends of a message: the members that it waits for miss it."""
        self._messaging.withdraw(sending)

    def leave(self, linger: float) -> None:
        """Send the remaining changes, then a goodbye on every link.

        Args:
            linger: Seconds for which peers still show the presences of this node.
        """
        self._messaging.close()
        self._reassembly.close()
        for _ in range(MAX_LAST_FLUSHES):
            if self._exchange.flush_at < float("inf"):
                self._exchange.flush(self._clock.active)
        self._goodbyes.send(linger)

    def add_seed(self, address: str, *, lasting: bool, direct: bool = True) -> None:
        """Add a seed: keep dialling an address while there is no link to its node.

        A link over a carrier is not enough, if the address opens a direct one.

        Until this node has joined, it waits for an answer from the address.

        Args:
            address: The address to dial.
            lasting: Keep the seed when the address refuses a dial; otherwise it is removed then.
            direct: Whether a link to the address is direct, and not one over a carrier.
        """
        now = self._clock.active
        if self._dialler.add_seed(address, now, lasting=lasting, direct=direct):
            self._joining.expect_address(address)

    def remove_seed(self, address: str) -> None:
        """Remove a seed: its address is not dialled again, and joining does not wait for it."""
        self._dialler.remove_seed(address)
        self._joining.address_done(address)

    # Joining.

    @property
    def joined(self) -> bool:
        """Whether this node has joined the cluster; `joining` documents the conditions."""
        return self._joining.joined

    @property
    def join_progress(self) -> int:
        """A number that grows with every step towards joining."""
        return self._joining.progress

    @property
    def join_missing(self) -> list[str]:
        """The addresses and replicas that joining still waits for."""
        peers = [str(self._links[id].replica) for id in self._joining.links]
        return list(dict.fromkeys([*self._joining.missing, *peers]))

    def expect_address(self, address: str) -> None:
        """Make joining wait for an address that is being looked up."""
        self._joining.expect_address(address)

    def address_done(self, address: str) -> None:
        """Stop waiting for an address: it was looked up, or cannot be."""
        self._joining.address_done(address)

    def seeds_complete(self) -> None:
        """Let joining end once its conditions hold: all addresses known at startup were added."""
        self._joining.start()

    # Events.

    def link_up(
        self,
        id: int,
        replica: Replica,
        addresses: tuple[str, ...],
        dialled: str | None,
        now: float,
        *,
        direct: bool = True,
    ) -> None:
        """Register a link that has opened, after the other end has proved its identity.

        Args:
            id: A number for the link, chosen by the driver.
            replica: The replica at the other end.
            addresses: The addresses at which it listens.
            dialled: The address that was dialled; None if the other end dialled.
            now: Monotonic seconds.
            direct: Whether it is a connection of its own, and not a virtual link over a carrier.
                Of links to one replica, direct ones are kept.
        """
        self._advance(now)
        self._admission.link_up(id, replica, addresses, dialled, direct=direct)
        self._joining.check()

    def link_down(self, id: int, now: float, gone: bool = False) -> None:
        """Forget a link that has closed; its replica is suspect if it was the last one to it.

        Args:
            id: The link; ignored if it is closed already.
            now: Monotonic seconds.
            gone: The carrier reports that nobody has the address of the peer any more. Then the
                replica is dialled at once, even if the link was young: no peer refuses here.
        """
        self._advance(now)
        link = self._links.get(id)
        if link is not None:
            self._reconciler.forget_link(link, gone=gone)
            self._joining.check()

    def link_writable(self, id: int, writable: bool, now: float) -> None:
        """Apply backpressure: the peer stopped reading, or reads again.

        While it does not read, no deltas and no published messages are sent over the link; pending
        changes stay in the state.
        """
        self._advance(now)
        link = self._links.get(id)
        if link is None:
            return
        link.writable, link.stuck_at = writable, self._clock.active
        if writable:
            self._exchange.resume(link)
        self._messaging.links_changed(link.replica.name)

    def set_topics(self, is_open: bool, writable: bool, now: float) -> None:
        """Publish messages for all on the subjects of their topics, from the first call on.

        They reach the members that are linked over a carrier alone; the others are sent them over
        links.

        Args:
            is_open: Whether the carrier is connected; if not, these members miss each message.
            writable: Whether it accepts messages at present.
            now: Monotonic seconds.
        """
        self._advance(now)
        self._messaging.set_topics(is_open, writable, self._clock.active)

    def hold(self, links: Collection[int], held: bool, now: float) -> None:
        """Let the silence of some links mean nothing while their carrier is away, or count again.

        While all links to a replica are held, it is neither suspected, nor declared down, nor
        forgotten for its silence, and no held link is closed for silence or for not being read.
        Then time goes on: a member that was up has its full `down_after`, a suspect at least
        `link_grace`. A held member may be dead, so the caller bounds the time. `liveness` has the
        rules. Idempotent.

        Args:
            links: The ids of the links; those that have closed are ignored.
            held: Whether they are held from now on.
            now: Monotonic seconds.
        """
        self._advance(now)
        for id in links:
            link = self._links.get(id)
            if link is not None:
                self._reconciler.hold(link, held)

    def dial_failed(self, address: str, refused: bool, now: float) -> None:
        """Report a dial that opened no link; `refused` if nothing listens at the address."""
        self._advance(now)
        if refused:
            self._joining.address_done(address)
        self._suspicion.refuse_dials(self._dialler.failed(address, refused, self._clock.active))
        self._joining.check()

    def dial_rejected(self, address: str, now: float) -> None:
        """Report a dial answered by a node of another cluster, secret or user: no link can form."""
        self._joining.address_done(address)
        self.dial_failed(address, False, now)

    def dialled_self(self, address: str) -> None:
        """Report that a dialled address is this node's own."""
        self._dialler.answered_oneself(address, self._clock.active)
        self._joining.address_done(address)
        self._joining.check()

    def receive(self, id: int, message: ProtocolMessage, now: float) -> None:  # noqa: C901  # a case a kind
        """Apply a message received over a link; ignored if the link is closed.

        Raises:
            ProtocolError: The message breaks the protocol; close the link.
        """
        self._advance(now)
        link = self._links.get(id)
        if link is None:
            return
        link.received_at = self._clock.active
        if not link.kept:
            link.kept = True
            self._messaging.links_changed(link.replica.name)
        self._liveness.note_frame(link.replica, self._clock.active)
        match message:
            case Delta():
                self._exchange.receive(link, message, self._clock.active)
            case Heartbeat():
                self._membership.receive_heartbeat(link, message)
            case Sync():
                if not self._exchange.feed(link, message):
                    self._membership.refuse_copy(link)
            case Digest():
                self._membership.receive_digest(link, message)
            case Pull():
                self._digests.answer(link, message, self._clock.elapsed)
            case Ask():
                self._suspicion.receive_ask(link, message)
            case Vouch():
                self._membership.receive_vouch(link, message)
            case Goodbye():
                self._goodbyes.receive(link, message)
            case Publish() | Piece():
                self._deliver(link, id, message)
        self._joining.receive(link.replica, message)

    def receive_on_topic(self, id: int, message: ProtocolMessage, now: float) -> None:
        """Deliver a message, or a piece, that the peer of a link has published on a topic subject.

        It proves nothing about the peer: links carry heartbeats. Ignored if the link is closed.

        Raises:
            ProtocolError: It is a message of another kind; close the link.
        """
        self._advance(now)
        link = self._links.get(id)
        if link is None:
            return
        if not isinstance(message, Publish | Piece):
            raise ProtocolError("a message on a topic that is not a published one")
        self._deliver(link, on_topic(id), message)

    def _deliver(self, link: PeerLink, stream: int, message: Publish | Piece) -> None:
        """Deliver a published message, or add a piece of one to its stream."""
        whole: Publish | None
        if isinstance(message, Publish):
            self._reassembly.interrupt(stream)
            whole = message
        else:
            whole = self._reassembly.receive(stream, message, self._clock.active)
        if whole is not None:
            self._effects.put(Deliver(link.replica.name, whole))

    def tick(self, now: float) -> None:
        """Act on all deadlines that have passed, and send pending changes.

        Call it at `wake_at` or earlier, and after local changes.
        """
        self._advance(now)
        self._messaging.new_turn()
        due = self._clock.active + RESOLUTION
        for id in self._grace.due(due):
            self.expire(self.own_slice.entries[id])
        if self._exchange.flush_at <= due:
            self._exchange.flush(self._clock.active)
        if self._heartbeat_at <= due:
            self._beat()
        if self._messaging.check_at <= due:
            self._messaging.expire(due)
        self._membership.expire(due)
        self._goodbyes.expire(self._clock.elapsed + RESOLUTION)
        for address in self._dialler.due(due, self._links.names, self._links.direct_names):
            self._effects.put(Dial(address))
        if self._joining.check_at <= due:
            self._joining.stop_waiting_for_links()
        self._joining.check_all()

    # Outputs.

    @property
    def wake_at(self) -> float:
        """The latest time for the next `tick`, in monotonic seconds; other calls may change it."""
        at = min(
            self._exchange.flush_at,
            self._messaging.check_at,
            self._grace.check_at,
            self._heartbeat_at,
            self._liveness.check_at,
            self._dialler.next_at,
            self._joining.check_at,
        )
        if self._liveness.suspects:
            at = min(at, self._clock.active + self._patience / 2)
        if self._messaging.ready:
            at = self._clock.active  # the next turn sends more
        return self._clock.monotonic_at(at, self._departures.check_at)

    def take_effects(self) -> list[Effect]:
        """The effects to execute since the last call, in order; call it again until it is empty."""
        if self._messaging.may_send and not self._effects:
            if self._exchange.flush_at <= self._clock.active + RESOLUTION:
                self._exchange.flush(self._clock.active)  # the state waits for no message
            self._messaging.send_next()
        return self._effects.take()

    def take_changes(self) -> dict[str, list[Transition]]:
        """The changes of each watched topic since the last call, in order."""
        return self.view.take_changes()

    def members(self) -> list[MemberInfo]:
        """The nodes that this node knows, itself included, sorted by name.

        A replica that lingers after its goodbye is listed as `left`, also beside a restarted one of
        the same name.
        """
        return list_members(self._liveness, self._departures, self._exchange, self._links)

    def lacks_direct_link(self, name: str) -> bool:
        """Whether a node is linked over a carrier alone."""
        return self._links.lacks_direct(name)

    def has_live_link(self, replica: Replica) -> bool:
        """Whether a link to a replica is alive, so its own statements will be received."""
        return self._digests.has_live_link(replica, self._clock.active)

    def lingering(self) -> dict[Replica, Departure]:
        """The goodbyes of the replicas that linger here, by replica; read-only."""
        return {departure.replica: departure for departure in self._departures.lingering()}

    @property
    def own_slice(self) -> Slice:
        """The slice of this node: the presences that it tracks; read-only."""
        return self._own.slice

    @property
    def fingerprint(self) -> int:
        """The fingerprint of the replicas that are alive here, this node included."""
        return self._liveness.fingerprint

    @property
    def members_revision(self) -> int:
        """A number that grows with each change of the members, their statuses or addresses."""
        return self._liveness.revision + self._departures.revision

    @property
    def links(self) -> int:
        """The number of open links."""
        return len(self._links)

    @property
    def shown(self) -> int:
        """The number of presences shown here."""
        return sum(len(held.slice.entries) for held in self._exchange if held.shown)

    @property
    def lingering_ids(self) -> Collection[int]:
        """The ids of the presences of this node that linger; a view that follows each change."""
        return self._grace.ids

    @property
    def missed_messages(self) -> int:
        """Published messages, counted once for each member that missed one."""
        return self._messaging.missed

    @property
    def incomplete_messages(self) -> int:
        """Messages of bytes that were dropped because only a part of them was received."""
        return self._reassembly.incomplete

    def held(self, replica: Replica) -> Held | None:
        """The slice of a replica with its feeds and catch-up, if it is held; read-only."""
        return self._exchange.of(replica)

    def moving(self, replica: Replica) -> bool:
        """Whether a large slice is being shown or hidden, which takes several turns."""
        return self._exchange.moving(replica)

    def slices(self) -> dict[Replica, Slice]:
        """The slices held here, shown or not, by replica; read-only."""
        return {held.slice.replica: held.slice for held in self._exchange}

    def sizes(self, names: int) -> Iterator[Size]:
        """The sizes of the structures that peers can make grow, each with its bound.

        Args:
            names: The number of node names in the cluster, that of this node included.
        """
        replicas = names + len(self._departures)
        yield from self._liveness.sizes(names)
        yield from self._departures.sizes()
        yield from self._links.sizes(names)
        yield from self._suspicion.sizes(names)
        yield from self._dialler.sizes(names)
        yield from self._conflicts.sizes(names)
        yield from self._exchange.sizes(replicas)
        yield from self._reassembly.sizes(2 * len(self._links))
        yield from self._grace.sizes()

    # Time.

    def _advance(self, now: float) -> None:
        self._clock.advance(now, self._patience)

    @property
    def _patience(self) -> float:
        """Seconds between two calls beyond which time does not count; less while one is suspect."""
        liveness = self._liveness
        if liveness.suspects:
            return self._timing.refused_grace / 2
        return liveness.pace.longest_interval

    def _beat(self) -> None:
        now = self._clock.active
        self._exchange.flush(now)
        pace = self._liveness.pace
        pace.beat(self._liveness.alive, now)
        self._heartbeat_at = now + pace.heartbeat_interval
        self._exchange.give_up_stalled(now)
        self._reconciler.close_dead_links()
        self._reassembly.expire(now - self._timing.down_after)
        self._heartbeats.beat()
        self._request_digests()
        if self._heartbeats.counter % AGE_AFTER == 0:
            self.view.age()

    def _request_digests(self) -> None:
        joining = [self._links[id] for id in self._joining.links]
        # Their peers did not read.
        unanswered = [link for link in joining if link.greeted and not link.held]
        self._digests.beat(self._clock.active, unanswered, self._joining.replicas)
