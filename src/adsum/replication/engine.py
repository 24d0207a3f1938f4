"""The engine: one node's part in the cluster, without any I/O; the replication core's interface.

The driver of an engine passes it local changes, received messages, opened and closed links, and the
passing of time. The engine returns effects (`take_effects`: send, dial, close), the changes that
observers of watched topics see (`take_changes`), and the time of the next call (`wake_at`). It uses
no clock, no socket and no randomness except its arguments, so a whole cluster of engines runs in a
test, in virtual time, and replays from a seed.

The parts: `state` holds slices, `view` the presences that are shown, `liveness` decides which
replicas are up, `departures` keeps those that said goodbye, `dialler` decides which address to
dial, `exchange` moves slices, `digests` relays counters and goodbyes, `joining` decides when the
node has joined, and `peers` keeps them in agreement.
"""

from random import Random

from .clock import Clock
from .conflicts import Conflicts
from .departures import Departure, Departures
from .dialler import Dialler
from .digests import Digests
from .effects import Deliver, Dial, Effect, EffectQueue, Sending
from .entry import ID, KEY, TOPIC, VERSION, Entry, Transition
from .exchange import Exchange, Held
from .interning import share
from .joining import Joining
from .links import Links
from .liveness import Liveness
from .members import MemberInfo
from .messages import (
    Ask,
    Delta,
    Digest,
    Goodbye,
    Heartbeat,
    ProtocolMessage,
    Publish,
    Pull,
    Sync,
    Vouch,
)
from .messaging import Messaging
from .peers import Peers
from .state import Replica, Slice
from .timing import Timing
from .view import View

#: Seconds before a deadline at which it is due: two floats for the same moment may differ slightly.
RESOLUTION = 1e-6
#: Flushes, at most, that send the remaining changes before a goodbye.
MAX_LAST_FLUSHES = 128
#: Heartbeats between two checks that drop the renderings not read in between.
AGE_AFTER = 60


