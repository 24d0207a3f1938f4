"""Messages of bytes between engines: pieces, order, links that change, receivers that give up."""

import weakref
from collections.abc import Iterator
from random import Random

import pytest

from adsum.replication import limits, messaging
from adsum.replication.effects import Close, Deliver, Send, Sending
from adsum.replication.engine import Engine
from adsum.replication.limits import MAX_IN_FLIGHT, PIECE, ROUND_BUDGET
from adsum.replication.messages import Delta, Heartbeat, Piece, ProtocolMessage, Publish, Sync
from adsum.replication.reassembly import Reassembly
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import Simulation
from adsum.testing.simulator.simulatednode import SimulatedNode

ME, PEER, OTHER = Replica("me", 1), Replica("zoe", 1), Replica("zed", 1)
SMALL = Publish("room", "small", "{}")


def data(size: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(size)


def large(pieces: float, event: str = "large") -> Publish:
    return Publish("room", event, data(int(pieces * PIECE)))


def engine(replica: Replica = ME, peer: Replica = PEER, *links: int) -> Engine:
    """An engine with links to a peer; the first one has number 1."""
    made = Engine(replica, Timing(), Random(1), now=0.0)
    for link in links or (1,):
        made.link_up(link, peer, (f"{peer.name}:1",), f"{peer.name}:1", 0.0)
    made.tick(0.0)
    while made.take_effects():
        pass
    return made


def sends(engine: Engine, now: float = 0.2) -> Iterator[Send]:
    """Each send, in one turn of the event loop after the other; reads one batch at a time."""
    while True:
        while effects := engine.take_effects():
            yield from (effect for effect in effects if isinstance(effect, Send))
        if engine.wake_at > now:
            return
        engine.tick(now)


def sent(engine: Engine, now: float = 0.2) -> Iterator[tuple[int, ProtocolMessage]]:
    """Each message with the link that it is sent over."""
    for send in sends(engine, now):
        yield from ((link, send.message) for link in send.links)


def offsets(engine: Engine, link: int = 1) -> list[int | str]:
    """The pieces, by number, and the events of other published messages, sent over a link."""
    found: list[int | str] = []
    for over, message in sent(engine):
        if over == link and isinstance(message, Piece):
            found.append(message.offset // PIECE)
        elif over == link and isinstance(message, Publish):
            found.append(message.event)
    return found


def delivered(engine: Engine) -> list[Publish]:
    found: list[Publish] = []
    while effects := engine.take_effects():
        found += [effect.message for effect in effects if isinstance(effect, Deliver)]
    return found


def cluster(count: int, bandwidth: float = float("inf")) -> tuple[Simulation, list[SimulatedNode]]:
    """Linked nodes, with so many bytes a second on each link."""
    simulation = Simulation(count, seed=7)
    simulation.run(2.0)
    simulation.network.usual.bandwidth = bandwidth
    return simulation, [simulation.node(f"n{number + 1}") for number in range(count)]


def received(node: SimulatedNode) -> list[Publish]:
    return [effect.message for effect in node.delivered]


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, 8 * 1024 * 1024])
def test_message_of_bytes_arrives_identical_at_every_member(size: int) -> None:
    simulation, (sender, *receivers) = cluster(3)
    message = Publish("room", "large", data(size))
    sending = sender.post(message, None)
    simulation.run(1.0)
    assert [received(node) for node in receivers] == [[message], [message]]
    assert (sending.waiting, sending.missed) == (0, 0)
    assert simulation.network.most_waiting <= MAX_IN_FLIGHT + 2 * PIECE


def test_messages_of_all_sizes_arrive_in_the_order_of_publication() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=4e6)
    sizes = [2.5, 0, 1, 0.01, 3, 0, 0, 1.01]
    messages = [
        large(size, str(number)) if size else Publish("room", str(number), "{}")
        for number, size in enumerate(sizes)
    ]
    for message in messages:
        sender.post(message, None)
    simulation.run(1.0)
    assert received(receiver) == messages


def one_turn(engine: Engine) -> list[type]:
    """The kinds of the messages that are sent in one turn of the event loop."""
    batches = list(iter(engine.take_effects, []))
    return [type(one.message) for batch in batches for one in batch if isinstance(one, Send)]


