"""How far a carrier goes: clusters on the simulated bus, in virtual time, to 1,000 nodes.

python -m benchmarks.scale_bus                 100, 300 and 1,000 nodes with a presence each
python -m benchmarks.scale_bus --nodes 100     these sizes

Times are virtual: 0.2 to 2 ms from a node to the engine and again from the engine to a node, and no
time for the work of nodes and of the engine. Messages and bytes are counted, with the headers of
`adsum.bus.busmessages` and without those of NATS or Redis. The engines, the core of virtual links,
its handshakes and tags are the real ones. `benchmarks.scale` has the same for a mesh.
"""

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from typing import Any

from adsum.bus.busevents import Emit
from adsum.replication.timing import carrier_timing
from adsum.testing import Simulation
from adsum.testing.simulator.simulatedbus import SimulatedSession
from adsum.testing.simulator.simulatedbusnode import SimulatedBusNode

from .scale import START_INTERVAL, say, seconds_until

SIZES = (100, 300, 1000)
META = '{"device":"phone"}'
#: Heartbeats after the last start until idle traffic is counted: the first one names the frames to
#: single nodes that precede it.
SETTLED_AFTER = 2.5
#: Virtual seconds between two looks at all nodes.
STEP = 0.02


class CountingNode(SimulatedBusNode):
    """A node on the bus that counts the messages that it publishes and receives."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.published = self.published_bytes = self.received = self.received_bytes = 0

    def _emit(self, event: Emit) -> None:
        self.published += 1
        self.published_bytes += len(event.data)
        super()._emit(event)

    def message_arrived(self, session: SimulatedSession, data: bytes) -> None:
        """See `SimulatedClient`."""
        self.received += 1
        self.received_bytes += len(data)
        super().message_arrived(session, data)


@dataclass(frozen=True)
class Traffic:
    """Messages and bytes of all nodes, published and received."""

    published: float
    published_bytes: float
    received: float
    received_bytes: float

    def since(self, earlier: "Traffic", share: float) -> "Traffic":
        """The part of one node and second, since an earlier count."""
        return Traffic(
            (self.published - earlier.published) / share,
            (self.published_bytes - earlier.published_bytes) / share,
            (self.received - earlier.received) / share,
            (self.received_bytes - earlier.received_bytes) / share,
        )


@dataclass(frozen=True)
class BusRow:
    """The figures of one size of cluster.

    Attributes:
        nodes: The number of nodes.
        joined: Seconds from the last start until every node has joined and lists all presences.
        heartbeat: Seconds between two heartbeats of a node.
        idle: Messages and bytes of each node in each second without changes.
        per_join: Messages that the owner of a new presence publishes for it.
        change: Seconds until a new presence is shown everywhere.
        hidden: Seconds until a node that is killed is hidden everywhere.
        newcomer: Seconds until a newcomer lists all presences, and all list its own.
        cost: Processor time of the whole run, in seconds.
    """

    nodes: int
    joined: float
    heartbeat: float
    idle: Traffic
    per_join: int
    change: float
    hidden: float
    newcomer: float
    cost: float


def measure(nodes: int) -> BusRow:
    """Form a cluster on the bus, leave it alone, change it, kill a node, start one."""
    began = time.process_time()
    simulation = Simulation(
        0, seed=nodes, timing=carrier_timing(), checked=False, kind=CountingNode
    )
    for number in range(nodes):
        start(simulation, f"n{number}")
        simulation.run(START_INTERVAL)
    joined = seconds_until(simulation, lambda: all_list(simulation, nodes), STEP)
    say(f"{nodes} nodes have joined after {joined:.2f} s, {time.process_time() - began:.0f} s CPU")
    heartbeat = simulation.timing.heartbeat_interval * max(1.0, nodes / simulation.timing.crowd)
    simulation.run(SETTLED_AFTER * heartbeat)
    before = traffic(simulation)
    simulation.run(heartbeat)
    idle = traffic(simulation).since(before, nodes * heartbeat)
    say(f"idle: {idle}")
    per_join, change = change_one(simulation, nodes)
    say(f"a change: {per_join} messages, {1000 * change:.0f} ms")
    simulation.kill(f"n{nodes - 1}")
    hidden = seconds_until(simulation, lambda: all_list(simulation, nodes), STEP)
    say(f"hidden after {hidden:.2f} s")
    start(simulation, "newcomer")
    newcomer = seconds_until(simulation, lambda: all_list(simulation, nodes + 1), STEP)
    cost = time.process_time() - began
    return BusRow(nodes, joined, heartbeat, idle, per_join, change, hidden, newcomer, cost)


def start(simulation: Simulation, name: str) -> None:
    """Start a node with a presence."""
    node = simulation.create(name)
    node.begin()
    node.track("room", name, META)


def all_list(simulation: Simulation, presences: int) -> bool:
    """Whether all nodes have joined and list so many presences."""
    return all(node.engine.shown == presences and node.engine.joined for node in simulation.alive)


def change_one(simulation: Simulation, nodes: int) -> tuple[int, float]:
    """Track one more presence, between two probes of its owner.

    Returns:
        The messages that the owner published, and the seconds until all nodes showed it.
    """
    owner = simulation.node("n0")
    assert isinstance(owner, CountingNode)
    before = owner.published
    while owner.published == before:  # until the next probe or heartbeat
        simulation.run(0.001)
    simulation.run(0.01)
    before = owner.published
    owner.track("room", "late", META)
    change = seconds_until(simulation, lambda: all_list(simulation, nodes + 1), 0.001)
    simulation.run(0.05)
    return owner.published - before, change


def traffic(simulation: Simulation) -> Traffic:
    """The messages and bytes of all nodes so far."""
    nodes = [node for node in simulation.alive if isinstance(node, CountingNode)]
    return Traffic(
        sum(node.published for node in nodes),
        sum(node.published_bytes for node in nodes),
        sum(node.received for node in nodes),
        sum(node.received_bytes for node in nodes),
    )


def table(rows: list[BusRow]) -> str:
    """The rows as Markdown."""
    head = (
        "nodes | all joined | heartbeat | idle: published/s | idle: B/s published | "
        "idle: received/s | idle: B/s received | published for a join | one change | "
        "crash hidden | newcomer joined | CPU of the run"
    )
    lines = [f"| {head} |", "|" + "---|" * 12]
    for row in rows:
        cells = [
            f"{row.nodes:,}",
            f"{row.joined:.2f} s",
            f"{row.heartbeat:g} s",
            f"{row.idle.published:.1f}",
            f"{row.idle.published_bytes:,.0f}",
            f"{row.idle.received:.0f}",
            f"{row.idle.received_bytes:,.0f}",
            f"{row.per_join}",
            f"{1000 * row.change:.0f} ms",
            f"{row.hidden:.2f} s",
            f"{row.newcomer:.2f} s",
            f"{row.cost:,.0f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale_bus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=SIZES, help="sizes of clusters")
    options = parser.parse_args()
    gc.disable()  # nothing here is garbage before the end of a cluster
    rows = []
    for nodes in options.nodes:
        rows.append(measure(nodes))
        gc.collect()
        print(table(rows[-1:]), flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
