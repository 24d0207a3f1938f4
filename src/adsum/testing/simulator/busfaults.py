"""Faults of the simulated bus as data: restarts, absences, splits, slow consumers and losses."""

from random import Random

from .faults import LARGE, MESSAGE_SIZES, PLACES, TOPICS, Faults, Luck, Step

#: Seconds after a step that removes the bus: the last one is beyond the grace of the nodes.
ABSENCES = (0.0, 0.3, 3.0, 10.0, 40.0)
#: Fractions of messages that are lost or arrive twice.
FRACTIONS = (0.0, 0.02, 0.2)


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
        rare += [self.lose_messages, self.duplicate]
        usual = [self.use] * 14 + [self.crash, self.pause] * 2
        self.kinds = [*usual, *rare]

    def schedule(self, length: int) -> list[Step]:
        """See `Luck`; it begins with the properties of the engine."""
        steps = [Step("add_server", (), 0.0)] if self._chance() else []
        steps += [Step("set_echo", (), 0.0)] if self._chance() else []
        return steps + super().schedule(length)

    def part(self, place: str, other: str) -> list[Step]:
        """See `Luck`."""
        lost = self._random.choice([place, other])
        return self._random.choice([self._step("disconnect", lost), self._step("cut_servers")])

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
