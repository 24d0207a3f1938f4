"""Messages on topics in clusters on the simulated bus: routing, order, losses, and their laws."""

from collections import Counter

import pytest

from adsum.bus.limits import TOPIC_BACKLOG, UNFOLLOW_AFTER
from adsum.bus.topicslots import slot_of
from adsum.driver.observer import Observer
from adsum.replication.effects import Sending
from adsum.testing import BrokenLawError, Simulation, Trial
from adsum.testing.simulator.simulatedbus import RETURN_DELAY
from adsum.testing.simulator.simulatedbusnode import SimulatedBusNode
from adsum.testing.simulator.topicroutes import ARRIVES, CALM, CALM_AFTER_LOSS, ROUTED_TOPICS

TOPIC = ROUTED_TOPICS[0]


def cluster(nodes: int, *subscribers: str, seed: int = 1) -> Simulation:
    """A calm cluster on a bus in which some nodes want a topic."""
    simulation = Simulation(nodes, seed=seed, kind=SimulatedBusNode)
    for place in subscribers:
        simulation.node(place).want_topic(TOPIC)
    simulation.run(CALM_AFTER_LOSS + CALM)
    return simulation


def routed(simulation: Simulation, place: str, topic: str = TOPIC, size: int = 100) -> str:
    """Publish a message on a topic, with the checks of its law; returns its event."""
    node = on_bus(simulation, place)
    as_bytes = size > 100
    message = simulation.ledger.new_message(node.replica, size, as_bytes=as_bytes, topic=topic)
    node.post_checked(message)
    return message.event


def on_bus(simulation: Simulation, place: str) -> SimulatedBusNode:
    node = simulation.node(place)
    assert isinstance(node, SimulatedBusNode)
    return node


def received(simulation: Simulation, *places: str) -> list[list[str]]:
    """The events of the messages that nodes have received."""
    return [[each.message.event for each in simulation.node(place).delivered] for place in places]


def test_message_on_a_topic_reaches_the_nodes_that_want_it_and_no_others() -> None:
    simulation = cluster(4, "n2", "n3")
    event = routed(simulation, "n1")
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n1", "n2", "n3", "n4") == [[], [event], [event], []]


def test_message_on_a_topic_is_published_once_for_many_subscribers() -> None:
    simulation = cluster(6, *(f"n{number}" for number in range(1, 7)))
    before = simulation.bus.messages
    routed(simulation, "n1")
    assert simulation.bus.messages == before + 1
    simulation.run(2 * ARRIVES)


def test_subscriptions_return_with_the_bus_also_those_of_its_absence() -> None:
    simulation = cluster(3, "n2", "n3")
    other = ROUTED_TOPICS[2]
    simulation.bus.go_away()
    simulation.run(3.0)
    simulation.node("n3").want_topic(other)
    simulation.node("n3").unwant_topic(TOPIC)
    simulation.bus.come_back()
    simulation.run(RETURN_DELAY[1] + CALM_AFTER_LOSS + CALM)
    first, second = routed(simulation, "n1"), routed(simulation, "n1", other)
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n2", "n3") == [[first], [second]]


def test_subscription_of_an_observer_begins_with_its_node() -> None:
    simulation = cluster(2)

    class Subscriber(Observer):
        def wanted_topics(self) -> list[str]:
            return [TOPIC]

    simulation.create("n3", observers=[Subscriber()]).begin()
    simulation.run(CALM_AFTER_LOSS + CALM)
    event = routed(simulation, "n1")
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n3") == [[event]]


def test_messages_on_topics_wait_for_the_backlog_of_their_publisher() -> None:
    simulation = cluster(2, "n2")
    sender, receiver = on_bus(simulation, "n1"), on_bus(simulation, "n2")
    for _ in range(4):
        routed(simulation, "n1", size=2 * TOPIC_BACKLOG)
    assert sender.session is not None
    most, end = 0, simulation.clock.now + ARRIVES
    while len(receiver.delivered) < 4 and simulation.clock.step(end):
        most = max(most, sender.session.backlog)
    assert TOPIC_BACKLOG < most < 2 * TOPIC_BACKLOG
    assert len(receiver.delivered) == 4
    simulation.run(ARRIVES)


