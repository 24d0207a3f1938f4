"""The ends of connections: over wires that only record calls, and over every kind of transport."""

import asyncio
import ssl
from typing import Any

import pytest

from adsum.errors import DialError, HandshakeError
from adsum.transport.contract import Link
from adsum.transport.framing import PAYLOAD, FrameReader, encode_close, encode_frame
from adsum.transport.handshake import Handshake
from adsum.transport.limits import TransportLimits
from adsum.transport.linkpool import LinkPool
from adsum.transport.options import TransportOptions
from adsum.transport.streamconnection import StreamConnection
from tests.support.raw_peer import tagged
from tests.support.transports import Recorder, World, identity, in_loop
from tests.support.waiting import until

SECRET = b"a shared secret"
#: Each frame takes a turn of its own, and reading pauses while one waits.
ONE_A_TURN = TransportLimits(turn_budget=1, receive_backlog=64)


class RecordedWire(asyncio.Transport):
    """A wire without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = False
        self.aborts = 0

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborts += 1

    def is_closing(self) -> bool:
        return self.aborts > 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Caller:
    """A peer that dials a pool over a recorded wire."""

    def __init__(self, pool: LinkPool, name: str) -> None:
        connection = pool.accept_connection("127.0.0.1")
        assert connection is not None
        self.connection: StreamConnection = connection
        self.wire = RecordedWire()
        self.connection.connection_made(self.wire)
        self._handshake = Handshake(identity(name), dialling=True, secret=SECRET)

    async def hello(self) -> bytes:
        """Send the hello; returns the proof, which is the next to send."""
        self.connection.data_received(self._handshake.start())
        reader = FrameReader()
        await until(lambda: self.wire.written)
        reader.feed(self.wire.written)
        frame = reader.take()
        assert frame is not None
        return self._handshake.receive(*frame)

    def send(self, *frames: bytes) -> None:
        self.connection.data_received(tagged(b"".join(frames), self._handshake.outgoing))


async def linked(pool: LinkPool, name: str, handler: Recorder) -> Caller:
    caller = Caller(pool, name)
    caller.connection.data_received(await caller.hello())
    await until(lambda: [link for link in handler.opened if link.peer.name == name])
    return caller


def pool_of(handler: Recorder) -> LinkPool:
    return LinkPool(identity("node"), handler, TransportOptions(secret=SECRET, limits=ONE_A_TURN))


def payload(size: int = 100) -> bytes:
    return encode_frame(PAYLOAD, bytes(size))


@pytest.mark.parametrize("end", ["refusal", "timeout", "hang-up", "abort"])
@in_loop
async def test_unproven_connection_that_ends_is_no_longer_counted(world: World, end: str) -> None:
    seconds = 0.02 if end == "timeout" else 600.0
    limits = TransportLimits(handshake_timeout=seconds, close_grace=0.02)
    address = await world.listening("acceptor", Recorder(), limits=limits)
    pool = world.bound[address]
    budgets = (pool._unproven_tcp, pool._unproven_unix)
    raw = await world.connect_raw(address)
    if end == "refusal":
        raw.send(encode_frame(99, b"?"))
    elif end == "hang-up":
        await until(pool.connections)
        raw.close()
    elif end == "abort":
        [connection] = await until(pool.connections)
        assert sum(map(len, budgets)) == 1
        connection.abort("a test")

    await until(lambda: raw.hung_up and not pool.connections())

    assert [len(budget) for budget in budgets] == [0, 0]
    assert not any(budget._counts for budget in budgets)


@in_loop
async def test_connection_reset_before_its_proof_is_handled_opens_no_link() -> None:
    handler = Recorder()
    pool = pool_of(handler)
    busy = await linked(pool, "busy", handler)
    late = Caller(pool, "late")
    proof = await late.hello()
    busy.send(*[payload() for _ in range(5)])

    late.connection.data_received(proof)
    late.connection.connection_lost(ConnectionResetError("reset by peer"))
    await until(lambda: len(handler.frames) == 5)
    await asyncio.sleep(0)

    assert [link.peer.name for link in handler.opened] == ["busy"]
    assert not handler.closed


@in_loop
async def test_connection_made_after_its_end_is_aborted() -> None:
    pool = pool_of(Recorder())
    connection = pool.accept_connection("127.0.0.1")
    assert connection is not None
    connection.abort("the node is closing")
    wire = RecordedWire()

    connection.connection_made(wire)

    assert (wire.aborts, wire.written) == (1, b"")
    assert not pool.connections()


@in_loop
async def test_closing_link_reads_again_at_once() -> None:
    """Else the goodbye of the peer waits until other links have had their turn."""
    handler = Recorder()
    caller = await linked(pool_of(handler), "busy", handler)
    caller.send(*[payload() for _ in range(5)])
    assert caller.wire.paused

    handler.link.close("a test")

    assert not caller.wire.paused
    await until(lambda: handler.closed)
    caller.connection.connection_lost(None)


@in_loop
async def test_close_of_a_lost_link_leaves_its_wire_alone() -> None:
    def close(link: Link, _: bytes) -> None:
        link.close("enough")

    handler = Recorder()
    pool = pool_of(handler)
    caller = await linked(pool, "brief", handler)
    caller.send(*[payload() for _ in range(3)], encode_close("leaving"))
    caller.connection.connection_lost(None)
    written, handler.on_frame = caller.wire.written, close

    await until(lambda: not pool.connections())

    assert handler.reasons == ["enough"]
    assert (caller.wire.aborts, caller.wire.written) == (0, written)


@in_loop
async def test_acceptor_of_a_self_dial_ends_without_a_hang_up(world: World) -> None:
    limits = TransportLimits(close_grace=0.02, handshake_timeout=600.0)
    address = await world.listening("narcissus", Recorder(), limits=limits)
    raw = await world.connect_raw(address)
    handshake = Handshake(identity("narcissus"), dialling=True, secret=SECRET)

    raw.send(handshake.start())
    await until(lambda: raw.taken)
    raw.send(handshake.receive(*raw.taken.pop(0)))

    await until(lambda: raw.hung_up and not world.connections_of("narcissus"))


@pytest.mark.parametrize(
    ("loss", "error"),
    [(ssl.SSLError("bad certificate"), HandshakeError), (OSError("reset by peer"), DialError)],
    ids=["tls", "other"],
)
@in_loop
async def test_tls_error_in_the_handshake_rejects_the_dial(
    loss: Exception, error: type[Exception]
) -> None:
    greeting = pool_of(Recorder()).begin_dial("127.0.0.1:9")
    greeting.connection.connection_made(RecordedWire())

    greeting.connection.connection_lost(loss)

    assert greeting.outcome is not None
    assert type(greeting.outcome.exception()) is error