def test_change_and_heartbeat_are_sent_between_two_pieces() -> None:
    sender = engine()
    sender.receive(1, Sync(ME, 0, follow=True), 0.1)
    sender.tick(0.5)
    one_turn(sender)
    sender.publish(large(20), None, 0.6)
    assert one_turn(sender) == [Piece]
    sender.track("room", "ann", "{}")
    sender.tick(5.0)
    *before, last = one_turn(sender)
    assert {Delta, Heartbeat} <= set(before)
    assert last is Piece
    sender.tick(5.0)
    assert one_turn(sender) == [Piece]


def test_turn_of_the_event_loop_sends_no_more_than_the_budget() -> None:
    sender = engine()
    sender.publish(large(20), None, 0.1)
    for _ in range(20 * PIECE // ROUND_BUDGET):
        assert one_turn(sender) == [Piece] * (ROUND_BUDGET // PIECE)
        sender.tick(0.1)
    assert one_turn(sender) == []
    assert sender.wake_at > 0.1


def test_members_with_room_get_each_piece_in_one_send() -> None:
    sender = engine()
    sender.link_up(2, OTHER, ("zed:1",), "zed:1", 0.0)
    while sender.take_effects():
        pass
    sender.publish(large(3), None, 0.1)
    pieces = [send for send in sends(sender) if isinstance(send.message, Piece)]
    assert [sorted(send.links) for send in pieces] == [[1, 2]] * 3
    assert [send.sending for send in pieces] == [None] * 3, "a frame is kept for nobody"


def test_piece_for_a_slow_member_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation, (sender, slow, _) = cluster(3)
    simulation.network.line("n1", slow.place).bandwidth = 2e6
    encoded: list[int] = []
    encode = sender._encode

    def count(message: ProtocolMessage) -> object:
        if isinstance(message, Piece):
            encoded.append(message.offset // PIECE)
        return encode(message)

    monkeypatch.setattr(sender, "_encode", count)
    sender.post(large(30), None)
    simulation.run(3.0)
    assert encoded == list(range(30))
    assert received(slow) == [large(30)]


def test_small_message_waits_behind_a_large_one() -> None:
    sender = engine()
    sender.publish(large(2), None, 0.1)
    sender.publish(SMALL, None, 0.1)
    assert offsets(sender) == [0, 1, "small"]


# Links that change, and receivers without room.


def test_message_starts_again_over_the_next_link() -> None:
    sender = engine(PEER, ME, 1, 2)  # the smaller end chooses between the two
    for link in (1, 2):
        sender.receive(link, Heartbeat(1, 0), 0.1)
    sending = sender.publish(large(3), None, 0.1)
    stream = sent(sender)
    over, _ = next((link, one) for link, one in stream if isinstance(one, Piece))
    sender.link_down(over, 0.1)
    pieces = [(link, one.offset // PIECE) for link, one in stream if isinstance(one, Piece)]
    assert pieces == [(3 - over, 0), (3 - over, 1), (3 - over, 2)]
    assert (sending.waiting, sending.missed) == (0, 0)


def test_receiver_of_a_restarted_message_gets_it_once() -> None:
    receiver = engine(PEER, ME, 1, 2)
    pieces = pieces_of(large(3))
    for link, piece in [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]:
        receiver.receive(link, pieces[piece], 0.1)
    receiver.link_down(1, 0.1)
    assert delivered(receiver) == [large(3)]
    assert receiver.incomplete_messages == 1


def test_link_that_breaks_in_the_middle_delivers_nothing_or_everything_once() -> None:
    for seconds in (0.0, 0.001, 0.002, 0.003, 0.005, 0.01, 0.1):
        simulation, (sender, receiver) = cluster(2, bandwidth=2e7)
        sender.post(large(40), None)
        simulation.run(seconds)
        for link in simulation.network.between("n1", "n2"):
            simulation.network.sever(link)
        simulation.run(5.0)
        sender.post(SMALL, None)
        simulation.run(1.0)
        *before, last = received(receiver)
        assert last == SMALL
        assert before in ([], [large(40)])
        assert sender.missed_messages + len(before) >= 1
        assert receiver.engine._reassembly._reserved == 0


def test_member_that_gives_up_in_the_middle_misses_the_message_once() -> None:
    simulation, (sender, stuck, reader) = cluster(3)
    simulation.network.cut("n1", stuck.place)
    sending = sender.post(large(40), None)
    simulation.run(0.1)
    assert received(reader) == [large(40)]
    assert sending.waiting == 1
    simulation.run(messaging.PATIENCE)
    assert (sending.waiting, sending.missed, sender.missed_messages) == (0, 1, 1)
    simulation.network.heal()
    simulation.run(1.0)
    sender.post(SMALL, None)
    simulation.run(0.1)
    assert received(stuck) == [SMALL]
    assert stuck.counters()["incomplete_messages_total"] == 1
    assert stuck.engine._reassembly._reserved == 0


def test_slow_consumer_that_reads_misses_no_large_message() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=1e6)
    messages = [large(40, str(number)) for number in range(3)]
    sendings = [sender.post(message, None) for message in messages]
    simulation.run(3 * 40 * PIECE / 1e6 + 1.0)
    assert received(receiver) == messages
    assert {(sending.waiting, sending.missed) for sending in sendings} == {(0, 0)}


def test_change_overtakes_a_large_message_on_a_narrow_line() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e6)
    sender.post(large(100), None)
    sender.track("room", "ann")
    simulation.run((MAX_IN_FLIGHT + 2 * PIECE) / 2e6 + 0.1)
    assert "ann" in receiver.present("room")
    assert received(receiver) == []
    simulation.run(100 * PIECE / 2e6)
    assert received(receiver) == [large(100)]


def test_withdrawn_message_ends_in_the_middle_and_the_next_one_arrives() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=4e6)
    sending = sender.post(large(40), None)
    simulation.run(0.05)
    sender.engine.withdraw(sending)
    sender.post(SMALL, None)
    sender.post(large(2), None)
    simulation.run(1.0)
    assert (sending.waiting, sending.missed, sender.missed_messages) == (0, 1, 1)
    assert received(receiver) == [SMALL, large(2)]
    assert receiver.engine.incomplete_messages == 1


def test_queue_overflow_counts_large_messages_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "MAX_WAITING", 5 * PIECE)
    sender = engine()
    sender.link_writable(1, False, 0.0)
    sendings: list[Sending] = [sender.publish(large(2), None, 0.1) for _ in range(4)]
    assert [sending.missed for sending in sendings] == [0, 0, 1, 1]
    sender.link_writable(1, True, 0.2)
    assert offsets(sender) == [0, 1, 0, 1]


def test_sender_that_goes_down_in_the_middle_frees_the_memory_of_its_message() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e6)
    sender.post(large(100), None)
    simulation.run(0.5)
    assert receiver.engine._reassembly._reserved == 100 * PIECE
    sender.abandon()
    simulation.run(0.1)
    assert receiver.engine._reassembly._reserved == 0
    assert received(receiver) == []
    assert receiver.counters()["incomplete_messages_total"] == 1


