"""Messages on topics over a bus in the hands of the test: interest, order, repetitions, forgery."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.bus.busevents import Emit
from adsum.bus.busmessages import Bulletin, BusCodec
from adsum.bus.limits import ANNOUNCE_INTERVAL, MAX_WAITING_BULLETINS, UNFOLLOW_AFTER
from adsum.bus.topicslots import SLOTS, TopicSlots, slot_of
from adsum.transport.framing import FRAME_LIMIT, encode_payload

from .broker import SECRET, Broker, Peer


def cluster(*names: str, seed: int = 0) -> tuple[Broker, list[Peer]]:
    """Nodes that are linked with each other."""
    broker = Broker(seed)
    peers = [broker.join(name) for name in names]
    broker.run()
    return broker, peers


def want(peer: Peer, topic: str) -> None:
    peer.core.want_topic(topic, peer.broker.now)
    peer.drain()


def unwant(peer: Peer, topic: str) -> None:
    peer.core.unwant_topic(topic, peer.broker.now)
    peer.drain()


def publish(peer: Peer, topic: str, payload: bytes, *excluded: str) -> None:
    peer.core.publish_topic(topic, payload, frozenset(excluded), peer.broker.now)
    peer.drain()


def send(peer: Peer, payload: bytes, to: str) -> None:
    peer.core.send([peer.link_to(to)], payload, peer.broker.now)
    peer.drain()


def heard(peer: Peer, sender: str) -> list[bytes]:
    """The messages on topics that a node has accepted from another one, over all of its links."""
    return [payload for link, payload in peer.heard if peer.opened[link].peer.name == sender]


def emitted(broker: Broker, sender: str) -> list[tuple[str, bytes]]:
    return [(emit.subject, emit.data) for name, emit in broker.emitted if name == sender]


def topic_subjects(peer: Peer) -> list[str]:
    return [subject for subject in peer.subjects if ".topic." in subject]


# Interest.


def test_message_reaches_the_nodes_that_want_its_topic() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    want(b, "news")
    before = len(broker.emitted)
    publish(a, "news", b"one")
    assert len(broker.emitted) == before + 1
    broker.run()
    assert (heard(b, "a"), c.heard, a.heard) == ([b"one"], [], [])


def test_all_nodes_use_one_subject_for_a_topic() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    publish(a, "news", b"one")
    assert emitted(broker, "a")[-1][0] == topic_subjects(b)[0] == "adsum.test.topic.1e7"


@given(st.text(max_size=40))
def test_every_topic_has_a_slot(topic: str) -> None:
    assert 0 <= slot_of(topic) < SLOTS


def test_slots_of_many_topics_are_spread() -> None:
    slots = [slot_of(f"room:{number}") for number in range(SLOTS)]
    assert len(set(slots)) > SLOTS * 0.6
    assert max(map(slots.count, set(slots))) < 10


def test_topic_wanted_twice_is_followed_until_the_second_end() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    want(b, "news")
    assert len(topic_subjects(b)) == 1
    unwant(b, "news")
    broker.run(2 * UNFOLLOW_AFTER)
    publish(a, "news", b"one")
    broker.run()
    assert heard(b, "a") == [b"one"]
    unwant(b, "news")
    broker.run(2 * UNFOLLOW_AFTER)
    assert topic_subjects(b) == []
    publish(a, "news", b"two")
    broker.run()
    assert heard(b, "a") == [b"one"]


def test_two_topics_of_one_slot_are_followed_until_both_end() -> None:
    first = "room:0"
    second = next(name for n in range(1, 10**6) if slot_of(name := f"room:{n}") == slot_of(first))
    broker, (_, b) = cluster("a", "b")
    want(b, first)
    want(b, second)
    assert len(topic_subjects(b)) == 1
    unwant(b, first)
    broker.run(2 * UNFOLLOW_AFTER)
    assert len(topic_subjects(b)) == 1
    unwant(b, second)
    broker.run(2 * UNFOLLOW_AFTER)
    assert topic_subjects(b) == []


def test_topic_that_comes_and_goes_costs_one_subscription() -> None:
    broker, (_, b) = cluster("a", "b")
    for _ in range(100):
        want(b, "news")
        unwant(b, "news")
        broker.run(UNFOLLOW_AFTER / 200)
    assert len(topic_subjects(b)) == 1  # the broker of the test refuses a second one
    broker.run(2 * UNFOLLOW_AFTER)
    assert topic_subjects(b) == []


def test_topic_ends_while_the_bus_is_away() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.go(b)
    unwant(b, "news")
    want(b, "sports")
    broker.run(2 * UNFOLLOW_AFTER)
    broker.come(b)
    assert topic_subjects(b) == [f"adsum.test.topic.{slot_of('sports'):03x}"]
    broker.run()
    publish(a, "sports", b"one")
    broker.run()
    assert heard(b, "a") == [b"one"]


def test_ends_without_a_beginning_are_ignored() -> None:
    slots = TopicSlots()
    slots.unwant(3, 0.0)
    assert slots.sweep() == []
    assert slots.want(3)


# Delivery.


@pytest.mark.parametrize("size", [0, 1, 5000, FRAME_LIMIT])
def test_frames_of_any_size_arrive_unchanged(size: int) -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    for payload in (bytes(size), broker.random_bytes(size)):
        publish(a, "news", payload)
        broker.run()
        assert heard(b, "a")[-1] == payload


def test_larger_frame_is_refused() -> None:
    _, (a, _) = cluster("a", "b")
    with pytest.raises(ValueError, match=str(FRAME_LIMIT)):
        publish(a, "news", bytes(FRAME_LIMIT + 1))


def test_messages_of_all_topics_keep_the_order_of_their_publisher() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    for topic in ("x", "y", "z"):
        want(b, topic)
    want(c, "y")
    payloads = [b"%d" % number for number in range(60)]
    for number, payload in enumerate(payloads):
        publish(a, "xyz"[number % 3], payload)
    broker.run()
    assert heard(b, "a") == payloads
    assert heard(c, "a") == payloads[1::3]


def test_lost_message_is_not_repeated_and_delays_no_other() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.loses = lambda sender, receiver: True
    publish(a, "news", b"one")
    broker.run()
    broker.loses = lambda sender, receiver: False
    publish(a, "news", b"two")
    broker.run(5.0)
    assert heard(b, "a") == [b"two"]


def test_message_while_the_bus_is_away_is_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.restart()
    publish(a, "news", b"one")
    broker.come(a)
    broker.come(b)
    broker.run(1.0)
    publish(a, "news", b"two")
    broker.run()
    assert heard(b, "a") == [b"two"]
    assert a.changes == b.changes == [True, False, True]


def test_excluded_node_does_not_take_the_message_from_the_subject() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    want(b, "news")
    want(c, "news")
    publish(a, "news", b"one", "b", "x")
    publish(a, "news", b"two")
    broker.run()
    assert heard(b, "a") == [b"two"]
    assert heard(c, "a") == [b"one", b"two"]


def test_node_without_a_link_is_named_nowhere() -> None:
    broker, (a, _) = cluster("a", "b")
    publish(a, "news", b"one", "x", "y")
    publish(a, "news", b"one")
    first, second = (data for _, data in emitted(broker, "a")[-2:])
    assert len(first) == len(second) == 11 + 12 + len(encode_payload(b"one")) + 16


def test_message_that_follows_a_closed_link_is_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    for peer in (a, b):
        peer.dials_who_announce = False
    a.core.close(a.link_to("b"), "the test wants it", broker.now)
    a.drain()
    publish(a, "news", b"one")
    broker.run()
    assert heard(b, "a") == []


def test_message_right_after_the_opening_of_a_link_is_accepted() -> None:
    broker = Broker()
    a = broker.join("a")
    b = broker.join("b")
    want(b, "news")
    while not a.opened:
        broker.waiting.popleft()()
    publish(a, "news", b"one")
    broker.run()
    assert heard(b, "a") == [b"one"]


# Repetitions and forgeries.


def test_repeated_message_is_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    for payload in (b"one", b"two"):
        publish(a, "news", payload)
    broker.run()
    for _, data in emitted(broker, "a"):
        b.core.received(data, broker.now)
        b.drain()
    assert heard(b, "a") == [b"one", b"two"]


def test_message_from_before_a_link_is_not_accepted_on_it() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.loses = lambda sender, receiver: receiver == "b"
    publish(a, "news", b"withheld")
    broker.run()
    broker.loses = lambda sender, receiver: False
    withheld = emitted(broker, "a")[-1][1]
    a.core.close(a.link_to("b"), "the test wants it", broker.now)
    a.drain()
    broker.run(40.0)  # it is linked again
    b.core.received(withheld, broker.now)
    b.drain()
    assert heard(b, "a") == []
    publish(a, "news", b"later")
    broker.run()
    assert heard(b, "a") == [b"later"]


def test_message_waits_until_the_link_has_begun() -> None:
    broker = Broker()
    a = broker.join("a")
    b = broker.join("b")
    want(b, "news")
    while not (a.opened and b.opened):
        broker.waiting.popleft()()
    publish(a, "news", b"one")
    early = emitted(broker, "a")[-1][1]
    b.core.received(early, broker.now)
    b.drain()
    assert heard(b, "a") == []
    broker.run()
    assert heard(b, "a") == [b"one"]


def returned(*payloads: bytes) -> tuple[Broker, Peer, Peer]:
    """Two nodes, of which the second does not know yet that their link has survived a restart.

    The first one has published some messages meanwhile, and the second one wants them.
    """
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.restart()
    broker.come(a)
    broker.come(b)
    broker.waiting.clear()
    for payload in payloads:
        publish(a, "news", payload)
    before = len(broker.waiting)
    for _ in range(before):
        broker.waiting.popleft()()
    assert heard(b, "a") == []
    return broker, a, b


def test_messages_right_after_a_return_wait_until_the_link_is_known_to_be_there_still() -> None:
    broker, a, b = returned(b"one", b"two")
    publish(a, "news", b"three")
    broker.run()
    assert heard(b, "a") == [b"one", b"two", b"three"]
    assert len(b.opened) == 1


def test_announcement_does_not_drop_the_messages_before_it_that_wait() -> None:
    broker, a, b = returned(b"one", b"two")
    a.core._announce(broker.now)
    [emit] = [each for each in a.core.take_events() if isinstance(each, Emit)]
    b.core.received(emit.data, broker.now)
    b.drain()
    broker.run()
    assert heard(b, "a") == [b"one", b"two"]


def test_repeated_messages_right_after_a_return_are_delivered_once() -> None:
    broker, _, b = returned(b"one", b"two")
    for _, data in emitted(broker, "a"):
        b.core.received(data, broker.now)
        b.drain()
    broker.run()
    assert heard(b, "a") == [b"one", b"two"]


def test_message_for_others_right_after_a_return_is_not_delivered() -> None:
    broker, a, b = returned()
    publish(a, "news", b"one", "b")
    publish(a, "news", b"two")
    publish(a, "sports", b"three")
    broker.run()
    assert heard(b, "a") == [b"two"]


def test_waiting_messages_are_dropped_with_the_link() -> None:
    broker, a, b = returned(b"one")
    a.dials_who_announce = b.dials_who_announce = False
    b.core.close(b.link_to("a"), "the test wants it", broker.now)
    b.drain()
    broker.run()
    assert heard(b, "a") == []
    assert b.core._topics._waiting.stored == 0


def test_waiting_messages_are_bounded() -> None:
    payload = Broker(1).random_bytes(MAX_WAITING_BULLETINS // 8)
    broker, a, b = returned(*[payload] * 12)
    broker.run()
    assert heard(b, "a") == [payload] * 7
    publish(a, "news", b"later")
    broker.run()
    assert heard(b, "a")[-1] == b"later"


def test_noisy_sender_takes_no_room_of_others_that_wait() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    want(b, "news")
    broker.restart()
    for peer in (a, b, c):
        broker.come(peer)
    broker.waiting.clear()
    quiet = [broker.random_bytes(3000) for _ in range(6)]
    for payload in quiet:
        for _ in range(200):
            publish(a, "news", payload[:1000])
        publish(c, "news", payload)
    for _ in range(len(broker.waiting)):
        broker.waiting.popleft()()
    assert b.heard == []
    broker.run()
    assert heard(b, "c") == quiet
    assert 700 < len(heard(b, "a")) < 1200


def test_messages_that_wait_as_the_bus_is_lost_again_are_dropped() -> None:
    broker, a, b = returned(b"one", b"two")
    broker.go(b)
    assert b.core._topics._waiting.stored == 0
    broker.come(b)
    publish(a, "news", b"three")
    broker.run()
    assert heard(b, "a") == [b"three"]


def test_malformed_frame_that_waits_closes_its_link() -> None:
    broker, a, b = returned(b"one")
    life = bytes.fromhex(a.core.address.removeprefix("bus:"))
    bulletin = Bulletin(slot_of("news"), 9, (), b"no frame")
    b.core.received(BusCodec(SECRET, "test").encode(life, bulletin), broker.now)
    b.drain()
    publish(a, "news", b"two")
    a.dials_who_announce = b.dials_who_announce = False
    broker.run()
    assert len(b.closed) == 1
    assert heard(b, "a") == [b"one"]


def test_message_of_a_node_that_has_given_the_link_up_is_not_delivered_after_a_return() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.go(b)
    a.core.give_up(broker.now)
    a.drain()
    broker.come(b)
    publish(a, "news", b"one")
    broker.run()
    assert heard(b, "a") == []
    publish(a, "news", b"two")
    broker.run()
    assert heard(b, "a") == [b"two"]


def test_messages_of_a_former_life_are_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.loses = lambda sender, receiver: receiver == "b"
    publish(a, "news", b"one")
    broker.kill(a)
    broker.loses = lambda sender, receiver: False
    broker.run(1.0)
    assert b.links == []
    broker.join("a")
    broker.run()
    for _, data in emitted(broker, "a"):
        b.core.received(data, broker.now)
        b.drain()
    assert heard(b, "a") == []


def test_numbers_are_forgotten_with_the_links_of_their_life() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    want(a, "news")
    for peer in (b, c):
        publish(peer, "news", b"one")
    broker.run()
    assert len(a.core._topics._heard) == 2
    broker.kill(b)
    broker.run(1.0)
    assert len(a.core._topics._heard) == 1


def test_message_of_an_unwanted_slot_does_not_hide_others() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    broker.loses = lambda sender, receiver: True
    publish(a, "news", b"one")
    publish(a, "sports", b"two")
    broker.run()
    first, second = (data for _, data in emitted(broker, "a")[-2:])
    for data in (second, first):  # the later one is replayed on a subject of this node
        b.core.received(data, broker.now)
        b.drain()
    assert heard(b, "a") == [b"one"]


def test_recorded_message_does_not_reach_a_later_subscriber_after_an_announcement() -> None:
    broker, (a, b) = cluster("a", "b")
    publish(a, "jobs", b"old")
    recorded = emitted(broker, "a")[-1][1]
    broker.run(1.25 * ANNOUNCE_INTERVAL)
    want(b, "jobs")
    b.core.received(recorded, broker.now)
    b.drain()
    publish(a, "jobs", b"new")
    broker.run()
    assert heard(b, "a") == [b"new"]


def test_message_that_is_delivered_early_hides_those_before_it_and_arrives_once() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    for payload in (b"one", b"two", b"three"):
        publish(a, "news", payload)
    _, early, _ = (data for _, data in emitted(broker, "a")[-3:])
    b.core.received(early, broker.now)
    b.drain()
    broker.run()
    assert heard(b, "a") == [b"two", b"three"]


def test_altered_message_is_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    publish(a, "news", b"one", "b")
    data = emitted(broker, "a")[-1][1]
    broker.waiting.clear()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        for each in (bytes(altered), data[:position]):
            b.core.received(each, broker.now)
            b.drain()
    assert b.heard == []


def test_malformed_frame_of_a_member_closes_its_link() -> None:
    broker, (a, b) = cluster("a", "b")
    want(b, "news")
    life = bytes.fromhex(a.core.address.removeprefix("bus:"))
    bulletin = Bulletin(slot_of("news"), 1, (), b"no frame")
    b.core.received(BusCodec(SECRET, "test").encode(life, bulletin), broker.now)
    b.drain()
    assert len(b.closed) == 1
    assert b.heard == []


class Flood:
    """Random messages on topics, over links and restarts, between three nodes."""

    def __init__(self, seed: int) -> None:
        self.broker, self.peers = cluster("a", "b", "c", seed=seed)
        self.broker.repeats = 0.2
        self._number = 0

    def publish(self, sender: int, topic: str) -> None:
        self._number += 1
        publish(self.peers[sender], topic, b"%d %s" % (self._number, topic.encode()))

    def want(self, index: int, topic: str) -> None:
        want(self.peers[index], topic)

    def unwant(self, index: int, topic: str) -> None:
        unwant(self.peers[index], topic)

    def wait(self, seconds: float) -> None:
        self.broker.run(seconds)

    def lose(self, rate: float) -> None:
        self.broker.loses = lambda sender, receiver: self.broker.random.random() < rate

    def restart(self) -> None:
        self.broker.restart()
        for peer in self.peers:
            self.broker.come(peer)

    def close(self, index: int) -> None:
        peer = self.peers[index]
        for link in peer.links:
            peer.core.close(link, "the test wants it", self.broker.now)
            peer.drain()

    def replay(self, index: int, share: float) -> None:
        recorded = [emit.data for _, emit in self.broker.emitted]
        for data in recorded[int(share * len(recorded)) :][:20]:
            self.peers[index].core.received(data, self.broker.now)
            self.peers[index].drain()

    def check(self) -> None:
        for peer in self.peers:
            for sender in self.peers:
                numbers = [int(payload.split()[0]) for payload in heard(peer, sender.name)]
                assert numbers == sorted(set(numbers))


NODE, TOPIC = st.integers(0, 2), st.sampled_from(["x", "y", "z"])
SHARE = st.floats(0, 1)
STEPS = st.one_of(
    st.tuples(st.just(Flood.publish), NODE, TOPIC),
    st.tuples(st.just(Flood.want), NODE, TOPIC),
    st.tuples(st.just(Flood.unwant), NODE, TOPIC),
    st.tuples(st.just(Flood.wait), SHARE),
    st.tuples(st.just(Flood.lose), st.floats(0, 0.6)),
    st.tuples(st.just(Flood.restart)),
    st.tuples(st.just(Flood.close), NODE),
    st.tuples(st.just(Flood.replay), NODE, SHARE),
)


@given(st.lists(STEPS, max_size=50), st.integers(0, 2**32))
def test_messages_arrive_at_most_once_and_in_order_whatever_happens(
    steps: list[tuple[Any, ...]], seed: int
) -> None:
    flood = Flood(seed)
    for topic in ("x", "y"):
        flood.want(0, topic)
    for action, *arguments in steps:
        action(flood, *arguments)
    flood.lose(0.0)
    flood.wait(1.0)
    flood.check()
