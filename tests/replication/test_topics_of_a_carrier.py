"""Messages for all members of which some are linked over a carrier: topics, room, and misses."""

from collections.abc import Iterator
from random import Random

import pytest

from adsum.errors import ProtocolError
from adsum.replication import limits, messaging
from adsum.replication.effects import Deliver, PublishOnTopic, Released, Send, Sending
from adsum.replication.engine import Engine
from adsum.replication.limits import PIECE
from adsum.replication.messages import Heartbeat, Piece, Publish
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

ME = Replica("me", 1)
TEXT = Publish("room", "text", '{"n":1}')
#: Three pieces.
LARGE = Publish("room", "large", bytes(2 * PIECE + 1))


def engine(*, direct: tuple[str, ...] = (), carried: tuple[str, ...] = ()) -> Engine:
    """A node with links of both kinds, whose carrier is open and has room."""
    made = Engine(ME, Timing(), Random(1), now=0.0)
    made.set_topics(True, True, 0.0)
    for number, name in enumerate((*direct, *carried), 1):
        made.link_up(number, Replica(name, 1), (), None, 0.0, direct=name in direct)
        made.receive(number, Heartbeat(1, 0, 0), 0.0)
    list(frames(made))
    return made


def frames(engine: Engine) -> Iterator[tuple[int, int]]:
    """Where each frame of a published message goes, a link or 0 for its topic, and its index."""
    while effects := engine.take_effects():
        for effect in effects:
            match effect:
                case Send(links, message, _, index) if isinstance(message, Publish | Piece):
                    yield from ((link, index) for link in links)
                case PublishOnTopic(_, index):
                    yield 0, index


def turn(engine: Engine, now: float) -> list[tuple[int, int]]:
    engine.tick(now)
    return list(frames(engine))


def post(engine: Engine, message: Publish = TEXT, *, over_links: bool = False) -> Sending:
    return engine.publish(message, None, 0.0, over_links=over_links)


def test_members_on_a_carrier_are_sent_one_frame_on_the_topic() -> None:
    node = engine(direct=("a", "b"), carried=("c", "d", "e"))
    sending = post(node)
    assert list(frames(node)) == [(1, 0), (2, 0), (0, 0)]
    assert sending.apart == {"a", "b"}
    assert (sending.carried, sending.missed, sending.waiting) == (3, 0, 0)


def test_frame_for_links_and_topic_is_encoded_once() -> None:
    node = engine(direct=("a",), carried=("c",))
    post(node)
    send, on_topic = node.take_effects()
    assert isinstance(send, Send)
    assert isinstance(on_topic, PublishOnTopic)
    assert on_topic.reused
    assert send.sending is on_topic.sending


def test_nothing_is_published_without_members_on_the_carrier() -> None:
    node = engine(direct=("a",))
    post(node)
    assert list(frames(node)) == [(1, 0)]


def test_message_for_one_member_goes_over_its_link() -> None:
    node = engine(direct=("a",), carried=("c",))
    node.publish(TEXT, "c", 0.0)
    assert list(frames(node)) == [(2, 0)]


def test_message_over_links_reaches_every_member_by_its_link() -> None:
    node = engine(direct=("a",), carried=("c", "d"))
    post(node, over_links=True)
    assert list(frames(node)) == [(1, 0), (2, 0), (3, 0)]


def test_member_with_both_kinds_of_links_is_apart() -> None:
    node = engine(carried=("a", "b"))
    node.link_up(9, Replica("a", 1), (), None, 0.0, direct=True)
    sending = post(node)
    assert sending.apart == {"a"}
    assert [link for link, _ in frames(node)].count(0) == 1


def test_closed_carrier_misses_for_each_of_its_members() -> None:
    node = engine(direct=("a",), carried=("c", "d"))
    node.set_topics(False, True, 0.0)
    sending = post(node)
    assert list(frames(node)) == [(1, 0)]
    assert sending.missed == node.missed_messages == 2
    node.set_topics(True, True, 0.0)
    assert post(node).missed == 0


def test_member_without_a_link_misses_a_message() -> None:
    node = engine(carried=("c", "d"))
    node.link_down(1, 0.0)
    sending = post(node)
    assert sending.missed == 1
    assert sending.carried == 1


