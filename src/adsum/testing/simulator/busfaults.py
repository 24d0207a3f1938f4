"""Faults of the simulated bus as data: restarts, absences, splits, losses, and a stranger."""

from random import Random

from .faults import LARGE, MESSAGE_SIZES, PLACES, TOPICS, Faults, Luck, Step
from .simulatedbusnode import SimulatedBusNode
from .topicroutes import ARRIVES, CALM, ROUTED_TOPICS, UNDER_WAY

#: Seconds after a step that removes the bus: the last one is beyond the grace of the nodes.
ABSENCES = (0.0, 0.3, 3.0, 10.0, 40.0)
#: Fractions of messages that are lost or arrive twice.
FRACTIONS = (0.0, 0.02, 0.2)
#: Recorded messages that are published again by one step.
REPEATED = (10, 100, 1000)


class BusFaults(Faults):
    """Performs steps in a simulation on the bus."""

    def heal_medium(self) -> None:
        """See `Faults`."""
        self.simulation.bus.heal()

    def add_server(self) -> None:
        """Add a server to the cluster of the bus, before the nodes connect."""
        self.simulation.bus.add_server()

    def set_echo(self) -> None:
        """Let publishers receive their own messages."""
        self.simulation.bus.echo = True

    def record(self) -> None:
        """Let a stranger on the bus record all messages from now on."""
        self.simulation.bus.record()

    def repeat(self, count: int) -> None:
        """Let the stranger publish recorded messages again."""
        self.simulation.bus.repeat(count)

    def restart_bus(self) -> None:
        """Restart all servers."""
        self.simulation.bus.restart()

    def stop_bus(self) -> None:
        """Stop all servers."""
        self.simulation.bus.go_away()

    def start_bus(self) -> None:
        """Start all servers that do not run, and connect them."""
        self.simulation.bus.come_back()

    def kill_server(self, server: int) -> None:
        """End one server."""
        self.simulation.bus.kill(server)

    def cut_servers(self) -> None:
        """Cut the servers from each other."""
        self.simulation.bus.cut()

    def mend_servers(self) -> None:
        """Connect the servers again."""
        self.simulation.bus.mend()

    def publish(self, place: str, size: int, count: int) -> None:
        """See `Faults`; the messages are sent over links."""
        if (node := self._awake(place)) is not None:
            for message in self._messages(node, size, count):
                node.post(message, None, over_links=True)

    def want(self, place: str, topic: int) -> None:
        """Let an application of a node subscribe to a topic."""
        if (node := self._awake(place)) is not None:
            node.want_topic(ROUTED_TOPICS[topic])

    def unwant(self, place: str, topic: int) -> None:
        """End one subscription to a topic."""
        node = self._awake(place)
        if isinstance(node, SimulatedBusNode) and ROUTED_TOPICS[topic] in node.wants:
            node.unwant_topic(ROUTED_TOPICS[topic])

    def publish_on_topic(self, place: str, topic: int, size: int, count: int) -> None:
        """Publish messages to the nodes that want a topic."""
        node = self._awake(place)
        if isinstance(node, SimulatedBusNode):
            for message in self._messages(node, size, count, ROUTED_TOPICS[topic]):
                node.post_checked(message)

    def check_end(self) -> None:
        """See `Faults`: let each node publish a message to all others, which have to receive it."""
        topic = ROUTED_TOPICS[0]
        nodes = [each for each in self.simulation.alive if isinstance(each, SimulatedBusNode)]
        for node in nodes:
            node.want_topic(topic)
        self.simulation.run(CALM + UNDER_WAY)
        for node in nodes:
            for message in self._messages(node, MESSAGE_SIZES[1], 2, topic):
                node.post_checked(message, to_all=True)
        self.simulation.run(ARRIVES + UNDER_WAY)

    def choke(self, place: str) -> None:
        """Pause a process, which the bus disconnects as a slow consumer at its next message."""
        self.simulation.bus.choke(place)
        self.pause(place)

    def disconnect(self, place: str) -> None:
        """End the connection of one node to the bus."""
        self.simulation.bus.lose(place)

    def lose_messages(self, fraction: float) -> None:
        """Lose a fraction of all messages from now on."""
        self.simulation.bus.set_loss(fraction)

    def duplicate(self, fraction: float) -> None:
        """Let a fraction of all messages arrive twice from now on."""
        self.simulation.bus.duplication = fraction


