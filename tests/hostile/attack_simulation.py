"""A hostile member, a victim and an honest node in virtual time: steps as data, and invariants.

The victim and the honest node are linked, and both track presences. The hostile member holds links
to the victim, with the secret, so it is a member. Each `Step` does one thing; a step that is not
possible does nothing, so any part of a sequence of steps is a sequence. What holds after each
`wait` is in `AttackSimulation.check`.
"""

from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any, NamedTuple

from adsum.errors import ProtocolError
from adsum.replication.codec import decode, encode
from adsum.replication.effects import Close, Dial, Effect, Notice, Send, Severity
from adsum.replication.engine import Engine
from adsum.replication.entry import ID, INCARNATION, NAME, VERSION, Entry, identity
from adsum.replication.limits import MAX_MEMBERS
from adsum.replication.state import SPARE_HISTORY, Replica
from adsum.replication.timing import Timing
from adsum.transport.framing import FRAME_LIMIT

from .container_sizes import longest_container
from .known_weaknesses import replaces_the_living

#: The link between the two honest nodes, as both call it; the hostile links have higher numbers.
HONEST_LINK = 1
#: The first number of the links that the victim dials; those of steps have lower numbers.
FIRST_DIALLED = 1_000_000
#: More turns than any honest exchange takes; beyond it, the engines keep each other busy for ever.
MOST_TURNS = 2000
#: Characters of a value in the text of an error.
_MOST_SHOWN = 1000


class Members(NamedTuple):
    """The three members of a scene."""

    victim: Replica
    honest: Replica
    hostile: Replica


class Step(NamedTuple):
    """The name of a method of `AttackSimulation`, and its arguments, which JSON can carry."""

    what: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.what}({', '.join(map(repr, self.arguments))})"


class Side:
    """An honest engine, and the presences that it tracks."""

    def __init__(self, replica: Replica, random: Random) -> None:
        self.engine = Engine(replica, Timing(), random, 0.0)
        self.tracked: dict[int, Entry] = {}
        self.horizon = 0

    def picked(self, pick: int) -> list[Entry]:
        """One of the tracked presences, if there is any."""
        held = list(self.tracked.values())
        return [held[pick % len(held)]] if held else []


