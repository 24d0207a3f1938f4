"""One run of a hostile member against one node, in virtual time, from one integer.

A victim and an honest node are linked, and both track presences. The hostile member holds a link
to the victim, with the secret, so it is a member, and says what its seed has it say. What must be
true after each step stands in `Scene.check`.
"""

from collections.abc import Iterator
from itertools import count
from random import Random

from adsum.errors import ProtocolError
from adsum.replication.codec import decode, encode
from adsum.replication.effects import Close, Dial, Effect, Notice, Send, Severity
from adsum.replication.engine import Engine
from adsum.replication.entry import ID, INCARNATION, NAME, VERSION, Entry, identity
from adsum.replication.limits import MAX_MEMBERS
from adsum.replication.state import SPARE_HISTORY, Replica
from adsum.replication.timing import Timing
from adsum.transport.framing import FRAME_LIMIT

from .adversary import KEYS, TOPICS, Adversary
from .beyond import replaces_the_living
from .sizes import longest_container

STEPS = 40
#: The link between the two honest ones, as both call it. The hostile links have higher numbers.
HONEST_LINK = 1
#: More turns than any honest exchange takes; beyond it, the engines keep each other busy for ever.
MOST_TURNS = 2000


def run(seed: int) -> None:
    """One run; raises AssertionError, with the seed and the last frame, if a law is broken."""
    scene = Scene(seed)
    try:
        for _ in range(STEPS):
            scene.step()
        scene.end()
    except Exception as error:
        what = f"seed {seed}, t={scene.now:.3f}: {type(error).__name__}: {error}"
        raise AssertionError(f"{what}; the last frame: {scene.last[:500]!r}") from error


class Side:
    """An honest engine, and what it tracks."""

    def __init__(self, replica: Replica, random: Random) -> None:
        self.engine = Engine(replica, Timing(), random, 0.0)
        self.tracked: dict[int, Entry] = {}
        self.horizon = 0

    def use(self, random: Random) -> None:
        """Let a user come, change or go."""
        if self.tracked and random.random() < 0.6:
            entry = self.tracked.pop(random.choice(list(self.tracked)))
            if random.random() < 0.5:
                self.engine.untrack(entry)
                return
            entry = self.engine.update(entry, f'{{"n":{random.randrange(100)}}}')
        else:
            entry = self.engine.track(random.choice(TOPICS), random.choice(KEYS), "{}")
        self.tracked[entry[ID]] = entry


