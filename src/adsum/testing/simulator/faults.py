"""Faults and changes of a cluster as data: schedules that can be saved, replayed and shortened.

A step that is not possible does nothing, for example to crash a node that does not run, or to
update a presence that is not tracked. So any part of a schedule is a schedule too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from adsum.replication.entry import ID, KEY, TOPIC
from adsum.replication.grace import PASSING, Claim
from adsum.replication.limits import PIECE
from adsum.replication.messages import Publish

from .laws import RECORDED_TOPIC
from .simulatednode import SimulatedNode
from .simulation import Simulation

TOPICS = ("a", "b", "unobserved")
#: The places of a cluster; nodes at the later places start late, or never.
PLACES = tuple(f"n{number}" for number in range(1, 8))
#: A second place, for a node with the name of the first.
DOUBLE = "double"
#: Seconds after a step without another one.
WAITS = (0.0, 0.001, 0.01, 0.1, 1.0, 3.0, 10.0)
#: Presences tracked and untracked by one step: more removals than the history of a slice keeps.
CHURN = 1300
#: Presences tracked at once by one step: their transfer takes several frames.
LARGE = 600
#: Characters of the text in a published JSON object, at most.
MAX_TEXT = 50_000
#: Bytes of a published message of bytes: some of one piece, and of many.
MESSAGE_SIZES = (0, 100, PIECE, PIECE + 1, 300_000, 1_000_000)


class Step(NamedTuple):
    """One method of `Faults` with its arguments, and the seconds to wait after it."""

    name: str
    arguments: tuple[Any, ...]
    wait: float

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))}), then {self.wait:g} s"


class Faults(ABC):
    """Performs steps in a simulation; a subclass has those of its medium."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def perform(self, step: Step) -> None:
        """Perform a step, then let its waiting time pass."""
        self.simulation.trace("*** {}", step)
        getattr(self, step.name)(*step.arguments)
        self.simulation.run(step.wait)

    def end(self) -> None:
        """End every fault: heal the medium, and let each place run one node with its own name.

        A clock that is behind is corrected; one that is ahead needs no correction.
        """
        self.simulation.trace("*** all faults end")
        self.heal_medium()
        self.crash(DOUBLE)
        for place in PLACES:
            if place in self.simulation.nodes:
                self.start(place)
                node = self.simulation.node(place)
                node.set_clock(max(0.0, -node.clock_offset))  # or its timers stand still
                node.resume()

    @abstractmethod
    def heal_medium(self) -> None:
        """End every fault of the network or the bus."""

    def check_end(self) -> None:  # noqa: B027  # a medium may have no laws of its own
        """Check the laws of the medium that hold once all faults have ended.

        Raises:
            BrokenLawError: One does not.
        """

    # Changes by applications.

    def track(self, place: str, topic: str, key: str, count: int) -> None:
        """Track `count` presences."""
        if (node := self._awake(place)) is not None:
            for number in range(count):
                node.track(topic, f"{key}.{number}" if number else key, {"n": number})

    def update(self, place: str, pick: int, value: int) -> None:
        """Update one tracked presence."""
        node = self._awake(place)
        if node is not None and node.own_entries:
            entry = list(node.own_entries.values())[pick % len(node.own_entries)]
            node.update(entry, {"v": value})

    def untrack(self, place: str, pick: int, count: int) -> None:
        """Untrack `count` presences."""
        if (node := self._awake(place)) is not None:
            for _ in range(min(count, len(node.own_entries))):
                node.untrack(list(node.own_entries.values())[pick % len(node.own_entries)])

    def churn(self, place: str, count: int) -> None:
        """Track and untrack more than the history of a slice keeps, so peers may need a reset."""
        if (node := self._awake(place)) is not None:
            for number in range(count):
                node.untrack(node.track(TOPICS[-1], f"churn {number}"))

    def publish(self, place: str, size: int, count: int) -> None:
        """Publish messages to all nodes: JSON objects and bytes in turn, of about `size` bytes."""
        if (node := self._awake(place)) is not None:
            for message in self._messages(node, size, count):
                node.post(message, None)

    # Grace. Session 0 is an owner that never comes back under the same identity.

    def lose(self, place: str, topic: str, key: str, session: int, linger: float) -> None:
        """Break the presences of a key that do not linger yet."""
        if (node := self._awake(place)) is not None:
            for entry in [*node.own_entries.values()]:
                if (entry[TOPIC], entry[KEY]) == (topic, key) and not node.lingers(entry):
                    node.linger(entry, linger, _claim(session, entry[ID]))

    def return_(self, place: str, topic: str, key: str, session: int, value: int) -> None:
        """Let an owner of a key come back, or come for the first time."""
        if (node := self._awake(place)) is not None:
            meta = f'{{"v":{value}}}'
            if node.take_over(topic, key, meta, _claim(session, -1)) is None:
                node.track(topic, key, meta)

    def log_out(self, place: str, session: int) -> None:
        """Let an owner end its presences that linger."""
        if (node := self._awake(place)) is not None:
            for entry in node.lingering_of(_claim(session, -1)):
                node.untrack(entry)

    # Faults of processes.

    def crash(self, place: str) -> None:
        """Kill a process."""
        if (node := self._running(place)) is not None:
            self.simulation.kill(node.place)

    def stop(self, place: str, linger: float) -> None:
        """Stop a node with a goodbye."""
        if (node := self._awake(place)) is not None:
            self.simulation.stop(node.place, linger)

    def start(self, place: str, clock_back: bool = False) -> None:
        """Start a node, for the first time or again."""
        if self._running(place) is None:
            self.simulation.start(place, clock_back=clock_back)

    def double(self) -> None:
        """Start a second node with the name of the first."""
        if self._running(DOUBLE) is None:
            self.simulation.start(PLACES[0], at=DOUBLE)
            self.track(DOUBLE, TOPICS[0], "double", 1)

    def pause(self, place: str) -> None:
        """Suspend a process, as SIGSTOP does."""
        if (node := self._running(place)) is not None:
            node.pause()

    def resume(self, place: str) -> None:
        """Resume a suspended process."""
        if (node := self._running(place)) is not None:
            node.resume()

    def set_clock(self, place: str, seconds: float) -> None:
        """Let the monotonic clock of a node jump, although no monotonic clock should."""
        if (node := self._running(place)) is not None:
            node.set_clock(seconds)

    def _messages(
        self, node: SimulatedNode, size: int, count: int, topic: str = RECORDED_TOPIC
    ) -> Iterator[Publish]:
        """Messages to publish: bytes and JSON objects in turn, each recorded before."""
        for number in range(count):
            ledger, as_bytes = self.simulation.ledger, number % 2 == 0
            fitting = size if as_bytes else min(size, MAX_TEXT)
            yield ledger.new_message(node.replica, fitting, as_bytes=as_bytes, topic=topic)

    def _running(self, place: str) -> SimulatedNode | None:
        node = self.simulation.nodes.get(place)
        return node if node is not None and node.running else None

    def _awake(self, place: str) -> SimulatedNode | None:
        node = self._running(place)
        return node if node is not None and not node.paused else None


