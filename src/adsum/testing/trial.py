"""A cluster put to the test: bad luck from a seed, laws at every step, agreement at the end.

A trial that fails is cut down to the shortest schedule that still fails, and tells it, with a trace
of what happened last and with how to replay it.

Example:
    >>> from adsum.testing import Trial
    >>> Trial.from_seed(17).run()
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, Self

from adsum.replication.limits import MAX_IN_FLIGHT
from adsum.replication.timing import Timing

from .faults import TOPICS, Faults, Step, schedule
from .laws import BrokenLawError
from .shrinking import shorten
from .simulation import Simulation

#: How many steps a trial has.
LENGTH = 100
#: The probability that a frame is lost, in the trials that lose frames; real links lose none.
LOSS = 0.2
#: A trace is told from so many lines before its end, without what goes on all the time.
TOLD_LINES = 60
_REPLAY = "python -m adsum.testing --replay"
_ROUTINE = re.compile(r"-> \S+  (heartbeat|digest)( |$)")
#: Cutting a schedule down ends after so many runs.
MOST_RUNS = 400


@dataclass(frozen=True)
class Trial:
    """One run of bad luck, as data.

    Attributes:
        seed: All randomness in the simulation comes from it.
        nodes: How many nodes there are in the beginning.
        forget_after: See `Timing`. Where it is short, the trial waits until the dead are forgotten.
        loss: The part of all frames that is lost.
        length: What was asked for; a schedule may be a little longer.
        steps: What happens.
    """

    seed: int
    nodes: int
    forget_after: float
    loss: float
    length: int
    steps: tuple[Step, ...]

    @classmethod
    def from_seed(cls, seed: int, length: int = LENGTH) -> Self:
        """Return the trial of a seed: the same one for every caller.

        Args:
            seed: Any integer. Of eight consecutive seeds, one loses frames.
            length: The least number of steps.
        """
        random = Random(f"trial {seed}")
        nodes, forget_after = random.randint(2, 5), random.choice([20.0, 1200.0])
        loss = LOSS if seed % 8 == 7 else 0.0
        return cls(seed, nodes, forget_after, loss, length, tuple(schedule(random, length)))

    def run(self, trace: Callable[[str], None] | None = None) -> None:
        """Let it happen.

        Args:
            trace: Called with a line for each thing that happens.

        Raises:
            BrokenLawError: A law does not hold; names it, the place, the time and the seed.
        """
        simulation = Simulation(
            self.nodes,
            seed=self.seed,
            timing=Timing(forget_after=self.forget_after),
            unobserved=TOPICS[-1:],
            trace=trace,
        )
        simulation.network.usual.loss = self.loss
        faults = Faults(simulation)
        for step in self.steps:
            faults.perform(step)
        faults.end()
        if self.loss:  # a request whose answer was lost is made again
            simulation.run(2 * simulation.timing.sync_timeout)
        simulation.run(simulation.lingering())
        simulation.settle()
        simulation.check_agreement()
        _check_queues(simulation)
        _check_rest(simulation)
        if self.forget_after < 60.0:
            _check_memory(simulation)

    def passes(self) -> bool:
        """Whether it runs without an error."""
        try:
            self.run()
        except Exception:
            return False
        return True

    def shrunk(self, most_runs: int = MOST_RUNS) -> "Trial":
        """The shortest trial found that fails as well: part after part is left out."""
        steps = shorten(self.steps, lambda rest: not replace(self, steps=rest).passes(), most_runs)
        return replace(self, steps=steps)

    def report(self, shortest: "Trial | None" = None) -> str:
        """Why it fails: its shortest form, step by step, and what happened last in it.

        Args:
            shortest: What `shrunk` has found, if it was asked already.
        """
        shortest = shortest or self.shrunk()
        lines: list[str] = []
        try:
            shortest.run(lines.append)
        except Exception as error:
            lines.append(f"{type(error).__name__}: {error}")
        telling = [line for line in lines if not _ROUTINE.search(line)]
        return "\n".join(
            [
                f"seed {self.seed} breaks a law: {lines[-1]}",
                f"{len(shortest.steps)} of its {len(self.steps)} steps do, with {self.nodes} "
                f"nodes, forget_after {self.forget_after:g} s and {self.loss:.0%} loss:",
                *(f"  {number:3} {step}" for number, step in enumerate(shortest.steps, 1)),
                f"its trace, {len(lines)} lines, without heartbeats and digests:",
                *(f"  {line}" for line in telling[-TOLD_LINES:]),
                f"replay: {self.how_to_replay}",
            ]
        )

    @property
    def how_to_replay(self) -> str:
        """A shell command that runs exactly this trial, and prints the report if it fails.

        A trial that differs from the trial of its seed is part of the command.
        """
        if self != Trial.from_seed(self.seed, self.length):
            return f"{_REPLAY}-file /dev/stdin <<'END'\n{self.to_json()}\nEND"
        length = "" if self.length == LENGTH else f" --steps {self.length}"
        return f"{_REPLAY} {self.seed}{length}"

    def to_json(self) -> str:
        """The trial as text, to be kept: a step a line."""
        fields = {key: value for key, value in asdict(self).items() if key != "steps"}
        steps = ",\n  ".join(json.dumps(step) for step in self.steps)
        return f'{json.dumps(fields)[:-1]}, "steps": [\n  {steps}\n]}}'

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The trial that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        steps = [Step(what, tuple(arguments), wait) for what, arguments, wait in fields["steps"]]
        return cls(**(fields | {"steps": tuple(steps)}))


def _check_rest(simulation: Simulation) -> None:
    """Check that traffic returns to that of an idle cluster: a heartbeat over every link."""
    beats = 5
    nodes = len(simulation.alive)
    before = simulation.network.frames
    simulation.run(beats * simulation.timing.heartbeat_interval)
    frames = simulation.network.frames - before
    most = (beats + 1) * nodes * (nodes - 1)
    if frames > most:
        raise BrokenLawError(
            f"{simulation.where}: {frames} frames in {beats} idle heartbeats; {most} at most"
        )


def _check_queues(simulation: Simulation) -> None:
    """Check that what waited for a peer was bounded: what may be under way, and as much again.

    A peer that does not read is sent nothing large. What comes on top is the flush that was under
    way, and the heartbeats, questions and digests until its link is closed.
    """
    waited = simulation.network.most_waiting
    if waited > 2 * MAX_IN_FLIGHT:
        raise BrokenLawError(f"{simulation.where}: {waited} bytes waited for one peer")


def _check_memory(simulation: Simulation) -> None:
    """Check that the dead are forgotten everywhere."""
    timing = simulation.timing
    simulation.run(timing.forget_after + 3 * timing.down_after)
    alive = sorted(node.name for node in simulation.alive)
    for node in simulation.alive:
        known = [member.name for member in node.engine.members()]
        if known != alive:
            raise BrokenLawError(f"{simulation.where}: {node.place} remembers {known}, not {alive}")
