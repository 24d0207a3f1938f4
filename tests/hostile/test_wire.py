"""Strangers on the wire: whatever bytes they send, in whatever pieces, only they lose a link."""

import asyncio
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.errors import (
    ConfigurationError,
    DialError,
    DialRefusedError,
    HandshakeError,
    ProtocolError,
)
from adsum.transport.framing import HELLO, PAYLOAD, encode_frame
from adsum.transport.handshake import VERSIONS, Handshake, encode_hello
from adsum.transport.limits import TransportLimits
from adsum.transport.options import TransportOptions
from adsum.transport.sockets import SocketTransport
from tests.support.effort import examples
from tests.support.memory_transport import connect
from tests.support.raw_peer import RawPeer
from tests.support.transports import Recorder, bound_port, identity, in_loop
from tests.support.waiting import DEADLINE, until

from .attacked_node import open_files
from .attacked_transport import (
    SECRET,
    AttackedTransport,
    Lines,
    cut,
    genuine_frames,
    genuine_greeting,
    usual_frames,
)

GREETING, _ = genuine_greeting()
STREAM = GREETING + usual_frames()
#: Each example is a network of its own.
EXAMPLES = examples(80)

chunks_at = st.lists(st.integers(0, len(STREAM)), max_size=6)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """The genuine stream, damaged: bytes altered, pieces lost, repeated or moved."""
    stream = bytearray(STREAM)
    for _ in range(draw(st.integers(1, 4))):
        start, size = draw(st.integers(0, len(stream))), draw(st.integers(1, 60))
        piece = bytes(stream[start : start + size])
        match draw(st.sampled_from(["alter", "lose", "repeat", "move", "insert"])):
            case "alter" if piece:
                stream[start] ^= draw(st.integers(1, 255))
            case "lose":
                del stream[start : start + size]
            case "repeat":
                stream[start:start] = piece
            case "move":
                del stream[start : start + size]
                at = draw(st.integers(0, len(stream)))
                stream[at:at] = piece
            case _:
                stream[start:start] = draw(st.binary(max_size=20))
    return bytes(stream)


def meet(scenario: Callable[[AttackedTransport], Awaitable[None]]) -> list[str]:
    """Play a scenario to its end; returns the log lines."""

    async def play() -> None:
        encounter = AttackedTransport()
        await encounter.begin()
        async with asyncio.timeout(DEADLINE):
            await scenario(encounter)
            await encounter.end()

    with Lines() as log:
        asyncio.run(play())
    return log.lines


def test_genuine_stream_is_accepted() -> None:
    async def scenario(encounter: AttackedTransport) -> None:
        await encounter.hear(cut(STREAM, [1, 5, 200]))
        assert len(encounter.node.opened) == 2
        assert len(encounter.node.payloads) == 2

    assert meet(scenario) == []


@EXAMPLES
@given(st.binary(min_size=1, max_size=400), chunks_at)
def test_random_bytes_before_the_handshake_cost_one_line(garbage: bytes, at: list[int]) -> None:
    async def scenario(encounter: AttackedTransport) -> None:
        await encounter.hear(cut(garbage, at))
        assert len(encounter.node.opened) == 1

    assert len(meet(scenario)) == 1


@EXAMPLES
@given(mutants(), chunks_at)
def test_mutated_stream_opens_a_link_only_if_its_handshake_is_intact(
    stream: bytes, at: list[int]
) -> None:
    async def scenario(encounter: AttackedTransport) -> None:
        await encounter.hear(cut(stream, at))
        assert (len(encounter.node.opened) == 2) == stream.startswith(GREETING)

    assert len(meet(scenario)) <= (1 if stream else 0)


@EXAMPLES
@given(st.binary(min_size=1, max_size=400) | mutants(), chunks_at)
def test_random_bytes_of_a_dialled_peer_raise_a_documented_error(
    answer: bytes, at: list[int]
) -> None:
    async def scenario(encounter: AttackedTransport) -> None:
        raw = RawPeer()
        greeting = encounter.transport.begin_dial("somewhere")
        assert greeting.outcome is not None
        connect(greeting.connection, raw)
        await until(lambda: raw.wire)
        for chunk in cut(answer, at):
            raw.send(chunk)
        raw.close()
        with pytest.raises((DialError, HandshakeError)):
            await greeting.outcome
        await until(lambda: len(encounter.transport.connections()) == 1)

    assert meet(scenario) == [], "the dialler tells by the error"


