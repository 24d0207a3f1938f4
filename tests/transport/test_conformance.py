"""What every transport guarantees: the contract in `adsum.transport.contract`, clause by clause."""

import asyncio
import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from adsum.bus.limits import WINDOW
from adsum.errors import DialRefusedError, HandshakeError, ListenError
from adsum.transport.contract import Link
from adsum.transport.framing import FRAME_LIMIT
from adsum.transport.handshake import VERSIONS, SelfDialError
from adsum.transport.limits import TransportLimits
from tests.support.bus_servers import ENGINES
from tests.support.transports import KINDS, Recorder, World, in_loop, make_world
from tests.support.waiting import DEADLINE, until


@pytest.fixture(
    params=(*KINDS, "bus", *(pytest.param(e, marks=pytest.mark.processes) for e in ENGINES))
)
def world(request: pytest.FixtureRequest, short_path: Path) -> World:
    return make_world(request, request.param, short_path)


@pytest.fixture(params=KINDS)
def stream_world(request: pytest.FixtureRequest, short_path: Path) -> World:
    """For clauses about the streams below links, or about options that a bus does not have."""
    return make_world(request, request.param, short_path)


@in_loop
async def test_handshake_gives_both_ends_the_identity_and_direction(world: World) -> None:
    dialler, acceptor = await world.pair()

    assert dialler.link.peer.name == "acceptor"
    assert acceptor.link.peer.name == "dialler"
    assert dialler.link.dialled is not None
    assert acceptor.link.dialled is None
    assert dialler.link.version == acceptor.link.version == VERSIONS[1]


@in_loop
async def test_link_is_open_when_dial_returns(world: World) -> None:
    dialler = Recorder()
    address = await world.listening("acceptor", Recorder())

    await world.transport("dialler", dialler).dial(address)

    assert len(dialler.opened) == 1


@in_loop
async def test_frames_arrive_once_and_in_order_both_ways(world: World) -> None:
    dialler, acceptor = await world.pair()
    there = [b"there %d" % number for number in range(500)]
    back = [b"back %d" % number for number in range(500)]

    for one, other in zip(there, back, strict=True):
        dialler.link.send(one)
        acceptor.link.send(other)

    await until(lambda: len(acceptor.frames) == len(dialler.frames) == 500)
    assert acceptor.payloads == there
    assert dialler.payloads == back


@in_loop
async def test_frames_of_any_size_up_to_the_limit_arrive_unchanged(world: World) -> None:
    dialler, acceptor = await world.pair()
    sizes = [0, 1, 1023, 1024, 1025, 65536, FRAME_LIMIT - 1, FRAME_LIMIT]
    sent = [os.urandom(size) for size in sizes] + [b"\0" * size for size in sizes]

    for payload in sent:
        dialler.link.send(payload)

    await until(lambda: len(acceptor.frames) == len(sent))
    assert acceptor.payloads == sent


@in_loop
async def test_frame_above_the_limit_is_refused_and_the_link_stays_open(world: World) -> None:
    dialler, acceptor = await world.pair()

    with pytest.raises(ValueError, match=str(FRAME_LIMIT)):
        dialler.link.send(bytes(FRAME_LIMIT + 1))
    dialler.link.send(b"still here")

    await until(lambda: acceptor.payloads == [b"still here"])


@in_loop
async def test_all_frames_of_one_turn_leave_in_one_write(stream_world: World) -> None:
    acceptor = Recorder()
    address = await stream_world.listening("acceptor", acceptor)
    raw = await stream_world.proved_raw(address)
    await until(lambda: acceptor.opened)
    raw.chunks.clear()

    for number in range(100):
        acceptor.link.send(b"%d" % number)

    await until(lambda: len(raw.taken) == 100)
    assert len(raw.chunks) == 1


@in_loop
async def test_high_water_mark_passed_within_one_turn_is_reported_at_once(world: World) -> None:
    dialler, acceptor = await world.pair(limits=TransportLimits(send_high_water=64 * 1024))
    payload = os.urandom(10_000)
    mark = WINDOW if world.is_bus else 64 * 1024

    sent = 0
    while not dialler.writable:
        dialler.link.send(payload)
        sent += 1
    assert sent == mark // 10_000 + 1, "the mark and at most one frame"

    await until(lambda: dialler.writable == [False, True])
    await until(lambda: len(acceptor.frames) == sent)


@in_loop
async def test_link_that_its_peer_closes_is_not_writable_from_then_on(world: World) -> None:
    dialler, acceptor = await world.pair()

    acceptor.link.close("done")

    await until(lambda: dialler.closed)
    assert dialler.writable == [False]
    assert acceptor.writable == []


