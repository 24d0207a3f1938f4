"""How far a full mesh goes: clusters in virtual time, to 1,000 nodes and 1,000,000 presences.

python -m benchmarks.scale                  10 to 1,000 nodes with 1,000 presences each
python -m benchmarks.scale --nodes 10 100   these sizes, to the terminal only
python -m benchmarks.scale --nodes 480 --presences 100    fewer presences, for a shorter run

Times are virtual: what the protocol takes on a network with 0.2 to 2 ms of latency. Messages, bytes
and processor time are counted. The engines and the codec are the real ones, and each frame is
encoded once and decoded once for all who receive it. There is no kernel and no socket in it.
`benchmarks.scale_bus` has the same for a carrier.

In a large cluster only a few nodes keep what they are told. The others take in the versions and
leave out the entries, which no machine could hold a thousand times; what is sent is the same.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from adsum.replication.messages import Delta
from adsum.testing import Simulation
from adsum.testing.simulator.network import SimulatedFrame
from adsum.testing.simulator.networknode import SimulatedNetworkNode

SIZES = (10, 30, 100, 300, 1000)
PRESENCES_EACH = 1000
META = '{"device":"phone"}'
#: Entries that all nodes together may hold; beyond, only so many nodes keep what they are told.
MOST_HELD = 3_000_000
KEEPERS = 3
#: Bytes a second of each link while a cluster is filled.
BANDWIDTH = 10_000_000.0
#: Nodes of a cluster are started so many seconds after one another.
START_INTERVAL = 0.01
IDLE_SECONDS = 5.0
RESULT = Path(__file__).parent / "results" / "scale.md"


class LightNode(SimulatedNetworkNode):
    """A node that applies the versions of others, without the entries."""

    def frame_arrived(self, link: int, frame: SimulatedFrame) -> None:
        """See `Endpoint`."""
        if isinstance(frame.message, Delta) and frame.message.changes:
            light = SimulatedFrame(frame.data)
            light.__dict__["message"] = replace(frame.message, changes=())
            frame = light
        super().frame_arrived(link, frame)


@dataclass(frozen=True)
class Row:
    """What one size of cluster showed.

    Attributes:
        nodes: How many nodes.
        presences: How many presences.
        met: Seconds from the last start until every node has a link to every other.
        idle_messages: Messages a second, sent by each node, when nothing happens.
        idle_bytes: Their bytes.
        idle_cpu: Processor time of each node, in per cent of one core.
        loaded: Seconds from the tracking of all presences until every node has them.
        loaded_bytes: Bytes sent by each node meanwhile, for each presence of its own.
        loaded_cpu: Processor time of each node meanwhile, in seconds.
        change: Seconds until one more presence is shown everywhere.
        hidden: Seconds until a node that is killed is hidden everywhere.
        joined: Seconds until a newcomer shows everything.
        cost: Processor time of the whole run, in seconds.
    """

    nodes: int
    presences: int
    met: float
    idle_messages: float
    idle_bytes: float
    idle_cpu: float
    loaded: float
    loaded_bytes: float
    loaded_cpu: float
    change: float
    hidden: float
    joined: float
    cost: float


def measure(nodes: int, presences_each: int = PRESENCES_EACH) -> Row:
    """Form a cluster, leave it alone, fill it, change it, hurt it."""
    began = time.process_time()
    simulation = Simulation(0, seed=nodes, checked=False)
    keepers = nodes if nodes * nodes * presences_each <= MOST_HELD else KEEPERS
    for number in range(nodes):
        kind = SimulatedNetworkNode if number < keepers else LightNode
        simulation.create(f"n{number}", kind=kind).begin()
        simulation.run(START_INTERVAL)
    kept = [simulation.node(f"n{number}") for number in range(keepers)]

    def meshed() -> bool:
        return all(node.engine.links == nodes - 1 for node in simulation.alive)

    met = seconds_until(simulation, meshed)
    say(f"{nodes} nodes have met after {met:.1f} s, {time.process_time() - began:.0f} s of CPU")
    idle_messages, idle_bytes, idle_cpu = idle(simulation, nodes)
    say(f"idle: {idle_messages:.0f} messages, {idle_bytes:.0f} bytes, {100 * idle_cpu:.1f} % CPU")
    sent, presences = simulation.network.bytes, nodes * presences_each
    simulation.network.usual.bandwidth = BANDWIDTH
    cpu = time.process_time()
    for node in simulation.alive:
        for number in range(presences_each):
            node.engine.track(f"room:{number % 10}", f"{node.name} user {number}", META)
        node.wake()
    loaded = seconds_until(simulation, lambda: all(n.engine.shown >= presences for n in kept))
    loaded_bytes = (simulation.network.bytes - sent) / presences
    loaded_cpu = (time.process_time() - cpu) / nodes
    simulation.network.usual.bandwidth = float("inf")
    say(f"{presences} presences everywhere after {loaded:.2f} s")
    simulation.run(2.0)
    simulation.node("n0").track("room:0", "late")

    def seen() -> bool:
        return all(node.engine.view.entries("room:0", "late") for node in kept)

    change = seconds_until(simulation, seen, step=0.001)
    simulation.kill(f"n{nodes - 1}")
    left, kept = presences + 1 - presences_each, [node for node in kept if node.running]
    hidden = seconds_until(simulation, lambda: all(n.engine.shown == left for n in kept))
    newcomer = simulation.start("newcomer")
    joined = seconds_until(simulation, lambda: newcomer.engine.shown == left)
    cost = time.process_time() - began
    return Row(
        nodes,
        presences,
        met,
        idle_messages,
        idle_bytes,
        100 * idle_cpu,
        loaded,
        loaded_bytes,
        loaded_cpu,
        change,
        hidden,
        joined,
        cost,
    )


def idle(simulation: Simulation, nodes: int) -> tuple[float, float, float]:
    """Messages, bytes and processor time of each node in each second in which nothing happens."""
    simulation.run(2.0)
    network, cpu = simulation.network, time.process_time()
    frames, size = network.frames, network.bytes
    simulation.run(IDLE_SECONDS)
    each = nodes * IDLE_SECONDS
    spent = time.process_time() - cpu
    return (network.frames - frames) / each, (network.bytes - size) / each, spent / each


def seconds_until(
    simulation: Simulation, condition: Callable[[], bool], step: float = 0.01, most: float = 120.0
) -> float:
    """The virtual seconds until something is so."""
    began = simulation.clock.now
    while not condition():
        if simulation.clock.now - began > most:
            raise RuntimeError(f"not within {most:g} virtual seconds")
        simulation.run(step)
    return simulation.clock.now - began


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    head = (
        "nodes | presences | meet | idle: messages/s | idle: B/s | idle: CPU | all have all | "
        "B sent per presence | CPU of each | one change | crash hidden | newcomer has all | "
        "CPU of the run"
    )
    lines = [f"| {head} |", "|" + "---|" * 13]
    for row in rows:
        cells = [
            f"{row.nodes:,}",
            f"{row.presences:,}",
            f"{row.met:.2f} s",
            f"{row.idle_messages:,.0f}",
            f"{row.idle_bytes:,.0f}",
            f"{row.idle_cpu:.2f} %",
            f"{row.loaded:.2f} s",
            f"{row.loaded_bytes:,.0f}",
            f"{row.loaded_cpu:.2f} s",
            f"{1000 * row.change:.0f} ms",
            f"{row.hidden:.2f} s",
            f"{row.joined:.2f} s",
            f"{row.cost:,.0f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"  {text}", flush=True)


def main() -> int:
    """Measure each size; a whole run is written down."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=SIZES, help="sizes of clusters")
    parser.add_argument("--presences", type=int, default=PRESENCES_EACH, help="of each node")
    options = parser.parse_args()
    gc.disable()  # nothing here is garbage before the end of a cluster
    rows = []
    for nodes in options.nodes:
        rows.append(measure(nodes, options.presences))
        gc.collect()
    print(table(rows))
    if tuple(options.nodes) == SIZES and options.presences == PRESENCES_EACH:
        text = f"# Scale\n\nMade by `make scale`.\n\n{table(rows)}\n"
        RESULT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
