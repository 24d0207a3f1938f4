"""The simulated bus: order, refusals, restarts, slow consumers and splits, in virtual time."""

from dataclasses import dataclass, field
from random import Random

import pytest

from adsum.testing import Simulation
from adsum.testing.simulator import simulatedbus
from adsum.testing.simulator.network import VirtualClock
from adsum.testing.simulator.simulatedbus import SimulatedBus, SimulatedSession

LATENCY = (0.001, 0.01)


def test_timer_that_is_set_for_a_past_time_for_ever_ends_the_simulation() -> None:
    simulation = Simulation(0, seed=1)

    def again() -> None:
        simulation.clock.call_later(-1.0, again)

    simulation.clock.call_later(1.0, again)
    with pytest.raises(RuntimeError, match=r"actions ran at 1.000 s: .*again"):
        simulation.run(2.0)


@dataclass(eq=False)
class RecordingClient:
    """A client that records what happens to it."""

    bus: SimulatedBus
    place: str
    subjects: tuple[str, ...]
    running: bool = True
    paused: bool = False
    session: SimulatedSession | None = None
    lost: int = 0
    messages: list[bytes] = field(default_factory=list)
    refusals: list[object] = field(default_factory=list)
    backlog: list[tuple[SimulatedSession, bytes]] = field(default_factory=list)

    def bus_reached(self, session: SimulatedSession) -> None:
        self.session = session

    def bus_lost(self, session: SimulatedSession) -> None:
        self.session, self.lost = None, self.lost + 1
        self.bus.reconnect(self)

    def message_arrived(self, session: SimulatedSession, data: bytes) -> None:
        self.backlog.append((session, data))
        if not self.paused:
            self.read()

    def emission_refused(self, session: SimulatedSession, probe: object) -> None:
        self.refusals.append(probe)

    def read(self) -> None:
        backlog, self.backlog = self.backlog, []
        self.messages += [data for session, data in backlog if session.take(data)]

    def publish(self, subject: str, data: bytes, probe: object | None = None) -> None:
        assert self.session is not None
        self.bus.publish(self.session, subject, data, probe)