@in_loop
async def test_frames_before_close_arrive_then_the_goodbye_reason(world: World) -> None:
    dialler, acceptor = await world.pair()

    for number in range(20):
        dialler.link.send(b"%d" % number * 1000)
    dialler.link.close("the shift is over")

    await until(lambda: dialler.closed and acceptor.closed)
    assert len(acceptor.frames) == 20
    assert dialler.reasons == ["the shift is over"]
    assert acceptor.reasons == ["peer closed: the shift is over"]


@in_loop
async def test_duplicate_close_closes_once(world: World) -> None:
    dialler, acceptor = await world.pair()

    dialler.link.close("first")
    dialler.link.close("second")
    acceptor.link.close("at the same time")
    await until(lambda: dialler.closed and acceptor.closed)
    dialler.link.close("late")
    dialler.link.send(b"nobody hears this")
    await world.close()

    assert dialler.reasons == ["first"]
    assert acceptor.reasons == ["at the same time"]


@in_loop
async def test_handler_is_never_called_inside_close_or_send(world: World) -> None:
    dialler, acceptor = await world.pair(
        limits=TransportLimits(send_high_water=1000, send_limit=10**9)
    )

    def answer_and_close(link: object, payload: bytes) -> None:
        # The recorder fails if it is told anything while this runs.
        for _ in range(100):
            acceptor.link.send(os.urandom(10_000))
        acceptor.link.close("done")

    acceptor.on_frame = answer_and_close
    dialler.link.send(b"go")

    await until(lambda: dialler.closed and acceptor.closed)
    assert len(dialler.frames) == 100


@in_loop
async def test_no_frame_is_delivered_after_closing(world: World) -> None:
    dialler, acceptor = await world.pair()
    acceptor.on_frame = lambda link, payload: link.close("one is enough")

    for _ in range(50):
        dialler.link.send(b"again")

    await until(lambda: dialler.closed and acceptor.closed)
    assert acceptor.payloads == [b"again"]
    assert dialler.reasons == ["peer closed: one is enough"]


@in_loop
async def test_closing_a_transport_closes_its_links_and_frees_its_address(world: World) -> None:
    acceptor, dialler = Recorder(), Recorder()
    listening = world.transport("acceptor", acceptor)
    address = await listening.listen(world.free_address("acceptor"))
    await world.transport("dialler", dialler).dial(address)
    await until(lambda: acceptor.opened)

    await listening.close()
    await listening.close()

    assert acceptor.reasons == ["the node is closing"]
    await until(lambda: dialler.closed)
    assert dialler.reasons == ["peer closed: the node is closing"]
    with pytest.raises(DialRefusedError):
        await world.transport("late").dial(address)


@in_loop
async def test_dial_without_a_listener_is_refused(world: World) -> None:
    gone = world.transport("gone")
    address = await gone.listen(world.free_address("gone"))
    await gone.close()

    with pytest.raises(DialRefusedError):
        await world.transport("dialler").dial(address)


@in_loop
async def test_listen_on_an_address_in_use_is_refused(stream_world: World) -> None:
    address = await stream_world.listening("first", Recorder())

    with pytest.raises(ListenError):
        await stream_world.transport("second").listen(address)


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [(b"one", b"other"), (b"one", None), (None, b"other")],
    ids=["differ", "only theirs", "only mine"],
)
@in_loop
async def test_nodes_whose_secrets_differ_never_link(
    stream_world: World, theirs: bytes | None, mine: bytes | None
) -> None:
    acceptor, dialler = Recorder(), Recorder()
    address = await stream_world.listening("acceptor", acceptor, secret=theirs)

    with pytest.raises(HandshakeError, match="secrets differ"):
        await stream_world.transport("dialler", dialler, secret=mine).dial(address)

    assert not acceptor.opened
    assert not dialler.opened


@in_loop
async def test_nodes_without_a_secret_link(stream_world: World) -> None:
    dialler, acceptor = await stream_world.pair(secret=None)

    dialler.link.send(b"hello")

    await until(lambda: acceptor.payloads == [b"hello"])


@in_loop
async def test_nodes_of_different_clusters_never_link(stream_world: World) -> None:
    address = await stream_world.listening("acceptor", Recorder(), cluster="kitchen")

    with pytest.raises(HandshakeError, match=r"'hall'.*'kitchen'|'kitchen'.*'hall'"):
        await stream_world.transport("dialler", cluster="hall").dial(address)


@in_loop
async def test_versions_next_to_each_other_link_and_distant_ones_do_not(
    stream_world: World,
) -> None:
    dialler = Recorder()
    address = await stream_world.listening("acceptor", Recorder(), versions=(1, 2))

    await stream_world.transport("newer", dialler, versions=(2, 3)).dial(address)
    with pytest.raises(HandshakeError, match="no common protocol version"):
        await stream_world.transport("newest", versions=(3, 4)).dial(address)

    assert dialler.link.version == 2


