"""What the network in memory adds: cutting, healing, severing."""

import asyncio
from pathlib import Path

import pytest

from adsum.errors import DialError, DialRefusedError, ListenError
from adsum.transport.limits import TransportLimits
from tests.support.memory_transport import MemoryNetwork, MemoryTransport
from tests.support.transports import Recorder, World, identity, in_loop
from tests.support.waiting import until


@pytest.fixture
def memory(short_path: Path) -> World:
    return World("memory", short_path, None)


@in_loop
async def test_partition_drops_frames_silently_until_it_heals(memory: World) -> None:
    dialler, acceptor = await memory.pair(secret=None)

    memory.network.partition("dialler", "acceptor")
    dialler.link.send(b"lost")
    acceptor.link.send(b"lost")
    await asyncio.sleep(0)
    memory.network.heal("acceptor", "dialler")
    dialler.link.send(b"found")
    acceptor.link.send(b"found")

    await until(lambda: dialler.frames and acceptor.frames)
    assert dialler.payloads == acceptor.payloads == [b"found"]
    assert not dialler.closed


@in_loop
async def test_lost_frame_ends_an_authenticated_link_with_the_next_one(memory: World) -> None:
    dialler, acceptor = await memory.pair()

    memory.network.partition("dialler", "acceptor")
    dialler.link.send(b"lost")
    await asyncio.sleep(0)
    memory.network.heal()
    dialler.link.send(b"found out")

    await until(lambda: dialler.closed and acceptor.closed)
    assert not acceptor.frames
    assert "wrong tag" in acceptor.reasons[0]


@in_loop
async def test_cut_can_be_one_way(memory: World) -> None:
    dialler, acceptor = await memory.pair(secret=None)

    memory.network.partition("dialler", "acceptor", one_way=True)
    dialler.link.send(b"lost")
    acceptor.link.send(b"heard")
    await until(lambda: dialler.frames)
    memory.network.heal()
    dialler.link.send(b"back")
    await until(lambda: acceptor.frames)

    assert acceptor.payloads == [b"back"]


@pytest.mark.parametrize("one_way", [True, False])
@in_loop
async def test_dial_across_a_partition_fails(memory: World, one_way: bool) -> None:
    address = await memory.listening("acceptor", Recorder())
    memory.network.partition("acceptor", "dialler", one_way=one_way)

    with pytest.raises(DialError, match="no answer") as caught:
        await memory.transport("dialler", limits=TransportLimits(connect_timeout=0.01)).dial(
            address
        )
    assert not isinstance(caught.value, DialRefusedError)


@in_loop
async def test_severed_link_is_lost_at_both_ends_without_goodbye(memory: World) -> None:
    dialler, acceptor = await memory.pair()
    dialler.link.send(b"on its way")

    memory.network.sever(dialler.link)

    await until(lambda: dialler.closed and acceptor.closed)
    assert acceptor.reasons == dialler.reasons == ["connection lost: connection reset"]
    assert not acceptor.frames


@in_loop
async def test_any_string_names_a_listener(memory: World) -> None:
    transport = memory.transport("acceptor")

    assert await transport.listen("the kitchen") == "the kitchen"
    assert await transport.listen("10.0.0.1:1-2") == "10.0.0.1:1"
    assert await transport.listen("10.0.0.1:1-2") == "10.0.0.1:2"
    with pytest.raises(ListenError):
        await transport.listen("10.0.0.1:1-2")
    await memory.transport("dialler").dial("the kitchen")


@in_loop
async def test_networks_are_apart() -> None:
    one = MemoryTransport(MemoryNetwork(), identity("one"), Recorder())
    other = MemoryTransport(MemoryNetwork(), identity("other"), Recorder())
    await one.listen("here")

    with pytest.raises(DialRefusedError):
        await other.dial("here")
    await one.close()
    await other.close()
