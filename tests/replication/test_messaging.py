"""Published messages: order, room, patience, and peers that do not read. In virtual time."""

from collections.abc import Iterator
from random import Random

import pytest

from adsum.replication import messaging
from adsum.replication.effects import Released, Send, Sending
from adsum.replication.engine import Engine
from adsum.replication.limits import MAX_IN_FLIGHT
from adsum.replication.messages import Heartbeat, Publish
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import Simulation
from adsum.testing.simulator.simulatednode import SimulatedNode

#: Characters of a message.
SIZE = 9_000


def message(number: int) -> Publish:
    return Publish("room", str(number), f'{{"text":"{"x" * SIZE}"}}')


def post(node: SimulatedNode, count: int, first: int = 0) -> list[Sending]:
    return [node.post(message(first + number), None) for number in range(count)]


def received(node: SimulatedNode) -> list[int]:
    return [int(delivered.message.event) for delivered in node.delivered]


def cluster(count: int, bandwidth: float = float("inf")) -> tuple[Simulation, list[SimulatedNode]]:
    """Linked nodes, with so many bytes a second on each link."""
    simulation = Simulation(count, seed=7)
    simulation.run(2.0)
    simulation.network.usual.bandwidth = bandwidth
    return simulation, [simulation.node(f"n{number + 1}") for number in range(count)]


ME, SMALLER, LARGER = Replica("me", 1), Replica("ann", 1), Replica("zoe", 1)


def engine() -> Engine:
    return Engine(ME, Timing(), Random(1), now=0.0)


def sent_over(engine: Engine) -> Iterator[tuple[int, str]]:
    while effects := engine.take_effects():
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Publish):
                yield from ((link, effect.message.event) for link in effect.links)


def test_burst_beyond_the_high_water_mark_arrives_complete_and_in_order() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=4e6)
    sendings = post(sender, 200)
    assert sendings[0].waiting == 0
    assert sendings[-1].waiting == 1
    simulation.run(1.0)
    assert received(receiver) == list(range(200))
    assert {(sending.waiting, sending.missed) for sending in sendings} == {(0, 0)}
    assert simulation.network.most_waiting <= MAX_IN_FLIGHT + 2 * SIZE


def test_later_messages_queue_behind_queued_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "MAX_WAITING", 200 * SIZE)  # fewer than pass through the queue
    simulation, (sender, receiver) = cluster(2, bandwidth=4e6)
    for turn in range(10):
        post(sender, 40, first=40 * turn)
        simulation.run(0.07)
    simulation.run(1.0)
    assert received(receiver) == list(range(400))


def test_slow_consumer_that_reads_misses_no_message() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=3e5)
    sendings = post(sender, 200)
    simulation.run(2.0 + 200 * SIZE / 3e5)
    assert received(receiver) == list(range(200))
    assert {(sending.waiting, sending.missed) for sending in sendings} == {(0, 0)}


def test_slow_consumer_misses_messages_beyond_the_queue() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=1e5)
    sendings = post(sender, 200)
    simulation.run(messaging.PATIENCE + 0.01)
    missed = [number for number, sending in enumerate(sendings) if sending.missed]
    assert {sending.waiting for sending in sendings} == {0}
    assert sender.missed_messages == len(missed) > 150
    simulation.run(4.0)
    assert [*received(receiver), *missed] == list(range(200))
    assert simulation.network.between("n1", "n2"), "the link was closed"


def test_publisher_waits_once_for_a_peer_that_does_not_read() -> None:
    simulation, (sender, receiver) = cluster(2)
    receiver.pause()
    simulation.network.cut("n1", "n2")
    sendings = post(sender, 40)
    assert sendings[-1].waiting == 1
    simulation.run(messaging.PATIENCE + 0.01)
    assert (sendings[-1].waiting, sendings[-1].missed) == (0, 1)
    (later,) = post(sender, 1, first=40)
    assert (later.waiting, later.missed) == (0, 1)
    receiver.resume()
    simulation.network.heal()
    simulation.run(1.0)
    post(sender, 1, first=41)
    simulation.run(0.1)
    taken = sum(not sending.missed for sending in sendings)
    assert received(receiver) == [*range(taken), 41]


def test_backpressure_of_one_peer_delays_no_other() -> None:
    simulation, (sender, stuck, reader) = cluster(3)
    simulation.network.cut("n1", stuck.place)
    sendings = post(sender, 100)
    simulation.run(0.1)
    assert received(reader) == list(range(100))
    assert sendings[-1].waiting == 1
    simulation.run(messaging.PATIENCE)
    assert (sendings[-1].waiting, sendings[-1].missed) == (0, 1)


def test_withdrawn_message_is_missed_and_not_sent() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=4e6)
    sendings = post(sender, 100)
    sender.engine.withdraw(sendings[50])
    sender.engine.withdraw(sendings[0])  # it was sent
    assert (sendings[50].waiting, sendings[50].missed) == (0, 1)
    simulation.run(1.0)
    assert received(receiver) == [number for number in range(100) if number != 50]
    assert sender.missed_messages == 1


def test_lost_link_drops_its_queued_messages() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=1e6)
    sendings = post(sender, 100)
    receiver.abandon()
    simulation.run(0.01)
    assert {sending.waiting for sending in sendings} == {0}
    assert sender.missed_messages == sum(sending.missed for sending in sendings) > 50


def test_goodbye_drops_queued_messages() -> None:
    _, (sender, _) = cluster(2, bandwidth=1e6)
    sendings = post(sender, 100)
    sender.leave(0.0)
    assert {sending.waiting for sending in sendings} == {0}
    assert sender.missed_messages == sum(sending.missed for sending in sendings) > 50


