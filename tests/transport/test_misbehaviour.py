"""What a peer that is broken, hostile, slow or gone can do: lose its link, and nothing else."""

import asyncio
import gc
import logging
import os
import struct
import time
import zlib

import pytest

from adsum.errors import DialError, HandshakeError, ProtocolError
from adsum.transport.contract import Link
from adsum.transport.framing import (
    DEFLATED,
    FRAME_LIMIT,
    HELLO,
    PAYLOAD,
    PROOF,
    encode_close,
    encode_frame,
)
from adsum.transport.handshake import Handshake
from adsum.transport.limits import TransportLimits
from tests.support.transports import Recorder, World, identity, in_loop
from tests.support.waiting import until

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "oversized": struct.pack(">IB", 9000, HELLO),
    "empty": struct.pack(">I", 0),
    "unknown kind": encode_frame(99, b"?"),
    "payload too early": encode_frame(PAYLOAD, b"hello"),
    "proof too early": encode_frame(PROOF, bytes(32)),
    "hello that is no hello": encode_frame(HELLO, b"[1, 2, 3]"),
    "hello that nests": encode_frame(HELLO, b"[" * 8000),
}

DAMAGE = {
    "oversized": struct.pack(">IB", FRAME_LIMIT + 2, PAYLOAD),
    "empty": struct.pack(">I", 0),
    "unknown kind": encode_frame(99, b"?"),
    "second hello": encode_frame(HELLO, b"[]"),
    "not compressed": encode_frame(DEFLATED, b"not zlib"),
    "bomb": encode_frame(DEFLATED, zlib.compress(bytes(100 * FRAME_LIMIT))),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@in_loop
async def test_garbage_before_the_handshake_closes_the_connection(
    world: World, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    raw = await world.connect_raw(address)

    raw.send(garbage)

    await until(lambda: raw.goodbyes)
    raw.close()
    assert not acceptor.opened
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@in_loop
async def test_garbage_on_an_open_link_closes_it_with_one_log_line(
    world: World, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    raw = await world.proved_raw(address)
    raw.send(encode_frame(PAYLOAD, b"still good") + damage + encode_frame(PAYLOAD, b"too late"))

    await until(lambda: acceptor.closed and raw.goodbyes)
    raw.close()

    assert acceptor.payloads == [b"still good"]
    assert raw.goodbyes == acceptor.reasons
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'raw'" in record.getMessage()
    assert acceptor.reasons[0] in record.getMessage()


@in_loop
async def test_protocol_error_closes_only_its_link(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(link: Link, payload: bytes) -> None:
        if payload == b"nonsense":
            raise ProtocolError("that is nonsense")

    acceptor, good, bad = Recorder(on_frame=refuse), Recorder(), Recorder()
    address = await world.listening("acceptor", acceptor)
    await world.transport("good", good).dial(address)
    await world.transport("bad", bad).dial(address)

    bad.link.send(b"nonsense")
    bad.link.send(b"more of it")
    await until(lambda: bad.closed and acceptor.closed)
    good.link.send(b"sense")
    await until(lambda: len(acceptor.frames) == 2)

    assert bad.reasons == ["peer closed: that is nonsense"]
    assert acceptor.reasons == ["that is nonsense"]
    assert acceptor.payloads == [b"nonsense", b"sense"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'bad'" in record.getMessage()
    assert record.exc_info is None


@in_loop
async def test_handler_exception_closes_the_link_with_a_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    dialler, acceptor = await world.pair()

    def stumble(link: Link, payload: bytes) -> None:
        raise ZeroDivisionError

    acceptor.on_frame = stumble
    dialler.link.send(b"secret content")
    await until(lambda: dialler.closed and acceptor.closed)

    assert dialler.reasons == ["peer closed: internal error"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "secret content" not in record.getMessage()


@in_loop
async def test_lost_connection_delivers_received_frames_then_closes(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    raw = await world.proved_raw(address)
    raw.send(b"".join(encode_frame(PAYLOAD, bytes(10_000)) for _ in range(50)))

    raw.close()
    await until(lambda: acceptor.closed)

    assert len(acceptor.frames) == 50
    assert acceptor.reasons[0].startswith("connection lost")


@in_loop
async def test_truncated_frame_at_the_end_is_not_delivered(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    raw = await world.proved_raw(address)

    raw.send(encode_frame(PAYLOAD, b"whole") + encode_frame(PAYLOAD, b"broken off")[:-1])
    raw.close()
    await until(lambda: acceptor.closed)

    assert acceptor.payloads == [b"whole"]


@in_loop
async def test_goodbye_reason_cannot_forge_log_lines(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    raw = await world.proved_raw(address)

    raw.send(encode_frame(5, b"bye\nERROR forged\x1b[31m" + b"x" * 5000))
    await until(lambda: acceptor.closed)

    assert acceptor.reasons[0].isprintable()
    assert len(acceptor.reasons[0]) < 600


@in_loop
async def test_slow_consumer_causes_backpressure_until_it_catches_up(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    raw = await world.proved_raw(address)
    await until(lambda: acceptor.opened)
    assert raw.wire is not None
    raw.wire.pause_reading()

    sent = await send_until_unwritable(acceptor)
    assert buffered(acceptor) <= 1024 * 1024 + FRAME_LIMIT
    raw.wire.resume_reading()
    await until(lambda: acceptor.writable == [False, True])
    await until(lambda: len(raw.taken) == sent)


@in_loop
async def test_overflow_of_the_send_buffer_closes_the_link(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    limits = TransportLimits(send_high_water=64 * 1024, send_limit=512 * 1024)
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor, limits=limits)
    raw = await world.proved_raw(address)
    await until(lambda: acceptor.opened)
    assert raw.wire is not None
    raw.wire.pause_reading()

    most = 0
    payload = os.urandom(FRAME_LIMIT)
    while not acceptor.closed:
        acceptor.link.send(payload)
        await asyncio.sleep(0)
        most = max(most, buffered(acceptor))

    assert "reads too slowly" in acceptor.reasons[0]
    assert most <= limits.send_limit
    assert buffered(acceptor) == 0
    assert len(caplog.records) == 1


@in_loop
async def test_overflow_within_one_turn_closes_the_link_within_its_memory_bound(
    world: World,
) -> None:
    dialler, _ = await world.pair(limits=TransportLimits(send_limit=2 * FRAME_LIMIT))
    payload = os.urandom(FRAME_LIMIT)

    for _ in range(100):
        dialler.link.send(payload)
    assert dialler.link.connection.queued == 0

    await until(lambda: dialler.closed)
    assert "reads too slowly" in dialler.reasons[0]


@in_loop
async def test_closing_link_of_a_stuck_peer_ends_after_the_grace(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor, limits=TransportLimits(close_grace=0.05))
    raw = await world.proved_raw(address)
    await until(lambda: acceptor.opened)
    assert raw.wire is not None
    raw.wire.pause_reading()
    await send_until_unwritable(acceptor)

    acceptor.link.close("no more patience")
    await until(lambda: acceptor.closed)
    assert acceptor.reasons == ["no more patience"]
    await until(lambda: buffered(acceptor) == 0)
    await until(lambda: not world.connections_of("acceptor"))


@in_loop
async def test_connection_that_closes_without_a_hello_is_not_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    address = await world.listening("acceptor", Recorder())
    raw = await world.connect_raw(address)
    await until(lambda: world.connections_of("acceptor"))

    raw.close()
    await until(lambda: not world.connections_of("acceptor"))

    assert not caplog.records


@in_loop
async def test_peer_lost_in_the_handshake_is_logged_at_debug_if_it_is_a_sibling(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "adsum.transport")
    address = await world.listening("acceptor", Recorder())
    raw = await world.connect_raw(address)

    raw.send(Handshake(identity("brief"), dialling=True, secret=b"a shared secret").start())
    raw.close()

    await until(lambda: caplog.records)
    [record] = caplog.records
    assert "during the handshake" in record.getMessage()
    sibling = world.kind in ("unix", "memory")
    assert record.levelno == (logging.DEBUG if sibling else logging.WARNING)


@in_loop
async def test_handshake_timeout_closes_a_silent_connection(world: World) -> None:
    limits = TransportLimits(handshake_timeout=0.02, close_grace=0.02)
    address = await world.listening("acceptor", Recorder(), limits=limits)

    raw = await world.connect_raw(address)

    await until(lambda: raw.hung_up)
    assert raw.goodbyes == ["no handshake within 0.02 s"]


@pytest.mark.slow
@in_loop
async def test_blocked_process_does_not_time_out_handshakes_for_its_own_absence(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    limits = TransportLimits(handshake_timeout=0.1, connect_timeout=0.1)
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor, limits=limits)
    rounds = range(1, 9, 2)

    for number in rounds:
        dialler = world.transport(f"dialler {number}", limits=limits)
        dial = asyncio.create_task(dialler.dial(address))
        for _ in range(number):
            await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251  # the absence
        await dial

    await until(lambda: len(acceptor.opened) == len(rounds))
    assert not caplog.records


@in_loop
async def test_pending_handshakes_beyond_the_limit_evict_older_ones(
    socket_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world = socket_world
    acceptor = Recorder()
    limits = TransportLimits(pending_handshakes=3, handshake_timeout=600.0)
    address = await world.listening("acceptor", acceptor, limits=limits)
    silent = [await world.connect_raw(address) for _ in range(3)]
    for raw in silent:
        raw.send(b"\0")

    crowd = silent + [await world.connect_bare(address) for _ in range(20)]
    await until(lambda: sum(raw.hung_up for raw in crowd) == 20)
    assert len(caplog.records) == 1
    await world.transport("dialler").dial(address)

    assert len(acceptor.opened) == 1
    await world.close()
    assert "more like it" in caplog.records[-1].getMessage()


@in_loop
async def test_dial_of_a_silent_listener_times_out(world: World) -> None:
    """As a stopped process: the kernel connects, nobody answers."""
    limits = TransportLimits(handshake_timeout=0.05, close_grace=0.02)
    address = await world.silent_listener()

    with pytest.raises(DialError, match="no handshake"):
        await world.transport("dialler", limits=limits).dial(address)


@pytest.mark.parametrize(
    ("reason", "error"),
    [("no handshake within 5 s", DialError), ("the clusters differ", HandshakeError)],
)
@in_loop
async def test_peer_that_was_too_slow_may_dial_again_and_is_not_rejected(
    world: World, reason: str, error: type[Exception]
) -> None:
    address = await world.silent_listener(encode_close(reason))

    with pytest.raises(error, match=f"refused: {reason}"):
        await world.transport("dialler").dial(address)


@in_loop
async def test_dial_of_a_foreign_protocol_is_reported(world: World) -> None:
    address = await world.silent_listener(b"220 mail.example.org ESMTP\r\n")

    with pytest.raises(HandshakeError, match="does not speak the protocol"):
        await world.transport("dialler").dial(address)


@in_loop
async def test_cancelled_dial_leaks_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    dialler = Recorder()
    transport = world.transport("dialler", dialler, limits=TransportLimits(handshake_timeout=60))
    address = await world.silent_listener()

    for turns in range(6):
        dial = asyncio.create_task(transport.dial(address))
        for _ in range(turns):
            await asyncio.sleep(0)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial

    await until(lambda: not transport.connections())
    assert not dialler.opened
    gc.collect()
    assert not caplog.records, "an exception was left to nobody"


@in_loop
async def test_closing_the_transport_ends_a_dial_under_way(world: World) -> None:
    transport = world.transport("dialler")
    dial = asyncio.create_task(transport.dial(await world.silent_listener()))
    await until(lambda: transport.connections())

    await transport.close()

    with pytest.raises(DialError):
        await dial


async def send_until_unwritable(recorder: Recorder) -> int:
    """Send frames that do not compress, turn by turn; returns how many."""
    payload = os.urandom(64 * 1024)
    for sent in range(1, 1000):
        recorder.link.send(payload)
        await asyncio.sleep(0)
        if recorder.writable:
            return sent
    raise AssertionError("a peer that does not read was never noticed")


def buffered(recorder: Recorder) -> int:
    wire = recorder.link.wire
    assert wire is not None
    return wire.get_write_buffer_size()
