"""Random faults from a seed: what a run of bad luck looks like."""

from random import Random

from adsum.testing import Simulation
from adsum.testing.simulation import SimulatedNode

TOPICS = ("a", "b", "c")
#: All faults have ended for this long when every node must agree: a blocked dial gives up, the
#: longest wait between two dials passes, and the next one succeeds.
SETTLE = 8.0


class Chaos:
    """One run: a small cluster, its users, and everything that happens to it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"chaos {seed}")
        self.simulation = Simulation(nodes=self.random.randint(2, 5), seed=seed)
        self.names = list(self.simulation.nodes)
        for name in self.names:
            self.observe(name)

    def run(self, steps: int) -> None:
        acts = (
            [self.use] * 12
            + [self.crash_or_start] * 3
            + [self.pause_or_resume] * 3
            + [self.block, self.heal, self.sever, self.stop]
            + [self.jump, self.churn, self.squeeze, self.join]
        )
        for _ in range(steps):
            node = self.simulation.node(self.random.choice(self.names))
            self.random.choice(acts)(node)
            self.simulation.run(self.random.choice([0.0, 0.001, 0.01, 0.1, 1.0, 3.0, 10.0]))

    def settle(self) -> None:
        """End every fault and give the cluster the time that the protocol states."""
        self.simulation.heal()
        self.simulation.network.bandwidth = float("inf")
        for name in self.names:
            node = self.simulation.node(name)
            if not node.running:
                self.restart(name)
            elif node.paused:
                node.resume()
        self.simulation.run(SETTLE)
        self.simulation.check_agreement()

    def observe(self, name: str) -> None:
        for topic in TOPICS[:2]:
            self.simulation.node(name).watch(topic)

    def use(self, node: SimulatedNode) -> None:
        if not node.running or node.paused:
            return
        if node.tracked and self.random.random() < 0.6:
            entry = self.random.choice(list(node.tracked.values()))
            if self.random.random() < 0.5:
                node.update(entry, {"v": self.random.random()})
            else:
                node.untrack(entry)
            return
        topic = self.random.choice(TOPICS)
        for number in range(self.random.choice([1] * 30 + [20] * 5 + [1500])):
            node.track(topic, f"k{self.random.randrange(20) + number}", {"n": number})

    def crash_or_start(self, node: SimulatedNode) -> None:
        if node.running:
            self.simulation.kill(node.name)
        else:
            self.restart(node.name)

    def restart(self, name: str) -> None:
        self.simulation.start(name)
        self.observe(name)

    def pause_or_resume(self, node: SimulatedNode) -> None:
        if node.running and node.paused:
            node.resume()
        elif node.running:
            node.pause()

    def block(self, node: SimulatedNode) -> None:
        other = self.random.choice(self.names)
        if other != node.name:
            self.simulation.network.block(node.name, other)
            if self.random.random() < 0.6:
                self.simulation.network.block(other, node.name)

    def heal(self, node: SimulatedNode) -> None:
        self.simulation.heal()

    def sever(self, node: SimulatedNode) -> None:
        for link in sorted(node.links):
            if self.random.random() < 0.5:
                self.simulation.network.sever(link)

    def jump(self, node: SimulatedNode) -> None:
        """The clock that a node reads goes wrong for a moment."""
        if node.running and not node.paused:
            node.engine.tick(self.simulation.clock.now + self.random.choice([-50.0, 5.0, 3600.0]))
            node.settle()

    def churn(self, node: SimulatedNode) -> None:
        """More comes and goes than a slice keeps in mind, so others may need a reset."""
        if node.running and not node.paused and self.random.random() < 0.3:
            for number in range(2500):
                node.untrack(node.track("c", f"churn {number}"))

    def squeeze(self, node: SimulatedNode) -> None:
        """Every line becomes narrow, or wide again."""
        self.simulation.network.bandwidth = self.random.choice([200_000.0, float("inf")])

    def join(self, node: SimulatedNode) -> None:
        """A node that was never there comes into the middle of it."""
        if len(self.names) < 7:
            self.names.append(f"late {len(self.names)}")
            self.restart(self.names[-1])

    def stop(self, node: SimulatedNode) -> None:
        if node.running and not node.paused:
            self.simulation.stop(node.name, linger=self.random.choice([0.0, 2.0]))