class BusLuck(Luck):
    """Draws steps for a cluster on the bus."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        rare = [self.jump, self.churn, self.stop, self.join, self.roll, self.double]
        rare += [self.depart, self.depart, self.publish, self.publish, self.break_off]
        rare += [self.reload, self.reload, self.interrupt, self.choke, self.choke, self.disconnect]
        rare += [self.restart, self.restart, self.go_away, self.split, self.kill_server]
        rare += [self.repeat, self.repeat, self.repeat, self.repeat]
        rare += [self.lose_messages, self.duplicate, self.route, self.route, self.route]
        usual = [self.use] * 14 + [self.crash, self.pause] * 2
        self.kinds = [*usual, *rare]

    def schedule(self, length: int) -> list[Step]:
        """See `Luck`; it begins with the properties of the engine."""
        steps = [Step("add_server", (), 0.0)] if self._chance() else []
        steps += [Step("set_echo", (), 0.0)] if self._chance() else []
        steps += [Step("record", (), 0.0)] if self._chance() else []
        for place in PLACES[:4]:
            steps += [Step("want", (place, self._topic()), 0.0)] if self._chance() else []
        return steps + super().schedule(length)

    def part(self, place: str, other: str) -> list[Step]:
        """See `Luck`."""
        lost = self._random.choice([place, other])
        return self._random.choice([self._step("disconnect", lost), self._step("cut_servers")])

    def repeat(self) -> list[Step]:
        """Recorded messages, often right after a return or before one."""
        returns = self._random.choice([self.restart, self.disconnect, self.crash])
        repeat = self._step("repeat", self._random.choice(REPEATED))
        return [*returns(), *repeat] if self._chance() else repeat

    def restart(self) -> list[Step]:
        """A restart, sometimes in the middle of another one."""
        steps = self._step("restart_bus")
        return steps + self._step("restart_bus") if self._random.random() < 0.3 else steps

    def go_away(self) -> list[Step]:
        """An absence in which nodes and applications go on."""
        absence = self._random.choice(ABSENCES)
        meanwhile = self._random.choice([self.use, self.use, self.crash, self.join, self.pause])
        return [Step("stop_bus", (), absence), *meanwhile(), *self._step("start_bus")]

    def split(self) -> list[Step]:
        """The servers are cut from each other for a while."""
        steps = self._step("cut_servers")
        for _ in range(self._random.randint(0, 2)):
            steps += self._random.choice([self.use, self.crash, self.pause, self.restart])()
        return steps + self._step("mend_servers") if self._chance() else steps

    def kill_server(self) -> list[Step]:
        """One server dies, and may start again."""
        steps = self._step("kill_server", self._random.randrange(2))
        return steps + self._step("start_bus") if self._chance() else steps

    def choke(self) -> list[Step]:
        """A process does not read, and is disconnected for it."""
        place = self._place()
        return self._step("choke", place) + self._step("resume", place)

    def disconnect(self) -> list[Step]:
        """One node loses its connection."""
        return self._step("disconnect", self._place())

    def lose_messages(self) -> list[Step]:
        """Messages are lost for a while."""
        fraction = self._random.choice(FRACTIONS)
        return self._step("lose_messages", fraction) + self._step("lose_messages", 0.0)

    def duplicate(self) -> list[Step]:
        """Messages arrive twice from now on."""
        return self._step("duplicate", self._random.choice(FRACTIONS))

    def route(self) -> list[Step]:
        """Messages on topics, to nodes that want them, or just began or ceased to."""
        random, topic = self._random, self._topic()
        place, other = random.sample(PLACES[:4], 2)
        steps = [Step("want", (other, topic), random.choice((0.0, 0.001, 3.0, 10.0)))]
        steps += random.choice(
            [[], [], self.part(place, other), self._step("unwant", other, topic)]
        )
        for _ in range(random.randint(1, 4)):
            chosen = random.choice([topic, topic, self._topic()])
            size, count = random.choice(MESSAGE_SIZES), random.choice([1, 2, 5])
            steps += self._step("publish_on_topic", place, chosen, size, count)
        return steps + (self._step("unwant", other, topic) if random.random() < 0.3 else [])

    def _topic(self) -> int:
        return self._random.randrange(len(ROUTED_TOPICS))

    def interrupt(self) -> list[Step]:
        """A large transfer that is interrupted, sometimes more than once."""
        place, other = self._random.sample(PLACES[:4], 2)
        steps = [Step("track", (place, TOPICS[1], "large", LARGE), 0.0)]
        for _ in range(self._random.choice([1, 1, 3])):
            steps.append(self._break(other, self._random.choice([0.002, 0.004, 0.01])))
        return steps + self._step("untrack", place, 0, LARGE)

    def break_off(self) -> list[Step]:
        """Large messages whose links break, or whose sender dies, in the middle."""
        place, other = self._random.sample(PLACES[:4], 2)
        steps = [Step("publish", (place, MESSAGE_SIZES[-1], 3), 0.002)]
        for _ in range(self._random.choice([1, 3])):
            steps.append(self._break(other, self._random.choice([0.002, 0.3])))
        return steps + self._step("crash", place) if self._chance() else steps

    def _break(self, place: str, wait: float) -> Step:
        """The loss of the messages under way, to one place or to all."""
        if self._chance():
            return Step("disconnect", (place,), wait)
        return Step("restart_bus", (), wait)
