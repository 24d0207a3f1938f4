"""Faults of the simulated network as data: lines cut, slow, narrow and severed."""

from random import Random

from .faults import LARGE, MESSAGE_SIZES, PLACES, TOPICS, Faults, Luck, Step

#: Bytes a second of a narrow line; enough for its link to be kept.
NARROW = 200_000.0
#: Seconds that a frame takes on a slow line, least and most.
SLOW = (0.05, 0.4)


class NetworkFaults(Faults):
    """Performs steps in a simulation on the network."""

    def heal_medium(self) -> None:
        """See `Faults`."""
        self.simulation.heal()
        usual = self.simulation.network.usual
        usual.bandwidth, usual.loss = float("inf"), 0.0

    def cut(self, source: str, target: str) -> None:
        """Cut one direction between two places."""
        self.simulation.network.cut(source, target)

    def part(self, *sides: list[str]) -> None:
        """Cut all lines between places of different sides."""
        self.simulation.partition(*sides)

    def heal(self) -> None:
        """Make every line as usual."""
        self.simulation.heal()

    def sever(self, place: str, other: str) -> None:
        """Break the links between two places; frames under way may be lost."""
        for link in self.simulation.network.between(place, other):
            self.simulation.network.sever(link)

    def slow(self, source: str, target: str) -> None:
        """Make one direction slow and jittery."""
        self.simulation.network.line(source, target).latency = SLOW

    def narrow(self, bandwidth: float) -> None:
        """Set the bandwidth, in bytes a second, of every line that was not altered itself."""
        self.simulation.network.usual.bandwidth = bandwidth


class NetworkLuck(Luck):
    """Draws steps for a cluster on the network."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        rare = [self.jump, self.churn, self.squeeze, self.stop, self.join, self.slow, self.split]
        rare += [self.heal, self.heal, self.cut, self.sever, self.roll, self.double, self.interrupt]
        rare += [self.depart, self.depart, self.publish, self.publish, self.break_off]
        rare += [self.reload, self.reload, self.reload]
        usual = [self.use] * 14 + [self.crash, self.pause] * 2
        self.kinds = [*usual, *rare]

    def part(self, place: str, other: str) -> list[Step]:
        """See `Luck`."""
        return [*self._step("cut", place, other), *self._step("cut", other, place)]

    def cut(self) -> list[Step]:
        """A line is cut, in one direction or both."""
        source, target = self._random.sample(PLACES[:5], 2)
        steps = self._step("cut", source, target)
        return steps + self._step("cut", target, source) if self._chance() else steps

    def split(self) -> list[Step]:
        """The places are parted into two sides."""
        places = list(PLACES)
        self._random.shuffle(places)
        cut = self._random.randint(1, len(places) - 1)
        return self._step("part", sorted(places[:cut]), sorted(places[cut:]))

    def heal(self) -> list[Step]:
        """Every line becomes usual."""
        return self._step("heal")

    def sever(self) -> list[Step]:
        """The links between two places break."""
        return self._step("sever", *self._random.sample(PLACES[:5], 2))

    def slow(self) -> list[Step]:
        """A line becomes slow."""
        return self._step("slow", *self._random.sample(PLACES[:5], 2))

    def squeeze(self) -> list[Step]:
        """All lines become narrow, or wide again."""
        return self._step("narrow", self._random.choice([NARROW, float("inf"), float("inf")]))

    def interrupt(self) -> list[Step]:
        """A large transfer that is interrupted, sometimes more than once."""
        place, other = self._random.sample(PLACES[:4], 2)
        steps = [Step("track", (place, TOPICS[1], "large", LARGE), 0.0)]
        for _ in range(self._random.choice([1, 1, 3])):
            steps.append(Step("sever", (place, other), self._random.choice([0.002, 0.004, 0.01])))
        return steps + self._step("untrack", place, 0, LARGE)

    def break_off(self) -> list[Step]:
        """Large messages whose links break, or whose sender dies, in the middle."""
        place, other = self._random.sample(PLACES[:4], 2)
        steps = [Step("narrow", (NARROW,), 0.0)] if self._chance() else []
        steps.append(Step("publish", (place, MESSAGE_SIZES[-1], 3), 0.002))
        for _ in range(self._random.choice([1, 3])):
            steps.append(Step("sever", (place, other), self._random.choice([0.002, 0.3])))
        steps += self._step("crash", place) if self._chance() else []
        return [*steps, *self._step("narrow", float("inf"))]
