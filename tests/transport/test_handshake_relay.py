"""Links whose handshake a stranger relays, and links that no stranger can be on."""

import asyncio
import logging
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum.replication.codec import encode
from adsum.replication.messages import Goodbye, Publish
from adsum.transport.frame_mac import TAG_BYTES
from adsum.transport.framing import (
    CLOSE,
    PAYLOAD,
    encode_close,
    encode_frame,
    encode_payload,
)
from adsum.transport.handshake import Handshake
from adsum.transport.limits import TransportLimits
from adsum.transport.tls import TLS
from tests.support.ports import free_port
from tests.support.raw_peer import RawPeer, tagged
from tests.support.transports import Recorder, World, identity, in_loop
from tests.support.waiting import DEADLINE, until

from .tampering_relay import Relay, RelayedDirection

WRONG_TAG = "a frame with a wrong tag: it was altered, repeated, moved or added in transit"
NO_TAG = bytes(TAG_BYTES)
SECRET = b"a shared secret"


@pytest.fixture
def tcp(short_path: Path) -> World:
    return World("tcp", short_path, None)


@asynccontextmanager
async def relayed(world: World) -> AsyncIterator[tuple[Relay, Recorder, Recorder]]:
    """Two ends whose only link leads through a relay: the dialler's recorder first."""
    dialler, acceptor = Recorder(), Recorder()
    async with relay_to(await world.listening("acceptor", acceptor)) as (relay, address):
        await world.transport("dialler", dialler).dial(address)
        await until(lambda: acceptor.opened)
        yield relay, dialler, acceptor


def flipped(frame: bytes, at: int, mask: int = 1) -> bytes:
    altered = bytearray(frame)
    altered[at] ^= mask
    return bytes(altered)