@in_loop
async def test_dial_of_oneself_is_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    transport = world.transport("narcissus", recorder)
    address = await transport.listen(world.free_address("narcissus"))

    with pytest.raises(SelfDialError, match="narcissus"):
        await transport.dial(address)
    await transport.close()

    assert not recorder.opened
    assert not caplog.records


@in_loop
async def test_other_incarnation_of_the_same_name_is_not_oneself(world: World) -> None:
    dialler = Recorder()
    address = await world.listening("phoenix", Recorder(), incarnation=1)

    await world.transport("phoenix", dialler, incarnation=2).dial(address)

    assert dialler.link.peer.incarnation == 1


@in_loop
async def test_hello_carries_the_identity_set_last(world: World) -> None:
    dialler, acceptor = Recorder(), Recorder()
    listening = world.transport("acceptor", acceptor)
    address = await listening.listen(world.free_address("acceptor"))
    listening.identity = replace(listening.identity, addresses=(address,))

    await world.transport("dialler", dialler).dial(address)

    assert dialler.link.peer.addresses == (address,)


@in_loop
async def test_wildcard_address_becomes_the_observed_peer_host(stream_world: World) -> None:
    dialler = Recorder()
    listening = stream_world.transport("acceptor")
    address = await listening.listen(stream_world.free_address("acceptor"))
    # Both families on one port are one address, in whatever family the peer is seen.
    told = ("0.0.0.0:7400", "[::]:7400", "[::]:7401", ":7402", "10.1.2.3:7403")
    listening.identity = replace(listening.identity, addresses=told)

    await stream_world.transport("dialler", dialler).dial(address)

    seen = ("127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402", "10.1.2.3:7403")
    assert dialler.link.peer.addresses == seen


def test_transport_works_in_a_second_event_loop(world: World) -> None:
    async def scenario(second: World) -> None:
        dialler, acceptor = await second.pair()
        dialler.link.send(b"hello")
        await until(lambda: acceptor.payloads == [b"hello"])
        await second.close()

    for _ in range(2):
        asyncio.run(scenario(world.again()))


@in_loop
async def test_frame_for_many_links_reaches_each_and_is_compressed_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acceptor, diallers = Recorder(), [Recorder() for _ in range(3)]
    address = await world.listening("acceptor", acceptor)
    for number, dialler in enumerate(diallers):
        await world.transport(f"dialler {number}", dialler).dial(address)
    await until(lambda: len(acceptor.opened) == 3)
    compressed: list[bytes] = []
    compress = zlib.compress

    def counted(data: bytes, level: int) -> bytes:
        compressed.append(data)
        return compress(data, level)

    monkeypatch.setattr(zlib, "compress", counted)

    acceptor.opened[1].close("a test")
    world.bound[address].send(acceptor.opened, b"x" * 10_000)

    for dialler in (diallers[0], diallers[2]):
        await until(lambda d=dialler: d.payloads == [b"x" * 10_000])  # type: ignore[misc]  # bound now
    assert diallers[1].payloads == []
    assert compressed == [b"x" * 10_000]


@in_loop
async def test_links_of_one_transport_do_not_mix_frames(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor)
    diallers = [Recorder() for _ in range(10)]
    for number, dialler in enumerate(diallers):
        await world.transport(f"dialler {number}", dialler).dial(address)
    await until(lambda: len(acceptor.opened) == 10)

    for link in acceptor.opened:
        for number in range(20):
            link.send(f"{link.peer.name}: {number}".encode())

    for number, dialler in enumerate(diallers):
        expected = [f"dialler {number}: {count}".encode() for count in range(20)]
        await until(lambda d=dialler, e=expected: d.payloads == e)  # type: ignore[misc]  # bound now


class Failing(Recorder):
    """A handler that raises in some of its methods."""

    def __init__(self, *methods: str) -> None:
        super().__init__()
        self._methods = methods

    def link_opened(self, link: Link) -> None:
        super().link_opened(link)
        if "link_opened" in self._methods:
            raise RuntimeError("a failure of the handler")

    def link_writable(self, link: Link, writable: bool) -> None:
        super().link_writable(link, writable)
        if "link_writable" in self._methods:
            raise RuntimeError("a failure of the handler")


@in_loop
async def test_dial_returns_although_its_handler_raises(world: World) -> None:
    address = await world.listening("acceptor", Recorder())
    handler = Failing("link_opened")
    await asyncio.wait_for(world.transport("dialler", handler).dial(address), DEADLINE)
    assert len(handler.opened) == 1


@in_loop
async def test_link_closed_follows_although_link_writable_raises(world: World) -> None:
    acceptor, handler = Recorder(), Failing("link_writable")
    address = await world.listening("acceptor", acceptor)
    await world.transport("dialler", handler).dial(address)
    await until(lambda: acceptor.opened)
    acceptor.opened[0].close("a test")
    await until(lambda: handler.closed)
