"""A real node is attacked over real sockets: it answers, stays small, and lists what it listed."""

import select
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from adsum.replication.codec import encode
from adsum.replication.entry import Entry
from adsum.replication.limits import MAX_MEMBERS
from adsum.replication.messages import Delta, Digest, Heartbeat, ProtocolMessage, Sighting, Sync
from adsum.replication.state import Replica
from adsum.transport.contract import NodeIdentity
from adsum.transport.framing import (
    DEFLATED,
    FRAME_LIMIT,
    GREETING_LIMIT,
    HELLO,
    PAYLOAD,
    PROOF,
    encode_frame,
)
from adsum.transport.handshake import VERSIONS, encode_hello
from adsum.transport.limits import TransportLimits
from adsum.values.limits import MAX_META
from tests.support.waiting import eventually

from .attacked_node import MIB, RESPONSIVE, AttackedNode, open_files
from .intruder import Intruder

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="it reads what a process uses from /proc"
    ),
]

#: How much a node may grow in an attack by strangers: 64 handshakes, and room for the allocator.
GROWTH = 16 * MIB
#: ... and in one by a member, of whom it keeps what it says of itself.
GROWTH_BY_MEMBER = 48 * MIB
LOOPBACK = ("127.0.0.1", 0)
#: Connections that never say hello.
SILENT = 10_000


def hello(cluster: str, versions: tuple[int, int] = VERSIONS) -> bytes:
    who = NodeIdentity(cluster, "eve", 1, ())
    return encode_frame(HELLO, encode_hello(who, versions, bytes(32), True))


def strange_words(cluster: str) -> list[bytes]:
    """What a stranger may begin with."""
    return [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack(">I", 0),
        struct.pack(">IB", GREETING_LIMIT + 2, HELLO),
        struct.pack(">IB", 2**32 - 1, PAYLOAD),
        encode_frame(99, b""),
        encode_frame(PAYLOAD, encode(Heartbeat(1, 1))),
        encode_frame(PROOF, bytes(32)),
        hello(cluster) + encode_frame(PROOF, bytes(32)),
        hello(cluster) * 2,
        hello("another cluster"),
        hello(cluster, (7, 9)),
        encode_frame(HELLO, b"[" * 8000),
    ]


def foul_words(me: str) -> list[bytes]:
    """What a member may say that breaks the protocol."""
    genuine = encode_frame(PAYLOAD, encode(Heartbeat(1, 1)))
    return [
        encode_frame(PAYLOAD, b"nonsense"),
        encode_frame(PAYLOAD, b"[99]"),
        encode_frame(PAYLOAD, b"[" * 100_000),
        encode_frame(PAYLOAD, encode(Heartbeat(1, 1))[:-1]),
        encode_frame(DEFLATED, zlib.compress(bytes(100 * FRAME_LIMIT))),
        encode_frame(HELLO, b"[]"),
        struct.pack(">IB", FRAME_LIMIT + 2, PAYLOAD),
        genuine * 50 + genuine[2:] * 50,
    ]


def test_handshake_garbage_of_strangers_closes_with_one_line_each(attacked: AttackedNode) -> None:
    words = strange_words(attacked.cluster)
    with attacked.bounded(GROWTH):
        for word in words:
            with Intruder(attacked.address) as stranger:
                stranger.send(word)
                assert stranger.dismissed()
            attacked.answers()
        play_back(attacked)
        reflect(attacked)
    eventually(partial(attacked.has_told_of, len(words) + 3), "each is told of")
    attacked.is_unharmed()


def test_protocol_errors_of_members_close_their_links_with_one_line_each(
    attacked: AttackedNode,
) -> None:
    words = foul_words(attacked.victim.name)
    with attacked.bounded(GROWTH_BY_MEMBER):
        for number, word in enumerate(words):
            with Intruder(attacked.address) as member:
                member.greet(attacked.who(f"eve {number}"), attacked.secret)
                member.send(word)
                assert member.dismissed()
            attacked.answers()
    eventually(partial(attacked.has_told_of, len(words)), "each is told of")
    attacked.is_unharmed()


def play_back(attacked: AttackedNode) -> None:
    """A member's handshake is played back, as somebody on the path could; it proves nothing."""
    with Intruder(attacked.address) as member:
        member.greet(attacked.who("eve"), attacked.secret)
    with Intruder(attacked.address) as thief:
        thief.send(b"".join(member.said))
        assert "secrets differ" in thief.dismissed()


def reflect(attacked: AttackedNode) -> None:
    """The node's own challenge is sent back to it, as a hello and as a proof."""
    with Intruder(attacked.address) as mirror:
        mirror.send(hello(attacked.cluster))
        challenge = mirror.take()
        assert challenge is not None
        mirror.send(encode_frame(PROOF, challenge[1]))
        assert "secrets differ" in mirror.dismissed()
    with Intruder(attacked.address) as mirror:
        mirror.send(encode_frame(*challenge))
        answer = mirror.take()
        assert answer is not None
        mirror.send(encode_frame(PROOF, answer[1]))
        assert "secrets differ" in mirror.dismissed()


def test_link_storm_leaks_nothing(attacked: AttackedNode) -> None:
    with attacked.bounded(GROWTH_BY_MEMBER):
        for number in range(300):
            with Intruder(attacked.address) as member:
                member.greet(attacked.who("eve"), attacked.secret)
            if number % 50 == 0:
                attacked.answers()
    eventually(lambda: attacked.victim.ask("stats")["links"] == 1, "only the honest link is left")
    assert attacked.lines() == []
    attacked.is_unharmed()