class AttackSimulation:
    """The victim, the honest node, the hostile member, and the time.

    Args:
        seed: Of the engines' own choices, and of the answers to the victim's dials.
        members: Their names and incarnations; the order of names decides which links stay.
        hear: Called with each frame that the hostile member is sent.

    Attributes:
        links: The open links of the hostile member.
    """

    def __init__(self, seed: int, members: Members, hear: Callable[[bytes], object] = len) -> None:
        self.now = 0.0
        self.links: list[int] = []
        self.victim = Side(members.victim, Random(seed))
        self.honest = Side(members.honest, Random(seed + 1))
        self._sides = (self.victim, self.honest)
        self._members = members
        self._hear = hear
        self._answers = Random(f"answers {seed}")
        self._dialled = count(FIRST_DIALLED)
        self._opened = 0
        self._complaints = 0
        self.victim.engine.link_up(HONEST_LINK, members.honest, ("it:1",), None, 0.0)
        self.honest.engine.link_up(HONEST_LINK, members.victim, ("me:1",), None, 0.0)
        self._pump()

    def perform(self, step: Step) -> None:
        """Do one step.

        Raises:
            AssertionError: A law is broken; shows both sides.
        """
        getattr(self, step.what)(*step.arguments)

    def end(self) -> None:
        """The hostile member goes; all that it said of itself goes as well, and nothing else.

        Raises:
            AssertionError: A law is broken; shows both sides.
        """
        for link in list(self.links):
            self.lose(link)
        self.track(1, "room", "last")
        self.wait(3 * Timing().down_after)
        members = self.victim.engine.members()
        hidden = {Replica(m.name, m.incarnation) for m in members if m.status == "down"}
        left = {_owner(entry) for entry in _shown(self.victim.engine)}
        _equal("replicas that are down, and whose presences are shown", left & hidden, set())
        self._check_sizes()

    # Steps of users; a side is 0 for the victim and 1 for the honest node.

    def track(self, side: int, topic: str, key: str) -> None:
        entry = self._sides[side].engine.track(topic, key, "{}")
        self._sides[side].tracked[entry[ID]] = entry

    def update(self, side: int, pick: int, number: int) -> None:
        at = self._sides[side]
        for old in at.picked(pick):
            at.tracked[old[ID]] = at.engine.update(old, f'{{"n":{number}}}')

    def untrack(self, side: int, pick: int) -> None:
        at = self._sides[side]
        for old in at.picked(pick):
            at.engine.untrack(at.tracked.pop(old[ID]))

    # Steps of the hostile member.

    def connect(self, link: int, name: str, incarnation: int) -> None:
        """Open a link under a number that is not in use, in the name of any node."""
        if link not in self.links:
            self._open(link, Replica(name, incarnation), None)

    def lose(self, link: int) -> None:
        """Close a link."""
        if link in self.links:
            self.links.remove(link)
            self.victim.engine.link_down(link, self.now)
            self._pump()

    def say(self, link: int, text: str) -> None:
        """Send a frame, a character a byte; one that breaks the protocol closes the link.

        The transport refuses a frame that is too large, as tests/hostile/test_wire.py shows.
        """
        frame = text.encode("latin-1")
        refused = len(frame) > FRAME_LIMIT or replaces_the_living(self.victim.engine, frame)
        if link not in self.links or refused:
            return
        try:
            self.victim.engine.receive(link, decode(frame), self.now)
        except ProtocolError:
            self._complaints += 1
            self.lose(link)
        self._pump()

    # Steps of the world.

    def wait(self, seconds: float) -> None:
        """Let time pass, let both engines do what is due, and check the laws."""
        until = self.now + seconds
        for _ in range(MOST_TURNS):
            due = min(side.engine.wake_at for side in self._sides)
            self.now = min(max(due, self.now), until)
            for side in self._sides:
                side.engine.tick(self.now)
            self._pump()
            if due > until:
                self.check()
                return
        raise AssertionError("the engines do not come to rest")

    # Reactions.

    def _open(self, link: int, replica: Replica, dialled: str | None) -> None:
        self.links.append(link)
        self._opened += 1
        self.victim.engine.link_up(link, replica, ("eve:1",), dialled, self.now)
        self._pump()

    def _pump(self) -> None:
        """Carry out the effects of both engines, until there are no more."""
        for _ in range(MOST_TURNS):
            effects = [(side, e) for side in self._sides for e in side.engine.take_effects()]
            for side, effect in effects:
                self._carry_out(side, effect)
            if not effects:
                return
        raise AssertionError("the engines do not come to rest")

    def _carry_out(self, side: Side, effect: Effect) -> None:
        match effect:
            case Send(links, message):
                data = encode(message)
                assert len(data) <= FRAME_LIMIT, f"a frame of {len(data)} bytes is to be sent"
                for link in links:
                    self._deliver(side, link, data)
            case Close(link, reason):
                assert link != HONEST_LINK, f"the honest link is closed: {reason}"
                self.lose(link)
            case Dial(address):
                self._answer(side, address)
            case Notice(severity, _):
                self._complaints += severity is not Severity.INFO

    def _deliver(self, side: Side, link: int, data: bytes) -> None:
        if link != HONEST_LINK:
            self._hear(data)
            return
        other = self.honest if side is self.victim else self.victim
        other.engine.receive(HONEST_LINK, decode(data), self.now)

    def _answer(self, side: Side, address: str) -> None:
        """The hostile member made up the address: it answers itself, or nobody does."""
        if side is self.victim and self._answers.random() < 0.3:
            self._open(next(self._dialled), self._members.hostile, address)
        else:
            side.engine.dial_failed(address, self._answers.random() < 0.5, self.now)

    # Laws.

    def check(self) -> None:
        """Raise AssertionError if a law is broken."""
        for side in self._sides:
            self._check_view(side.engine)
            for other in self._sides:
                self._check_slice(side.engine, other)
        self._check_members()
        most = self._opened + self.now + 1
        assert self._complaints <= most, f"{self._complaints} log lines for {self._opened} links"

    def _check_view(self, engine: Engine) -> None:
        """It shows the honest presences, exactly, and of others only entries of their slices."""
        shown = _shown(engine)
        lives = {self._members.victim, self._members.honest}
        honest = [entry for entry in shown if _owner(entry) in lives]
        tracked = [entry for side in self._sides for entry in side.tracked.values()]
        _equal("honest presences", sorted(honest, key=identity), sorted(tracked, key=identity))
        slices = engine.slices()
        for entry in shown:
            held = slices[_owner(entry)].entries.get(entry[ID])
            _equal("the entry in the slice of a shown one", held, entry)
        _equal("entries of shown slices", engine.shown, len(shown))

    def _check_slice(self, engine: Engine, owner: Side) -> None:
        """The slice of an honest node is that of its owner, and never goes back."""
        own, held = owner.engine.own_slice, engine.slices()[owner.engine.replica]
        _equal("horizon of an honest slice", held.horizon, own.horizon)
        _equal("entries of an honest slice", held.entries, own.entries)
        assert own.horizon >= owner.horizon, f"a horizon of {own.horizon} after {owner.horizon}"
        latest = max((entry[VERSION] for entry in held.entries.values()), default=0)
        assert latest <= held.horizon, f"version {latest} in a slice at {held.horizon}"
        owner.horizon = own.horizon

    def _check_members(self) -> None:
        honest = self.honest.engine.replica
        known = {Replica(m.name, m.incarnation): m for m in self.victim.engine.members()}
        assert known[honest].linked, "the honest node is not linked"
        status = known[honest].status
        assert status in ("up", "suspect"), f"the honest node is {status}"
        living = [life for life, m in known.items() if m.status != "left" and life[0] == honest[0]]
        _equal("lives that have the name of the honest node", living, [honest])

    def _check_sizes(self) -> None:
        """No container holds more than the members, or the history of the entries."""
        entries = sum(len(slice.entries) for slice in self.victim.engine.slices().values())
        size, where = longest_container(self.victim.engine)
        most = MAX_MEMBERS + 2 * (SPARE_HISTORY + entries)
        assert size <= most, f"{size} items, at most {most}, in {where}"


def _equal(what: str, found: object, expected: object) -> None:
    """Raise AssertionError with both sides, also where no pytest adds them."""
    if found != expected:
        shown = [f"{value!r:.{_MOST_SHOWN}}" for value in (found, expected)]
        raise AssertionError(f"{what}: {shown[0]}, not {shown[1]}")


def _shown(engine: Engine) -> list[Entry]:
    return list(_entries(engine))


def _owner(entry: Entry) -> Replica:
    return Replica(entry[NAME], entry[INCARNATION])


def _entries(engine: Engine) -> Iterator[Entry]:
    for topic in engine.view.topics:
        yield from engine.view.all_entries(topic)