@given(st.binary(max_size=300))
def test_handshake_accepts_any_frame_or_raises_protocol_error(body: bytes) -> None:
    for kind in range(7):
        with suppress(ProtocolError):
            Handshake(identity("node"), dialling=True, secret=SECRET).receive(kind, body)


# Handshakes that are played back. The nonces here are real ones.


@in_loop
async def test_replayed_handshake_opens_no_second_link() -> None:
    encounter = AttackedTransport(nonce=secrets.token_bytes)
    await encounter.begin()
    said = await record(encounter, "eve")
    opened = len(encounter.node.opened)

    raw = await encounter.stranger()
    raw.send(b"".join(said))
    await until(lambda: raw.goodbyes)
    raw.close()
    assert raw.goodbyes == ["the secrets differ, or only one of the two nodes has one"]
    assert len(encounter.node.opened) == opened
    await encounter.end()


@in_loop
async def test_reflected_handshake_is_rejected() -> None:
    """Without the secret: its hello, and then whatever it says, are sent back to it."""
    encounter = AttackedTransport(nonce=secrets.token_bytes)
    await encounter.begin()
    raw = await encounter.stranger()
    raw.send(encode_frame(HELLO, encode_hello(identity("eve"), VERSIONS, bytes(32), True)))
    await until(lambda: raw.taken)
    challenge = raw.taken.pop()
    raw.send(encode_frame(*challenge))
    await until(lambda: raw.goodbyes)
    raw.close()
    again = await encounter.stranger()
    again.send(encode_frame(*challenge))  # as the hello of a dialler of that name
    await until(lambda: again.taken)
    answer = again.taken.pop()
    again.send(encode_frame(*answer))
    await until(lambda: again.goodbyes)
    again.close()
    assert len(encounter.node.opened) == 1
    await encounter.end()


@in_loop
async def test_replayed_proof_fails_on_a_concurrent_link() -> None:
    encounter = AttackedTransport(nonce=secrets.token_bytes)
    await encounter.begin()
    member = Handshake(identity("eve"), dialling=True, secret=SECRET)
    hello = member.start()
    one, other = await encounter.stranger(), await encounter.stranger()
    for raw in (one, other):
        raw.send(hello)
    await until(lambda: one.taken and other.taken)
    proof = member.receive(*one.taken.pop())
    other.send(proof)
    await until(lambda: other.goodbyes)
    assert len(encounter.node.opened) == 1
    for raw in (one, other):
        raw.close()
    await encounter.end()


#: Hellos that cannot lead to a link, by the reason that is given.
OURS = f"{VERSIONS[0]} to {VERSIONS[1]} here"
FROM_ELSEWHERE = {
    "the clusters differ": encode_hello(
        identity("eve", cluster="kitchen"), VERSIONS, bytes(32), True
    ),
    f"{OURS}, 6 to 9 there": encode_hello(identity("eve"), (6, 9), bytes(32), True),
    f"{OURS}, 7 to 2147483647": encode_hello(identity("eve"), (7, 2**31 - 1), bytes(32), True),
    f"{OURS}, 1 to 3 there": json.dumps(
        ["adsum", [1, 3], "cluster", "eve", 1, [], "00" * 32]  # before frames had tags
    ).encode(),
    "invalid field: versions": json.dumps(
        ["adsum", [], "cluster", "eve", 1, [], "00" * 32]
    ).encode(),
    "invalid field: name": json.dumps(
        ["adsum", [2, 2], "cluster", "eve\nERROR forged", 1, [], "00" * 32]
    ).encode(),
}


@pytest.mark.parametrize("reason", FROM_ELSEWHERE)
def test_hello_of_another_cluster_is_rejected_with_one_line(reason: str) -> None:
    async def scenario(encounter: AttackedTransport) -> None:
        raw = await encounter.stranger()
        raw.send(encode_frame(HELLO, FROM_ELSEWHERE[reason]))
        await until(lambda: raw.goodbyes)
        raw.close()
        assert reason in raw.goodbyes[0]
        await until(lambda: len(encounter.transport.connections()) == 1)

    (line,) = meet(scenario)
    assert line.isprintable()


@in_loop
async def test_hello_of_a_future_version_that_supports_ours_is_accepted() -> None:
    encounter = AttackedTransport()
    await encounter.begin()
    raw = await encounter.stranger()
    future = Handshake(identity("eve"), dialling=True, secret=SECRET, versions=(1, 7))
    raw.send(future.start())
    await until(lambda: raw.taken)
    raw.send(future.receive(*raw.taken.pop(0)))
    await until(lambda: len(encounter.node.opened) == 2)
    raw.close()
    await encounter.end()


# Floods.