def _claim(session: int, id: int) -> Claim:
    """The claim of a session; that of session 0 differs for each presence."""
    if session:
        return Claim(f"session {session}", f"session {session}")
    return Claim(f"task {id}", PASSING)


class Luck(ABC):
    """Draws groups of steps that belong together.

    Args:
        random: The source of randomness.

    Attributes:
        kinds: The groups to draw from; a group that is listed more often is drawn more often.
    """

    kinds: list[Callable[[], list[Step]]]

    def __init__(self, random: Random) -> None:
        self._random = random

    def schedule(self, length: int) -> list[Step]:
        """Draw a random schedule.

        Args:
            length: The least number of steps; a draw adds several at once, so there may be more.
        """
        steps: list[Step] = []
        while len(steps) < length:
            steps += self._random.choice(self.kinds)()
        return steps

    @abstractmethod
    def part(self, place: str, other: str) -> list[Step]:
        """A fault after which frames of one place do not reach another."""

    def use(self) -> list[Step]:
        """A change by an application."""
        place, pick = self._place(), self._random.randrange(1000)
        if self._random.random() < 0.3:
            return self._step("update", place, pick, self._random.randrange(1000))
        if self._random.random() < 0.4:
            return self._step("untrack", place, pick, self._random.choice([1, 1, 1, 3, 50]))
        count = self._random.choice([1] * 30 + [20] * 5 + [600])
        key = f"k{self._random.randrange(20)}"
        return self._step("track", place, self._random.choice(TOPICS), key, count)

    def crash(self) -> list[Step]:
        """A process is killed, and may start again."""
        place, back = self._place(), self._random.random() < 0.1
        steps = self._step("crash", place)
        return steps + self._step("start", place, back) if self._chance() else steps

    def stop(self) -> list[Step]:
        """A node stops with a goodbye, and starts again."""
        place, linger = self._place(), self._random.choice([0.0, 2.0, 20.0])
        return self._step("stop", place, linger) + self._step("start", place)

    def roll(self) -> list[Step]:
        """A rolling restart: each of three nodes stops with a goodbye, and soon starts again."""
        steps: list[Step] = []
        for place in self._random.sample(PLACES[:4], 3):
            steps += self._step("stop", place, 3.0) + self._step("start", place)
            steps += self._step("track", place, TOPICS[0], f"again {place}", 1)
        return steps

    def depart(self) -> list[Step]:
        """A goodbye that not every node receives, and a node that starts while it lingers."""
        place, other, newcomer = self._random.sample(PLACES[:5], 3)
        steps = self._step("track", place, TOPICS[0], f"lingers {place}", 1)
        hindrances = [
            self.part(place, other),
            self._step("pause", other),
            self._step("crash", newcomer),
            self._step("stop", other, 8.0),
            [],
        ]
        steps += self._random.choice(hindrances) + self._step("stop", place, 8.0)
        steps += self._step("resume", other) + self._step("crash", newcomer)
        steps += self._step("start", newcomer)
        return steps + self._step("start", place) if self._chance() else steps

    def reload(self) -> list[Step]:
        """A broken presence whose owner comes back, elsewhere or too late, or leaves for good."""
        random = self._random
        place, other = random.sample(PLACES[:5], 2)
        topic, session = random.choice(TOPICS), random.choice([0, 0, 1, 2])
        key, linger = f"r{random.randrange(4)}", random.choice([0.5, 3.0, 8.0])
        steps = self._step("track", place, topic, key, random.choice([1, 1, 2]))
        steps += self._step("lose", place, topic, key, session, linger)
        hindrances = [
            [*self._step("pause", place), *self._step("resume", place)],
            self.part(place, other),
            self._step("crash", place),
            self._step("stop", place, 8.0),
            self._step("lose", other, topic, key, session, linger),
            self._step("log_out", place, session),
        ]
        steps += random.choice([[], [], *hindrances])
        for back in random.sample([place, place, other], random.randint(0, 2)):
            came = random.choice([session, session, session, 0, 1])
            steps += self._step("return_", back, topic, key, came, random.randrange(3))
        if self._chance():
            steps += self._step("lose", place, topic, key, random.choice([session, 0]), linger)
        return steps + self._step("start", place)

    def join(self) -> list[Step]:
        """Starts a node that may not run yet, or never ran."""
        return self._step("start", self._random.choice(PLACES))

    def double(self) -> list[Step]:
        """Two nodes with one name."""
        return self._step("double") + (self._step("crash", DOUBLE) if self._chance() else [])

    def pause(self) -> list[Step]:
        """A process is suspended for a while."""
        place = self._place()
        return self._step("pause", place) + self._step("resume", place)

    def jump(self) -> list[Step]:
        """A monotonic clock jumps."""
        seconds = self._random.choice([-50.0, -0.5, 5.0, 3600.0])
        return self._step("set_clock", self._place(), seconds)

    def churn(self) -> list[Step]:
        """More removals than the history of a slice keeps."""
        return self._step("churn", self._place(), CHURN) if self._random.random() < 0.3 else []

    def publish(self) -> list[Step]:
        """Messages to all nodes."""
        size = self._random.choice(MESSAGE_SIZES)
        return self._step("publish", self._place(), size, self._random.choice([1, 2, 5]))

    def _step(self, name: str, *arguments: Any) -> list[Step]:
        return [Step(name, arguments, self._random.choice(WAITS))]

    def _place(self) -> str:
        return self._random.choice(PLACES[:5])

    def _chance(self) -> bool:
        return self._random.random() < 0.6
