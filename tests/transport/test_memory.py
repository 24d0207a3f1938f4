"""What the network in memory adds: cutting, healing, severing."""

import asyncio
import logging
from pathlib import Path

import pytest

from adsum.errors import DialError, DialRefusedError, ListenError
from adsum.transport.hub import SparseWarning
from adsum.transport.limits import Limits
from adsum.transport.memory import MemoryNetwork, MemoryTransport

from .harness import Recorder, World, identity, in_loop, until


@pytest.fixture
def memory(short_directory: Path) -> World:
    return World("memory", short_directory, None)


@in_loop
async def test_a_partition_drops_frames_silently_until_it_heals(memory: World) -> None:
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
async def test_a_cut_can_be_one_way(memory: World) -> None:
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
async def test_nobody_is_reached_across_a_cut(memory: World, one_way: bool) -> None:
    address = await memory.listening("acceptor", Recorder())
    memory.network.partition("acceptor", "dialler", one_way=one_way)

    with pytest.raises(DialError, match="no answer") as caught:
        await memory.transport("dialler", limits=Limits(connect_timeout=0.01)).dial(address)
    assert not isinstance(caught.value, DialRefusedError)


@in_loop
async def test_a_severed_link_is_lost_at_both_ends_without_goodbye(memory: World) -> None:
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


@in_loop
async def test_repeated_warning_is_logged_less_and_less_often_until_it_is_quiet(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.transport.hub._LOG_INTERVAL", 0.01)
    monkeypatch.setattr("adsum.transport.hub._LOG_INTERVAL_MOST", 0.2)
    monkeypatch.setattr("adsum.transport.hub._LOG_CALM", 0.5)
    warning = SparseWarning("refused: %s")
    for _ in range(60):
        warning.warn("a secret")
        await asyncio.sleep(0.01)  # as one peer with a wrong secret does
    lines = len(caplog.records)
    assert lines <= 8
    warning.flush()
    await asyncio.sleep(0.6)
    caplog.clear()
    warning.warn("one")
    warning.warn("two")
    await asyncio.sleep(0.1)
    assert len(caplog.records) == 2, "the interval is the first one again"
    warning.flush()


@in_loop
async def test_a_warning_that_strangers_cause_is_logged_once_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.transport.hub._LOG_INTERVAL", 0.02)
    warning = SparseWarning("refused: %s")

    for number in range(10):
        warning.warn(f"number {number}")
    assert [record.getMessage() for record in caplog.records] == ["refused: number 0"]
    await until(lambda: len(caplog.records) == 2)
    warning.warn("late")
    warning.flush()
    warning.flush()

    assert [record.getMessage() for record in caplog.records[1:]] == [
        "refused: number 9 (and 8 more like it)",
        "refused: late",
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)
