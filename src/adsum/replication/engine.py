"""One node's part in the cluster, without any I/O: the outside of the replication core.

The engine is fed with local changes, messages, links that open and close, and the passing of time.
It answers with effects (`take_effects`: what to send, dial, close), with what observers of watched
topics see (`take_changes`), and with when it next wants to be called (`wake_at`). It knows no
clock, no socket and no randomness but what it is given, so a whole cluster of engines runs in a
test, in virtual time, and replays from a seed.

Who does what: `state` holds slices, `view` what is shown, `liveness` decides who is up, `dialler`
whom to dial, `exchange` how slices travel, `digests` tell of others. The engine keeps them in
agreement (`_reconcile`): the view shows the entries of a slice exactly while its replica is
visible.
"""

from collections.abc import Iterable
from random import Random
from sys import intern

from .conflicts import Conflicts
from .dialler import Dialler
from .digests import Digests
from .effects import Close, Deliver, Dial, Effect, Outbox, Severity
from .entry import ID, KEY, TOPIC, VERSION, Entry, Transition
from .exchange import Exchange, Held
from .links import Link, Links
from .liveness import Liveness, Status
from .members import MemberInfo
from .messages import (
    Ask,
    Delta,
    Digest,
    Heartbeat,
    Leave,
    Message,
    Publish,
    Sighting,
    Sync,
    Vouch,
)
from .state import Replica, Slice
from .timing import Timing
from .view import View

