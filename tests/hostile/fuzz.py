"""Attacks from seeds, made step by step, since the hostile member answers what it hears.

The seed decides how the hostile member is inclined. It stands for the same attack only as long as
attacks are made, and engines answer, as they do now; a `RecordedAttack` has the steps themselves.
"""

from itertools import count
from random import Random
from typing import Any

from adsum.replication.state import Replica

from .adversary import KEYS, TOPICS, Adversary
from .attack_simulation import HONEST_LINK, AttackSimulation, Members, Step
from .recorded_attack import RecordedAttack

#: The rounds of an attack; each has several steps.
ROUNDS = 40


def attack(seed: int) -> RecordedAttack | None:
    """Make and run the attack of a seed; returns it if it breaks a law, up to that step."""
    fuzz = Fuzz(seed)
    try:
        for _ in range(ROUNDS):
            fuzz.round()
        fuzz.scene.end()
    except Exception:
        return RecordedAttack(seed, fuzz.members, tuple(fuzz.steps))
    return None


class Fuzz:
    """Makes steps at random, does each of them, and keeps them."""

    def __init__(self, seed: int) -> None:
        self._random = random = Random(f"hostile {seed}")
        names = random.sample(["a", "b", "c"], 3)
        self.members = Members(*(Replica(name, random.randint(1, 10**6)) for name in names))
        victim, honest, hostile = self.members
        self._adversary = Adversary(random, hostile, (victim, honest))
        self.steps: list[Step] = []
        self.scene = AttackSimulation(seed, self.members, self._adversary.hear)
        self._serial = count(HONEST_LINK + 1)

    def round(self) -> None:
        """Something honest, something hostile, and a little time."""
        for side in (0, 1):
            if self._random.random() < 0.5:
                self._use(side)
        if self._random.random() < 0.1:
            self._come_and_go()
        if not self.scene.links:
            self._connect()
        for frame in self._adversary.frames():
            if self.scene.links:
                self._do("say", self._random.choice(self.scene.links), frame.decode("latin-1"))
        self._do("wait", self._random.choice([0.02, 0.02, 0.1, 0.5, 1.5, 4.0]))

    def _use(self, side: int) -> None:
        """A user comes, changes or goes."""
        if self._random.random() < 0.4:
            self._do("track", side, self._random.choice(TOPICS), self._random.choice(KEYS))
        elif self._random.random() < 0.5:
            self._do("untrack", side, self._random.randrange(100))
        else:
            self._do("update", side, self._random.randrange(100), self._random.randrange(100))

    def _come_and_go(self) -> None:
        """A storm of links that open and close, some in a name that is not its own."""
        for _ in range(self._random.choice([1, 3, 20])):
            if self.scene.links and self._random.random() < 0.6:
                self._do("lose", self._random.choice(self.scene.links))
            else:
                self._connect()

    def _connect(self) -> None:
        replica = self.members.hostile
        if self._random.random() < 0.1:  # another life of a node that lives
            name = self._random.choice(sorted(member.name for member in self.members))
            replica = Replica(name, self._random.randint(1, 10**6) + 10**6)
        self._do("connect", next(self._serial), *replica)

    def _do(self, what: str, *arguments: Any) -> None:
        self.steps.append(Step(what, arguments))
        self.scene.perform(self.steps[-1])