def test_sender_that_falls_silent_in_the_middle_frees_the_memory_of_its_message() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e6)
    sender.post(large(100), None)
    simulation.run(0.5)
    sender.pause()
    simulation.partition(["n1"], ["n2"])
    simulation.run(2 * simulation.timing.down_after)
    assert receiver.engine._reassembly._reserved == 0
    assert received(receiver) == []


def test_message_that_its_sender_gave_up_is_dropped_after_down_after() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e6)
    sending = sender.post(large(100), None)
    simulation.run(0.5)
    sender.engine.withdraw(sending)
    simulation.run(simulation.timing.down_after - 1.0)
    assert receiver.engine._reassembly._reserved == 100 * PIECE
    simulation.run(1.0 + 2 * simulation.timing.heartbeat_interval)
    assert receiver.engine._reassembly._reserved == 0
    assert receiver.engine.incomplete_messages == 1
    assert simulation.network.between("n1", "n2"), "the link was closed"


def test_slow_line_delivers_a_message_that_takes_longer_than_down_after() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=6e5)
    sender.post(large(100), None)
    simulation.run(100 * PIECE / 6e5 + 5.0)
    assert simulation.timing.down_after < 100 * PIECE / 6e5
    assert received(receiver) == [large(100)]


def test_node_that_stops_in_the_middle_frees_the_memory_of_messages() -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=2e6)
    sender.post(large(100), None)
    simulation.run(0.5)
    receiver.leave(0.0)
    assert receiver.engine._reassembly._reserved == 0