#: Deadlines this close are due: floats that meant the same moment may differ by a little.
RESOLUTION = 1e-6
#: More links than this, beside the newest one, nobody has to one replica for a reason.
SPARE_LINKS = 3
#: What is left to say at a goodbye is said in at most this many steps.
MAX_LAST_FLUSHES = 128
#: Renderings of topics that were not listed for this many heartbeats are forgotten.
AGE_AFTER = 60


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
        self._last_call = now
        # Active time: it stands still while the process does not run.
        self._clock = 0.0
        self._counter = 0
        self._links = Links(rng)
        self._outbox = Outbox()
        self._exchange = Exchange(replica, self.view, self._links, self._outbox, timing)
        self._liveness = Liveness(timing)
        self._digests = Digests(self._liveness, self._exchange, self._outbox, timing)
        self._dialler = Dialler(timing, rng)
        self._heartbeat_at = 0.0
        # The links whose question about a name is answered with its next heartbeat.
        self._askers: dict[str, set[int]] = {}
        self._conflicts = Conflicts(replica, self._outbox)

    # What this node does.

    def track(self, topic: str, key: str, meta: str) -> Entry:
        """Add a presence to this node's slice; it is in the view when this returns."""
        own = self._exchange.own.slice
        version = own.horizon + 1
        entry = (version, version, intern(topic), key, meta, None, *self.replica)
        own.add(entry)
        self.view.change(None, entry)
        self._exchange.changed()
        return entry

    def update(self, old: Entry, meta: str) -> Entry:
        """Replace the value of a presence in place; no observer sees the key vanish."""
        own = self._exchange.own.slice
        new = (own.horizon + 1, old[ID], old[TOPIC], old[KEY], meta, old[VERSION], *self.replica)
        own.put(new)
        self.view.change(old, new)
        self._exchange.changed()
        return new

    def untrack(self, entry: Entry) -> None:
        """End a presence."""
        own = self._exchange.own.slice
        own.remove((own.horizon + 1, entry[ID]))
        self.view.change(entry, None)
        self._exchange.changed()

    def publish(self, message: Publish, to: str | None = None) -> int:
        """Send a message to every member that has a link, or to one.

        Returns:
            To how many members it could not be sent: no link, or one that is not being read.
        """
        names = [to] if to is not None else list(self._visible_names())
        links = [link for name in names if (link := self._links.to(name)) is not None]
        self._outbox.send(links, message)
        return len(names) - len(links)

    def leave(self, linger: float) -> None:
        """Say goodbye on every link, after what is left to say."""
        for _ in range(MAX_LAST_FLUSHES):
            if self._exchange.flush_at < float("inf"):
                self._exchange.flush(self._clock)
        self._outbox.send(self._links, Leave(linger))

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
        rival = any(link.replica != replica for link in self._links.of(replica.name))
        refusal = self._liveness.meet(replica, addresses, self._clock, rival_linked=rival)
        if refusal is not None:
            self._conflicts.refuse(replica, refusal, self._liveness.members, self._clock)
            self._dialler.wait(replica.name, self._clock)
            self._outbox.put(Close(id, refusal))
            return
        self._conflicts.settle(replica.name)
        link = Link(id, replica, opened_at=self._clock, heard_at=self._clock)
        self._links.add(link)
        self._reconcile(replica.name)
        self._drop_redundant_link(link)
        if id in self._links:
            if self._links.is_lot_cast():
                self._digests.send(link, pull=True)
            self._exchange.follow(link, self._clock)

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
            self._exchange.resume(link)

    def dial_failed(self, address: str, refused: bool, now: float) -> None:
        """No link came of a dial; `refused` if nothing listens there."""
        self._advance(now)
        self._note_refusal(self._dialler.failed(address, refused, self._clock))

    def dialled_self(self, address: str) -> None:
        """An address turned out to be this node's own."""
        self._dialler.answered_oneself(address, self._clock)

    def receive(self, id: int, message: Message, now: float) -> None:  # noqa: C901  # a case a kind
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
                self._exchange.receive(link, message, self._clock)
            case Heartbeat():
                self._on_heartbeat(link, message)
            case Sync():
                if not self._exchange.feed(link, message):
                    self._refuse_copy(link)
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
                self._outbox.put(Deliver(link.replica.name, message))

    def tick(self, now: float) -> None:
        """Time has passed. Call it at `wake_at` or earlier, and after local changes."""
        self._advance(now)
        due = self._clock + RESOLUTION
        if self._exchange.flush_at <= due:
            self._exchange.flush(self._clock)
        if self._heartbeat_at <= due:
            self._beat()
        for name in self._liveness.expire(due):
            self._tell_of(name)
            self._reconcile(name)
        for address in self._dialler.due(due, self._links.names):
            self._outbox.put(Dial(address))

    # What the engine answers.

    @property
    def wake_at(self) -> float:
        """When to call `tick` at the latest, unless something else happens before."""
        at = min(
            self._exchange.flush_at,
            self._heartbeat_at,
            self._liveness.check_at,
            self._dialler.next_at,
        )
        if self._liveness.suspects:
            at = min(at, self._clock + self._patience / 2)
        return self._last_call + max(0.0, at - self._clock)

    def take_effects(self) -> list[Effect]:
        """What to do, in this order, since the last call."""
        return self._outbox.take()

    def take_changes(self) -> dict[str, list[Transition]]:
        """What observers of watched topics see since the last call."""
        return self.view.take_changes()

    def members(self) -> list[MemberInfo]:
        """The nodes that this node knows of, itself included, by name."""
        own = self.own_slice
        listed = [MemberInfo(*self.replica, "", "self", True, len(own.entries), 0)]
        for name, member in self._liveness.members.items():
            held = self._exchange.get(name)
            horizon = held.slice.horizon if held is not None else 0
            entries = len(held.slice.entries) if held is not None else 0
            address = member.addresses[0] if member.addresses else ""
            lag = max(0, member.version - horizon)
            status = member.status.value
            linked = name in self._links.names
            listed.append(MemberInfo(*member.replica, address, status, linked, entries, lag))
        return sorted(listed, key=lambda info: info.name)

    @property
    def own_slice(self) -> Slice:
        """What this node tracks; to be read, not altered."""
        return self._exchange.own.slice

    @property
    def links(self) -> int:
        """How many links are open."""
        return len(self._links)

    @property
    def shown(self) -> int:
        """How many presences are shown here."""
        return sum(len(held.slice.entries) for held in self._exchange if held.shown)

    def held(self, replica: Replica) -> Held | None:
        """The slice of a replica and how it travels, if it is held; to be read, not altered."""
        return self._exchange.of(replica)

    def moving(self, replica: Replica) -> bool:
        """Whether a large slice is being shown or hidden, which takes several turns."""
        return self._exchange.moving(replica)

    def slices(self) -> dict[Replica, Slice]:
        """The slices held here, shown or not; to be read, not altered."""
        return {held.slice.replica: held.slice for held in self._exchange}

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
        self._exchange.flush(self._clock)
        self._heartbeat_at = self._clock + self._timing.heartbeat_interval
        self._counter += 1
        if self._counter % AGE_AFTER == 0:
            self.view.age()
        self._close_dead_links()
        self._exchange.give_up_stalled(self._clock)
        self._outbox.send(self._links, Heartbeat(self._counter, self.own_slice.horizon))
        # Pushing spreads news of those to whom there is a link. Pulling brings news of the others,
        # and to a node that has few links, of which nobody may think when it pushes.
        distant = any(name not in self._links.names for name in self._visible_names())
        for index, link in enumerate(self._links.some()):
            self._digests.send(link, pull=distant or index == 0)

    def _close_dead_links(self) -> None:
        patience = self._timing.down_after
        for link in self._links:
            if self._clock - link.heard_at > patience:
                self._close(link, f"nothing was heard for {patience:g} s")
            elif not link.writable and self._clock - link.stuck_at > patience:
                self._close(link, f"nothing was read for {patience:g} s")

    # Links.

    def _drop_redundant_link(self, new: Link) -> None:
        """Of two links to one replica keep one; the smaller of its ends decides which.

        If the other one is young, both ends have dialled at once, and the older may be in the
        midst of a transfer. If it is not, the peer dialled because it has lost it.
        """
        older = [link for link in self._links.of(new.replica.name) if link is not new]
        if self.replica > new.replica:
            for link in older[:-SPARE_LINKS]:
                self._close(link, "there are too many links")
            return
        if not older:
            return
        if self._clock - older[-1].opened_at < self._timing.race_window:
            self._close(new, "there is another link already")
        else:
            for link in older:
                self._close(link, "it was replaced by a newer link")

    def _refuse_namesake(self, id: int, replica: Replica) -> None:
        if replica == self.replica:
            self._outbox.put(Close(id, "this is my own address"))
        else:
            self._outbox.put(Close(id, self._conflicts.meet(replica, self._clock)))

    def _close(self, link: Link, reason: str) -> None:
        self._outbox.put(Close(link.id, reason))
        self._forget_link(link)

    def _forget_link(self, link: Link) -> None:
        name = link.replica.name
        self._links.remove(link)
        self._exchange.forget_link(link)
        for askers in self._askers.values():
            askers.discard(link.id)
        rest = self._links.of(name)
        if rest:
            self._exchange.follow(rest[-1], self._clock)
            return
        self._reconcile(name)
        if self._clock - link.opened_at < self._timing.race_window:
            self._dialler.wait(name, self._clock)  # it was refused; do not insist
        else:
            self._dialler.hurry(name, self._clock)
        if self._liveness.lose_link(link.replica, self._clock):
            self._ask_about(name)

    # Members.

    def _visible_names(self) -> Iterable[str]:
        members = self._liveness.members.items()
        return (name for name, member in members if member.alive)

    def _reconcile(self, name: str) -> None:
        """Make slices, view, links and targets agree with what liveness says of a name."""
        if name == self.replica.name:
            return
        member = self._liveness.members.get(name)
        held = self._exchange.get(name)
        if held is not None and (member is None or held.slice.replica != member.replica):
            self._exchange.drop(held)
            self._forget_replica(held.slice.replica)
        if member is None:
            self._dialler.forget_peer(name)
            return
        self._exchange.show(member.replica, member.visible)
        if member.status is Status.LEFT:
            self._dialler.forget_peer(name)
        elif name not in self._links.names:
            self._dialler.add_peer(name, member.addresses, self._clock)

    def _forget_replica(self, replica: Replica) -> None:
        self._askers.pop(replica.name, None)
        self._conflicts.settle(replica.name)
        for link in self._links.of(replica.name):
            if link.replica == replica:
                self._close(link, f"{replica} was replaced by another life of its name")

    def _tell_of(self, name: str) -> None:
        member = self._liveness.members.get(name)
        if member is not None and member.status is Status.DOWN:
            self._outbox.notice(Severity.INFO, f"{member.replica} is down")

    def _note_refusal(self, gone: str | None) -> None:
        """Every address of a member refused: without a link or a vouch, it is dead."""
        if gone is None or gone in self._links.names:
            return
        if self._liveness.refuse(gone, self._clock):
            self._ask_about(gone)

    def _ask_about(self, name: str) -> None:
        member = self._liveness.members[name]
        # Those who asked here are told as well: whoever asks has no link and takes back its word.
        askers = sorted(self._askers.pop(name, ()))
        links = {link.id: link for link in self._links.some()}
        links.update((id, self._links[id]) for id in askers)
        self._outbox.send(links.values(), Ask(member.replica))

    def _on_heartbeat(self, link: Link, heartbeat: Heartbeat) -> None:
        replica = link.replica
        counter, version = heartbeat.counter, heartbeat.version
        newest = self._links.of(replica.name)[-1] is link
        if not self._liveness.hear(replica, counter, version, self._clock, newest=newest):
            return
        self._reconcile(replica.name)
        self._conflicts.prove(replica.name, self._clock)
        held = self._exchange.of(replica)
        if held is not None and (heartbeat.version > held.slice.horizon or held.followed is None):
            self._exchange.follow(link, self._clock)
        askers = [self._links[id] for id in sorted(self._askers.pop(replica.name, ()))]
        self._outbox.send(askers, Vouch(replica, heartbeat.counter))

    def _on_digest(self, link: Link, digest: Digest) -> None:
        for sighting in digest.sightings:
            if link.id not in self._links:
                return  # what it told of made an end to it
            self._on_sighting(link, sighting)
        if digest.pull:
            self._digests.answer(link, self._clock)

    def _on_sighting(self, link: Link, sighting: Sighting) -> None:
        replica = sighting.replica
        if replica.name == self.replica.name:
            self._meet_oneself(link, sighting)
            return
        if sighting.addresses and replica.name in self._links.names:
            member = self._liveness.of(replica)
            if member is not None and member.addresses:  # it told so itself
                sighting = Sighting(replica, sighting.counter, sighting.version)
        if self._liveness.hear_of(sighting, self._clock):
            self._reconcile(replica.name)
        held = self._exchange.of(replica)
        if held is None or not held.shown or sighting.version <= held.slice.horizon:
            return
        if replica != link.replica and not self._hears_directly(replica):
            self._exchange.ask(held, link, self._clock)

    def _meet_oneself(self, link: Link, sighting: Sighting) -> None:
        if sighting.replica != self.replica:
            self._conflicts.hear_of_namesake(sighting, self._clock)
        elif sighting.version > self.own_slice.horizon or sighting.counter > self._counter:
            self._refuse_copy(link)

    def _refuse_copy(self, link: Link) -> None:
        self._close(link, self._conflicts.meet_copy(link.replica, self._clock))

    def _hears_directly(self, replica: Replica) -> bool:
        """Whether a link to a replica is alive, so its own stream will bring what is missing."""
        return self._links.hears(replica, self._clock - self._timing.vouch_grace)

    def _on_ask(self, link: Link, ask: Ask) -> None:
        self._liveness.retract(ask.replica, link.replica.name)
        member = self._liveness.of(ask.replica)
        if member is not None and self._hears_directly(ask.replica):
            self._outbox.send([link], Vouch(ask.replica, member.counter))
            self._askers.setdefault(ask.replica.name, set()).add(link.id)

    def _on_leave(self, link: Link, leave: Leave) -> None:
        replica = link.replica
        if self._liveness.leave(replica, leave.linger, self._clock):
            self._outbox.notice(Severity.INFO, f"{replica} says goodbye")
            self._reconcile(replica.name)
