"""One attack of the fuzz as data, to be kept, replayed and shortened."""

import json
from dataclasses import dataclass, replace
from typing import Any, Self

from adsum.replication.state import Replica
from adsum.testing.simulator.shrinking import shorten

from .attack_simulation import AttackSimulation, Members, Step

#: Runs after which an attack is not shortened any further.
MOST_RUNS = 400
#: Characters of a step in a report.
_MOST_SHOWN = 500


@dataclass(frozen=True)
class RecordedAttack:
    """The members of a scene, and what happens to them.

    Attributes:
        seed: See `AttackSimulation`.
        members: See `AttackSimulation`.
        steps: See `Step`.
    """

    seed: int
    members: Members
    steps: tuple[Step, ...]

    def failure(self) -> str | None:
        """Run it; returns the law that is broken, or None."""
        simulation = AttackSimulation(self.seed, self.members)
        try:
            for step in self.steps:
                simulation.perform(step)
            simulation.end()
        except Exception as error:
            return f"t={simulation.now:.3f}: {type(error).__name__}: {error}"
        return None

    def shortened(self) -> Self:
        """The shortest part of it found that fails as well."""

        def fails(steps: tuple[Step, ...]) -> bool:
            return replace(self, steps=steps).failure() is not None

        return replace(self, steps=shorten(self.steps, fails, MOST_RUNS))

    def report(self) -> str:
        """The law that it breaks, and its steps."""
        steps = [
            f"  {number:3} {step!s:.{_MOST_SHOWN}}" for number, step in enumerate(self.steps, 1)
        ]
        members = ", ".join(f"{role} {name}" for role, (name, _) in self.members._asdict().items())
        return "\n".join([f"seed {self.seed}, {self.failure()}", f"{members}:", *steps])

    def to_json(self) -> str:
        """The case as text, to be kept: a step a line."""
        fields = {"seed": self.seed, "members": self.members}
        steps = ",\n  ".join(json.dumps([step.what, *step.arguments]) for step in self.steps)
        return f'{json.dumps(fields)[:-1]}, "steps": [\n  {steps}\n]}}'

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The case that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        steps = [Step(what, tuple(arguments)) for what, *arguments in fields["steps"]]
        members = Members(*(Replica(*member) for member in fields["members"]))
        return cls(fields["seed"], members, tuple(steps))