@in_loop
async def test_protocol_error_flood_of_members_costs_two_lines() -> None:
    encounter = AttackedTransport()
    await encounter.begin()
    with Lines() as log:
        for _ in range(50):
            await encounter.hear([GREETING, genuine_frames(encode_frame(PAYLOAD, b"nonsense"))])
        assert len(encounter.node.opened) == 51
        await encounter.end()
    assert len(log.lines) == 2, "at once, and how many more at the end"
    assert "48 more like it" in log.lines[1]


@in_loop
async def test_connection_flood_leaves_the_loop_responsive() -> None:
    """All that wait are refused, but not in one turn."""
    limits = TransportLimits(pending_handshakes=0)
    transport = SocketTransport(
        identity("node"), Recorder(), TransportOptions(secret=SECRET, limits=limits)
    )
    address = await transport.listen("127.0.0.1:0")
    loop = asyncio.get_running_loop()
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    await asyncio.sleep(0)
    turn()
    strangers = [connected(bound_port(address)) for _ in range(60)]  # no turn meanwhile
    await asyncio.gather(*[loop.sock_recv(sock, 1) for sock in strangers])
    for sock in strangers:
        sock.close()
    await transport.close()
    assert turns > 60


@pytest.mark.slow
@in_loop
async def test_exhausted_file_descriptors_are_logged_once_a_second() -> None:
    transport = SocketTransport(identity("node"), Recorder(), TransportOptions(secret=SECRET))
    address = await transport.listen("127.0.0.1:0")
    stranger = socket.socket()
    with Lines() as log, stranger, open_files(3):
        stranger.setblocking(False)
        stranger.connect_ex(("127.0.0.1", bound_port(address)))
        await until(lambda: len(log.lines) == 2)
    await transport.close()
    assert log.lines[0].endswith("cannot accept: [Errno 24] Too many open files")
    assert "more like it" in log.lines[1]


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@pytest.mark.slow
@in_loop
async def test_concurrent_dials_are_bounded() -> None:
    """Peers tell of addresses, and those who answer there may be slow on purpose."""
    limits = TransportLimits(pending_dials=3, handshake_timeout=0.1, close_grace=0.1)
    transport = SocketTransport(
        identity("node"), Recorder(), TransportOptions(secret=SECRET, limits=limits)
    )
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        dials = [asyncio.create_task(transport.dial(address)) for _ in range(10)]
        outcomes = await asyncio.gather(*dials, return_exceptions=True)
        assert all(isinstance(outcome, DialError) for outcome in outcomes)
        beyond = [outcome for outcome in outcomes if "dials are under way" in str(outcome)]
        assert len(beyond) == 7
        await until(lambda: not transport.connections())
        with pytest.raises(DialError, match="no handshake"):
            await transport.dial(address)
    await transport.close()


@pytest.mark.slow
@in_loop
async def test_failed_dials_and_handshakes_leak_no_slots() -> None:
    limits = TransportLimits(pending_dials=2, handshake_timeout=0.1, close_grace=0.1)
    transport = SocketTransport(
        identity("node"), Recorder(), TransportOptions(secret=SECRET, limits=limits)
    )
    other = SocketTransport(identity("other"), Recorder(), TransportOptions(secret=b"x" * 16))
    address = await other.listen("127.0.0.1:0")
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        mute = f"127.0.0.1:{silent.getsockname()[1]}"
        for _ in range(3):  # more than there are slots
            with pytest.raises(HandshakeError):
                await transport.dial(address)
            with pytest.raises(DialError, match="no handshake"):
                await transport.dial(mute)
            await until(lambda: not transport.connections())
    for _ in range(3):
        with pytest.raises(DialRefusedError):
            await transport.dial(mute)
    await other.close()
    await transport.close()


@in_loop
async def test_node_without_a_secret_dials_no_forged_remote_address() -> None:
    transport = SocketTransport(identity("node"), Recorder(), TransportOptions())
    with pytest.raises(ConfigurationError, match="beyond this host"):
        await transport.dial("192.0.2.1:7400")
    await transport.close()


async def record(encounter: AttackedTransport, name: str) -> list[bytes]:
    """What a member says until it is linked, as somebody on the path records it."""
    member = Handshake(identity(name), dialling=True, secret=SECRET)
    raw = await encounter.stranger()
    said = [member.start()]
    raw.send(said[0])
    while member.peer is None:
        await until(lambda: raw.taken)
        said.append(member.receive(*raw.taken.pop(0)))
        raw.send(said[-1])
    raw.close()
    await until(lambda: len(encounter.transport.connections()) == 1)
    return said
