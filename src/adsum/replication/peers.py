"""The other nodes: links to them, and messages about their liveness.

Every change to a member ends in `_reconcile`, which makes slices, view and dials agree with it: the
view shows the entries of a slice exactly while its replica is up, suspect or lingering, and every
member without a link is dialled.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .clock import Clock
from .conflicts import Conflicts
from .departures import Departures
from .dialler import Dialler
from .digests import Digests
from .effects import Close, EffectQueue, Severity
from .exchange import Exchange
from .joining import Joining
from .links import Links, PeerLink
from .liveness import Liveness, Status
from .messages import Ask, Digest, Farewell, Goodbye, Heartbeat, Sighting, Vouch
from .messaging import Messaging
from .state import Replica
from .timing import Timing

#: Links kept to one replica besides the newest; older ones beyond this are closed.
SPARE_LINKS = 3
#: Heartbeats, at least, of an unsure linger: peers state the remainder within this time.
UNSURE_LINGER = 2.5


@dataclass(slots=True, kw_only=True)
class Peers:
    """Handles links and liveness messages; keeps members, slices, view and dials in agreement.

    All parts are those of one engine.

    Attributes:
        replica: This node.
        counter: The heartbeat counter of this node.
        askers: Link ids by the name that was asked about: each is sent a vouch at its next
            heartbeat.
        lives: The replica of each member, by name; its slice is held.
    """

    replica: Replica
    timing: Timing
    clock: Clock
    links: Links
    effects: EffectQueue
    exchange: Exchange
    liveness: Liveness
    departures: Departures
    digests: Digests
    joining: Joining
    dialler: Dialler
    conflicts: Conflicts
    messaging: Messaging
    counter: int = 0
    askers: dict[str, set[int]] = field(default_factory=dict)
    lives: dict[str, Replica] = field(default_factory=dict)

    # Links.

    def link_up(
        self, id: int, replica: Replica, addresses: tuple[str, ...], dialled: str | None
    ) -> None:
        """Register an opened link: admit its replica as a member, or refuse it and close the link.

        Args:
            id: The id of the link.
            replica: The replica at the other end, which has proved its identity.
            addresses: The addresses at which it listens.
            dialled: The address that was dialled; None if the other end dialled.
        """
        now = self.clock.active
        if replica.name == self.replica.name:
            if dialled is not None and replica == self.replica:
                self.dialler.answered_oneself(dialled, now)
            elif dialled is not None:
                self.dialler.failed(dialled, False, now)
            self._refuse_namesake(id, replica)
            return
        if dialled is not None:
            self._note_refusal(self.dialler.answered(dialled, replica.name, now))
        link = PeerLink(
            id,
            replica,
            opened_at=now,
            heard_at=now,
            dialled=dialled is not None,
            addresses=addresses,
            kept=self.replica < replica,
        )
        if replica in self.departures:
            self.links.add(link)
            self._greet(link)
        elif self._admit(link):
            self.links.add(link)
            self._welcome(link)
            if any(other.greeted for other in self.links.to_replica(replica)):
                self._addresses_done(replica.name)  # this link may close as redundant

    def dial_failed(self, address: str, refused: bool) -> None:
        """Handle a dial that opened no link; `refused` if nothing listens at the address."""
        if refused:
            self.joining.address_done(address)
        self._note_refusal(self.dialler.failed(address, refused, self.clock.active))

    def say_goodbye(self, linger: float) -> None:
        """Send the goodbye of this node over every link."""
        self.counter += 1
        version = self.exchange.own.slice.horizon
        self.effects.send(self.links, Goodbye(self.counter, version, linger))

    def beat(self) -> None:
        """Send a heartbeat over every link; close links silent or not read for `down_after`."""
        self.counter += 1
        self._close_dead_links()
        self.effects.send(self.links, self._heartbeat())
        joining = [self.links[id] for id in self.joining.links]
        unanswered = [link for link in joining if link.greeted]  # their peers did not read
        self.digests.beat(self.clock.active, unanswered, self.joining.replicas)

    def expire(self, active: float, elapsed: float) -> None:
        """Act on the deadlines of members, in active time, and of goodbyes, in elapsed time."""
        for name in self.liveness.expire(active):
            self._note_down(name)
            self._reconcile(name)
        sure = not self.clock.recent_absence
        for replica in self.departures.expire(elapsed, sure=sure):
            self.exchange.drop(replica)
            self.joining.slice_done(replica)

    def _admit(self, link: PeerLink) -> bool:
        """Admit the replica at the other end of a link as a member, unless its name is in use.

        Returns:
            Whether it was admitted; if not, the link is closed.
        """
        replica = link.replica
        rival = any(other.replica != replica for other in self.links.of(replica.name))
        refusal = self.liveness.meet(replica, link.addresses, self.clock.active, rival_linked=rival)
        if refusal is None:
            self.conflicts.resolve(replica.name)
            return True
        self.conflicts.refuse(replica, refusal, self.liveness.members, self.clock.active)
        self.dialler.wait(replica.name, self.clock.active)
        self.effects.put(Close(link.id, refusal))
        return False

    def _welcome(self, link: PeerLink) -> None:
        """Greet and follow the peer of a new link, unless it closes as redundant."""
        self._reconcile(link.replica.name)
        self._drop_redundant_link(link)
        if link.id in self.links:
            self.joining.expect_link(link.id)
            self._greet(link)
            if self.links.should_introduce():
                self.digests.request_everything(link)
            self.exchange.follow(link, self.clock.active)

    def _greet(self, link: PeerLink) -> None:
        """Send the first frame of a link: this node's version and fingerprints."""
        self.effects.send([link], self._heartbeat())

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            self.counter,
            self.exchange.own.slice.horizon,
            self.liveness.fingerprint,
            self.departures.fingerprint,
        )

    def _close_dead_links(self) -> None:
        patience = self.timing.down_after
        for link in self.links:
            if self.clock.active - link.heard_at > patience:
                self._close(link, f"nothing was heard for {patience:g} s")
            elif not link.writable and self.clock.active - link.stuck_at > patience:
                self._close(link, f"nothing was read for {patience:g} s")

    def _drop_redundant_link(self, new: PeerLink) -> None:
        """Keep one of two links to a replica.

        If the older one is young, both ends have dialled at once, and it may be in the middle of a
        transfer: the smaller end closes the new one. Otherwise the end that dialled the new one
        decides. If the older one works here, that end closes the new one. Else it sends a frame
        over the new one, and the smaller end then closes the older ones. So no end closes a link
        that the other one sends over.
        """
        older = [link for link in self.links.to_replica(new.replica) if link is not new]
        for link in older[:-SPARE_LINKS]:
            self._close(link, "there are too many links")
        if not older:
            return
        if self.replica > new.replica:
            redundant = new.dialled and any(self._works(link) for link in older)
        else:
            redundant = new.dialled or self._is_young(older[-1])
        if redundant:
            self._close(new, "there is another link already")
        else:
            new.kept = False  # until its first frame

    def _is_young(self, link: PeerLink) -> bool:
        return self.clock.active - link.opened_at < self.timing.race_window

    def _works(self, link: PeerLink) -> bool:
        heard = link.heard_at >= self.clock.active - self.timing.vouch_grace
        return heard and link.kept and not self._is_young(link)

    def _replace_older_links(self, new: PeerLink) -> None:
        """Close the older links to a peer after its first frame over a new one, as smaller end."""
        links = self.links.to_replica(new.replica)
        if self.replica < new.replica and new in links:
            for link in links[: links.index(new)]:
                self._close(link, "it was replaced by a newer link")

    def _refuse_namesake(self, id: int, replica: Replica) -> None:
        if replica == self.replica:
            self.effects.put(Close(id, "this is my own address"))
        else:
            self.effects.put(Close(id, self.conflicts.meet(replica, self.clock.active)))

    def _close(self, link: PeerLink, reason: str) -> None:
        self.effects.put(Close(link.id, reason))
        self.forget_link(link)

    def forget_link(self, link: PeerLink) -> None:
        """Forget a closed link: follow its replica over another link, or suspect the replica."""
        name = link.replica.name
        self.links.remove(link)
        self.exchange.forget_link(link)
        awaited = self.joining.drop_link(link.id)
        for askers in self.askers.values():
            askers.discard(link.id)
        self.messaging.resume(name)
        rest = self.links.to_replica(link.replica)
        if rest:
            self.exchange.follow(rest[-1], self.clock.active)
            return
        if awaited and link.replica not in self.departures:
            for address in self.dialler.seeds_of(name):  # it is dialled again
                self.joining.expect_address(address)
        self._reconcile(name)
        if self.clock.active - link.opened_at < self.timing.race_window:
            self.dialler.wait(name, self.clock.active)  # it was refused; do not insist
        else:
            self.dialler.hurry(name, self.clock.active)
        if self.liveness.lose_link(link.replica, self.clock.active):
            self._ask_about(name)

    # Members.

    def visible_names(self) -> Iterable[str]:
        """The names of the members that are alive."""
        members = self.liveness.members.items()
        return (name for name, member in members if member.alive)

    def _reconcile(self, name: str) -> None:
        """Make slices, view, links and dials agree with the member of a name."""
        member = self.liveness.members.get(name)
        life = self.lives.get(name)
        if life is not None and (member is None or member.replica != life):
            self._forget_life(life)
        if member is None:
            self.dialler.forget_peer(name)
            return
        self.lives[name] = member.replica
        self.exchange.show(member.replica, member.alive)
        if name not in self.links.names:
            self.dialler.add_peer(name, member.addresses, self.clock.active)

    def _forget_life(self, replica: Replica) -> None:
        """Clean up after a replica that is no longer a member; while it lingers, keep its slice."""
        del self.lives[replica.name]
        if not self.departures.lingers(replica):
            self.exchange.drop(replica)
        self.askers.pop(replica.name, None)
        self.conflicts.resolve(replica.name)
        if replica in self.departures:
            return  # its owner may refute the goodbye over its links
        for link in self.links.to_replica(replica):
            self._close(link, f"{replica} was replaced by another life of its name")

    def _note_down(self, name: str) -> None:
        member = self.liveness.members.get(name)
        if member is not None and member.status is Status.DOWN:
            self.joining.slice_done(member.replica)
            self.effects.notice(Severity.INFO, f"{member.replica} is down")

    def _note_refusal(self, gone: str | None) -> None:
        """Suspect a member that refused a dial at every address, unless there is a link to it."""
        if gone is None or gone in self.links.names:
            return
        member = self.liveness.members.get(gone)
        if member is not None:
            self.joining.slice_done(member.replica)
        if self.liveness.refuse(gone, self.clock.active):
            self._ask_about(gone)

    def _ask_about(self, name: str) -> None:
        member = self.liveness.members[name]
        # Peers that asked here receive the question as well: it withdraws this node's vouch.
        askers = sorted(self.askers.pop(name, ()))
        links = {link.id: link for link in self.links.some()}
        links.update((id, self.links[id]) for id in askers)
        self.effects.send(links.values(), Ask(member.replica))

    def receive_heartbeat(self, link: PeerLink, heartbeat: Heartbeat) -> None:
        """Apply a heartbeat that a replica sent on its own link."""
        replica = link.replica
        if replica in self.departures and not self._refute(link, heartbeat.counter):
            return
        counter, version = heartbeat.counter, heartbeat.version
        newest = self.links.of(replica.name)[-1] is link
        if not self.liveness.hear(replica, counter, version, self.clock.active, newest=newest):
            return
        self._reconcile(replica.name)
        self.conflicts.prove(replica.name, self.clock.active)
        held = self.exchange.of(replica)
        if held is not None and (heartbeat.version > held.slice.horizon or held.followed is None):
            self.exchange.follow(link, self.clock.active)
        askers = [self.links[id] for id in sorted(self.askers.pop(replica.name, ()))]
        self.effects.send(askers, Vouch(replica, heartbeat.counter))
        self.digests.compare(link, heartbeat, self.clock.active)
        if not link.greeted:
            self._receive_first_heartbeat(link, version)

    def _receive_first_heartbeat(self, link: PeerLink, version: int) -> None:
        """Note that a peer is ready: replace older links, and settle its addresses for joining."""
        link.greeted = True
        self._replace_older_links(link)
        self.joining.correct_slice(link.replica, version)
        self._addresses_done(link.replica.name)
        if not link.awaiting:
            self.joining.link_done(link.id)

    def _addresses_done(self, name: str) -> None:
        """Note for joining that the addresses of a node have answered."""
        for address in self.dialler.seeds_of(name):
            self.joining.address_done(address)

    def _refute(self, link: PeerLink, counter: int) -> bool:
        """Refute the goodbye of a replica if a heartbeat on its own link proves it alive.

        After its goodbye a replica neither advances its counter nor opens links. A link to it has
        opened since, so a counter above that of the goodbye is proof, and so is a second counter.

        Returns:
            Whether the replica is a member and the link is open.
        """
        departure = self.departures.get(link.replica)
        if departure is None:
            return True
        if link.first_counter is None:
            link.first_counter = counter
        if counter <= min(link.first_counter, departure.counter):
            return False
        self.departures.refute(link.replica)
        if not self._admit(link):
            self.exchange.drop(link.replica)
            self.forget_link(link)
            return False
        self._welcome(link)
        return link.id in self.links

    def receive_digest(self, link: PeerLink, digest: Digest) -> None:
        """Apply a digest: sightings and goodbyes of third replicas, relayed by a peer."""
        if digest.last:
            link.awaiting = False
        for sighting in digest.sightings:
            if link.id not in self.links:
                return  # one of the statements has closed it
            self._receive_sighting(link, sighting)
        for farewell in digest.farewells:
            if link.id in self.links:
                self._receive_farewell(link, farewell)
        if digest.last and link.greeted:
            self.joining.link_done(link.id)

    def _receive_sighting(self, link: PeerLink, sighting: Sighting) -> None:
        replica = sighting.replica
        if replica.name == self.replica.name:
            self._meet_oneself(link, sighting)
            return
        if replica in self.departures:
            return
        if sighting.addresses and replica.name in self.links.names:
            member = self.liveness.of(replica)
            if member is not None and member.addresses:  # addresses from its own link take priority
                sighting = replace(sighting, addresses=())
        known = replica in self.liveness
        if self.liveness.hear_of(sighting, self.clock.active):
            self.joining.advance()
            self._reconcile(replica.name)
        if self.liveness.of(replica) is None:
            return
        if not any(other.greeted for other in self.links.to_replica(replica)):
            self.joining.expect_slice(replica, sighting.version, learned=not known)
        held = self.exchange.of(replica)
        if held is None or not held.shown or sighting.version <= held.slice.horizon:
            return
        if replica != link.replica and not self._hears_directly(replica):
            self.exchange.ask(held, link, self.clock.active)

    def _meet_oneself(self, link: PeerLink, sighting: Sighting) -> None:
        if sighting.replica != self.replica:
            self.conflicts.hear_of_namesake(sighting, self.clock.active)
        elif sighting.version > self.exchange.own.slice.horizon or sighting.counter > self.counter:
            self.refuse_copy(link)

    def refuse_copy(self, link: PeerLink) -> None:
        """Close the link to a peer that knows changes of this node that were never made here."""
        self._close(link, self.conflicts.meet_copy(link.replica, self.clock.active))

    def _hears_directly(self, replica: Replica) -> bool:
        return self.digests.hears_directly(replica, self.clock.active)

    def receive_ask(self, link: PeerLink, ask: Ask) -> None:
        """Answer a peer that lost its link to a replica: with a vouch, its goodbye, or not at all.

        After a vouch, the peer is sent another one with the next heartbeat of the replica.
        """
        self.liveness.retract(ask.replica, link.replica.name)
        departure = self.departures.get(ask.replica)
        if departure is not None and departure.sure:
            self.effects.send([link], self.digests.notice(departure, self.clock.elapsed))
            return
        member = self.liveness.of(ask.replica)
        if member is not None and self._hears_directly(ask.replica):
            self.effects.send([link], Vouch(ask.replica, member.counter))
            self.askers.setdefault(ask.replica.name, set()).add(link.id)

    def receive_vouch(self, link: PeerLink, vouch: Vouch) -> None:
        """Apply a vouch of a peer that has a live link to a replica."""
        self.liveness.vouch(vouch.replica, vouch.counter, link.replica.name, self.clock.active)
        self._reconcile(vouch.replica.name)

    # Goodbyes.

    def receive_goodbye(self, link: PeerLink, goodbye: Goodbye) -> None:
        """Apply a goodbye that a replica sent on its own link, and close its links."""
        replica, version = link.replica, goodbye.version
        self._depart(Farewell(replica, goodbye.counter, version, goodbye.linger, held=0))
        self._addresses_done(replica.name)
        for other in self.links.to_replica(replica):
            self._close(other, "you said goodbye")

    def _receive_farewell(self, link: PeerLink, farewell: Farewell) -> None:
        """Apply a relayed goodbye, unless its replica is heard directly or has a higher counter."""
        replica = farewell.replica
        member = self.liveness.of(replica)
        if replica == self.replica or self._hears_directly(replica):
            return
        if member is not None and farewell.counter <= member.counter:
            return
        known = replica in self.departures
        self._depart(farewell)
        if not known:  # its links are silent; a living owner dials again, and refutes the goodbye
            for silent in self.links.to_replica(replica):
                self._close(silent, "your goodbye was relayed")
        held = self.exchange.of(replica)
        if held is None or farewell.held <= held.slice.horizon:
            return
        self.joining.expect_slice(replica, farewell.held)
        self.exchange.ask(held, link, self.clock.active)

    def _depart(self, farewell: Farewell) -> None:
        """Apply a goodbye: its replica is no longer a member, and is shown while it lingers."""
        replica = farewell.replica
        member = self.liveness.of(replica)
        known = replica in self.departures
        absence = self.clock.recent_absence
        if absence:  # it may have waited in a buffer all that time
            least = min(farewell.remaining, UNSURE_LINGER * self.timing.heartbeat_interval)
            farewell = replace(farewell, remaining=max(least, farewell.remaining - absence))
        if not self.departures.note(farewell, self.clock.elapsed, sure=not absence):
            return
        self.liveness.remove(replica)
        if self.departures.lingers(replica) and farewell.remaining > 0:
            self.exchange.show(replica, visible=True)
        self._reconcile(replica.name)
        departure = self.departures.get(replica)
        if departure is not None and not known:
            self.digests.push(departure, self.clock.elapsed)
        if member is not None:
            self.effects.notice(Severity.INFO, f"{replica} says goodbye")