def test_messages_wait_for_the_carrier_in_order_and_delay_no_member() -> None:
    node = engine(direct=("a",), carried=("c", "d"))
    node.set_topics(True, False, 0.0)
    first, second = post(node), post(node, LARGE)
    assert (first.waiting, second.waiting) == (2, 3)
    got = list(frames(node)) + turn(node, 0.01) + turn(node, 0.02) + turn(node, 0.03)
    assert got == [(1, 0), (1, 0), (1, 1), (1, 2)]
    node.set_topics(True, True, 0.04)
    got = [frame for step in range(5) for frame in turn(node, 0.04 + step / 1000)]
    assert got == [(0, 0), (0, 0), (0, 1), (0, 2)]
    assert (first.waiting, second.waiting, second.missed) == (0, 0, 0)


def test_publisher_is_released_after_its_patience_and_the_members_are_counted() -> None:
    node = engine(carried=("c", "d", "e"))
    node.set_topics(True, False, 0.0)
    sending = post(node)
    for step in range(1, 25):
        node.tick(step * 0.05)
        for number in (1, 2, 3):
            node.receive(number, Heartbeat(1 + step, 0, 0), step * 0.05)
        if Released(sending) in node.take_effects():
            break
    assert step * 0.05 == pytest.approx(messaging.PATIENCE, abs=0.06)
    assert (sending.waiting, sending.missed, node.missed_messages) == (0, 3, 3)


def test_withdrawn_message_is_missed_by_all_members_on_the_carrier() -> None:
    node = engine(carried=("c", "d"))
    node.set_topics(True, False, 0.0)
    sending = post(node)
    node.withdraw(sending)
    assert (sending.missed, node.missed_messages) == (2, 2)
    node.set_topics(True, True, 0.0)
    assert turn(node, 0.0) == []


def test_loss_of_the_carrier_drops_the_queue_and_the_rest_of_a_message() -> None:
    node = engine(carried=("c", "d"))
    sending = post(node, LARGE)
    assert turn(node, 0.0)[0] == (0, 0)
    node.set_topics(False, True, 0.0)
    assert (sending.waiting, sending.missed) == (0, 2)
    node.set_topics(True, True, 0.0)
    assert turn(node, 0.0) == []


def test_queue_of_the_carrier_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "MAX_WAITING", 10 * PIECE)
    node = engine(carried=("c", "d"))
    node.set_topics(True, False, 0.0)
    missed = [post(node, LARGE).missed for _ in range(6)]
    assert missed == [0, 0, 0, 0, 2, 2]


# Receiving.


def deliveries(engine: Engine) -> list[tuple[str, str]]:
    effects = engine.take_effects()
    return [(one.sender, one.message.event) for one in effects if isinstance(one, Deliver)]


def pieces(number: int = 1) -> list[Piece]:
    sending = Sending(LARGE, 0.0, number)
    made = [sending.frame(index) for index in range(sending.frames)]
    return [piece for piece in made if isinstance(piece, Piece)]


def test_message_on_a_topic_is_delivered_with_its_sender() -> None:
    node = engine(carried=("c",))
    node.receive_on_topic(1, TEXT, 0.0)
    assert deliveries(node) == [("c", "text")]
    node.receive_on_topic(7, TEXT, 0.0)
    assert deliveries(node) == []


def test_other_message_on_a_topic_breaks_the_protocol() -> None:
    node = engine(carried=("c",))
    with pytest.raises(ProtocolError):
        node.receive_on_topic(1, Heartbeat(2, 0, 0), 0.0)


def test_pieces_on_topics_and_on_the_link_of_one_peer_do_not_interrupt_each_other() -> None:
    node = engine(carried=("c",))
    for near, far in zip(pieces(1), pieces(2), strict=True):
        node.receive(1, near, 0.0)
        node.receive_on_topic(1, far, 0.0)
    assert deliveries(node) == [("c", "large")] * 2
    assert node.incomplete_messages == 0


def test_message_with_a_lost_piece_is_dropped() -> None:
    node = engine(carried=("c",))
    first, _, last = pieces()
    node.receive_on_topic(1, first, 0.0)
    node.receive_on_topic(1, last, 0.0)
    assert deliveries(node) == []
    assert node.incomplete_messages == 1


@pytest.mark.parametrize("ends", ["another message", "the end of the link"])
def test_unfinished_message_ends_and_leaves_no_memory(ends: str) -> None:
    node = engine(carried=("c",))
    node.receive_on_topic(1, pieces()[0], 0.0)
    if ends == "another message":
        node.receive_on_topic(1, TEXT, 0.0)
    else:
        node.link_down(1, 0.0)
    assert node.incomplete_messages == 1
    sizes = {size.name: size.value for size in node.sizes(2)}
    assert sizes["bytes of unfinished messages"] == 0 < limits.MAX_UNFINISHED
