"""Trials: random faults from a seed, with laws checked at every step and agreement at the end.

The schedule of a failed trial is shortened while it still fails. The report shows the shortest
schedule found, the end of its trace, and a command to replay it.

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

#: Steps of a trial, at least.
LENGTH = 100
#: The probability that a frame is lost, in the trials that lose frames; real links lose none.
LOSS = 0.2
#: Lines of a trace that a report shows, from its end, without heartbeats and digests.
SHOWN_LINES = 60
_REPLAY = "python -m adsum.testing --replay"
_ROUTINE = re.compile(r"-> \S+  (heartbeat|digest)( |$)")
#: Runs after which the shortening of a schedule ends.
MOST_RUNS = 400


@dataclass(frozen=True)
class Trial:
    """A simulated cluster under a random schedule of faults, as data.

    Attributes:
        seed: All randomness in the simulation comes from it.
        nodes: The number of nodes at the beginning.
        forget_after: Seconds, see `Timing`. If it is below 60, the trial also waits until the dead
            are forgotten, and checks that they are.
        loss: The fraction of frames, from 0 to 1, that is lost.
        length: The requested number of steps; a schedule may be a little longer.
        steps: The schedule.
    """

    seed: int
    nodes: int
    forget_after: float
    loss: float
    length: int
    steps: tuple[Step, ...]

    @classmethod
    def from_seed(cls, seed: int, length: int = LENGTH) -> Self:
        """Make the trial of a seed: the same one for every caller.

        Args:
            seed: Any integer. Of eight consecutive seeds, one loses frames.
            length: The least number of steps.
        """
        random = Random(f"trial {seed}")
        nodes, forget_after = random.randint(2, 5), random.choice([20.0, 1200.0])
        loss = LOSS if seed % 8 == 7 else 0.0
        return cls(seed, nodes, forget_after, loss, length, tuple(schedule(random, length)))

    def run(self, trace: Callable[[str], None] | None = None) -> None:
        """Run the schedule in a new simulation and check every law.

        Args:
            trace: Called with a line for each event.

        Raises:
            BrokenLawError: A law does not hold; the message names the failure, the place, the time
                and the seed.
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
        if self.loss:  # a request is sent again if its answer was lost
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
        """The shortest trial found that still fails: parts of the schedule are left out."""
        steps = shorten(self.steps, lambda rest: not replace(self, steps=rest).passes(), most_runs)
        return replace(self, steps=steps)

    def report(self, shortest: "Trial | None" = None) -> str:
        """Describe the failure: the shortest failing schedule, and the end of its trace.

        Args:
            shortest: The result of `shrunk`, if known; by default it is computed.
        """
        shortest = shortest or self.shrunk()
        lines: list[str] = []
        try:
            shortest.run(lines.append)
        except Exception as error:
            lines.append(f"{type(error).__name__}: {error}")
        relevant = [line for line in lines if not _ROUTINE.search(line)]
        return "\n".join(
            [
                f"seed {self.seed} breaks a law: {lines[-1]}",
                f"{len(shortest.steps)} of its {len(self.steps)} steps do, with {self.nodes} "
                f"nodes, forget_after {self.forget_after:g} s and {self.loss:.0%} loss:",
                *(f"  {number:3} {step}" for number, step in enumerate(shortest.steps, 1)),
                f"its trace, {len(lines)} lines, without heartbeats and digests:",
                *(f"  {line}" for line in relevant[-SHOWN_LINES:]),
                f"replay: {self.how_to_replay}",
            ]
        )

    @property
    def how_to_replay(self) -> str:
        """A shell command that runs exactly this trial, and prints the report if it fails.

        The command contains the schedule if it differs from that of the seed.
        """
        if self != Trial.from_seed(self.seed, self.length):
            return f"{_REPLAY}-file /dev/stdin <<'END'\n{self.to_json()}\nEND"
        length = "" if self.length == LENGTH else f" --steps {self.length}"
        return f"{_REPLAY} {self.seed}{length}"

    def to_json(self) -> str:
        """The trial as JSON text for a file, with a step a line."""
        fields = {key: value for key, value in asdict(self).items() if key != "steps"}
        steps = ",\n  ".join(json.dumps(step) for step in self.steps)
        return f'{json.dumps(fields)[:-1]}, "steps": [\n  {steps}\n]}}'

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a trial that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        steps = [Step(name, tuple(arguments), wait) for name, arguments, wait in fields["steps"]]
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
    """Check that the bytes waiting for a peer were bounded, by twice `MAX_IN_FLIGHT`.

    Nothing large is sent to a peer that does not read. Beyond the bytes that may be in flight only
    the flush that was under way waits for it, and the heartbeats, requests and digests until its
    link is closed.
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
