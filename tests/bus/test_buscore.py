"""The virtual links of `BusCore`, on a bus in the hands of the test."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.bus.buscore import BusCore, prefix_of
from adsum.bus.busdials import life_of
from adsum.bus.busevents import Emit, Trouble
from adsum.bus.busmessages import Announce, BusCodec, Cast, Greet, Probe, Report, Single
from adsum.bus.limits import (
    DIAL_PATIENCE,
    DIAL_TIMEOUT,
    FIRST_AFTER,
    GREETING_INTERVAL,
    MAX_CASTS_KEPT,
    MAX_DIALS,
    REPORT_PATIENCE,
    RESEND_AFTER,
    RESEND_PATIENCE,
    RETURN_GRACE,
    WINDOW,
)
from adsum.errors import DialError, DialRefusedError, HandshakeError
from adsum.transport.contract import NodeIdentity
from adsum.transport.framing import FRAME_LIMIT, encode_payload
from adsum.transport.handshake import SelfDialError

from .broker import SECRET, Broker, Peer


def cluster(*names: str, seed: int = 0) -> tuple[Broker, list[Peer]]:
    """Nodes that are linked with each other, each by one link."""
    broker = Broker(seed)
    peers = [broker.join(name) for name in names]
    broker.run()
    for peer in peers:
        assert len(peer.links) == len(names) - 1
    return broker, peers


def send(peer: Peer, payload: bytes, *to: str) -> None:
    """Send a frame to some nodes, or to all."""
    links = [peer.link_to(name) for name in to] if to else peer.links
    peer.core.send(links, payload, peer.broker.now)
    peer.drain()


def frames(peer: Peer, sender: str) -> list[bytes]:
    return peer.frames[peer.link_to(sender)]


# Discovery and handshakes.


def test_newcomer_is_dialled_by_the_others() -> None:
    _, (a, b, c) = cluster("a", "b", "c")
    assert [a.opened[link].peer.name for link in a.links] == ["b", "c"]
    assert all(a.opened[link].dialled is not None for link in a.links)
    assert [c.opened[link].dialled for link in c.links] == [None, None]
    assert b.opened[b.link_to("a")].peer == NodeIdentity("test", "a", 1, ())


def test_first_node_is_alone() -> None:
    broker = Broker()
    a = broker.join("a")
    broker.run()
    b = broker.join("b")
    broker.run()
    assert (a.alone, b.alone) == (1, 0)


def test_dial_of_a_life_that_ended_is_refused() -> None:
    broker, (a, b) = cluster("a", "b")
    broker.kill(b)
    a.core.dial(b.core.address, broker.now)
    a.drain()
    broker.run()
    assert isinstance(a.dials[b.core.address], DialRefusedError)


@pytest.mark.parametrize(
    "address",
    ["bus:", "bus:12", "bus:zz", "127.0.0.1:7400", "bus:" + "0" * 18, "bus:" + "A" * 16],
)
def test_dial_of_a_wrong_address_fails(address: str) -> None:
    broker, (a, _) = cluster("a", "b")
    a.core.dial(address, broker.now)
    a.drain()
    assert isinstance(a.dials[address], DialError)


def test_dial_of_the_own_address_is_noticed() -> None:
    broker, (a, _) = cluster("a", "b")
    a.core.dial(a.core.address, broker.now)
    a.drain()
    assert isinstance(a.dials[a.core.address], SelfDialError)


def replay(broker: Broker, sender: str, receiver: Peer) -> None:
    """Pass on everything that a node has published, again, as a stranger on the bus can."""
    for name, emit in list(broker.emitted):
        if name == sender:
            receiver.core.received(emit.data, broker.now)
            receiver.drain()


def test_recorded_messages_of_a_dead_node_open_no_link() -> None:
    broker, (a, b) = cluster("a", "b")
    send(b, b"hello")
    broker.kill(b)
    broker.run(1.0)
    assert a.links == []
    replay(broker, "b", a)
    broker.run(DIAL_TIMEOUT + 1.0)
    assert a.links == []
    assert len(a.opened) == 1
    assert isinstance(a.dials[b.core.address], DialRefusedError)


def test_recorded_messages_of_a_living_node_are_not_delivered_again() -> None:
    broker, (a, b) = cluster("a", "b")
    send(b, b"hello")
    send(b, b"hello, a", "a")
    broker.run()
    before = list(frames(a, "b"))
    replay(broker, "b", a)
    broker.run(DIAL_TIMEOUT + 1.0)
    assert frames(a, "b") == before
    assert (len(a.links), len(b.links)) == (1, 1)


def test_recorded_request_for_lost_frames_does_not_close_the_link() -> None:
    broker, (a, b) = cluster("a", "b")
    broker.loses = lambda sender, receiver: sender == "a"
    send(a, b"one", "b")
    broker.run()
    broker.loses = lambda sender, receiver: False
    send(a, b"two", "b")  # the gap makes the other end ask
    broker.run(1.0)
    assert any(getattr(decoded(emit.data), "resend", False) for _, emit in broker.emitted)
    large = broker.random_bytes(FRAME_LIMIT)
    send(a, large, "b")  # this makes it acknowledge
    broker.run(1.0)
    replay(broker, "b", a)
    broker.run(1.0)
    assert a.closed == b.closed == {}
    assert frames(b, "a") == [b"one", b"two", large]


def two_links() -> tuple[Broker, Peer, Peer]:
    """Two nodes with two links and one absence behind them, and messages of each kind on both."""
    broker, (a, b, _) = cluster("a", "b", "c")
    dial(b, a)
    broker.run()
    for sender, receiver in ((a, b), (b, a)):
        for link in sender.links:
            sender.core.send([link], broker.random_bytes(FRAME_LIMIT), broker.now)
            sender.drain()
        broker.run()
        broker.go(receiver)
        broker.come(receiver)
        broker.run(1.0)
    assert len([link for link in b.links if b.opened[link].peer.name == "a"]) == 2
    return broker, a, b


def replay_kind(broker: Broker, kind: type, sender: str, receiver: Peer) -> None:
    """Pass on all messages of a kind that a node has published, again."""
    recorded = [emit.data for name, emit in broker.emitted if name == sender]
    chosen = [data for data in recorded if isinstance(decoded(data), kind)]
    assert chosen
    for data in chosen:
        receiver.core.received(data, broker.now)
        receiver.drain()


@pytest.mark.parametrize("kind", [Report, Single])
def test_recorded_message_does_not_confirm_a_link_that_its_peer_has_closed(kind: type) -> None:
    broker, a, b = two_links()
    closed = b.link_to("a")
    [kept] = [link for link in b.links if b.opened[link].peer.name == "a" and link != closed]
    broker.go(b)
    a.core.close(a.link_to("b"), "redundant", broker.now)
    a.drain()
    broker.come(b)
    replay_kind(broker, kind, "a", b)
    before = len(b.frames[closed])
    send(a, b"once")
    broker.run()
    assert b.frames[kept][-1] == b"once"
    assert b.frames[closed][before:] == []
    assert closed in b.closed


@pytest.mark.parametrize("kind", [Report, Single])
def test_recorded_message_ends_no_hold_of_a_peer_that_is_away(kind: type) -> None:
    broker, a, b = two_links()
    broker.restart()
    broker.come(b)
    replay_kind(broker, kind, "a", b)
    broker.run(RETURN_GRACE - 0.1)
    assert {link for link in b.links if b.opened[link].peer.name == "a"} <= b.held
    broker.come(a)
    broker.run()
    assert not b.held & {link for link in b.links if b.opened[link].peer.name == "a"}


def test_recorded_announcement_that_is_repeated_is_answered_once() -> None:
    broker, (a, b) = cluster("a", "b")
    broker.go(b)
    broker.come(b)
    broker.run(1.0)
    recorded = [emit.data for name, emit in broker.emitted if name == "b"]
    announcements = [data for data in recorded if isinstance(decoded(data), Announce)]
    before = len(broker.emitted)
    for data in 100 * announcements:
        a.core.received(data, broker.now)
        a.drain()
    broker.run()
    assert len(broker.emitted) - before <= 2  # a report, and the report that it asks for


def test_messages_of_all_other_versions_share_one_series_of_log_lines() -> None:
    _, (a, _) = cluster("a", "b")
    for version in range(2, 256):
        a.core.received(bytes([0xAD, version]) + bytes(40), 1000.0)
    troubles = [event for event in a.core.take_events() if isinstance(event, Trouble)]
    assert len(troubles) == 254
    assert len({trouble.key for trouble in troubles}) == 1


@pytest.mark.parametrize("seed", range(4))
def test_recorded_greeting_does_not_end_a_dial(seed: int) -> None:
    broker = Broker(seed)
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(b, a)
    broker.run()
    for peer in (a, b):
        peer.core.give_up(broker.now)
        peer.drain()
    recorded = [emit for name, emit in broker.emitted if name == "b"]
    dial(a, b)
    for emit in recorded:
        a.core.received(emit.data, broker.now)
        a.drain()
    broker.run()
    assert a.dials == {b.core.address: None}
    assert len(a.links) == 1


def dial(peer: Peer, to: Peer) -> None:
    peer.core.dial(to.core.address, peer.broker.now)
    peer.drain()


def silent(broker: Broker, name: str, *, secret: bytes = SECRET) -> Peer:
    """A node that dials nobody by itself."""
    peer = Peer(broker, name, secret, b"")
    peer.dials_who_announce = False
    broker.peers.append(peer)
    broker.come(peer)
    broker.run()
    return peer


@pytest.mark.parametrize("seed", [0, 1])
def test_dials_in_both_directions_open_one_link(seed: int) -> None:
    broker = Broker(seed)
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    dial(b, a)
    broker.run()
    assert len(a.opened) == len(b.opened) == 1
    assert (a.dials, b.dials) == ({b.core.address: None}, {a.core.address: None})
    assert a.opened[a.links[0]].dialled == b.core.address
    assert b.opened[b.links[0]].dialled == a.core.address


def greetings(broker: Broker, peer: Peer) -> int:
    """Messages of handshakes that a node has sent."""
    messages = [decoded(emit.data) for name, emit in broker.emitted if name == peer.name]
    return sum(isinstance(message, Greet) for message in messages)


def decoded(data: bytes) -> object:
    return BusCodec(SECRET, "test").decode(data)[1]


def test_dials_beyond_the_limit_wait_for_the_end_of_others() -> None:
    broker = Broker()
    a = silent(broker, "a")
    others = [silent(broker, f"other {number}") for number in range(3 * MAX_DIALS)]
    for other in others:
        dial(a, other)
    assert greetings(broker, a) == MAX_DIALS
    broker.run()
    assert len(a.links) == len(others)
    assert list(a.dials.values()) == [None] * len(others)


def test_dials_that_a_stranger_leaves_without_an_answer_delay_others() -> None:
    broker = Broker()
    others = [silent(broker, f"other {number}") for number in range(2 * MAX_DIALS)]
    recorded = [emit.data for _, emit in broker.emitted]
    stranger = silent(broker, "stranger", secret=b"another secret of it")
    for other in others:
        broker.kill(other)
        stranger.subjects += other.core.subjects[1:]
    newcomer = broker.join("newcomer")
    for data in recorded:
        newcomer.core.received(data, broker.now)
        newcomer.drain()
    late = silent(broker, "late")
    broker.run(2 * DIAL_PATIENCE - 0.1)
    assert newcomer.links == []
    broker.run(0.2)
    assert len(newcomer.links) == len(late.links) == 1


def test_newcomer_answers_the_dials_of_hundreds_of_nodes_at_once() -> None:
    broker = Broker()
    newcomer = silent(broker, "newcomer")
    for number in range(300):
        other = Peer(broker, f"other {number}", SECRET, b"")
        other.subscribed = True
        other.core.connected(broker.now)
        other.core.take_events()  # the others need not link to each other
        broker.peers.append(other)
        dial(other, newcomer)
    broker.run()
    assert len(newcomer.links) == 300
    assert all(list(other.dials.values()) == [None] for other in broker.peers[1:])


def test_waiting_dial_ends_with_the_link_that_its_node_opens() -> None:
    broker = Broker()
    a = silent(broker, "a")
    mute = [silent(broker, f"mute {number}") for number in range(MAX_DIALS)]
    b = silent(broker, "b")
    broker.loses = lambda sender, receiver: "mute" in receiver
    for other in [*mute, b]:
        dial(a, other)
    broker.run()
    assert a.links == []
    dial(b, a)
    broker.run()
    assert a.dials == {b.core.address: None}
    assert a.opened[a.links[0]].dialled == b.core.address
    broker.run(DIAL_TIMEOUT + 0.1)
    assert len(a.dials) == 1 + len(mute)
    assert len(b.opened) == 1


def test_waiting_dials_begin_when_others_have_no_answer_yet() -> None:
    broker = Broker()
    a = silent(broker, "a")
    mute = [silent(broker, f"mute {number}") for number in range(MAX_DIALS)]
    b = silent(broker, "b")
    broker.loses = lambda sender, receiver: "mute" in receiver
    for other in [*mute, b]:
        dial(a, other)
    broker.run(DIAL_PATIENCE + 0.1)
    assert a.dials == {b.core.address: None}
    broker.run(DIAL_TIMEOUT)
    assert all(isinstance(a.dials[each.core.address], DialError) for each in mute)


@pytest.mark.parametrize("returns", [False, True])
def test_announcement_of_a_node_whose_dial_waits_leads_to_no_other(returns: bool) -> None:
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    if returns:
        broker.go(b)
        broker.come(b)
        broker.run()
    broker.loses = lambda sender, receiver: "mute" in receiver
    mute = [silent(broker, f"mute {number}") for number in range(MAX_DIALS)]
    for other in [*mute, b]:
        dial(a, other)
    a.announced.clear()
    recorded = [emit.data for name, emit in broker.emitted if name == "b"]
    a.core.received(recorded[-1], broker.now)
    a.drain()
    assert a.announced == []


def test_loss_of_the_bus_ends_waiting_dials() -> None:
    broker = Broker()
    a = silent(broker, "a")
    others = [silent(broker, f"other {number}") for number in range(MAX_DIALS + 1)]
    broker.loses = lambda sender, receiver: True
    for other in others:
        dial(a, other)
    broker.go(a)
    assert len(a.dials) == len(others)
    assert all(isinstance(error, DialError) for error in a.dials.values())
    before = greetings(broker, a)
    broker.come(a)
    broker.run(1.0)
    assert greetings(broker, a) == before


def test_node_that_returns_in_the_middle_of_its_dial_is_dialled() -> None:
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    a.dials_who_announce = True
    dial(b, a)
    broker.waiting.popleft()()  # the greeting arrives, and b is lost before the answer
    broker.go(b)
    broker.come(b)
    broker.run()
    assert len(a.links) == len(b.links) == 1


def test_dial_whose_first_message_was_lost_goes_on_with_the_return_of_its_node() -> None:
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    broker.waiting.clear()
    broker.go(b)
    broker.come(b)
    broker.run()
    assert len(a.links) == len(b.links) == 1
    assert a.dials == {b.core.address: None}


def test_late_first_frame_is_not_requested_again_at_once() -> None:
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    begun = len(broker.emitted)
    publish = broker.publish

    def lose_frames(sender: Peer, emit: Emit) -> None:
        if sender is a or not isinstance(decoded(emit.data), Single):
            publish(sender, emit)

    broker.publish = lose_frames  # type: ignore[method-assign]
    broker.run(FIRST_AFTER / 2)
    assert a.links
    requests = [decoded(emit.data) for name, emit in broker.emitted[begun:] if name == "a"]
    assert not any(isinstance(each, Report) and each.resend for each in requests)
    broker.publish = publish  # type: ignore[method-assign]
    broker.run(FIRST_AFTER)
    send(b, b"hello", "a")
    broker.run()
    assert frames(a, "b")[-1] == b"hello"


def test_first_frame_of_a_busy_peer_is_awaited_as_long_as_its_handshake_took() -> None:
    """All messages wait for a while, as at a peer that has many others to answer."""
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    for _ in range(7):
        broker.now += 2 * FIRST_AFTER
        under_way = list(broker.waiting)
        broker.waiting.clear()
        for peer in (a, b):
            peer.core.tick(broker.now)
            peer.drain()
        for deliver in under_way:
            deliver()
    assert frames(a, "b") == frames(b, "a") == []
    assert (len(a.links), len(b.links)) == (1, 1)
    reports = [decoded(emit.data) for _, emit in broker.emitted]
    assert not any(isinstance(each, Report) for each in reports)


def shake_hands_slowly() -> tuple[Broker, Peer, Peer]:
    """A handshake whose last message is under way, with the first frame of a link behind it."""
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    for _ in range(3):
        broker.now += 2 * FIRST_AFTER
        broker.waiting.popleft()()
    assert (len(a.links), len(b.links)) == (0, 1)
    return broker, a, b


def test_lost_question_after_a_return_is_asked_again_soon_also_after_a_slow_handshake() -> None:
    """The long wait for the first frame of a busy peer ends with the connection."""
    broker, a, b = shake_hands_slowly()
    broker.waiting.popleft()()
    assert len(a.links) == 1
    broker.go(a)
    broker.come(a)
    broker.waiting.clear()
    send(b, b"hello", "a")
    lose_next(broker)
    broker.run(2 * RESEND_AFTER)
    assert frames(a, "b") == [b"hello"]


def test_peer_of_a_slow_handshake_that_dials_again_is_asked_at_once_for_the_older_link() -> None:
    broker, a, b = shake_hands_slowly()
    [older] = b.links
    broker.go(a)
    broker.come(a)
    broker.waiting.clear()
    dial(a, b)
    broker.run()
    assert len(a.links) == len(b.links) == 1
    assert older in b.closed


def test_node_that_returns_after_its_answer_is_dialled_again_soon() -> None:
    """It has forgotten the handshake, and says so as the last message arrives again."""
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    for _ in range(2):
        broker.waiting.popleft()()
    broker.waiting.clear()
    broker.go(b)
    broker.come(b)
    broker.run()
    error = a.dials[b.core.address]
    assert isinstance(error, DialError)
    assert not isinstance(error, HandshakeError)  # which is logged, and is about a configuration


def test_recorded_return_disturbs_no_handshake() -> None:
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    broker.go(b)
    broker.come(b)
    broker.run()
    dial(a, b)
    for _ in range(20):
        broker.waiting.popleft()()
        replay_kind(broker, Announce, "b", a)
        broker.now += GREETING_INTERVAL / 4
        if a.links:
            break
    assert a.dials == {b.core.address: None}
    assert len(a.links) == len(b.links) == 1


def test_recorded_return_that_is_repeated_lets_a_dial_repeat_its_message_once() -> None:
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    broker.go(b)
    broker.come(b)
    broker.run()
    dial(a, b)
    before = greetings(broker, a)
    for _ in range(10):
        replay_kind(broker, Announce, "b", a)
    assert greetings(broker, a) == before + 1


def test_handshake_with_a_busy_peer_that_answers_goes_on() -> None:
    """Each message takes less than the time of a dial, and all of them together take more."""
    broker = Broker()
    a, b = silent(broker, "a"), silent(broker, "b")
    dial(a, b)
    for _ in range(4):
        broker.now += 0.4 * DIAL_TIMEOUT
        under_way = list(broker.waiting)
        broker.waiting.clear()
        for deliver in under_way:
            deliver()
        for peer in (a, b):
            peer.core.tick(broker.now)
            peer.drain()
    assert (len(a.links), len(b.links)) == (1, 1)
    assert a.dials == {b.core.address: None}


def test_dial_without_an_answer_ends() -> None:
    broker, (a, b) = cluster("a", "b")
    broker.loses = lambda sender, receiver: True
    a.core.dial(b.core.address, broker.now)
    broker.run(DIAL_TIMEOUT + 1.0)
    error = a.dials[b.core.address]
    assert isinstance(error, DialError)
    assert not isinstance(error, DialRefusedError)


def test_node_with_another_secret_is_not_heard() -> None:
    broker, (a, b) = cluster("a", "b")
    other = broker.join("other", secret=b"another secret of it")
    broker.run(1.0)
    assert other.links == []
    assert len(a.links) == len(b.links) == 1


def test_node_of_the_same_site_is_announced_as_sibling() -> None:
    broker = Broker()
    a = broker.join("a", site=b"0123456789abcdef")
    broker.join("b", site=b"0123456789abcdef")
    broker.join("c", site=b"another site....")
    broker.join("d")
    broker.run()
    assert [one.sibling for one in a.announced] == [True, False, False]


def test_split_without_a_disconnect_heals_by_announcements() -> None:
    broker, (a, b) = cluster("a", "b")
    broker.loses = lambda sender, receiver: True
    for peer in (a, b):
        peer.core.close(peer.links[0], "the test wants it", broker.now)
        peer.drain()
    broker.run(1.0)
    broker.loses = lambda sender, receiver: False
    broker.run(40.0)
    assert a.link_to("b")
    assert b.link_to("a")


# Frames.


def test_frame_for_all_is_published_once() -> None:
    broker, (a, b, c, d) = cluster("a", "b", "c", "d")
    before = len(broker.emitted)
    send(a, b"for all")
    send(a, b"for two", "b", "c")
    assert [emit.subject for _, emit in broker.emitted[before:]] == ["adsum.test.all"] * 2
    broker.run()
    assert frames(b, "a") == frames(c, "a") == [b"for all", b"for two"]
    assert frames(d, "a") == [b"for all"]


def test_frame_for_few_goes_to_their_inboxes() -> None:
    broker, (a, b, c, d) = cluster("a", "b", "c", "d")
    before = len(broker.emitted)
    send(a, b"for one", "b")
    assert [emit.subject for _, emit in broker.emitted[before:]] == [b.core.subjects[1]]
    broker.run()
    assert (frames(b, "a"), frames(c, "a"), frames(d, "a")) == ([b"for one"], [], [])


@pytest.mark.parametrize("size", [0, 1, 5000, FRAME_LIMIT])
def test_frames_of_any_size_arrive_unchanged(size: int) -> None:
    broker, (a, b) = cluster("a", "b")
    for payload in (bytes(size), broker.random_bytes(size)):
        send(a, payload)
        broker.run()
        assert frames(b, "a")[-1] == payload


def test_larger_frame_is_refused() -> None:
    _, (a, _) = cluster("a", "b")
    with pytest.raises(ValueError, match=str(FRAME_LIMIT)):
        send(a, bytes(FRAME_LIMIT + 1))


def lose_next(broker: Broker, times: int = 1) -> None:
    """Lose so many of the next deliveries."""
    left = iter(range(times))
    broker.loses = lambda sender, receiver: next(left, None) is not None


def test_frame_for_the_few_linked_among_many_others_is_sent_to_each() -> None:
    broker, (a, *_) = cluster("a", "b", "c")
    a.dials_who_announce = False
    for number in range(3):
        silent(broker, f"stranger {number}")
    begun = len(broker.emitted)
    send(a, b"hello")
    kinds = [type(decoded(emit.data)) for name, emit in broker.emitted[begun:] if name == "a"]
    assert kinds == [Single, Single]


def test_cast_of_a_node_without_a_link_is_dropped_before_any_check() -> None:
    broker, (a, b) = cluster("a", "b")
    a.core.close(a.link_to("b"), "a test", broker.now)
    a.dials_who_announce = False
    a.drain()
    broker.run()
    cast = BusCodec(SECRET, "test").encode(life_of(b.core.address) or b"", Cast(9, (), (), b""))
    forged = cast[:-1] + bytes([cast[-1] ^ 1])
    a.core.received(forged, broker.now)
    assert [type(event) for event in a.core.take_events()] == [Trouble]  # it was not heard since
    a.core.received(cast, broker.now)
    a.core.received(forged, broker.now)
    assert a.core.take_events() == []


def test_cast_waits_for_a_single_before_it() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    lose_next(broker)
    send(a, b"one", "b")
    send(a, b"two")
    broker.run()
    assert frames(b, "a") == [b"one", b"two"]


def test_single_waits_for_a_cast_before_it() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    send(a, b"one")
    lose_next(broker, 2)
    send(a, b"two")
    send(a, b"three", "b")
    broker.run()
    assert frames(b, "a") == [b"one", b"two", b"three"]


def test_frame_is_requested_again_if_the_request_was_lost() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    lose_next(broker)
    send(a, b"one", "b")
    send(a, b"two", "b")
    lose_next(broker)
    broker.run()
    assert frames(b, "a") == []
    broker.run(0.3)
    assert frames(b, "a") == [b"one", b"two"]


def test_casts_from_before_a_link_are_not_delivered() -> None:
    broker, (a, *_) = cluster("a", "c", "d")
    b = broker.join("b")
    while not b.opened:
        broker.waiting.popleft()()
    assert b.opened[1].peer.name == "a"
    assert len(a.links) == 2
    send(a, b"early")
    broker.run()
    send(a, b"late")
    broker.run(2 * RESEND_PATIENCE)
    assert frames(b, "a") == [b"late"]


class Traffic:
    """Random traffic between three nodes on a bus that loses, repeats and restarts."""

    def __init__(self, seed: int) -> None:
        self.broker, self.peers = cluster("a", "b", "c", seed=seed)
        self.broker.repeats = 0.2
        self.sent: dict[tuple[str, str], list[bytes]] = {}
        self._number = 0

    def send(self, sender: int, receivers: set[int]) -> None:
        names = [self.peers[i].name for i in sorted(receivers - {sender})]
        if names:
            self._number += 1
            payload = b"%d" % self._number
            send(self.peers[sender], payload, *names)
            for name in names:
                self.sent.setdefault((self.peers[sender].name, name), []).append(payload)

    def wait(self, seconds: float) -> None:
        self.broker.run(seconds)

    def lose(self, rate: float) -> None:
        self.broker.loses = lambda sender, receiver: self.broker.random.random() < rate

    def restart(self) -> None:
        self.broker.restart()

    def come(self, index: int) -> None:
        if not self.peers[index].subscribed:
            self.broker.come(self.peers[index])

    def end(self) -> None:
        self.lose(0.0)
        for index in range(3):
            self.come(index)
        self.wait(5.0)
        # As each heartbeat does, these reveal the loss of a last frame.
        for index in range(3):
            self.send(index, {0, 1, 2})
        self.wait(5.0)

    def check(self) -> None:
        for peer in self.peers:
            assert not peer.closed
            assert not peer.held
            for sender in self.peers:
                if sender is not peer:
                    assert frames(peer, sender.name) == self.sent.get((sender.name, peer.name), [])


NODE = st.integers(0, 2)
SOME = st.floats(0, 0.6)
STEPS = st.one_of(
    st.tuples(st.just(Traffic.send), NODE, st.sets(NODE, min_size=1)),
    st.tuples(st.just(Traffic.wait), SOME),
    st.tuples(st.just(Traffic.lose), SOME),
    st.tuples(st.just(Traffic.restart)),
    st.tuples(st.just(Traffic.come), NODE),
)


@given(st.lists(STEPS, max_size=40), st.integers(0, 2**32))
def test_frames_arrive_once_and_in_order_whatever_the_bus_loses(
    steps: list[tuple[Any, ...]], seed: int
) -> None:
    traffic = Traffic(seed)
    for action, *arguments in steps:
        action(traffic, *arguments)
    traffic.end()
    traffic.check()


# Credit.


def test_link_without_acknowledgements_is_not_writable() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    broker.loses = lambda sender, receiver: sender == "b"
    payload = broker.random_bytes(30_000)
    while a.writable.get(a.link_to("b"), True):
        send(a, payload)
        broker.run()
    assert len(frames(b, "a")) * 30_000 <= WINDOW + 60_000
    assert c.frames
    assert a.writable.get(a.link_to("c"), True)
    broker.loses = lambda sender, receiver: False
    broker.run(1.1)
    assert a.writable[a.link_to("b")]


def test_link_that_fills_while_the_bus_is_away_sets_no_timer_until_the_return() -> None:
    broker, (a, _) = cluster("a", "b")
    broker.go(a)
    while a.writable.get(a.link_to("b"), True):
        send(a, broker.random_bytes(50_000), "b")
    broker.now += 2 * REPORT_PATIENCE
    a.core.tick(broker.now)
    assert a.core.wake_at == float("inf")
    broker.come(a)
    broker.run(2 * REPORT_PATIENCE)
    assert a.writable[a.link_to("b")]


def test_kept_casts_are_bounded_while_one_peer_reads_nothing() -> None:
    broker, (a, _, c) = cluster("a", "b", "c")
    broker.loses = lambda sender, receiver: sender == "b"
    payload = broker.random_bytes(60_000)
    for _ in range(60):
        send(a, payload)
        broker.run()
    log = a.core._log
    assert log.total - log._before_oldest() <= MAX_CASTS_KEPT
    assert len(frames(c, "a")) == 60


def test_casts_are_dropped_once_all_peers_have_them() -> None:
    broker, (a, _, _) = cluster("a", "b", "c")
    for _ in range(40):
        send(a, broker.random_bytes(10_000))
        broker.run()
    assert a.core._log.total - a.core._log._before_oldest() < 64 * 1024


def test_link_with_a_lost_frame_that_is_no_longer_kept_closes() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    broker.loses = lambda sender, receiver: receiver == "b"
    for _ in range(60):
        send(a, broker.random_bytes(60_000))
        broker.run()
    broker.loses = lambda sender, receiver: False
    send(a, b"last")
    broker.run(1.0)
    assert list(a.closed.values()) == ["frames were lost, and are no longer kept"]
    assert list(b.closed.values()) == ["peer closed: frames were lost, and are no longer kept"]


def test_link_on_which_frames_stay_lost_closes() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    reports = {"b"}
    send(a, b"first")
    broker.waiting.clear()
    broker.loses = lambda sender, receiver: sender in reports and receiver == "a"
    send(a, b"second")
    broker.run(2 * RESEND_PATIENCE)
    assert b.closed == {b.opened and min(b.opened): "frames were lost"}


def test_new_link_beside_one_whose_frames_stayed_lost_outlives_it() -> None:
    broker, (a, b) = cluster("a", "b")
    hopeless = b.link_to("a")
    send(a, b"lost")
    broker.waiting.clear()
    broker.loses = lambda sender, receiver: sender == "b"
    send(a, b"later")
    broker.run(RESEND_PATIENCE - 0.1)
    assert b.is_open(hopeless)
    broker.loses = lambda sender, receiver: False
    broker.waiting.clear()
    broker.now += 0.2  # the deadline has passed, and the node is too busy to notice it
    dial(b, a)
    broker.run()
    assert list(b.closed) == [hopeless]
    broker.kill(a)
    broker.run(1.0)
    assert b.links == []


# The end of a process, and of the bus.


def test_dead_neighbour_is_noticed_by_all() -> None:
    broker, peers = cluster("a", "b", "c", "d", "e")
    dead = peers[2]
    broker.kill(dead)
    broker.run(0.3)
    for peer in broker.peers:
        assert [peer.opened[link].peer.name for link in peer.closed] == ["c"]
        assert peer.gone == set(peer.closed)


def test_link_closed_by_its_peer_is_not_gone() -> None:
    broker, (a, b) = cluster("a", "b")
    a.core.close(a.link_to("b"), "done", broker.now)
    a.drain()
    broker.run()
    assert a.closed
    assert b.closed
    assert not a.gone | b.gone


def test_several_dead_neighbours_are_noticed_by_all() -> None:
    broker, peers = cluster(*"abcdefgh")
    for dead in peers[2:6]:
        broker.kill(dead)
    broker.run(0.6)
    for peer in broker.peers:
        assert sorted(peer.opened[link].peer.name for link in peer.closed) == list("cdef")


def test_restart_of_the_bus_closes_no_link() -> None:
    broker, peers = cluster("a", "b", "c")
    broker.restart()
    for peer in peers:
        assert peer.held == set(peer.links)
        send(peer, b"meanwhile")
    for number, peer in enumerate(peers):
        broker.now += 1.0 + number
        broker.come(peer)
        broker.run()
    broker.run(RETURN_GRACE + 1.0)
    for peer in peers:
        assert not peer.closed
        assert not peer.held
        assert all(peer.frames[link] == [b"meanwhile"] for link in peer.links)


def test_process_that_died_while_the_bus_was_away_is_noticed_after_the_return() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    broker.restart()
    broker.kill(c)
    broker.come(a)
    broker.come(b)
    broker.run(RETURN_GRACE - 0.1)
    assert a.held == {a.link_to("c")}
    assert not a.closed
    broker.run(0.7)
    assert list(a.closed) == [n for n, one in a.opened.items() if one.peer.name == "c"]
    assert not a.held
    assert len(b.closed) == 1


def test_silence_counts_again_some_time_after_the_return() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    broker.restart()
    for peer in (a, b, c):
        broker.come(peer)
    # It is stopped: it subscribes, and answers nothing.
    broker.loses = lambda sender, receiver: sender == "c"
    broker.run(RETURN_GRACE - 0.1)
    assert a.held == {a.link_to("c")}
    broker.run(0.2)
    assert not a.held
    assert not a.closed


def test_links_are_given_up_when_the_bus_stays_away() -> None:
    broker, (a, b) = cluster("a", "b")
    broker.restart()
    a.core.give_up(broker.now)
    a.drain()
    assert list(a.closed.values()) == ["the carrier is away"]
    broker.come(b)
    broker.come(a)
    broker.run(1.0)
    assert list(b.closed.values()) == ["peer closed: there is no such link"]
    broker.run(40.0)
    assert a.link_to("b")
    assert b.link_to("a")
    assert len(b.links) == 1


def test_closed_link_tells_the_peer_the_reason() -> None:
    broker, (a, b) = cluster("a", "b")
    a.core.close(a.links[0], "the\nreason", broker.now)
    a.core.close(min(a.opened), "again", broker.now)
    a.drain()
    broker.run()
    assert list(a.closed.values()) == ["the\nreason"]
    assert list(b.closed.values()) == ["peer closed: 'the\\nreason'"]


def test_idle_node_sends_probes_only() -> None:
    broker, _ = cluster("a", "b", "c")
    before = len(broker.emitted)
    broker.run(5.0)
    sizes = [len(emit.data) for _, emit in broker.emitted[before:]]
    assert 3 * 18 <= len(sizes) <= 3 * 20
    assert max(sizes) < 32


# Forgeries.


def test_message_that_was_altered_is_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    send(a, b"frame")
    data = broker.emitted[-1][1].data
    broker.waiting.clear()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        b.core.received(bytes(altered), broker.now)
        b.core.received(data[:position], broker.now)
    b.core.take_events()
    assert frames(b, "a") == []
    b.core.received(data, broker.now)
    b.drain()
    assert frames(b, "a") == [b"frame"]
    b.core.received(data, broker.now)
    b.drain()
    broker.run(2 * RESEND_PATIENCE)
    assert frames(b, "a") == [b"frame"]


def test_message_is_readable_without_the_secret() -> None:
    broker, (a, _) = cluster("a", "b")
    send(a, b"the text of a message")
    assert b"the text of a message" in broker.emitted[-1][1].data


def test_member_can_forge_a_message_of_another() -> None:
    broker, (a, b) = cluster("a", "b")
    send(a, b"frame")
    broker.run()
    life = bytes.fromhex(a.core.address.removeprefix("bus:"))
    for secret, received in ((b"another secret of it", []), (SECRET, [b"forged"])):
        forged = Cast(1, (), (), encode_payload(b"forged"))
        b.core.received(BusCodec(secret, "test").encode(life, forged), broker.now)
        b.drain()
        assert frames(b, "a") == [b"frame", *received]


def test_messages_of_a_former_life_open_nothing() -> None:
    broker, (a, b) = cluster("a", "b")
    send(a, b"frame")
    send(a, b"frame", "b")
    recorded = [emit.data for name, emit in broker.emitted if name == "a"]
    broker.kill(a)
    broker.run(1.0)
    assert b.links == []
    for data in recorded:
        b.core.received(data, broker.now)
        b.drain()
        broker.run()
    broker.run(5.0)
    assert b.links == []


def test_malformed_messages_of_a_member_are_dropped() -> None:
    broker, (a, b) = cluster("a", "b")
    codec = BusCodec(SECRET, "test")
    good = codec.encode(b"12345678", Cast(1, ((b"87654321", 3),), (b"abcdefgh",), b"body"))
    head = good[:11]
    for kind in range(12):
        for size in range(60):
            data = bytearray(head + broker.random_bytes(size))
            data[2] = kind
            signed = bytes(data) + codec._tag(bytes(data))
            b.core.received(signed, broker.now)
            b.core.take_events()
    assert b.core.take_events() == []
    assert codec.decode(good)[1] == Cast(1, ((b"87654321", 3),), (b"abcdefgh",), b"body")
    assert len(b.links) == len(a.links) == 1


def test_clusters_and_their_subjects_are_apart() -> None:
    assert prefix_of("shop") == "adsum.shop"
    strange = ["a b", "a.b", "", "*", ">", "ü", "-x", "x" * 65]
    prefixes = {prefix_of(name) for name in strange}
    assert len(prefixes) == len(strange)
    assert all(prefix.startswith("adsum.-") and prefix.isascii() for prefix in prefixes)


def test_wrong_handshake_is_answered_with_a_reason() -> None:
    broker = Broker()
    a = broker.join("a")
    b = broker.join("b")
    broker.run()
    b.core.identity = NodeIdentity("other", "b", 1, ())
    a.core.dial(b.core.address, broker.now)
    a.drain()
    broker.run()
    error = a.dials[b.core.address]
    assert isinstance(error, HandshakeError)
    assert "the clusters differ" in str(error)


def test_probe_is_small() -> None:
    assert len(BusCodec(SECRET, "test").encode(bytes(8), Probe())) == 27


def test_identity_that_no_peer_would_accept_is_refused() -> None:
    with pytest.raises(Exception, match="name"):
        BusCore(NodeIdentity("test", "", 1, ()), SECRET, Broker().random_bytes)


def test_cast_is_not_delivered_over_a_link_that_its_sender_has_given_up() -> None:
    broker, (a, b, c) = cluster("a", "b", "c")
    old = list(b.links)
    broker.go(b)
    broker.run(1.0)  # the others' probes are refused, so they give up their links to b
    assert all(len(peer.links) == 1 for peer in (a, c))
    broker.come(b)
    broker.run()
    send(a, b"once")
    broker.run()
    assert [frame for link in b.frames for frame in b.frames[link]] == [b"once"]
    broker.run(1.0)
    assert all(link in b.closed for link in old)
    send(c, b"again")
    broker.run()
    assert frames(b, "c") == [b"again"]


def test_older_link_to_the_same_life_goes_on_once_the_peer_confirms_it() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    first = b.link_to("a")
    b.core.dial(a.core.address, broker.now)
    b.drain()
    broker.run()
    assert b.link_to("a") != first
    assert b.is_open(first)
    send(a, b"over both")
    broker.run()
    assert b.frames[first] == b.frames[b.link_to("a")] == [b"over both"]


def test_deadline_is_due_a_rounding_error_before_it() -> None:
    broker, (a, _) = cluster("a", "b")
    at = a.core.wake_at
    a.core.tick(at - 1e-9)
    a.drain()
    assert a.core.wake_at > at + 1e-3
    assert broker.now < at


def test_link_closed_by_the_peer_during_an_absence_delivers_no_cast_after_it() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    first = b.link_to("a")
    b.core.dial(a.core.address, broker.now)
    b.drain()
    broker.run()
    second = b.link_to("a")
    broker.go(b)
    a.core.close(a.link_to("b"), "redundant", broker.now)
    a.drain()
    broker.come(b)
    broker.run()
    send(a, b"once")
    broker.run()
    assert b.frames[first] == [b"once"]
    assert b.frames[second] == []
    assert second in b.closed


def test_link_whose_end_was_lost_delivers_no_cast_beside_a_newer_link() -> None:
    broker, (a, b, _) = cluster("a", "b", "c")
    first = b.link_to("a")
    broker.loses = lambda sender, receiver: (sender, receiver) == ("a", "b")
    a.core.close(a.link_to("b"), "it was silent", broker.now)
    a.drain()
    broker.run()
    assert b.is_open(first)
    broker.loses = lambda sender, receiver: False
    a.core.dial(b.core.address, broker.now)
    a.drain()
    broker.run()
    send(a, b"once")
    broker.run()
    assert [b.frames[first], frames(b, "a")] == [[], [b"once"]]
    assert first in b.closed


def test_handshake_whose_messages_arrive_twice_opens_one_link() -> None:
    broker = Broker()
    broker.repeats = 1.0
    a, b = broker.join("a"), broker.join("b")
    broker.run()
    assert [len(a.links), len(b.links), a.closed, b.closed] == [1, 1, {}, {}]
    assert list(a.dials.values()) == [None]