class Scene:
    """The victim, the honest node, the hostile member, and the time."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.last = b""
        self._random = random = Random(f"hostile {seed}")
        names = random.sample(["a", "b", "c"], 3)  # the order of names decides which links stay
        me, it, eve = (Replica(name, random.randint(1, 10**6)) for name in names)
        self.victim, self.honest = Side(me, Random(seed)), Side(it, Random(seed + 1))
        self.eve = Adversary(random, eve, (me, it))
        self._names = {me.name, it.name}
        self._serial = count(HONEST_LINK + 1)
        self._links: list[int] = []
        self._opened = 0
        self._complaints = 0
        self.victim.engine.link_up(HONEST_LINK, it, ("it:1",), None, 0.0)
        self.honest.engine.link_up(HONEST_LINK, me, ("me:1",), None, 0.0)
        self._connect()

    def step(self) -> None:
        """Something honest, something hostile, and a little time."""
        for side in (self.victim, self.honest):
            if self._random.random() < 0.5:
                side.use(self._random)
        if self._random.random() < 0.1:
            self._come_and_go()
        self._attack()
        self.wait(self._random.choice([0.02, 0.02, 0.1, 0.5, 1.5, 4.0]))
        self.check()

    def end(self) -> None:
        """The hostile member goes; all that it said of itself goes as well, and nothing else."""
        for link in list(self._links):
            self._lose(link)
        self.honest.use(self._random)
        self.wait(3 * Timing().down_after)
        self.check()
        members = self.victim.engine.members()
        hidden = {Replica(m.name, m.incarnation) for m in members if m.status == "down"}
        left = {Replica(e[NAME], e[INCARNATION]) for e in _shown(self.victim.engine)}
        assert not left & hidden, f"{left & hidden} are down, and their presences are shown"
        self._check_sizes()

    # The hostile links.

    def _attack(self) -> None:
        if not self._links:
            self._connect()
        for frame in self.eve.frames():
            # The transport refuses what is larger, as tests/hostile/test_wire.py shows.
            fits = len(frame) <= FRAME_LIMIT
            if self._links and fits and not replaces_the_living(self.victim.engine, frame):
                self._say(self._random.choice(self._links), frame)

    def _say(self, link: int, frame: bytes) -> None:
        """As the transport does: whatever breaks the protocol closes the link, and costs a line."""
        self.last = frame
        try:
            self.victim.engine.receive(link, decode(frame), self.now)
        except ProtocolError:
            self._complaints += 1
            self._lose(link)
        self.pump()

    def _come_and_go(self) -> None:
        """A storm of links that open and close, some in a name that is not its own."""
        for _ in range(self._random.choice([1, 3, 20])):
            if self._links and self._random.random() < 0.6:
                self._lose(self._random.choice(self._links))
            else:
                self._connect()

    def _connect(self, dialled: str | None = None) -> None:
        replica = self.eve.me
        if self._random.random() < 0.1:  # another life of somebody who lives
            name = self._random.choice([*sorted(self._names), replica.name])
            replica = Replica(name, self._random.randint(1, 10**6) + 10**6)
        link = next(self._serial)
        self._links.append(link)
        self._opened += 1
        self.victim.engine.link_up(link, replica, ("eve:1",), dialled, self.now)
        self.pump()

    def _lose(self, link: int) -> None:
        self._links.remove(link)
        self.victim.engine.link_down(link, self.now)
        self.pump()

    # The world.

    def wait(self, seconds: float) -> None:
        """Let time pass, and let both engines do what is due."""
        until = self.now + seconds
        for _ in range(MOST_TURNS):
            due = min(self.victim.engine.wake_at, self.honest.engine.wake_at)
            self.now = min(max(due, self.now), until)
            for side in (self.victim, self.honest):
                side.engine.tick(self.now)
            self.pump()
            if due > until:
                return
        raise AssertionError("the engines do not come to rest")

    def pump(self) -> None:
        """Carry out what both engines ask for, until there is nothing more."""
        for _ in range(MOST_TURNS):
            effects = [(self.victim, e) for e in self.victim.engine.take_effects()]
            effects += [(self.honest, e) for e in self.honest.engine.take_effects()]
            for side, effect in effects:
                self._perform(side, effect)
            if not effects:
                return
        raise AssertionError("the engines do not come to rest")

    def _perform(self, side: Side, effect: Effect) -> None:
        match effect:
            case Send(links, message):
                data = encode(message)
                assert len(data) <= FRAME_LIMIT, f"a frame of {len(data)} bytes is to be sent"
                for link in links:
                    self._deliver(side, link, data)
            case Close(link, reason):
                assert link != HONEST_LINK, f"the honest link is closed: {reason}"
                if link in self._links:
                    self._lose(link)
            case Dial(address):
                self._answer(side, address)
            case Notice(severity, _):
                self._complaints += severity is not Severity.INFO

    def _deliver(self, side: Side, link: int, data: bytes) -> None:
        if link != HONEST_LINK:
            self.eve.hear(data)
            return
        other = self.honest if side is self.victim else self.victim
        other.engine.receive(HONEST_LINK, decode(data), self.now)

    def _answer(self, side: Side, address: str) -> None:
        """Whoever is dialled was told of by the hostile member: it answers, or nobody does."""
        if side is self.victim and self._random.random() < 0.3:
            self._connect(dialled=address)
        else:
            side.engine.dial_failed(address, self._random.random() < 0.5, self.now)

    # What must be true.

    def check(self) -> None:
        """Raise AssertionError if a law is broken."""
        for side in (self.victim, self.honest):
            self._check_view(side.engine)
            for other in (self.victim, self.honest):
                self._check_slice(side.engine, other)
        self._check_members()
        most = self._opened + self.now + 1
        assert self._complaints <= most, f"{self._complaints} log lines for {self._opened} links"

    def _check_view(self, engine: Engine) -> None:
        """It shows the honest presences, exactly, and of others only what is in their slices."""
        shown = _shown(engine)
        lives = {self.victim.engine.replica, self.honest.engine.replica}
        honest = [e for e in shown if Replica(e[NAME], e[INCARNATION]) in lives]
        tracked = [*self.victim.tracked.values(), *self.honest.tracked.values()]
        assert sorted(honest, key=identity) == sorted(tracked, key=identity)
        slices = engine.slices()
        for entry in shown:
            slice = slices[Replica(entry[NAME], entry[INCARNATION])]
            assert slice.entries.get(entry[ID]) == entry, f"{entry} is shown, and in no slice"
        assert engine.shown == len(shown), "what slices hold and what is shown differ"

    def _check_slice(self, engine: Engine, owner: Side) -> None:
        """The slice of an honest node is what that node says, and never goes back."""
        own = owner.engine.own_slice
        held = engine.slices()[owner.engine.replica]
        assert held.horizon == own.horizon >= owner.horizon
        assert held.entries == own.entries
        assert all(entry[VERSION] <= held.horizon for entry in held.entries.values())
        owner.horizon = own.horizon

    def _check_members(self) -> None:
        it = self.honest.engine.replica
        known = {(m.name, m.incarnation): m for m in self.victim.engine.members()}
        assert known[it].linked
        assert known[it].status in ("up", "suspect")
        living = [m for m in known.values() if m.name == it.name and m.status != "left"]
        assert len(living) == 1, "a life that was invented took the name of one that lives"

    def _check_sizes(self) -> None:
        """No structure holds more than the members, or the history of what there is."""
        entries = sum(len(slice.entries) for slice in self.victim.engine.slices().values())
        size, where = longest_container(self.victim.engine)
        assert size <= MAX_MEMBERS + 2 * (SPARE_HISTORY + entries), f"{where} holds {size} items"


def _shown(engine: Engine) -> list[Entry]:
    return list(_entries(engine))


def _entries(engine: Engine) -> Iterator[Entry]:
    for topic in engine.view.topics:
        yield from engine.view.all_entries(topic)