class BusOfClients:
    """A bus with some clients, all of which subscribe to "all" and to their own name."""

    def __init__(self, *names: str, servers: int = 1) -> None:
        self.clock = VirtualClock()
        self.bus = SimulatedBus(self.clock, Random(1), LATENCY)
        for _ in range(servers - 1):
            self.bus.add_server()
        self.clients = [RecordingClient(self.bus, name, ("all", name)) for name in names]
        for client in self.clients:
            self.bus.connect(client)
        self.run(1.0)

    def run(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.step(until):
            pass


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_messages_of_one_publisher_stay_in_order_and_those_of_several_do_not() -> None:
    setup = BusOfClients("a", "b", "c")
    a, b, c = setup.clients
    for number in range(50):
        a.publish("all", b"a%d" % number)
        b.publish("all", b"b%d" % number)
    setup.run(1.0)
    for sender in (b"a", b"b"):
        assert [m for m in c.messages if m[:1] == sender] == [
            b"%b%d" % (sender, n) for n in range(50)
        ]
    assert c.messages != [b"%b%d" % (s, n) for n in range(50) for s in (b"a", b"b")]
    assert len(a.messages) == 50, "a publisher receives its own messages only with `echo`"


def test_publisher_receives_its_own_messages_with_echo() -> None:
    setup = BusOfClients("a", "b")
    setup.bus.echo = True
    setup.clients[0].publish("all", b"1", probe="p")
    setup.run(1.0)
    assert [client.messages for client in setup.clients] == [[b"1"], [b"1"]]


def test_emission_without_another_subscriber_is_refused() -> None:
    setup = BusOfClients("a", "b")
    a, b = setup.clients
    a.publish("b", b"1", probe="to b")
    a.publish("a", b"1", probe="to oneself")
    a.publish("nobody", b"1", probe="to nobody")
    a.publish("nobody", b"1")
    setup.run(1.0)
    assert sorted(map(str, a.refusals)) == ["to nobody", "to oneself"]
    assert b.session is not None
    b.running = False
    setup.bus.abort(b.session)
    setup.run(1.0)
    a.publish("b", b"2", probe="to the dead")
    setup.run(1.0)
    assert a.refusals[-1] == "to the dead"


def test_subscription_precedes_later_messages_of_its_client() -> None:
    setup = BusOfClients("a", "b")
    a, b = setup.clients
    assert b.session is not None
    for number in range(20):
        setup.bus.subscribe(b.session, f"topic {number}")
        b.publish("a", b"subscribed")
        while len(a.messages) <= number:
            setup.clock.step(setup.clock.now + 1.0)
        a.publish(f"topic {number}", b"%d" % number)
    setup.run(1.0)
    assert b.messages == numbers(20)
    setup.bus.unsubscribe(b.session, "topic 0")
    setup.run(1.0)
    a.publish("topic 0", b"late", probe="late")
    setup.run(1.0)
    assert a.refusals == ["late"]
    assert b.messages == numbers(20)


def test_subscriptions_of_a_connection_end_with_it() -> None:
    setup = BusOfClients("a", "b")
    a, b = setup.clients
    assert b.session is not None
    setup.bus.subscribe(b.session, "topic")
    setup.run(0.1)
    setup.bus.lose("b")
    setup.run(1.0 + simulatedbus.RETURN_DELAY[1])
    a.publish("topic", b"1", probe="topic")
    setup.run(1.0)
    assert (b.messages, a.refusals) == ([], ["topic"])


def test_restart_drops_messages_under_way_and_every_client_returns() -> None:
    setup = BusOfClients("a", "b", "c")
    a, b, _ = setup.clients
    a.publish("b", b"1")
    setup.bus.restart()
    setup.run(1.0 + simulatedbus.RETURN_DELAY[1])
    assert b.messages == []
    assert all(client.lost == 1 and client.session is not None for client in setup.clients)
    a.publish("b", b"2")
    setup.run(1.0)
    assert b.messages == [b"2"]


def test_clients_return_when_the_bus_is_back_and_not_before() -> None:
    setup = BusOfClients("a", "b")
    setup.bus.go_away()
    setup.run(60.0)
    assert all(client.session is None for client in setup.clients)
    setup.bus.come_back()
    setup.run(1.0 + simulatedbus.RETURN_DELAY[1])
    assert all(client.session is not None for client in setup.clients)


def test_messages_of_a_paused_client_wait_up_to_the_bound() -> None:
    setup = BusOfClients("a", "b")
    a, b = setup.clients
    b.paused = True
    for message in numbers(10):
        a.publish("b", message)
    setup.run(1.0)
    assert setup.bus.most_waiting == 10
    b.paused = False
    b.read()
    assert b.messages == numbers(10)


def test_slow_consumer_is_disconnected_and_its_messages_are_dropped() -> None:
    setup = BusOfClients("a", "b")
    a, b = setup.clients
    b.paused = True
    for _ in range(3):
        a.publish("b", bytes(simulatedbus.PENDING_MOST // 2))
    setup.run(1.0)
    assert b.lost == 1
    b.paused = False
    b.read()
    assert b.messages == []
    setup.run(1.0 + simulatedbus.RETURN_DELAY[1])
    a.publish("b", b"again")
    setup.run(1.0)
    assert b.messages == [b"again"]


def test_cut_servers_deliver_and_count_on_their_own_side_only() -> None:
    setup = BusOfClients(*"abcdefgh", servers=2)
    first, *others = setup.clients
    assert first.session is not None
    sides = {other.place: other.session.server for other in others if other.session is not None}
    far = [other for other in others if sides[other.place] != first.session.server]
    near = [other for other in others if other not in far]
    assert far
    assert near
    setup.bus.cut()
    first.publish("all", b"1", probe="to all")
    first.publish(far[0].place, b"2", probe="to the far side")
    setup.run(1.0)
    assert first.refusals == ["to the far side"]
    assert all(other.messages == [b"1"] for other in near)
    assert all(other.messages == [] and other.lost == 0 for other in far)
    setup.bus.mend()
    first.publish(far[0].place, b"3", probe="again")
    setup.run(1.0)
    assert far[0].messages == [b"3"]


def test_clients_of_a_dead_server_return_to_the_other_one() -> None:
    setup = BusOfClients(*"abcdefgh", servers=2)
    stayed = [c for c in setup.clients if c.session is not None and c.session.server == 0]
    setup.bus.kill(1)
    setup.run(1.0 + simulatedbus.RETURN_DELAY[1])
    assert 0 < len(stayed) < len(setup.clients)
    for client in setup.clients:
        assert client.session is not None
        assert client.session.server == 0
        assert client.lost == (0 if client in stayed else 1)


def test_recorded_messages_reach_the_subscribers_of_their_subject_again() -> None:
    setup = BusOfClients("a", "b", "c")
    a, b, c = setup.clients
    a.publish("b", b"before")
    setup.bus.record()
    for message in numbers(5):
        a.publish("b", message)
    setup.run(1.0)
    setup.bus.repeat(3)
    setup.run(1.0)
    assert b.messages[:6] == [b"before", *numbers(5)]
    assert len(b.messages) == len({*b.messages}) + 3
    assert c.messages == []


def test_lost_and_repeated_messages_are_as_many_as_configured() -> None:
    setup = BusOfClients("a", "b", "c")
    a, b, c = setup.clients
    setup.bus.set_loss(0.5)
    for message in numbers(200):
        a.publish("b", message)
    setup.run(1.0)
    assert 60 < len(b.messages) < 140
    setup.bus.set_loss(0.0)
    setup.bus.duplication = 0.5
    for message in numbers(200):
        a.publish("c", message)
    setup.run(2.0)
    assert 260 < len(c.messages) < 340
    assert set(c.messages) == set(numbers(200))