# Reassembly.


def pieces_of(message: Publish, number: int = 1) -> list[Piece]:
    sending = Sending(message, 0.0, number)
    return [frame for n in range(sending.frames) if isinstance(frame := sending.frame(n), Piece)]


def test_pieces_are_views_of_the_one_payload() -> None:
    message = large(2.5)
    (first, *_) = pieces_of(message)
    assert isinstance(first.data, memoryview)
    assert first.data.obj is message.payload


@pytest.mark.parametrize("lost", range(5))
def test_message_without_one_piece_is_dropped_and_counted_once(lost: int) -> None:
    reassembly = Reassembly()
    pieces = pieces_of(large(4.5))
    arrived = [reassembly.receive(1, piece, 0.0) for piece in pieces if piece is not pieces[lost]]
    assert arrived == [None] * 4
    assert reassembly.receive(1, pieces_of(large(0.5), 2)[0], 0.0) == large(0.5)
    assert reassembly.incomplete == (lost > 0)
    assert reassembly._reserved == 0


def test_pieces_of_two_messages_never_mix() -> None:
    reassembly = Reassembly()
    one, two = (pieces_of(Publish("room", "e", data(3 * PIECE, seed)), seed) for seed in (1, 2))
    assert [reassembly.receive(1, piece, 0.0) for piece in (one[0], one[1], two[2])] == [None] * 3
    assert [reassembly.receive(1, piece, 0.0) for piece in (one[2], two[1], two[2])] == [None] * 3
    assert reassembly.incomplete == 1


def test_repeated_piece_ends_the_message() -> None:
    reassembly = Reassembly()
    pieces = pieces_of(large(3))
    order = (0, 1, 1, 2)
    assert [reassembly.receive(1, pieces[at], 0.0) for at in order] == [None] * 4
    assert reassembly.incomplete == 1


def test_published_object_ends_the_unfinished_message_of_its_link_alone() -> None:
    receiver = engine(PEER, ME, 1, 2)
    pieces = pieces_of(large(2))
    receiver.receive(1, pieces[0], 0.1)
    receiver.receive(2, pieces[0], 0.1)
    receiver.receive(1, SMALL, 0.1)
    receiver.receive(1, pieces[1], 0.1)
    receiver.receive(2, pieces[1], 0.1)
    assert delivered(receiver) == [SMALL, large(2)]
    assert receiver.incomplete_messages == 1


def test_message_beyond_the_memory_bound_is_dropped_and_others_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_UNFINISHED", 5 * PIECE)
    reassembly = Reassembly()
    pieces = pieces_of(large(2))
    for link in (1, 2, 3):
        assert reassembly.receive(link, pieces[0], 0.0) is None
    sizes = {size.name: size for size in reassembly.sizes(3)}
    assert sizes["bytes of unfinished messages"] == (
        "bytes of unfinished messages",
        4 * PIECE,
        5 * PIECE,
    )
    arrived = [reassembly.receive(link, pieces[1], 0.0) for link in (1, 2, 3)]
    assert arrived == [large(2), large(2), None]
    assert reassembly.incomplete == 1
    assert reassembly.receive(3, pieces[0], 0.0) is None
    assert reassembly.receive(3, pieces[1], 0.0) == large(2)


def test_refused_piece_of_a_closed_link_changes_nothing() -> None:
    receiver = engine(PEER, ME, 1)
    receiver.link_down(1, 0.1)
    receiver.receive(1, pieces_of(large(2))[0], 0.2)
    assert receiver.incomplete_messages == 0
    assert not [e for e in receiver.take_effects() if isinstance(e, Close | Deliver)]


