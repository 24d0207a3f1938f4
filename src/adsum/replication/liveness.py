"""The failure detector: which replicas are up, suspect or down, from their heartbeat counters.

Theory of operation
===================

A replica is alive while its heartbeat counter advances, received on a link or relayed in digests.
No wall clock is compared and no opinion about others is exchanged: only counters travel, and only
the replica itself makes them grow. So nothing that circulates about a dead replica revives it.

* **Silence.** A counter that did not advance for `down_after` means down. On a replica's own link,
  any frame is as good as a heartbeat: it may be busy sending a large slice.
* **Suspicion.** Losing the last link to a replica is no proof. It is *doubted* for `link_grace`,
  while it is dialled and others are asked (SWIM: Das, Gupta, Motivala 2002). If every address
  refuses the dial, the process is gone and `refused_grace` is enough. A peer with a live link may
  vouch, which extends the doubt to the next heartbeat, unless it comes to ask about the replica
  itself. An advancing counter ends the doubt.
* **Revival.** A link to the replica proves it alive. In digests, the first counter above the known
  one may be old news that this node had missed; only a second advance after it proves life.
* **One life at a time.** A name has one living incarnation here. A dead one is replaced by any
  other that proves alive; of two that are both alive, everywhere the higher one.
* **A goodbye** ends the membership of its replica; `departures` keeps it from then on.
* **Hold.** A replica is *held* while it has links and each of them is held: the carrier below these
  links is away, so the silence of the replica says nothing about it. Invariant: no status ends, by
  silence or by a running suspicion, while its replica is held. What is received still counts: an
  advance ends a suspicion, a goodbye ends the membership, and a newer incarnation that proves alive
  replaces the held one at once, by a link as by digests. When the hold ends, a replica that is up
  has its full `down_after`, and a suspect the rest of its time, at least `link_grace`. That is safe
  because it errs on one side only: a held replica may be dead and is still shown, for no longer
  than its links are held, which the caller bounds. The end of its last link ends the hold too, and
  is the loss of a link like any other.
* **Pace.** In a large cluster on a carrier heartbeats are less frequent, and `crowdpace` lengthens
  `down_after` and all that counts heartbeats in the same proportion.

Time is *active* time (Lifeguard: Dadgar, Phillips, Currey 2018): the engine stops this clock while
the process does not run, so nobody is declared dead for this node's own absence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from .crowdpace import CrowdPace
from .fingerprint import mark
from .limits import MAX_MEMBERS
from .messages import Sighting
from .sizes import Size
from .state import Replica
from .timing import Timing


class Status(Enum):
    """The status of a member: up, suspect or down."""

    UP = "up"
    #: Its link was lost, or another node connected with its name; its entries are still shown.
    SUSPECT = "suspect"
    #: Its entries are hidden, and kept in case it returns.
    DOWN = "down"


@dataclass(slots=True)
class Member:
    """The state of one member: the incarnation that holds a name here."""

    replica: Replica
    addresses: tuple[str, ...]
    #: The highest heartbeat counter and version known.
    counter: int
    version: int
    #: When the counter last advanced. Valid while up or suspect.
    fresh_at: float
    status: Status = Status.DOWN
    #: When the status ends unless something is received before. Valid while suspect or down.
    until: float = 0.0
    #: Since when it is held; None if it is not.
    held_at: float | None = None
    #: When each vouch received during this suspicion expires, by the name of its sender.
    vouches: dict[str, float] = field(default_factory=dict)
    #: A digest has brought one counter above the known one since it went down.
    advanced_once: bool = False
    #: When the last link to it was lost.
    unlinked_at: float = float("-inf")
    #: Another incarnation that digests name.
    rival: Sighting | None = None
    #: The number, counted over all members, of the last time that this member came up or its
    #: addresses changed. One such number for each link tracks which addresses were sent over it.
    change_number: int = 0

    @property
    def alive(self) -> bool:
        """Whether the member is up or suspect; exactly then its entries are shown."""
        return self.status is not Status.DOWN


class Liveness:
    """The members that this node knows, except itself, and the rules that change their status."""

    def __init__(self, timing: Timing, me: Replica) -> None:
        self._timing = timing
        #: The durations that grow with the number of members.
        self.pace = CrowdPace(timing)
        #: The number of members that are alive, this node included.
        self.alive = 1
        self.members: dict[str, Member] = {}
        #: The earliest deadline that `expire` acts on.
        self.check_at = float("inf")
        #: The names of suspect members.
        self.suspects: set[str] = set()
        #: The highest `Member.change_number`.
        self.change_number = 0
        #: The fingerprint of the replicas that are alive here, this node included.
        self.fingerprint = mark(me)
        #: Grows whenever a member is added or removed, or its status or addresses change.
        self.revision = 0

    def __contains__(self, replica: Replica) -> bool:
        member = self.members.get(replica.name)
        return member is not None and member.replica == replica

    def of(self, replica: Replica) -> Member | None:
        """The member with the name and incarnation of a replica, or None."""
        member = self.members.get(replica.name)
        return member if member is not None and member.replica == replica else None

    def alive_names(self) -> Iterator[str]:
        """The names of the members that are alive."""
        return (name for name, member in self.members.items() if member.alive)

    def fresh(self) -> Iterator[Member]:
        """The members that are up: the ones that a digest may list."""
        return (member for member in self.members.values() if member.status is Status.UP)

    def admit(
        self, replica: Replica, addresses: tuple[str, ...], now: float, *, rival_linked: bool
    ) -> str | None:
        """Admit the replica at the other end of a new link as a member; the link proves it alive.

        Args:
            replica: The replica at the other end.
            addresses: The addresses at which it listens.
            now: Active time.
            rival_linked: There is a link to another incarnation of the same name.

        Returns:
            The reason for refusing it, or None. If another live incarnation holds its name, that
            one is suspected from now on, so a legitimate newcomer is admitted when it dials again.
            If that one is held, its silence proves nothing: a newer incarnation replaces it.
        """
        member = self.members.get(replica.name)
        if member is None and len(self.members) >= MAX_MEMBERS:
            return f"the cluster has {MAX_MEMBERS} nodes already"
        if member is not None and member.replica != replica:
            if self._keeps_name(member, replica, rival_linked=rival_linked):
                if member.held_at is None:
                    self._doubt(member, now + 2 * self.pace.longest_interval)
                return f"the name {replica.name!r} is in use by another live node"
            member = None
        if member is None:
            member = self._replace(Member(replica, addresses, 0, 0, now))
        self._locate(member, addresses)
        self._prove(member, now)
        return None

    def note_heartbeat(
        self, replica: Replica, counter: int, version: int, now: float, *, newest: bool = True
    ) -> bool:
        """Apply a heartbeat received from a replica on its own link.

        Args:
            replica: The sender.
            counter: Its heartbeat counter.
            version: The version of its slice.
            now: Active time.
            newest: It was received over the newest link, so later ones are not older.

        Returns:
            Whether the sender is a member. If its incarnation was replaced, the heartbeat is
            ignored.
        """
        member = self.of(replica)
        if member is None:
            return False
        if newest:  # the owner's statement overrides relayed ones, even if those were higher
            member.version, member.counter = version, counter
        else:
            member.version = max(member.version, version)
            member.counter = max(member.counter, counter)
        self._prove(member, now)
        return True

    def note_frame(self, replica: Replica, now: float) -> None:
        """Apply a frame on a replica's own link: if the replica is up, it counts as a heartbeat."""
        member = self.of(replica)
        if member is not None and member.status is Status.UP:
            member.fresh_at = now

    def note_sighting(self, sighting: Sighting, now: float) -> bool:
        """Apply a relayed sighting: the highest counter and version that a peer knows of a replica.

        Returns:
            Whether a member, its status or its addresses may have changed.
        """
        member = self.members.get(sighting.replica.name)
        if member is None:
            self._note(sighting, now)
            return True
        if member.replica != sighting.replica:
            self._compare(member, sighting, now)
            return True
        moved = self._locate(member, sighting.addresses)
        if sighting.version > member.version:
            member.version = sighting.version
        if sighting.counter <= member.counter:
            return moved
        member.counter = sighting.counter
        before = member.status
        if before is Status.DOWN and not member.advanced_once:
            member.advanced_once = True
        else:
            self._prove(member, now)
        return moved or member.status is not before

    def lose_link(self, replica: Replica, now: float) -> bool:
        """Suspect a replica after its last link has closed; returns whether it is suspected now."""
        member = self.of(replica)
        if member is None or not member.alive:
            return False
        member.unlinked_at = now
        self._doubt(member, now + self._timing.link_grace)
        return True

    def refuse(self, name: str, now: float) -> bool:
        """Suspect a member after all its addresses refused a dial; returns whether it is suspected.

        Refusals count only if its link was lost within the last three heartbeats. A member that
        peers can reach but this node never could is not dead because its addresses refuse.
        """
        member = self.members.get(name)
        if member is None or not member.alive:
            return False
        if now - member.unlinked_at > 3 * self.pace.longest_interval:
            return False
        self._doubt(member, now + self._timing.refused_grace)
        return True

    def vouch(self, replica: Replica, counter: int, by: str, now: float) -> None:
        """Apply a vouch: a peer states that it has a live link to a replica."""
        member = self.of(replica)
        if member is None:
            return
        if member.status is Status.SUSPECT:
            member.vouches.setdefault(by, now + self.pace.vouch_grace)
        self.note_sighting(Sighting(replica, counter, 0), now)

    def retract(self, replica: Replica, by: str) -> None:
        """Withdraw the vouch of a node that asks about a replica, and so has no link to it."""
        member = self.of(replica)
        if member is not None and member.vouches.pop(by, None) is not None:
            self.check_at = min(self.check_at, self._deadline(member))

    def hold(self, replica: Replica, held: bool, now: float) -> None:
        """Let the silence of a replica mean nothing from now on, or let its time go on. Idempotent.

        Args:
            replica: The replica.
            held: Whether it has links and all of them are held.
            now: Active time.
        """
        member = self.of(replica)
        if member is None or held == (member.held_at is not None):
            return
        if held:
            member.held_at = now
            return
        member.until += now - (member.held_at or 0.0)
        member.held_at = None
        if member.alive:
            member.fresh_at = now
            member.until = max(member.until, now + self._timing.link_grace)
        self.check_at = min(self.check_at, self._deadline(member))

    def listed(self) -> int:
        """The members that are alive, or that a digest has just listed, this node included."""
        return 1 + sum(member.alive or member.advanced_once for member in self.members.values())

    def remove(self, replica: Replica) -> None:
        """Remove a replica that said goodbye; another incarnation of its name stays a member."""
        if replica in self:
            self._become(self.members[replica.name], Status.DOWN)
            del self.members[replica.name]
            self.revision += 1

    def expire(self, now: float) -> list[str]:
        """Act on expired deadlines; returns the names of members that changed status."""
        if now < self.check_at:
            return []
        changed = []
        self.check_at = float("inf")
        for name, member in list(self.members.items()):
            if self._deadline(member) <= now:
                changed.append(name)
                if not member.alive:
                    del self.members[name]
                    self.revision += 1
                    continue
                self._bring_down(member, now)
            self.check_at = min(self.check_at, self._deadline(member))
        return changed

    def sizes(self, names: int) -> Iterator[Size]:
        """The numbers of members, suspects, and vouches for each member."""
        yield Size("members", len(self.members), min(names - 1, MAX_MEMBERS))
        yield Size("suspects", len(self.suspects), len(self.members))
        for member in self.members.values():
            yield Size(f"vouches for {member.replica}", len(member.vouches), names)

    def _deadline(self, member: Member) -> float:
        if member.held_at is not None:
            return float("inf")
        silent_at = member.fresh_at + self.pace.down_after
        match member.status:
            case Status.UP:
                return silent_at
            case Status.SUSPECT:
                return min(silent_at, max(member.until, *member.vouches.values(), 0.0))
            case _:
                return member.until

    def _keeps_name(self, member: Member, replica: Replica, *, rival_linked: bool) -> bool:
        """Whether a member keeps its name although another incarnation has connected."""
        if member.held_at is not None and member.alive:
            return replica < member.replica
        doubtful = rival_linked or (bool(member.vouches) and replica < member.replica)
        suspect = member.status is Status.SUSPECT
        return member.status is Status.UP or (suspect and doubtful)

    def _note(self, sighting: Sighting, now: float) -> None:
        """Add an unknown replica from a sighting, as down: it is shown once it proves alive."""
        if len(self.members) < MAX_MEMBERS:
            member = Member(
                sighting.replica,
                sighting.addresses,
                sighting.counter,
                sighting.version,
                now,
            )
            self.members[sighting.replica.name] = member
            self.revision += 1
            self._bring_down(member, now)
            member.advanced_once = True

    def _compare(self, member: Member, sighting: Sighting, now: float) -> None:
        """Compare a member with another incarnation of its name that digests list.

        Once the other one proves alive, it replaces a member that is down or has a lower
        incarnation.
        """
        rival = member.rival
        if rival is None or rival.replica != sighting.replica:
            member.rival = sighting
            return
        if sighting.counter <= rival.counter:
            return
        if not member.alive or sighting.replica.incarnation > member.replica.incarnation:
            addresses = sighting.addresses or rival.addresses
            successor = Member(sighting.replica, addresses, sighting.counter, sighting.version, now)
            self._prove(self._replace(successor), now)

    def _replace(self, successor: Member) -> Member:
        """Make an incarnation the member of its name, in place of a former one, if any."""
        former = self.members.get(successor.replica.name)
        if former is not None:
            self._become(former, Status.DOWN)
        self.members[successor.replica.name] = successor
        self.revision += 1
        return successor

    def _become(self, member: Member, status: Status) -> None:
        """Change a status, with the fingerprint and the suspects; no other place changes it."""
        alive = member.alive
        if member.status is not status:
            self.revision += 1
        member.status = status
        if member.alive != alive:
            self.fingerprint ^= mark(member.replica)
            self.alive += 1 if member.alive else -1
            self.pace.expect(self.alive)
        if status is Status.SUSPECT:
            self.suspects.add(member.replica.name)
        else:
            self.suspects.discard(member.replica.name)

    def _locate(self, member: Member, addresses: tuple[str, ...]) -> bool:
        if not addresses or addresses == member.addresses:
            return False
        member.addresses = addresses
        self.revision += 1
        member.change_number = self.change_number = self.change_number + 1
        return True

    def _prove(self, member: Member, now: float) -> None:
        if member.status is not Status.UP or not member.change_number:
            member.change_number = self.change_number = self.change_number + 1
        self._become(member, Status.UP)
        member.fresh_at = now
        member.advanced_once = False
        member.vouches.clear()
        self.check_at = min(self.check_at, self._deadline(member))

    def _doubt(self, member: Member, until: float) -> None:
        if member.status is Status.SUSPECT:
            until = min(until, member.until)
        self._become(member, Status.SUSPECT)
        member.until = until
        self.check_at = min(self.check_at, until)

    def _bring_down(self, member: Member, now: float) -> None:
        self._become(member, Status.DOWN)
        member.until = now + self._timing.forget_after
        member.advanced_once = False
        member.vouches.clear()
        self.check_at = min(self.check_at, member.until)
