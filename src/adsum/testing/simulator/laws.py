"""The laws: invariants that are checked at every step of a simulation.

Two records are compared. The `Ledger` records every local change of each replica, at the moment of
the change and apart from the code under test. The `Witness` of each node records the view of that
node and the changes that its observers receive. Each step of a node is checked, for the replicas
and presences that it touched:

1. *Nothing is made up.* A shown value is one that its owner tracked, to the letter.
2. *Every held slice is a past state of its owner:* the state at the horizon of the slice. So no
   value is shown that is known to have been removed or replaced, and no part of a transfer.
3. *A horizon never goes back* while a slice is held.
4. *Observers can count.* No presence joins twice or leaves without a join, an update names the
   version that observers received last, and the stream folds to exactly the view.
5. *An update shows no gap.* A presence leaves only if its owner ended it or is hidden.
6. *The dead are hidden* in the end: after `dead_shown_most` seconds at the latest.
7. *Nothing grows.* Every structure stays under its bound, see `Engine.sizes`.
8. *Messages are whole.* A message of `Ledger.new_message` arrives as it was published, at most
   once, and after all earlier ones of its sender that arrive.
9. *A broken presence stays* until its deadline, wherever the slice of its node is shown, and not
   longer; it is given to its heirs alone. See `graces`.
10. *The living are shown*, on the bus: a restart of the bus or a short absence hides nobody. See
   `SimulatedBusNode`.

The second, third, sixth, seventh and ninth are checked for all replicas once a heartbeat. The
second and third are also checked at each delta, for its slice; the ninth at each step, for the
presences of the node itself.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NoReturn

from adsum.replication.engine import Engine
from adsum.replication.entry import (
    ID,
    INCARNATION,
    KEY,
    NAME,
    TOPIC,
    VERSION,
    Entry,
    Identity,
    Transition,
    identity,
    ref,
)
from adsum.replication.exchange import Held
from adsum.replication.grace import Claim
from adsum.replication.messages import Publish
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

from .graces import Graces
from .topicroutes import ROUTED_TOPICS

#: The topic of the messages that are recorded and checked.
RECORDED_TOPIC = "recorded messages"
#: Presences shown at a node up to which its whole stream is folded and compared once a heartbeat.
FOLDED_MOST = 200


class BrokenLawError(AssertionError):
    """A law does not hold; the message names the node, the time and the seed."""


@dataclass(slots=True)
class Life:
    """The history of one replica: every local change, recorded when it was made.

    Attributes:
        values: Every entry that it ever tracked, by version.
        tracked: The entries that it tracks now, by id.
        ended: The version at which each presence ended, by id.
        versions: The versions of each presence, oldest first, by id.
        sums: For each version, the number of tracked entries and the sum of their versions.
        died_at: Virtual time of the end of its process, its linger included.
        published: Every message of `Ledger.new_message` that it published, oldest first.
        graces: Its presences that linger since they broke.
    """

    values: dict[int, Entry] = field(default_factory=dict)
    tracked: dict[int, Entry] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    versions: dict[int, list[int]] = field(default_factory=dict)
    sums: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    died_at: float = float("inf")
    published: list[Publish] = field(default_factory=list)
    graces: Graces = field(default_factory=Graces)

    def put(self, entry: Entry) -> None:
        """Record an entry that was tracked or updated."""
        old = self.tracked.get(entry[ID])
        self.values[entry[VERSION]] = self.tracked[entry[ID]] = entry
        self.versions.setdefault(entry[ID], []).append(entry[VERSION])
        self._record_sums(entry[VERSION] - (old[VERSION] if old is not None else 0))

    def end(self, id: int, version: int) -> None:
        """Record that a presence was untracked."""
        self.ended[id] = version
        self.graces.end(id)
        self._record_sums(-self.tracked.pop(id)[VERSION])

    def _record_sums(self, more: int) -> None:
        self.sums.append((len(self.tracked), self.sums[-1][1] + more))

    def at(self, id: int, horizon: int) -> Entry | None:
        """The entry of a presence after all changes up to a version; None if there was none."""
        if self.ended.get(id, horizon + 1) <= horizon:
            return None
        versions = self.versions.get(id, [])
        made = bisect_right(versions, horizon)
        return self.values[versions[made - 1]] if made else None


class Ledger:
    """The history of every replica of a simulation."""

    def __init__(self) -> None:
        self._lives: dict[Replica, Life] = {}
        #: Every topic that ever had a presence, in order of the first one.
        self.topics: dict[str, None] = {}

    @property
    def last_death(self) -> float:
        """Virtual time of the latest death of a replica, its linger included; 0 if none died."""
        ended = [life.died_at for life in self._lives.values() if life.died_at < float("inf")]
        return max(ended, default=0.0)

    def of(self, replica: Replica) -> Life:
        """The history of one replica."""
        life = self._lives.get(replica)
        if life is None:
            life = self._lives[replica] = Life()
        return life

    def new_message(
        self, replica: Replica, size: int, *, as_bytes: bool, topic: str = RECORDED_TOPIC
    ) -> Publish:
        """Record a message that a replica publishes next; its event identifies it.

        Args:
            replica: The sender.
            size: Bytes of the payload, about.
            as_bytes: Whether the payload is bytes, and not a JSON object.
            topic: Its topic: `RECORDED_TOPIC` for one that is sent over links, or one of
                `ROUTED_TOPICS`.
        """
        published = self.of(replica).published
        event = f"{replica.incarnation}.{len(published)}"
        payload: bytes | str
        if as_bytes:  # links over a carrier compress, and these are to fill them
            payload = Random(f"{event} of {replica}").randbytes(size)
        else:
            text = f"{event} of {replica} " * (size // len(event) + 1)
            payload = f'{{"text":"{text[:size]}"}}'
        published.append(Publish(topic, event, payload))
        return published[-1]


class RecordedEngine(Engine):
    """An engine that records its local changes in a ledger before they have any effect."""

    ledger: Ledger
    #: Called with each topic before the first presence is tracked on it.
    topic_begins: Callable[[str], None]

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """See `Engine`."""
        if topic not in self.ledger.topics:
            self.ledger.topics[topic] = None
            self.topic_begins(topic)
        entry = super().track(topic, key, meta)
        self.ledger.of(self.replica).put(entry)
        return entry

    def update(self, old: Entry, meta: str) -> Entry:
        """See `Engine`."""
        entry = super().update(old, meta)
        self.ledger.of(self.replica).put(entry)
        return entry

    def untrack(self, entry: Entry) -> None:
        """See `Engine`."""
        version = self.own_slice.horizon + 1
        super().untrack(entry)
        self.ledger.of(self.replica).end(entry[ID], version)

    def linger(
        self, entry: Entry, seconds: float, claim: Claim | None, hold: object, now: float
    ) -> None:
        """See `Engine`."""
        self._advance(now)
        self.graces.begin(entry, self.active + seconds, claim)
        super().linger(entry, seconds, claim, hold, now)

    def take_over(self, topic: str, key: str, meta: str, claim: Claim) -> Entry | None:
        """See `Engine`; checks the law of grace."""
        expected = self.graces.heir_of(topic, key, claim)
        entry = super().take_over(topic, key, meta, claim)
        given = None if entry is None else entry[ID]
        if given != expected:
            raise BrokenLawError(f"{claim} is given {given} of {key!r}, and not {expected}")
        if entry is not None:
            self.graces.end(entry[ID])
        return entry

    def expire(self, entry: Entry) -> None:
        """See `Engine`; checks the law of grace."""
        violation = self.graces.expiry_violation(entry, self.active)
        if violation is not None:
            raise BrokenLawError(f"{self.replica}: {violation}")
        super().expire(entry)

    @property
    def graces(self) -> Graces:
        """The record of the presences of this node that linger."""
        return self.ledger.of(self.replica).graces

    @property
    def active(self) -> float:
        """Active seconds since the start."""
        return self._clock.active


def dead_shown_most(timing: Timing, nodes: int) -> float:
    """The longest, in seconds, that a node may show a replica whose process has ended.

    Silence hides it after `down_after`. Its last heartbeats may still be under way then: a frame
    that waits on a line that is cut is dropped with its link, after `down_after` and a heartbeat.
    On their way from node to node they pass at most all nodes but two.
    """
    hops = max(1, nodes - 1)
    return timing.down_after + hops * (timing.down_after + 2 * timing.heartbeat_interval)


class Witness:
    """Checks the laws for one node.

    Args:
        engine: The node's engine.
        ledger: The history of every replica.
        timing: The durations of the protocol.
    """

    def __init__(self, engine: RecordedEngine, ledger: Ledger, timing: Timing) -> None:
        self._engine = engine
        self._ledger = ledger
        self._timing = timing
        #: The changes that observers of each topic received, folded.
        self.folded: dict[str, dict[Identity, Entry]] = {}
        self._horizons: dict[Replica, tuple[Held, int]] = {}
        # The number of the last recorded message of each replica that arrived, over links and on
        # the subjects of topics, which are two streams.
        self._last_messages: dict[tuple[Replica, bool], int] = {}
        #: Returns the violation if a tracked presence of a living replica may not be hidden now.
        self.hiding_violation: Callable[[Entry, Replica], str | None] = lambda *_: None

    def watch(self, topic: str) -> None:
        """Observe a topic from now on."""
        if topic not in self.folded:
            self._engine.view.watch(topic)
            present = self._engine.view.all_entries(topic)
            self.folded[topic] = {identity(entry): entry for entry in present}

    def notify(self, topic: str, transitions: Iterable[Transition]) -> None:
        """Check changes that the observers of a topic receive (laws 1, 2, 4, 5 and 10)."""
        folded = self.folded.get(topic)
        if folded is None:
            return
        for old, new in transitions:
            self._fold(folded, old, new)
        for old, new in transitions:
            entry = new or old
            if entry is not None:
                self._compare(topic, entry, folded.get(identity(entry)))

    def _fold(self, folded: dict[Identity, Entry], old: Entry | None, new: Entry | None) -> None:
        if old is not None:
            before = folded.pop(identity(old), None)
            if before is None:
                self._fail(f"{ref(old)} leaves without a join")
            if before[VERSION] != old[VERSION]:
                self._fail(f"{ref(old)} is not the version of the last notification")
            if new is None:
                self._check_hiding(old)
        if new is not None:
            if identity(new) in folded:
                self._fail(f"{ref(new)} joins twice")
            folded[identity(new)] = new

    def _check_hiding(self, entry: Entry) -> None:
        """Check the departure of a presence that its owner has not ended (law 10)."""
        replica = Replica(entry[NAME], entry[INCARNATION])
        life = self._ledger.of(replica)
        if entry[ID] in life.tracked and life.died_at == float("inf"):
            violation = self.hiding_violation(entry, replica)
            if violation is not None:
                self._fail(violation)

    def _compare(self, topic: str, entry: Entry, folded: Entry | None) -> None:
        """Compare a received entry with the view, and with the history of its owner."""
        shown = {identity(e): e for e in self._engine.view.entries(topic, entry[KEY])}
        if shown.get(identity(entry)) is not folded:
            self._fail(f"the changes of {ref(entry)} fold to another entry than the one shown")
        replica = Replica(entry[NAME], entry[INCARNATION])
        life, held = self._ledger.of(replica), self._engine.held(replica)
        moving = self._engine.moving(replica)
        if held is None or not held.shown:
            if folded is not None and not moving:
                self._fail(f"{ref(entry)} shows, though its replica is hidden")
            return
        truth = life.at(entry[ID], held.slice.horizon)
        if folded is None and truth is not None and not moving:
            self._fail(f"{ref(entry)} leaves, though its owner has it")
        if folded is not None and folded != truth:
            self._fail(f"{folded} shows at {held.slice.horizon}, where its owner had {truth}")

    def applied(self, replica: Replica) -> None:
        """Check a slice after a delta (laws 2 and 3)."""
        held = self._engine.held(replica)
        if held is None:
            return
        had = self._ledger.of(replica).sums[held.slice.horizon]
        entries = held.slice.entries
        has = len(entries), sum([entry[VERSION] for entry in entries.values()])
        if has != had:
            sums = f"{has[0]} entries of {replica} at {held.slice.horizon}, versions {has[1]}"
            self._fail(f"there are {sums} in all, where its owner had {had[0]} and {had[1]}")
        known, horizon = self._horizons.get(replica, (held, 0))
        if known is held and held.slice.horizon < horizon:
            self._fail(f"the horizon of {replica} goes back to {held.slice.horizon} of {horizon}")
        self._horizons[replica] = held, held.slice.horizon

    def delivered(self, sender: str, message: Publish) -> None:
        """Check a message of a member (law 8)."""
        routed = message.topic in ROUTED_TOPICS
        if not routed and message.topic != RECORDED_TOPIC:
            return
        incarnation, number = map(int, message.event.split("."))
        replica = Replica(sender, incarnation)
        published = self._ledger.of(replica).published
        if number >= len(published) or message != published[number]:
            self._fail(f"message {message.event} of {sender} is not as it was published")
        last = self._last_messages.get((replica, routed), -1)
        if number <= last:
            self._fail(f"message {message.event} of {sender} arrives after number {last}")
        self._last_messages[replica, routed] = number

    def sweep(self, now: float, resumed_at: float, nodes: int) -> None:
        """Check the laws that no single step shows (laws 2, 3, 6 and 7).

        Args:
            now: Virtual time.
            resumed_at: Virtual time at which the node resumed after its last pause, or after its
                clock was set back; it could hide no replica before.
            nodes: The number of names in the cluster.
        """
        slices = self._engine.slices()
        self._horizons = {r: known for r, known in self._horizons.items() if r in slices}
        for replica in slices:
            self.applied(replica)
            self._check_graces(replica)
            held, died_at = self._engine.held(replica), self._ledger.of(replica).died_at
            most = dead_shown_most(self._timing, nodes)
            died_at = max(died_at, resumed_at)
            if held is not None and held.shown and held.slice.entries and now - died_at > most:
                self._fail(
                    f"{replica} shows {now - died_at:.1f} s after its death; {most:g} at most"
                )
        if sum(map(len, self.folded.values())) <= FOLDED_MOST:
            self.check_fold()
        for size in self._engine.sizes(nodes):
            if size.value > size.bound:
                self._fail(f"{size.name}: {size.value}, of {size.bound} at most")

    def check_own_graces(self) -> None:
        """Check the lingering presences of this node itself (law 9)."""
        graces = self._engine.graces
        if not graces.pending and not self._engine.lingering_ids:
            return
        if graces.pending.keys() - self._engine.own_slice.entries.keys():
            self._fail(f"the slice has not all of its lingering presences, {graces.pending}")
        if graces.pending.keys() != self._engine.lingering_ids:
            count = len(self._engine.lingering_ids)
            self._fail(f"{count} presences linger, and not {len(graces.pending)}")
        violation = graces.overdue(self._engine.active, self._timing.heartbeat_interval)
        if violation is not None:
            self._fail(violation)

    def _check_graces(self, replica: Replica) -> None:
        """Check that all lingering presences of a slice that is shown are shown (law 9)."""
        held, life = self._engine.held(replica), self._ledger.of(replica)
        if held is None or not held.shown or self._engine.moving(replica):
            return
        for id in life.graces.pending:
            truth = life.at(id, held.slice.horizon)
            if truth is not None and truth not in self._engine.view.entries(
                truth[TOPIC], truth[KEY]
            ):
                self._fail(f"{ref(truth)} lingers, and is not shown")

    def check_fold(self) -> None:
        """Check that all received changes fold to exactly the view (law 4)."""
        for topic, folded in self.folded.items():
            shown = {identity(entry): entry for entry in self._engine.view.all_entries(topic)}
            if shown != folded:
                self._fail(f"the changes of {topic!r} do not fold to the entries shown")

    def _fail(self, violation: str) -> NoReturn:
        raise BrokenLawError(violation)