#: What the relay makes of four frames, and how many of them arrive.
ATTACKS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "replay": (lambda f: [f[0], *f], 1),
    "reorder": (lambda f: [f[0], f[2], f[1], f[3]], 1),
    "drop": (lambda f: [f[0], f[2], f[3]], 1),
    "flip in the length": (lambda f: [f[0], flipped(f[1], 3), *f[2:]], 1),
    "flip in the kind": (lambda f: [flipped(f[0], 4, PAYLOAD ^ CLOSE), *f[1:]], 0),
    "flip in the body": (lambda f: [f[0], flipped(f[1], 7), *f[2:]], 1),
    "flip in the tag": (lambda f: [*f[:3], flipped(f[3], -1)], 3),
    "frame without a tag": (lambda f: [f[0], encode_payload(b"x"), *f[1:]], 1),
    "forged frame": (lambda f: [*f[:2], encode_payload(b"x") + NO_TAG], 2),
    "forged goodbye": (lambda f: [f[0], encode_close("bye") + NO_TAG], 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("sender", ["dialler", "acceptor"])
@in_loop
async def test_tampering_relay_ends_only_the_link(
    tcp: World, sender: str, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    tamper, intact = ATTACKS[attack]
    sent = [b"first", b"second " * 300, b"third", b"fourth"]
    async with relayed(tcp) as (relay, dialler, acceptor):
        ends, flows = (dialler, acceptor), relay.links[0]
        one, other = ends if sender == "dialler" else ends[::-1]
        flow = flows[0] if sender == "dialler" else flows[1]
        flow.hold = True
        for payload in sent:
            one.link.send(payload)
        await until(lambda: len(flow.held) == len(sent))

        flow.inject(b"".join(tamper(flow.held)))
        await until(lambda: other.closed and one.closed)

        assert other.payloads == sent[:intact]
        assert other.reasons == [WRONG_TAG]
        assert one.reasons == [f"peer closed: {WRONG_TAG}"], "the goodbye itself has a tag"
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert WRONG_TAG in record.getMessage()


@in_loop
async def test_reflected_frames_end_the_link(tcp: World) -> None:
    async with relayed(tcp) as (relay, dialler, _):
        there, _ = relay.links[0]
        there.hold = True
        dialler.link.send(b"mine")
        await until(lambda: there.held)

        there.write(there.held[0])

        await until(lambda: dialler.closed)
        assert not dialler.frames
        assert dialler.reasons == [WRONG_TAG]


@in_loop
async def test_replayed_frames_of_another_link_end_the_link(tcp: World) -> None:
    dialler, acceptor = Recorder(), Recorder()
    async with relay_to(await tcp.listening("acceptor", acceptor)) as (relay, address):
        transport = tcp.transport("dialler", dialler)
        for _ in range(2):
            await transport.dial(address)
        await until(lambda: len(acceptor.opened) == 2)
        (one, _), (other, _) = relay.links
        dialler.opened[0].send(b"once")
        await until(lambda: acceptor.payloads == [b"once"])

        other.inject(one.seen[0])

        await until(lambda: acceptor.closed)
        assert acceptor.payloads == [b"once"]
        assert acceptor.closed == [(acceptor.opened[1], WRONG_TAG)]


#: What a relay says in the name of a node: a message, and that it stops, to the node and the link.
FORGED = (
    encode_payload(encode(Publish("room", "forged", "{}"))),
    encode_payload(encode(Goodbye(1000, 1000, 0.0))),
    encode_close("forged"),
)


@asynccontextmanager
async def relay_to(target: str) -> AsyncIterator[tuple[Relay, str]]:
    relay = Relay(target)
    try:
        yield relay, await relay.start()
    finally:
        await relay.close()


async def relayed_link(relay: Relay, number: int) -> RelayedDirection:
    """Wait for a link whose whole handshake was relayed; returns what its dialler sends."""
    await until(lambda: len(relay.links) > number)
    await until(lambda: all(flow.proved for flow in relay.links[number]))
    return relay.links[number][0]


def is_up(node: adsum.Node) -> bool:
    return sorted(member.status for member in node.members()) == ["self", "up"]


@pytest.mark.parametrize("secret", [b"a secret that the relay does not know", None])
def test_relay_in_the_middle_can_forge_neither_node(
    secret: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a secret, which only loopback allows, it can: so the attack is a real one."""

    settings: dict[str, Any] = {
        "cluster": f"relayed-{os.getpid()}",
        "siblings": False,
        "secret": secret,
    }

    async def scenario() -> None:
        listen = f"127.0.0.1:{free_port()}"
        async with (
            relay_to(listen) as (relay, address),
            # Otherwise it tells where it listens, and is dialled there after the first attack.
            adsum.Node(name="one", listen=listen, advertise=address, **settings) as one,
            adsum.Node(name="two", peers=[address], **settings) as two,
        ):
            presence, messages = adsum.Presence(one), adsum.PubSub(one).subscribe("room")
            adsum.Presence(two).track("room", "ann", {}, owner=None)
            await until(lambda: presence.list("room"))
            if secret is None:
                flow = await relayed_link(relay, 0)
                flow.inject(encode_payload(encode(Publish("room", "forged", "{}"))))
                assert (await anext(messages)).event == "forged"
                return
            for number, forged in enumerate(FORGED):
                flow = await relayed_link(relay, number)
                flow.inject(forged + NO_TAG)
            await relayed_link(relay, len(FORGED))
            await until(lambda: all(is_up(node) for node in (one, two)))
            # The first message that arrives is a genuine one, and nobody has left.
            await adsum.PubSub(two).publish("room", {"genuine": True})
            assert (await anext(messages)).payload == {"genuine": True}
            assert list(presence.list("room")) == ["ann"]

    asyncio.run(asyncio.wait_for(scenario(), 2 * DEADLINE))
    assert any(WRONG_TAG in text for text in caplog.messages) == (secret is not None)


# The switch from a handshake to frames with tags.


@in_loop
async def test_frame_in_one_write_with_the_proof_has_its_tag_checked(tcp: World) -> None:
    for forged in (False, True):
        acceptor = Recorder()
        raw = await tcp.connect_raw(await tcp.listening("acceptor", acceptor))
        handshake = Handshake(identity("raw"), dialling=True, secret=SECRET)
        raw.send(handshake.start())
        await until(lambda raw=raw: raw.taken)  # type: ignore[misc]  # bound now
        proof = handshake.receive(*raw.taken.pop())
        payload = encode_payload(b"at once")

        raw.send(proof + (payload + NO_TAG if forged else tagged(payload, handshake.outgoing)))

        await until(lambda acceptor=acceptor: acceptor.frames or acceptor.closed)  # type: ignore[misc]  # bound now
        assert acceptor.payloads == ([] if forged else [b"at once"])
        assert acceptor.reasons == ([WRONG_TAG] if forged else [])
        raw.close()


@in_loop
async def test_goodbye_within_the_greeting_of_the_acceptor_is_understood(world: World) -> None:
    """A dialler that gives up after its proof says so with a tag, on a link that is open there."""
    acceptor = Recorder()
    raw = await world.connect_raw(await world.listening("acceptor", acceptor))
    handshake = Handshake(identity("raw"), dialling=True, secret=SECRET)
    raw.send(handshake.start())
    await until(lambda: raw.taken)
    proof = handshake.receive(*raw.taken.pop())

    raw.send(proof + tagged(encode_close("no handshake within 5 s"), handshake.outgoing))

    await until(lambda: acceptor.closed)
    assert acceptor.reasons == ["peer closed: no handshake within 5 s"]


@in_loop
async def test_forged_goodbye_does_not_truncate_frames_of_a_closing_link(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor, limits=TransportLimits(close_grace=60))
    raw, other = await world.proved_raw(address), await world.proved_raw(address, "other")
    await until(lambda: len(acceptor.opened) == 2)
    closing = acceptor.opened[0]
    closing.close("done")
    await until(lambda: raw.goodbyes)

    assert raw.wire is not None
    raw.wire.write(encode_close("forged") + NO_TAG)
    for number in range(3):  # turns in which it would be read
        other.send(encode_payload(b"%d" % number))
        await until(lambda number=number: len(acceptor.frames) > number)  # type: ignore[misc]  # bound now

    assert not raw.hung_up
    raw.close()
    other.close()


# Who spends tags.


async def size_of_a_frame(world: World, *, protected: bool) -> int:
    """Bytes that a payload of 10 takes on the link of an end that wants tags, or does not."""
    acceptor = Recorder()
    raw: RawPeer = await world.connect_raw(await world.listening("acceptor", acceptor))
    await raw.greet(identity("raw"), SECRET, protected=protected)
    await until(lambda: acceptor.opened)
    raw.chunks.clear()
    acceptor.link.send(bytes(10))
    await until(lambda: raw.chunks)
    raw.close()
    return sum(map(len, raw.chunks)) - len(encode_frame(PAYLOAD, bytes(10)))


@in_loop
async def test_no_frame_tags_are_sent_over_protected_paths(world: World) -> None:
    open_to_strangers = world.kind in ("tcp", "memory")

    spent = await size_of_a_frame(world, protected=True)

    assert spent == (TAG_BYTES if open_to_strangers else 0)


@in_loop
async def test_frame_tags_are_sent_if_the_peer_requests_them(world: World) -> None:
    assert await size_of_a_frame(world, protected=False) == TAG_BYTES


@pytest.mark.parametrize("peer", [None, os.geteuid() + 1], ids=["unknown", "another"])
@in_loop
async def test_unix_peer_of_unknown_user_gets_frame_tags(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, peer: int | None
) -> None:
    monkeypatch.setattr("adsum.transport.sockets.peer_uid", lambda sock: peer)
    world = World("unix", short_path, None)

    assert await size_of_a_frame(world, protected=True) == TAG_BYTES
    await world.close()


def unverified(tls: TLS, which: str) -> TLS:
    """The contexts of a TLS, of which one or both take anybody."""
    made = []
    for name, purpose in (
        ("server", ssl.PROTOCOL_TLS_SERVER),
        ("client", ssl.PROTOCOL_TLS_CLIENT),
    ):
        context: ssl.SSLContext = getattr(tls, name)
        if which in (name, "both"):
            context = ssl.SSLContext(purpose)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        made.append(context)
    return TLS(*made)


@pytest.mark.parametrize("which", ["client", "server", "both"])
@in_loop
async def test_unverified_tls_gets_frame_tags(
    short_path: Path, tls: TLS, certificates: Path, which: str
) -> None:
    loose = unverified(tls, which)
    for context in (loose.server, loose.client):
        context.load_cert_chain(certificates / "node.pem", certificates / "node.key")
    world = World("tls", short_path, loose)

    assert await size_of_a_frame(world, protected=True) == TAG_BYTES
    await world.close()


@in_loop
async def test_frame_tags_count_towards_backpressure(tcp: World) -> None:
    dialler, _ = await tcp.pair(limits=TransportLimits(send_high_water=10_000, send_limit=20_000))
    frame = len(encode_frame(PAYLOAD, b"")) + TAG_BYTES

    sent = 0
    while not dialler.closed and dialler.link.connection.queued + frame <= 20_000:
        dialler.link.send(b"")
        sent += 1
        assert dialler.link.connection.queued == sent * frame
        assert dialler.writable == ([False] if sent * frame > 10_000 else [])
    dialler.link.send(secrets.token_bytes(16))
    await until(lambda: dialler.closed)
    assert "reads too slowly" in dialler.reasons[0]