class Engine:
    """One node's part in the cluster.

    Args:
        replica: The name and incarnation of this node.
        timing: The durations of the protocol.
        rng: The only source of randomness.
        now: The present, in monotonic seconds.
    """

    def __init__(self, replica: Replica, timing: Timing, rng: Random, now: float) -> None:
        self.replica = replica
        self.view = View()
        self._timing = timing
        self._clock = Clock(now, timing.heartbeat_interval)
        self._links = Links(rng)
        self._effects = EffectQueue()
        self._exchange = Exchange(replica, self.view, self._links, self._effects, timing)
        self._messaging = Messaging(self._links, self._effects)
        self._liveness = Liveness(timing, replica)
        self._departures = Departures(timing)
        self._digests = Digests(
            self._liveness, self._departures, self._exchange, self._links, self._effects, timing
        )
        self._joining = Joining(
            self._clock,
            timing,
            self._links,
            self._liveness,
            self._departures,
            self._exchange,
            self._effects,
        )
        self._dialler = Dialler(timing, rng)
        self._heartbeat_at = 0.0
        self._conflicts = Conflicts(replica, self._effects)
        self._peers = Peers(
            replica=replica,
            timing=timing,
            clock=self._clock,
            links=self._links,
            effects=self._effects,
            exchange=self._exchange,
            liveness=self._liveness,
            departures=self._departures,
            digests=self._digests,
            joining=self._joining,
            dialler=self._dialler,
            conflicts=self._conflicts,
            messaging=self._messaging,
        )

    # Local operations.

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Track a presence: add it to this node's slice. It is in the view when this returns."""
        own = self._exchange.own.slice
        version = own.horizon + 1
        entry = (version, version, share(topic), key, meta, None, *self.replica)
        own.add(entry)
        self.view.change(None, entry)
        self._exchange.changed()
        return entry

    def update(self, old: Entry, meta: str) -> Entry:
        """Replace the meta of a presence in place; no observer sees the key leave."""
        own = self._exchange.own.slice
        new = (own.horizon + 1, old[ID], old[TOPIC], old[KEY], meta, old[VERSION], *self.replica)
        own.put(new)
        self.view.change(old, new)
        self._exchange.changed()
        return new

    def untrack(self, entry: Entry) -> None:
        """Untrack a presence: remove it from this node's slice and from the view."""
        own = self._exchange.own.slice
        own.remove((own.horizon + 1, entry[ID]))
        self.view.change(entry, None)
        self._exchange.changed()

    def publish(self, message: Publish, to: str | None, now: float) -> Sending:
        """Publish a message to every member, or to one; `messaging` documents queues and timeouts.

        Args:
            message: The message.
            to: The name of the only receiver; None sends to every member that is alive.
            now: Monotonic seconds.

        Returns:
            The progress of the delivery. If the message waits for a member, a `Released` effect
            follows.
        """
        self._advance(now)
        names = [to] if to is not None else self._peers.visible_names()
        return self._messaging.publish(message, names, self._clock.active)

    def withdraw(self, sending: Sending) -> None:
        """Cancel the queued sends of a message: the members that it waits for miss it."""
        self._messaging.withdraw(sending)

    def leave(self, linger: float) -> None:
        """Send the remaining changes, then a goodbye on every link.

        Args:
            linger: Seconds for which peers still show the presences of this node.
        """
        self._messaging.close()
        for _ in range(MAX_LAST_FLUSHES):
            if self._exchange.flush_at < float("inf"):
                self._exchange.flush(self._clock.active)
        self._peers.say_goodbye(linger)

    def add_seed(self, address: str, *, lasting: bool) -> None:
        """Add a seed: keep dialling an address while there is no link to its node.

        Until this node has joined, it waits for an answer from the address.

        Args:
            address: The address to dial.
            lasting: Keep the seed when the address refuses a dial; otherwise it is removed then.
        """
        if self._dialler.add_seed(address, self._clock.active, lasting=lasting):
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
        self, id: int, replica: Replica, addresses: tuple[str, ...], dialled: str | None, now: float
    ) -> None:
        """Register a link that has opened, after the other end has proved its identity.

        Args:
            id: A number for the link, chosen by the driver.
            replica: The replica at the other end.
            addresses: The addresses at which it listens.
            dialled: The address that was dialled; None if the other end dialled.
            now: Monotonic seconds.
        """
        self._advance(now)
        self._peers.link_up(id, replica, addresses, dialled)
        self._joining.check()

    def link_down(self, id: int, now: float) -> None:
        """Forget a link that has closed; its replica is suspect if it was the last one to it."""
        self._advance(now)
        link = self._links.get(id)
        if link is not None:
            self._peers.forget_link(link)
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
            self._messaging.resume(link.replica.name)

    def dial_failed(self, address: str, refused: bool, now: float) -> None:
        """Report a dial that opened no link; `refused` if nothing listens at the address."""
        self._advance(now)
        self._peers.dial_failed(address, refused)
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
        link.heard_at = self._clock.active
        if not link.kept:
            link.kept = True
            self._messaging.resume(link.replica.name)
        self._liveness.hear_frame(link.replica, self._clock.active)
        match message:
            case Delta():
                self._exchange.receive(link, message, self._clock.active)
            case Heartbeat():
                self._peers.receive_heartbeat(link, message)
            case Sync():
                if not self._exchange.feed(link, message):
                    self._peers.refuse_copy(link)
            case Digest():
                self._peers.receive_digest(link, message)
            case Pull():
                self._digests.answer(link, message, self._clock.elapsed)
            case Ask():
                self._peers.receive_ask(link, message)
            case Vouch():
                self._peers.receive_vouch(link, message)
            case Goodbye():
                self._peers.receive_goodbye(link, message)
            case Publish():
                self._effects.put(Deliver(link.replica.name, message))
        self._joining.receive(link.replica, message)

    def tick(self, now: float) -> None:
        """Act on all deadlines that have passed, and send pending changes.

        Call it at `wake_at` or earlier, and after local changes.
        """
        self._advance(now)
        due = self._clock.active + RESOLUTION
        if self._exchange.flush_at <= due:
            self._exchange.flush(self._clock.active)
        if self._heartbeat_at <= due:
            self._beat()
        if self._messaging.check_at <= due:
            self._messaging.expire(due)
        self._peers.expire(due, self._clock.elapsed + RESOLUTION)
        for address in self._dialler.due(due, self._links.names):
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
            self._heartbeat_at,
            self._liveness.check_at,
            self._dialler.next_at,
            self._joining.check_at,
        )
        if self._liveness.suspects:
            at = min(at, self._clock.active + self._patience / 2)
        return self._clock.monotonic_at(at, self._departures.check_at)

    def take_effects(self) -> list[Effect]:
        """The effects to execute since the last call, in order; call it again until it is empty."""
        if self._messaging.ready and not self._effects:
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
        own = self.own_slice
        listed = [MemberInfo(*self.replica, "", "self", True, len(own.entries), 0)]
        for name, member in self._liveness.members.items():
            entries, horizon = self._size_of(member.replica)
            address = member.addresses[0] if member.addresses else ""
            lag = max(0, member.version - horizon)
            status, linked = member.status.value, name in self._links.names
            listed.append(MemberInfo(*member.replica, address, status, linked, entries, lag))
        for departure in self._departures.lingering():
            entries, horizon = self._size_of(departure.replica)
            lag = max(0, departure.version - horizon)
            listed.append(MemberInfo(*departure.replica, "", "left", False, entries, lag))
        return sorted(listed, key=lambda info: (info.name, info.incarnation))

    def _size_of(self, replica: Replica) -> tuple[int, int]:
        held = self._exchange.of(replica)
        return (len(held.slice.entries), held.slice.horizon) if held is not None else (0, 0)

    def hears_directly(self, replica: Replica) -> bool:
        """Whether a link to a replica is alive, so its own statements will be received."""
        return self._digests.hears_directly(replica, self._clock.active)

    def lingering(self) -> dict[Replica, Departure]:
        """The goodbyes of the replicas that linger here, by replica; read-only."""
        return {departure.replica: departure for departure in self._departures.lingering()}

    @property
    def own_slice(self) -> Slice:
        """The slice of this node: the presences that it tracks; read-only."""
        return self._exchange.own.slice

    @property
    def fingerprint(self) -> int:
        """The fingerprint of the replicas that are alive here, this node included."""
        return self._liveness.fingerprint

    @property
    def links(self) -> int:
        """The number of open links."""
        return len(self._links)

    @property
    def shown(self) -> int:
        """The number of presences shown here."""
        return sum(len(held.slice.entries) for held in self._exchange if held.shown)

    @property
    def missed_messages(self) -> int:
        """Published messages, counted once for each member that missed one."""
        return self._messaging.missed

    def held(self, replica: Replica) -> Held | None:
        """The slice of a replica with its feeds and catch-up, if it is held; read-only."""
        return self._exchange.of(replica)

    def moving(self, replica: Replica) -> bool:
        """Whether a large slice is being shown or hidden, which takes several turns."""
        return self._exchange.moving(replica)

    def slices(self) -> dict[Replica, Slice]:
        """The slices held here, shown or not, by replica; read-only."""
        return {held.slice.replica: held.slice for held in self._exchange}

    # Time.

    def _advance(self, now: float) -> None:
        self._clock.advance(now, self._patience)

    @property
    def _patience(self) -> float:
        """Seconds between two calls beyond which time does not count; less while one is suspect."""
        timing = self._timing
        return timing.refused_grace / 2 if self._liveness.suspects else timing.heartbeat_interval

    def _beat(self) -> None:
        now = self._clock.active
        self._exchange.flush(now)
        self._heartbeat_at = now + self._timing.heartbeat_interval
        self._exchange.give_up_stalled(now)
        self._peers.beat()
        if self._peers.counter % AGE_AFTER == 0:
            self.view.age()
