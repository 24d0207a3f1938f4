"""One node's part in the cluster, without any I/O: the outside of the replication core.

The engine is fed with local changes, messages, links that open and close, and the passing of time.
It answers with effects (`take_effects`: what to send, dial, close), with what observers of watched
topics see (`take_changes`), and with when it next wants to be called (`wake_at`). It knows no
clock, no socket and no randomness but what it is given, so a whole cluster of engines runs in a
test, in virtual time, and replays from a seed.

Who does what: `state` holds slices, `view` what is shown, `liveness` decides who is up, `dialler`
whom to dial, `streams` how slices travel. The engine keeps them in agreement:

* the view shows the entries of a slice exactly while its replica is visible (`_reconcile`);
* each link follows the other end's own slice; other slices are asked for, once at a time, when a
  digest tells of a version that is not here (`_request`);
* what is told about this node's own slice by anybody else is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from sys import intern

from adsum.errors import ProtocolError

from .dialler import Dialler
from .effects import Close, Deliver, Dial, Effect, Notice, Send, Severity
from .entry import ID, KEY, TOPIC, VERSION, Entry, Transition, size_of
from .limits import DELTA_BUDGET
from .liveness import Liveness, Member, Status
from .messages import Ask, Delta, Digest, Heartbeat, Leave, Message, Publish, Sighting, Sync, Vouch
from .state import Replica, Slice
from .streams import CatchUp, Feed, Staging, cut, show
from .timing import Timing
from .view import View

#: How many links a digest or a question goes to.
FANOUT = 3
#: Deadlines this close are due: floats that meant the same moment may differ by a little.
RESOLUTION = 1e-6
_NAME_HINT = "give each node a name of its own, or none at all (is ADSUM_NAME set for all of them?)"
#: A notice of a trouble that goes on is repeated after this many seconds.
NOTICE_INTERVAL = 60.0
#: Other lives of this node's own name that are kept in mind.
MAX_RIVALS = 16
#: A digest of a large cluster is cut into messages of this many.
MAX_SIGHTINGS = 500
#: What is left to say at a goodbye is said in at most this many steps.
MAX_LAST_FLUSHES = 128
#: Renderings of topics that were not listed for this many heartbeats are forgotten.
AGE_AFTER = 60
#: After about this many bytes of deltas, the engine lets others have their turn.
FLUSH_BUDGET = 2 * DELTA_BUDGET


@dataclass(slots=True, eq=False)
class _Link:
    id: int
    replica: Replica
    opened_at: float
    heard_at: float
    writable: bool = True
    #: When the peer stopped reading. Valid while not writable.
    stuck_at: float = 0.0
    #: The replicas whose addresses were told over this link.
    introduced: set[Replica] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Held:
    """A slice and how it travels."""

    slice: Slice
    #: Whether its entries are in the view.
    shown: bool
    #: What was sent of it, by link.
    feeds: dict[int, Feed] = field(default_factory=dict)
    catch_up: CatchUp | None = None
    #: The link over which the replica was asked to push its changes.
    followed: int | None = None
    #: Links whose question about the replica is answered with its next heartbeat.
    askers: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What a node knows of one node of the cluster.

    Attributes:
        name: The node's name.
        incarnation: Tells two lives of one name apart; a later life has the higher number.
        address: Where it listens, the preferred address; empty if none is known.
        status: ``self``, ``up``, ``suspect``, ``down`` or ``left``.
        linked: Whether there is a link to it; a node without one is heard of through others.
        entries: How many of its presences are known here.
        lag: How many of its changes were heard of but are not here yet.
    """

    name: str
    incarnation: int
    address: str
    status: str
    linked: bool
    entries: int
    lag: int