def test_queue_overflow_counts_messages_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "MAX_WAITING", 20 * SIZE)
    simulation, (sender, receiver) = cluster(2, bandwidth=4e6)
    sendings = post(sender, 100)
    waiting = sum(sending.waiting for sending in sendings)
    assert waiting == 18  # with the characters around each text, and the cost of each message
    assert sender.missed_messages == sum(sending.missed for sending in sendings) > 40
    simulation.run(1.0)
    assert len(received(receiver)) == 100 - sender.missed_messages


def test_state_overtakes_queued_messages() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e6)
    post(sender, 200)
    sender.track("room", "ann")
    in_flight = 2 * (MAX_IN_FLIGHT + 2 * SIZE) / 2e6
    simulation.run(in_flight)
    assert "ann" in receiver.present("room")
    assert len(received(receiver)) < 100


def test_heartbeats_are_sent_under_backpressure_of_messages() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e5)
    for _ in range(30):
        post(sender, 50)
        simulation.run(0.5)
        (member,) = [one for one in receiver.engine.members() if one.name == sender.name]
        assert member.status == "up"
    assert simulation.network.between("n1", "n2"), "the link was closed"


def test_message_does_not_overtake_queued_one_when_backpressure_ends() -> None:
    sender = engine()
    sender.link_up(1, LARGER, ("zoe:1",), "zoe:1", 0.0)
    sender.link_writable(1, False, 0.0)
    sender.publish(message(0), None, 0.0)
    sender.link_writable(1, True, 0.1)
    sender.publish(message(1), None, 0.1)
    assert list(sent_over(sender)) == [(1, "0"), (1, "1")]


# Links of which the smaller end keeps one.


def test_larger_end_of_duplicate_links_sends_over_the_one_the_smaller_end_uses() -> None:
    larger = engine()
    larger.link_up(1, SMALLER, ("ann:1",), "ann:1", 0.0)
    larger.link_up(2, SMALLER, ("ann:1",), None, 0.0)
    sending = larger.publish(message(0), None, 0.1)
    assert list(sent_over(larger)) == []
    assert sending.waiting == 1
    larger.receive(1, Heartbeat(1, 0), 0.2)
    assert list(sent_over(larger)) == [(1, "0")]
    larger.publish(message(1), None, 0.2)
    larger.link_down(2, 0.3)
    larger.publish(message(2), None, 0.3)
    assert list(sent_over(larger)) == [(1, "1"), (1, "2")]


def test_smaller_end_of_duplicate_links_sends_at_once_over_the_kept_one() -> None:
    smaller = engine()
    smaller.link_up(1, LARGER, ("zoe:1",), "zoe:1", 0.0)
    smaller.link_up(2, LARGER, ("zoe:1",), None, 0.0)
    smaller.publish(message(0), None, 0.1)
    assert list(sent_over(smaller)) == [(1, "0")]


def released(engine: Engine) -> list[Sending]:
    found = list[Sending]()
    while effects := engine.take_effects():
        found += [effect.sending for effect in effects if isinstance(effect, Released)]
    return found


def test_message_on_a_duplicate_link_that_is_never_used_is_missed() -> None:
    larger = engine()
    larger.link_up(1, SMALLER, ("ann:1",), "ann:1", 0.0)
    sending = larger.publish(message(0), None, 0.1)
    larger.tick(0.9)
    assert released(larger) == []
    larger.tick(1.0)
    assert released(larger) == [sending]
    assert (sending.missed, larger.missed_messages) == (1, 1)


@pytest.fixture
def interrupted() -> tuple[Engine, Sending]:
    """A sender whose link had room at 0.8 s, and a message from 0.2 s that still waits."""
    sender = engine()
    sender.link_up(1, LARGER, ("zoe:1",), "zoe:1", 0.0)
    assert list(sent_over(sender)) == []
    sender.link_writable(1, False, 0.0)
    sender.publish(message(0), None, 0.2)
    sending = sender.publish(message(1), None, 0.2)
    sender.link_writable(1, True, 0.8)
    assert next(sent_over(sender)) == (1, "0")
    sender.link_writable(1, False, 0.8)
    assert sending not in released(sender)
    return sender, sending


def test_publisher_is_released_from_backpressure_after_the_patience(
    interrupted: tuple[Engine, Sending],
) -> None:
    sender, sending = interrupted
    assert sender.wake_at <= 1.2
    sender.tick(1.2)
    assert released(sender) == [sending]
    assert (sending.waiting, sending.missed) == (1, 0)
    sender.link_writable(1, True, 1.3)
    assert list(sent_over(sender)) == [(1, "1")]


def test_later_message_waits_for_the_peer_and_not_for_its_publisher(
    interrupted: tuple[Engine, Sending],
) -> None:
    sender, sending = interrupted
    later = sender.publish(message(2), None, 0.9)
    sender.tick(1.2)
    assert released(sender) == [sending]
    sender.tick(1.8)  # no room for a second
    assert later in released(sender)
    assert (sending.missed, later.missed) == (1, 1)


def test_publisher_under_backpressure_learns_of_a_peer_that_stopped_reading() -> None:
    sender = engine()
    sender.link_up(1, LARGER, ("zoe:1",), "zoe:1", 0.0)
    sender.link_writable(1, False, 0.0)
    sender.publish(message(0), None, 0.0)
    sending = sender.publish(message(1), None, 0.0)
    sender.link_writable(1, True, 0.4)
    assert next(sent_over(sender)) == (1, "0")
    sender.link_writable(1, False, 0.4)
    sender.tick(1.0)
    assert sending in released(sender)
    assert (sending.waiting, sending.missed) == (0, 1)