def test_repeated_and_overtaken_messages_on_topics_are_dropped() -> None:
    simulation = cluster(3, "n2", "n3")
    simulation.bus.duplication = 0.5
    events = []
    for _ in range(30):
        events.append(routed(simulation, "n1"))
        simulation.run(0.01)
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n2", "n3") == [events, events]


def test_messages_on_several_topics_arrive_in_the_order_of_their_publication() -> None:
    simulation = cluster(3, "n2", "n3")
    simulation.node("n2").want_topic(ROUTED_TOPICS[2])
    simulation.run(2 * CALM)
    topics = [ROUTED_TOPICS[number % 3] for number in range(12)]
    events = [routed(simulation, "n1", topic) for topic in topics]
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n2") == [events]
    # The second topic has the slot of the first.
    assert received(simulation, "n3") == [[e for n, e in enumerate(events) if n % 3 < 2]]


def test_message_long_after_the_end_of_a_subscription_is_not_delivered() -> None:
    simulation = cluster(2, "n2")
    simulation.node("n2").unwant_topic(TOPIC)
    simulation.run(2 * UNFOLLOW_AFTER)
    routed(simulation, "n1")
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n2") == [[]]


def test_lost_message_on_a_topic_breaks_a_law() -> None:
    simulation = cluster(2, "n2")
    receiver = on_bus(simulation, "n2")
    assert receiver.session is not None
    for subject in receiver.session.subjects.difference(receiver.core.subjects):
        simulation.bus.unsubscribe(receiver.session, subject)
    simulation.run(0.1)
    routed(simulation, "n1")
    with pytest.raises(BrokenLawError, match="misses n2"):
        simulation.run(2 * ARRIVES)


def test_missed_message_of_a_calm_publisher_breaks_a_law() -> None:
    simulation = cluster(2, "n2")
    sender = on_bus(simulation, "n1")
    sender.engine.set_topics(False, True, simulation.clock.now)
    routed(simulation, "n1")
    with pytest.raises(BrokenLawError, match="misses n2; its publisher counted 1"):
        simulation.run(2 * ARRIVES)


def test_message_on_a_topic_that_was_lost_to_a_restart_breaks_no_law() -> None:
    simulation = cluster(2, "n2")
    routed(simulation, "n1")
    simulation.bus.restart()
    simulation.run(2 * ARRIVES)
    assert received(simulation, "n2") == [[]]


def test_message_after_the_end_of_a_subscription_breaks_a_law() -> None:
    simulation = cluster(2, "n2")
    receiver = on_bus(simulation, "n2")
    receiver.core.want_topic(TOPIC, simulation.clock.now)  # keeps the subscription
    receiver.unwant_topic(TOPIC)
    simulation.run(UNFOLLOW_AFTER / 2)
    routed(simulation, "n1")
    simulation.run(UNFOLLOW_AFTER)
    assert len(receiver.delivered) == 1
    routed(simulation, "n1")
    with pytest.raises(BrokenLawError, match="after the end of its subscription"):
        simulation.run(1.0)


def test_message_on_a_topic_that_was_never_wanted_breaks_a_law() -> None:
    simulation = cluster(2)
    on_bus(simulation, "n2").core.want_topic(TOPIC, simulation.clock.now)
    simulation.run(1.0)
    routed(simulation, "n1")
    with pytest.raises(BrokenLawError, match="never wanted"):
        simulation.run(1.0)


def test_trials_publish_on_topics_and_check_that_messages_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = Counter[bool]()
    check = SimulatedBusNode._check_arrival

    def record(node: SimulatedBusNode, sending: Sending, at: float, to_all: bool) -> None:
        checked[to_all] += 1
        check(node, sending, at, to_all)

    monkeypatch.setattr(SimulatedBusNode, "_check_arrival", record)
    for seed in range(4):
        Trial.from_seed(seed, 30, "bus").run()
    assert checked[True] >= 16
    assert checked[False] >= 4


def test_two_of_the_routed_topics_share_a_slot() -> None:
    first, second, third = map(slot_of, ROUTED_TOPICS)
    assert first == second != third