class Engine:
    """One node's part in the cluster.

    Args:
        replica: Who this node is.
        timing: The durations of the protocol.
        rng: Where randomness comes from.
        now: The present, in monotonic seconds.
    """

    def __init__(self, replica: Replica, timing: Timing, rng: Random, now: float) -> None:
        self.replica = replica
        self.view = View()
        self._timing = timing
        self._rng = rng
        self._last_call = now
        # Active time: it stands still while the process does not run.
        self._clock = 0.0
        self._counter = 0
        self._own = _Held(Slice(replica), shown=True)
        self._held: dict[str, _Held] = {replica.name: self._own}
        self._links: dict[int, _Link] = {}
        # The links to each name, oldest first.
        self._linked: dict[str, list[_Link]] = {}
        self._liveness = Liveness(timing)
        self._dialler = Dialler(timing, rng)
        self._effects: list[Effect] = []
        # Names whose slices may have something to send.
        self._dirty: dict[str, None] = {}
        self._flushed_at = -timing.coalesce_interval
        self._heartbeat_at = 0.0
        # What to say of a newcomer that was refused, by name, once the old life proves alive.
        self._challengers: dict[str, str] = {}
        # The highest counter heard of each other life of this node's own name.
        self._rivals: dict[Replica, int] = {}
        # When each of the last notices was given, so that none is repeated again and again.
        self._noticed: dict[str, float] = {}

    # What this node does.

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Add a presence to this node's slice; it is in the view when this returns."""
        version = self._own.slice.horizon + 1
        entry = (version, version, intern(topic), key, meta, None, *self.replica)
        self._own.slice.add(entry)
        self.view.change(None, entry)
        self._dirty[self.replica.name] = None
        return entry

    def update(self, old: Entry, meta: str) -> Entry:
        """Replace the value of a presence in place; no observer sees the key vanish."""
        version = self._own.slice.horizon + 1
        new = (version, old[ID], old[TOPIC], old[KEY], meta, old[VERSION], *self.replica)
        self._own.slice.put(new)
        self.view.change(old, new)
        self._dirty[self.replica.name] = None
        return new

    def untrack(self, entry: Entry) -> None:
        """End a presence."""
        self._own.slice.remove((self._own.slice.horizon + 1, entry[ID]))
        self.view.change(entry, None)
        self._dirty[self.replica.name] = None

    def publish(self, message: Publish, to: str | None = None) -> int:
        """Send a message to every member that has a link, or to one.

        Returns:
            To how many members it could not be sent: no link, or one that is not being read.
        """
        names = [to] if to is not None else list(self._visible_names())
        links = [link for name in names if (link := self._link_to(name)) is not None]
        self._send(links, message)
        return len(names) - len(links)

    def leave(self, linger: float) -> None:
        """Say goodbye on every link, after what is left to say."""
        for _ in range(MAX_LAST_FLUSHES):
            if self._dirty:
                self._flush()
        self._send(self._links.values(), Leave(linger))

    def add_seed(self, address: str, *, lasting: bool) -> None:
        """Keep a link to whoever listens at an address; until it refuses, if not `lasting`."""
        self._dialler.add_seed(address, self._clock, lasting=lasting)

    def remove_seed(self, address: str) -> None:
        """Stop keeping a link to an address that was added."""
        self._dialler.remove_seed(address)

    # What the world tells.

    def link_up(
        self, id: int, replica: Replica, addresses: tuple[str, ...], dialled: str | None, now: float
    ) -> None:
        """A link has opened, and its other end has proved who it is."""
        self._advance(now)
        if replica.name == self.replica.name:
            if dialled is not None:
                self._dialler.answered_oneself(dialled, self._clock)
            self._refuse_namesake(id, replica)
            return
        if dialled is not None:
            self._note_refusal(self._dialler.answered(dialled, replica.name, self._clock))
        rival = any(link.replica != replica for link in self._linked.get(replica.name, ()))
        refusal = self._liveness.meet(replica, addresses, self._clock, rival_linked=rival)
        if refusal is not None:
            self._challengers[replica.name] = f"refused {replica}: {refusal}; {_NAME_HINT}"
            self._dialler.wait(replica.name, self._clock)
            self._effects.append(Close(id, refusal))
            return
        self._challengers.pop(replica.name, None)
        link = _Link(id, replica, opened_at=self._clock, heard_at=self._clock)
        self._links[id] = link
        self._linked.setdefault(replica.name, []).append(link)
        self._reconcile(replica.name)
        self._drop_redundant_link(link)
        if id in self._links:
            self._send_digest(link)
            self._follow(link)

    def link_down(self, id: int, now: float) -> None:
        """A link has closed."""
        self._advance(now)
        link = self._links.get(id)
        if link is not None:
            self._forget_link(link)

    def link_writable(self, id: int, writable: bool, now: float) -> None:
        """The peer stopped reading (or reads again): what it lacks stays in the state."""
        self._advance(now)
        link = self._links.get(id)
        if link is None:
            return
        link.writable, link.stuck_at = writable, self._clock
        if writable:
            self._flushed_at -= self._timing.coalesce_interval  # there is a backlog
            self._dirty.update(
                (name, None) for name, held in self._held.items() if id in held.feeds
            )

    def dial_failed(self, address: str, refused: bool, now: float) -> None:
        """No link came of a dial; `refused` if nothing listens there."""
        self._advance(now)
        self._note_refusal(self._dialler.failed(address, refused, self._clock))

    def dialled_self(self, address: str) -> None:
        """An address turned out to be this node's own."""
        self._dialler.answered_oneself(address, self._clock)

    def receive(self, id: int, message: Message, now: float) -> None:  # one line a kind
        """A message has come over a link.

        Raises:
            ProtocolError: It breaks the protocol; close the link.
        """
        self._advance(now)
        link = self._links.get(id)
        if link is None:
            return
        link.heard_at = self._clock
        self._liveness.hear_frame(link.replica, self._clock)
        match message:
            case Delta():
                self._on_delta(link, message)
            case Heartbeat():
                self._on_heartbeat(link, message)
            case Sync():
                self._on_sync(link, message)
            case Digest():
                self._on_digest(link, message)
            case Ask():
                self._on_ask(link, message)
            case Vouch():
                by = link.replica.name
                self._liveness.vouch(message.replica, message.counter, by, self._clock)
                self._reconcile(message.replica.name)
            case Leave():
                self._on_leave(link, message)
            case Publish():
                self._effects.append(Deliver(link.replica.name, message))

    def tick(self, now: float) -> None:
        """Time has passed. Call it at `wake_at` or earlier, and after local changes."""
        self._advance(now)
        due = self._clock + RESOLUTION
        if self._dirty and self._flushed_at + self._timing.coalesce_interval <= due:
            self._flush()
        if self._heartbeat_at <= due:
            self._beat()
        for name in self._liveness.expire(due):
            self._tell_of(name)
            self._reconcile(name)
        for address in self._dialler.due(due, self._linked):
            self._effects.append(Dial(address))

    # What the engine answers.

    @property
    def wake_at(self) -> float:
        """When to call `tick` at the latest, unless something else happens before."""
        at = min(self._heartbeat_at, self._liveness.check_at, self._dialler.next_at)
        if self._liveness.suspects:
            at = min(at, self._clock + self._patience / 2)
        if self._dirty:
            at = min(at, self._flushed_at + self._timing.coalesce_interval)
        return self._last_call + max(0.0, at - self._clock)

    def take_effects(self) -> list[Effect]:
        """What to do, in this order, since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def take_changes(self) -> dict[str, list[Transition]]:
        """What observers of watched topics see since the last call."""
        return self.view.take_changes()

    def members(self) -> list[MemberInfo]:
        """The nodes that this node knows of, itself included, by name."""
        own = self._own.slice
        listed = [MemberInfo(*self.replica, "", "self", True, len(own.entries), 0)]
        for name, member in self._liveness.members.items():
            held = self._held[name].slice
            address = member.addresses[0] if member.addresses else ""
            lag = max(0, member.version - held.horizon)
            status = member.status.value
            linked = name in self._linked
            listed.append(
                MemberInfo(*member.replica, address, status, linked, len(held.entries), lag)
            )
        return sorted(listed, key=lambda info: info.name)

    @property
    def own_slice(self) -> Slice:
        """What this node tracks; to be read, not altered."""
        return self._own.slice

    @property
    def links(self) -> int:
        """How many links are open."""
        return len(self._links)

    def slices(self) -> dict[Replica, Slice]:
        """The slices held here, shown or not; to be read, not altered."""
        return {held.slice.replica: held.slice for held in self._held.values()}

    # Time.

    def _advance(self, now: float) -> None:
        # Calls come at least once in `_patience`. A longer gap is this node's own absence, and a
        # step back is a broken clock; neither says anything about the others.
        gap = now - self._last_call
        self._last_call = now
        self._clock += min(max(gap, 0.0), self._patience)

    @property
    def _patience(self) -> float:
        """The longest time between two calls that counts: short while somebody is doubted."""
        timing = self._timing
        return timing.refused_grace / 2 if self._liveness.suspects else timing.heartbeat_interval

    def _beat(self) -> None:
        self._flush()
        self._heartbeat_at = self._clock + self._timing.heartbeat_interval
        self._counter += 1
        if self._counter % AGE_AFTER == 0:
            self.view.age()
        self._close_dead_links()
        for held in self._held.values():
            if held.catch_up is not None and held.catch_up.until <= self._clock:
                held.catch_up = None
        heartbeat = Heartbeat(self._counter, self._own.slice.horizon)
        self._send(self._links.values(), heartbeat)
        # Pushing spreads news of those to whom there is a link. Pulling brings news of the others,
        # and to a node that has few links, of which nobody may think when it pushes.
        distant = any(name not in self._linked for name in self._visible_names())
        for index, link in enumerate(self._some_links()):
            self._send_digest(link, pull=distant or index == 0)

    def _close_dead_links(self) -> None:
        patience = self._timing.down_after
        for link in list(self._links.values()):
            if self._clock - link.heard_at > patience:
                self._close(link, f"nothing was heard for {patience:g} s")
            elif not link.writable and self._clock - link.stuck_at > patience:
                self._close(link, f"nothing was read for {patience:g} s")

    # Links.

    def _link_to(self, name: str) -> _Link | None:
        """The link to send over, if one is being read."""
        links = [link for link in self._linked.get(name, ()) if link.writable]
        return links[-1] if links else None

    def _some_links(self) -> list[_Link]:
        links = [link for link in self._links.values() if link.writable]
        return self._rng.sample(links, min(FANOUT, len(links)))

    def _drop_redundant_link(self, new: _Link) -> None:
        """Of two links to one replica keep one; the smaller of its ends decides which.

        If the other one is young, both ends have dialled at once, and the older may be in the
        midst of a transfer. If it is not, the peer dialled because it has lost it.
        """
        older = [link for link in self._linked[new.replica.name] if link is not new]
        if not older or self.replica > new.replica:
            return
        if self._clock - older[-1].opened_at < self._timing.race_window:
            self._close(new, "there is another link already")
        else:
            for link in older:
                self._close(link, "it was replaced by a newer link")

    def _refuse_namesake(self, id: int, replica: Replica) -> None:
        if replica == self.replica:
            self._effects.append(Close(id, "this is my own address"))
            return
        text = f"the name {self.replica.name!r} is in use by more than one live node"
        self._notice_once(Severity.ERROR, f"refused {replica}: {text}; {_NAME_HINT}")
        self._effects.append(Close(id, text))

    def _close(self, link: _Link, reason: str) -> None:
        self._effects.append(Close(link.id, reason))
        self._forget_link(link)

    def _forget_link(self, link: _Link) -> None:
        name = link.replica.name
        del self._links[link.id]
        rest = [other for other in self._linked.pop(name) if other is not link]
        if rest:
            self._linked[name] = rest
        for held in self._held.values():
            held.feeds.pop(link.id, None)
            held.askers.discard(link.id)
            if held.catch_up is not None and held.catch_up.link == link.id:
                held.catch_up = None
            if held.followed == link.id:
                held.followed = None
        if rest:
            self._follow(rest[-1])
            return
        self._reconcile(name)
        if self._clock - link.opened_at < self._timing.race_window:
            self._dialler.wait(name, self._clock)  # it was refused; do not insist
        else:
            self._dialler.hurry(name, self._clock)
        if self._liveness.lose_link(link.replica, self._clock):
            self._ask_about(name)

    def _send(self, links: Iterable[_Link], message: Message) -> None:
        # To a link that is not read too: heartbeats and questions are few and small. What is
        # large asks whether the link is writable, so what waits there is bounded.
        ids = tuple([link.id for link in links])
        if ids:
            self._effects.append(Send(ids, message))

    # Members.

    def _visible_names(self) -> Iterable[str]:
        members = self._liveness.members.items()
        return (name for name, member in members if member.status in (Status.UP, Status.SUSPECT))

    def _reconcile(self, name: str) -> None:
        """Make slices, view, links and targets agree with what liveness says of a name."""
        if name == self.replica.name:
            return
        member = self._liveness.members.get(name)
        held = self._held.get(name)
        if held is not None and (member is None or held.slice.replica != member.replica):
            self._drop(held)
            held = None
        if member is None:
            self._dialler.forget_peer(name)
            return
        if held is None:
            held = self._held[name] = _Held(Slice(member.replica), shown=False)
        if held.shown != member.visible:
            held.shown = member.visible
            for entry in held.slice.entries.values():
                self.view.change(*((None, entry) if held.shown else (entry, None)))
        if member.status is Status.LEFT:
            self._dialler.forget_peer(name)
        elif name not in self._linked:
            self._dialler.add_peer(name, member.addresses, self._clock)

    def _drop(self, held: _Held) -> None:
        replica = held.slice.replica
        if held.shown:
            for entry in held.slice.entries.values():
                self.view.change(entry, None)
        del self._held[replica.name]
        self._dirty.pop(replica.name, None)
        for link in list(self._links.values()):
            link.introduced.discard(replica)
            if link.replica == replica:
                self._close(link, f"{replica} was replaced by another life of its name")

    def _tell_of(self, name: str) -> None:
        member = self._liveness.members.get(name)
        if member is not None and member.status is Status.DOWN:
            self._notice(Severity.INFO, f"{member.replica} is down")

    def _note_refusal(self, gone: str | None) -> None:
        """Every address of a member refused: without a link or a vouch, it is dead."""
        if gone is None or gone in self._linked:
            return
        if self._liveness.refuse(gone, self._clock):
            self._ask_about(gone)

    def _ask_about(self, name: str) -> None:
        member = self._liveness.members[name]
        # Those who asked here are told as well: whoever asks has no link and takes back its word.
        askers = self._held[name].askers if name in self._held else ()
        links = {link.id: link for link in self._some_links()}
        links.update((id, self._links[id]) for id in sorted(askers))
        self._send(links.values(), Ask(member.replica))

    def _on_heartbeat(self, link: _Link, heartbeat: Heartbeat) -> None:
        replica = link.replica
        if not self._liveness.hear(replica, heartbeat.counter, heartbeat.version, self._clock):
            return
        self._reconcile(replica.name)
        refused = self._challengers.pop(replica.name, None)
        if refused is not None:
            self._notice_once(Severity.ERROR, refused)
        held = self._held[replica.name]
        if heartbeat.version > held.slice.horizon or held.followed is None:
            self._follow(link)
        if held.askers:
            askers = [self._links[id] for id in sorted(held.askers)]
            self._send(askers, Vouch(replica, heartbeat.counter))
            held.askers.clear()

    def _on_digest(self, link: _Link, digest: Digest) -> None:
        for sighting in digest.sightings:
            if link.id not in self._links:
                return  # what it told of made an end to it
            self._on_sighting(link, sighting)
        if digest.pull:
            self._send_digest(link)

    def _on_sighting(self, link: _Link, sighting: Sighting) -> None:
        replica = sighting.replica
        if replica.name == self.replica.name:
            self._meet_oneself(link, sighting)
            return
        self._liveness.hear_of(sighting, self._clock)
        self._reconcile(replica.name)
        held = self._held.get(replica.name)
        if held is None or held.slice.replica != replica or not held.shown:
            return
        behind = sighting.version > held.slice.horizon
        if behind and replica != link.replica and not self._hears_directly(replica):
            self._request(held, link, follow=False)

    def _meet_oneself(self, link: _Link, sighting: Sighting) -> None:
        replica = sighting.replica
        if replica != self.replica:
            # The first that is heard may be of this node's own former life.
            if sighting.counter > self._rivals.setdefault(replica, sighting.counter):
                text = f"{replica} is alive elsewhere, with the name of this node, {self.replica}"
                self._notice_once(Severity.ERROR, f"{text}; {_NAME_HINT}")
            while len(self._rivals) > MAX_RIVALS:
                del self._rivals[next(iter(self._rivals))]
        elif sighting.version > self._own.slice.horizon or sighting.counter > self._counter:
            text = f"{link.replica} tells of changes by {self.replica} that this node never made"
            self._notice(Severity.ERROR, f"{text}: a copy of this process runs elsewhere")
            self._close(link, "you tell of changes that I never made")

    def _hears_directly(self, replica: Replica) -> bool:
        """Whether a link to a replica is alive, so its own stream will bring what is missing."""
        recently = self._clock - self._timing.vouch_grace
        links = self._linked.get(replica.name, ())
        return any(link.replica == replica and link.heard_at >= recently for link in links)

    def _on_ask(self, link: _Link, ask: Ask) -> None:
        self._liveness.retract(ask.replica, link.replica.name)
        member = self._liveness.of(ask.replica)
        if member is not None and self._hears_directly(ask.replica):
            self._send([link], Vouch(ask.replica, member.counter))
            self._held[ask.replica.name].askers.add(link.id)

    def _on_leave(self, link: _Link, leave: Leave) -> None:
        replica = link.replica
        self._notice(Severity.INFO, f"{replica} says goodbye")
        self._liveness.leave(replica, leave.linger, self._clock)
        self._reconcile(replica.name)

    def _send_digest(self, link: _Link, *, pull: bool = False) -> None:
        sightings = [
            self._sighting(link, member)
            for member in self._liveness.fresh()
            if member.replica != link.replica
        ]
        for start in range(0, len(sightings), MAX_SIGHTINGS):
            part = tuple(sightings[start : start + MAX_SIGHTINGS])
            self._send([link], Digest(part, pull=pull and start == 0))
        if pull and not sightings:
            self._send([link], Digest((), pull=True))

    def _sighting(self, link: _Link, member: Member) -> Sighting:
        replica, addresses = member.replica, member.addresses
        if replica in link.introduced:
            addresses = ()
        else:
            link.introduced.add(replica)
        return Sighting(replica, member.counter, self._held[replica.name].slice.horizon, addresses)

    # Slices.

    def _follow(self, link: _Link) -> None:
        """Ask a replica for its own slice, from here on."""
        held = self._held.get(link.replica.name)
        if held is not None and held.slice.replica == link.replica:
            self._request(held, link, follow=True)

    def _request(self, held: _Held, link: _Link, *, follow: bool) -> None:
        """Ask for a slice, unless it was asked for already and there is progress."""
        if held.catch_up is None:
            held.catch_up = CatchUp(link.id, self._clock + self._timing.sync_timeout)
            if follow:
                held.followed = link.id
            self._send([link], Sync(held.slice.replica, held.slice.horizon, follow))

    def _on_sync(self, link: _Link, sync: Sync) -> None:
        held = self._held.get(sync.replica.name)
        if held is None or held.slice.replica != sync.replica:
            return
        if sync.after > held.slice.horizon:
            if held is self._own:
                text = f"{link.replica} has changes by {self.replica} that this node never made"
                self._notice(Severity.ERROR, f"{text}: a copy of this process runs elsewhere")
                self._close(link, "you have changes that I never made")
            return
        held.feeds[link.id] = Feed(sync.after, sync.follow)
        self._dirty[sync.replica.name] = None

    def _on_delta(self, link: _Link, delta: Delta) -> None:
        if delta.replica == self.replica:
            raise ProtocolError(f"{link.replica} makes a claim about the slice of this node")
        held = self._held.get(delta.replica.name)
        if held is None or held.slice.replica != delta.replica:
            return
        direct = link.replica == delta.replica
        catch_up = held.catch_up
        if catch_up is None or catch_up.link != link.id:
            if not direct:
                return  # a relay that was not asked for, or was given up
            catch_up = CatchUp(link.id, 0.0)
        staging = catch_up.staging
        if staging is not None and staging.add(delta):
            self._progress(held, catch_up, staging, delta)
        elif delta.after > (0 if delta.reset else held.slice.horizon):
            self._request(held, link, follow=direct)  # a frame is missing
        elif delta.last and not delta.reset:
            self._merge(held, delta)
            if catch_up is held.catch_up and staging is None:
                self._end_catch_up(held)
        else:
            catch_up.staging = staging = Staging(held.slice, delta)
            staging.add(delta)
            self._progress(held, catch_up, staging, delta)

    def _merge(self, held: _Held, delta: Delta) -> None:
        horizon = held.slice.horizon
        transitions = held.slice.apply(delta.changes, delta.upto)
        show(self.view if held.shown else None, transitions)
        if held.feeds and held.slice.horizon > horizon:
            self._dirty[delta.replica.name] = None

    def _progress(self, held: _Held, catch_up: CatchUp, staging: Staging, delta: Delta) -> None:
        if not delta.last:
            catch_up.until = self._clock + self._timing.sync_timeout
            held.catch_up = catch_up
            return
        held.slice = staging.install(self.view if held.shown else None)
        self._end_catch_up(held)
        if held.feeds:
            self._dirty[delta.replica.name] = None

    def _end_catch_up(self, held: _Held) -> None:
        """A request was answered; if it was one to a relay, a link may have opened meanwhile."""
        held.catch_up = None
        links = self._linked.get(held.slice.replica.name)
        if held.followed is None and links:
            self._follow(links[-1])

    def _flush(self) -> None:
        """Send what feeds lack, up to the budget; the rest in another turn."""
        self._flushed_at = self._clock
        budget = FLUSH_BUDGET
        for name in list(self._dirty):
            del self._dirty[name]
            budget = self._feed(name, self._held[name], budget)
            if budget <= 0:
                break
        if self._dirty:  # a backlog, in which there is nothing to wait for
            self._flushed_at -= self._timing.coalesce_interval

    def _feed(self, name: str, held: _Held, budget: int) -> int:
        behind: dict[tuple[int, bool, int], list[_Link]] = {}
        for id, feed in held.feeds.items():
            if self._links[id].writable and (feed.owed or feed.cursor < held.slice.horizon):
                behind.setdefault(feed.position(held.slice), []).append(self._links[id])
        for position, links in behind.items():
            cursor, reset, _ = position
            delta = cut(held.slice, cursor, reset)
            self._send(links, delta)
            for link in links:
                feed = held.feeds.pop(link.id)  # to the end of the line
                if not feed.advance(delta):
                    held.feeds[link.id] = feed
            budget -= sum(map(size_of, delta.changes))
            if not delta.last or budget <= 0:
                self._dirty[name] = None
            if budget <= 0:
                break
        return budget

    def _notice_once(self, severity: Severity, text: str) -> None:
        """Tell the operator, but not again and again."""
        recent = {
            told: at for told, at in self._noticed.items() if self._clock - at < NOTICE_INTERVAL
        }
        self._noticed = recent
        if text not in recent:
            recent[text] = self._clock
            self._notice(severity, text)

    def _notice(self, severity: Severity, text: str) -> None:
        self._effects.append(Notice(severity, text))