def test_flood_of_a_member_keeps_node_responsive_and_memory_bound(
    attacked: AttackedNode,
) -> None:
    """Invented nodes, huge metas, frames again and again; and it asks for everything, unread."""
    attacked.victim.ask("track_many", "hall", 5000)
    meta = '{"x":"' + "x" * (MAX_META - 8) + '"}'
    big: Entry = (1, 1, "big", "eve", meta, None, "eve", 1)
    me = Replica("eve", 1)
    me_too: list[ProtocolMessage] = [Delta(me, 0, 1, (big,)), Delta(me, 0, 1, (big,), last=False)]
    with attacked.bounded(GROWTH_BY_MEMBER), Intruder(attacked.address) as member:
        node = member.greet(attacked.who("eve"), attacked.secret)
        victim = Replica(node.name, node.incarnation)
        for digest in invented(3 * MAX_MEMBERS):
            member.say(digest)
        attacked.answers()
        for _ in range(100):
            member.say(*me_too, Sync(victim, 0, True), Sync(victim, 0, False))
        attacked.answers()
        assert len(attacked.victim.ask("members")) <= MAX_MEMBERS + 1
    assert attacked.lines() == []
    attacked.is_unharmed()


def invented(count: int) -> Iterator[Digest]:
    for start in range(0, count, 500):
        names = [Replica(f"ghost {number}", 1) for number in range(start, start + 500)]
        yield Digest(tuple([Sighting(name, 1, 1) for name in names]))


def test_unanswered_dials_do_not_exhaust_file_descriptors(
    attacked_with_secret: AttackedNode,
) -> None:
    """Whoever is told of is dialled; here the kernel connects, and nobody says hello."""
    attacked = attacked_with_secret
    before, dials = attacked.files(), TransportLimits().pending_dials
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(LOOPBACK)) for _ in range(2 * dials)]
        member = stack.enter_context(Intruder(attacked.address))
        member.greet(attacked.who("eve"), attacked.secret)
        for number, server in enumerate(silent):
            at = f"127.0.0.1:{server.getsockname()[1]}"
            member.say(Digest((Sighting(Replica(f"ghost {number}", 1), 1, 1, (at,)),)))
        eventually(lambda: attacked.files() >= before + dials, "they are dialled")
        attacked.answers()
        assert attacked.files() <= before + dials + 5
        newcomer = attacked.newcomer()
        eventually(partial(newcomer.lists, "honest", "mine"), "the newcomer is in")
    assert attacked.lines() == []
    attacked.is_unharmed()


def test_ten_thousand_silent_connections_block_no_handshake(
    attacked_with_secret: AttackedNode,
) -> None:
    attacked = attacked_with_secret
    files = attacked.files()
    with (
        open_files(SILENT + 500),
        attacked.bounded(GROWTH),
        silent_connections(attacked) as connections,
    ):
        assert len(connections) == SILENT
        assert attacked.files() <= files + TransportLimits().pending_handshakes + 1
        newcomer = attacked.newcomer()
        eventually(partial(newcomer.lists, "honest", "mine"), "the newcomer is in")
        attacked.is_unharmed()
    assert len(attacked.lines()) <= time.monotonic() - attacked.began + 2
    assert all("handshakes are pending" in line for line in attacked.lines())


@contextmanager
def silent_connections(attacked: AttackedNode) -> Iterator[list[socket.socket]]:
    """Ten thousand of them, a hundred at a time, so that the kernel drops none.

    The node hangs up on all but 64 at once; they are kept open here.
    """
    host, port = attacked.address.split(":")
    with ExitStack() as stack:
        connections: list[socket.socket] = []
        held: dict[int, socket.socket] = {}
        while len(connections) < SILENT:
            for _ in range(100):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex((host, int(port)))
                connections.append(sock)
                held[sock.fileno()] = sock
            wait_for_hang_ups(held)
            if len(connections) % 2000 == 0:
                attacked.answers()
        yield connections


def wait_for_hang_ups(held: dict[int, socket.socket]) -> None:
    """Wait until the node holds no more of these than it may; the others are removed."""
    poll = select.poll()
    for number in held:
        poll.register(number, select.POLLRDHUP)
    while len(held) > TransportLimits().pending_handshakes:
        events = poll.poll(10_000)
        assert events, "the node does not accept"
        for number, _ in events:
            poll.unregister(number)
            del held[number]


def test_byte_by_byte_handshake_is_closed_at_the_timeout(
    attacked_with_secret: AttackedNode,
) -> None:
    attacked = attacked_with_secret
    count, greeting = 60, hello(attacked.cluster)
    began = time.monotonic()
    with ExitStack() as stack, attacked.bounded(GROWTH):
        slow = [stack.enter_context(Intruder(attacked.address)) for _ in range(count)]
        given = 0
        while time.monotonic() - began < TransportLimits().handshake_timeout - 1 and given < len(
            greeting
        ):
            for intruder in slow:
                intruder.send(greeting[given : given + 1])
            given += 1
            select.select([slow[0].sock], [], [], 0.05)
            attacked.answers()
        reasons = {intruder.dismissed() for intruder in slow}
        assert reasons == {"no handshake within 5 s"}
        assert time.monotonic() - began < TransportLimits().handshake_timeout + RESPONSIVE
    eventually(partial(attacked.has_told_of, count), "each is told of")
    attacked.is_unharmed()
