"""Trials: random faults from a seed, with laws checked at every step and agreement at the end.

The schedule of a failed trial is shortened while it still fails. The report shows the shortest
schedule found, the end of its trace, and a command to replay it.

Example:
    >>> from adsum.testing import Trial
    >>> Trial.from_seed(17).run()
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, NamedTuple, Self

from adsum.bus.limits import PROBE_INTERVAL
from adsum.replication.limits import MAX_IN_FLIGHT
from adsum.replication.timing import Timing

from .busfaults import BusFaults, BusLuck
from .faults import PLACES, TOPICS, Faults, Luck, Step
from .laws import BrokenLawError
from .networkfaults import NetworkFaults, NetworkLuck
from .networknode import SimulatedNetworkNode
from .shrinking import shorten
from .simulatedbusnode import SimulatedBusNode
from .simulatednode import SimulatedNode
from .simulation import Simulation

#: Steps of a trial, at least.
LENGTH = 100
#: The probability that a frame is lost, in the trials that lose frames; real links lose none.
LOSS = 0.2
#: The same on the bus. Each gap costs a request and an answer there, which are lost as well.
BUS_LOSS = 0.05
#: Lines of a trace that a report shows, from its end, without heartbeats and digests.
SHOWN_LINES = 60
_REPLAY = "python -m adsum.testing --replay"
_ROUTINE = re.compile(r"-> \S+  (heartbeat|digest)( |$)")
#: Runs after which the shortening of a schedule ends.
MOST_RUNS = 400


class Kind(NamedTuple):
    """How the nodes of a trial are connected."""

    node: type[SimulatedNode]
    faults: type[Faults]
    luck: type[Luck]
    loss: float


KINDS = {
    "network": Kind(SimulatedNetworkNode, NetworkFaults, NetworkLuck, LOSS),
    "bus": Kind(SimulatedBusNode, BusFaults, BusLuck, BUS_LOSS),
}


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
        medium: The key of `KINDS` that says how the nodes are connected.
    """

    seed: int
    nodes: int
    forget_after: float
    loss: float
    length: int
    steps: tuple[Step, ...]
    medium: str = "network"

    @classmethod
    def from_seed(cls, seed: int, length: int = LENGTH, medium: str = "network") -> Self:
        """Make the trial of a seed: the same one for every caller.

        Args:
            seed: Any integer. Of eight consecutive seeds, one loses frames.
            length: The least number of steps.
            medium: A key of `KINDS`.
        """
        random, kind = Random(f"trial {seed}"), KINDS[medium]
        nodes, forget_after = random.randint(2, 5), random.choice([20.0, 1200.0])
        loss = kind.loss if seed % 8 == 7 else 0.0
        steps = tuple(kind.luck(random).schedule(length))
        return cls(seed, nodes, forget_after, loss, length, steps, medium)

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
            kind=KINDS[self.medium].node,
            trace=trace,
        )
        simulation.network.usual.loss = simulation.bus.loss = self.loss
        faults = KINDS[self.medium].faults(simulation)
        for step in self.steps:
            faults.perform(step)
        faults.end()
        if self.loss:  # a request is sent again if its answer was lost
            simulation.run(2 * simulation.timing.sync_timeout)
        simulation.run(simulation.lingering())
        simulation.settle()
        simulation.check_agreement()
        faults.check_end()
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
        if self != Trial.from_seed(self.seed, self.length, self.medium):
            return f"{_REPLAY}-file /dev/stdin <<'END'\n{self.to_json()}\nEND"
        length = "" if self.length == LENGTH else f" --steps {self.length}"
        medium = "" if self.medium == "network" else f" --on {self.medium}"
        return f"{_REPLAY} {self.seed}{length}{medium}"

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
    """Check that traffic returns to that of an idle cluster.

    On the network, that is a heartbeat over every link. On the bus, each node publishes a heartbeat
    once for all others, a probe every `PROBE_INTERVAL`, and one announcement at most.
    """
    beats, interval = 5, simulation.timing.heartbeat_interval
    nodes, network, bus = len(simulation.alive), simulation.network, simulation.bus
    before = network.frames, bus.messages
    simulation.run(beats * interval)
    frames, messages = network.frames - before[0], bus.messages - before[1]
    most_frames = (beats + 1) * nodes * (nodes - 1)
    most_messages = nodes * (1 + (beats + 1) * (1 + math.ceil(interval / PROBE_INTERVAL)))
    if frames > most_frames or messages > most_messages:
        raise BrokenLawError(
            f"{simulation.where}: {frames} frames and {messages} messages of the bus in {beats} "
            f"idle heartbeats; {most_frames} and {most_messages} at most"
        )


def _check_queues(simulation: Simulation) -> None:
    """Check that the bytes waiting for a peer were bounded, by twice `MAX_IN_FLIGHT`.

    Nothing large is sent to a peer that does not read. Beyond the bytes that may be in flight only
    the flush that was under way waits for it, and the heartbeats, requests and digests until its
    link is closed. On the bus the frames of all peers wait together.
    """
    waited = simulation.network.most_waiting
    if waited > 2 * MAX_IN_FLIGHT:
        raise BrokenLawError(f"{simulation.where}: {waited} bytes waited for one peer")
    waited = simulation.bus.most_waiting
    if waited > len(PLACES) * 2 * MAX_IN_FLIGHT:
        raise BrokenLawError(f"{simulation.where}: {waited} bytes waited for one client of the bus")


def _check_memory(simulation: Simulation) -> None:
    """Check that the dead are forgotten everywhere."""
    timing = simulation.timing
    simulation.run(timing.forget_after + 3 * timing.down_after)
    alive = sorted(node.name for node in simulation.alive)
    for node in simulation.alive:
        known = [member.name for member in node.engine.members()]
        if known != alive:
            raise BrokenLawError(f"{simulation.where}: {node.place} remembers {known}, not {alive}")