def of_turn(engine: Engine) -> list[Send]:
    """The frames of published messages that are sent in this turn of the event loop."""
    found: list[Send] = []
    while effects := engine.take_effects():
        found += [one for one in effects if isinstance(one, Send)]
    return [one for one in found if isinstance(one.message, Publish | Piece)]


def test_many_members_with_messages_of_their_own_take_turns() -> None:
    sender = Engine(ME, Timing(), Random(1), now=0.0)
    names = [f"z{number}" for number in range(5)]
    for link, name in enumerate(names):
        sender.link_up(link, Replica(name, 1), (f"{name}:1",), f"{name}:1", 0.0)
    sender.tick(0.0)
    of_turn(sender)
    for name in names:
        sender.publish(large(2), name, 0.0)
    turns = [of_turn(sender)]
    while sender.wake_at <= 0.0:
        sender.tick(0.0)
        turns.append(of_turn(sender))
    assert [len(turn) for turn in turns if turn] == [1] * 10
    assert [link for turn in turns for send in turn for link in send.links] == [*range(5)] * 2


def test_frame_for_many_members_is_sent_to_all_in_one_turn() -> None:
    sender = Engine(ME, Timing(), Random(1), now=0.0)
    for link in range(5):
        sender.link_up(link, Replica(f"z{link}", 1), (f"z{link}:1",), f"z{link}:1", 0.0)
    sender.tick(0.0)
    of_turn(sender)
    sender.publish(large(2), None, 0.0)
    assert [send.links for send in of_turn(sender)] == [(0, 1, 2, 3, 4)]


@pytest.mark.parametrize("payload", ["{}", b""])
def test_small_messages_are_bounded_in_a_queue_and_in_a_turn(
    payload: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messaging, "MAX_WAITING", 1000 * limits.MESSAGE_COST)
    sender = engine()
    sender.link_writable(1, False, 0.0)
    sendings = [sender.publish(Publish("room", "small", payload), None, 0.0) for _ in range(2000)]
    assert 900 < sum(sending.waiting for sending in sendings) < 1000
    sender.tick(0.1)
    sender.link_writable(1, True, 0.1)
    assert 0 < len(of_turn(sender)) <= ROUND_BUDGET / limits.MESSAGE_COST


def test_member_that_stops_reading_after_the_publisher_was_released_misses_the_message() -> None:
    sender = engine()
    sending = sender.publish(large(100), None, 0.0)
    of_turn(sender)
    sender.tick(1.0)  # there is room, so the message stays queued
    of_turn(sender)
    assert sending.waiting == 1
    sender.link_writable(1, False, 1.0)
    assert sender.wake_at <= 2.0
    for now in (1.5, 1.9):
        sender.tick(now)
        assert sending.waiting == 1
    sender.tick(2.1)
    assert (sending.waiting, sending.missed) == (0, 1)


class Event(str):
    """The name of an event; it can be referenced weakly."""


def test_message_that_was_sent_is_not_kept_behind_one_that_waits() -> None:
    sender = Engine(ME, Timing(), Random(1), now=0.0)
    for link, peer in enumerate((PEER, OTHER)):
        sender.link_up(link, peer, (f"{peer.name}:1",), f"{peer.name}:1", 0.0)
    sender.tick(0.0)
    sender.link_writable(0, False, 0.0)
    waiting = sender.publish(large(1), PEER.name, 0.0)
    event = Event("sent")
    gone = weakref.ref(event)
    sender.publish(large(1, event), OTHER.name, 0.0)
    assert of_turn(sender)
    del event
    assert (waiting.waiting, gone()) == (1, None)


@pytest.mark.parametrize(("bandwidth", "arrives"), [(200e3, False), (320 * 1024, True)])
def test_large_message_needs_a_line_that_drains_a_full_link_within_the_patience(
    bandwidth: float, arrives: bool
) -> None:
    simulation, (sender, receiver) = cluster(2, bandwidth=bandwidth)
    sending = sender.post(large(16), None)
    simulation.run(10.0)
    assert (sending.waiting, sending.missed) == (0, not arrives)
    assert len(received(receiver)) == arrives
    assert simulation.network.between("n1", "n2"), "the link was closed"
