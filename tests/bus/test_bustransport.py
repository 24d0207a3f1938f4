"""A transport on a bus: fair turns, order, failures, outages and ends."""

import asyncio
import itertools
import logging
import os
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import pytest

from adsum.bus import bustransport
from adsum.bus.buscore import BusCore
from adsum.bus.bustransport import BusTransport
from adsum.errors import CarrierError, DialError, ListenError, ProtocolError
from adsum.forks import process
from adsum.transport.contract import Link
from adsum.transport.limits import TransportLimits
from adsum.transport.turns import TurnBudget
from tests.support.transports import (
    AnyTransport,
    ConnectingBusTransport,
    Recorder,
    World,
    identity,
    in_loop,
)
from tests.support.waiting import until

SECRET = b"a shared secret"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World("bus", tmp_path, None)


def transport_of(world: World, index: int) -> ConnectingBusTransport:
    return cast(ConnectingBusTransport, world.transports[index])


def make(world: World, handler: Recorder, grace: float) -> ConnectingBusTransport:
    """A transport with a grace of its own, closed with its world."""
    made = ConnectingBusTransport(
        identity(f"node {len(world.transports)}"),
        handler,
        partial(world.broker.make_client, "memory://bus", name="node"),
        secret=SECRET,
        carrier="memory://bus",
        grace=grace,
        turns=TurnBudget(64 * 1024),
    )
    world.transports.append(cast(AnyTransport, made))
    return made


async def linked(world: World, grace: float) -> tuple[Recorder, Recorder]:
    """Two nodes with one link and a grace."""
    dialler, acceptor = Recorder(), Recorder()
    address = await make(world, acceptor, grace).listen()
    await make(world, dialler, grace).dial(address)
    await until(lambda: acceptor.opened)
    return dialler, acceptor


@in_loop
async def test_frames_of_one_turn_stay_within_the_budget_and_keep_their_order(
    world: World,
) -> None:
    dialler, acceptor = await world.pair(limits=TransportLimits(turn_budget=16 * 1024))
    turn, turns = 0, list[int]()
    acceptor.on_frame = lambda *_: turns.append(turn)
    payloads = [b"%4d" % number + os.urandom(4000) for number in range(50)]

    client = world.broker.clients[0]
    receive, arrived = client.handler.bus_received, list[bytes]()
    client.handler.bus_received = arrived.append  # type: ignore[method-assign, assignment]  # collect a burst
    for payload in payloads:
        dialler.link.send(payload)
    await until(lambda: len(arrived) == 50)
    client.handler.bus_received = receive  # type: ignore[method-assign]
    for data in arrived:
        receive(data)
    while len(acceptor.frames) < 50:
        turn += 1
        await asyncio.sleep(0)

    assert acceptor.payloads == payloads
    assert max(turns.count(each) for each in set(turns)) <= 5


@in_loop
async def test_deadlines_are_checked_after_the_messages_received_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list[str]()
    monkeypatch.setattr(BusCore, "tick", lambda self, now: order.append("tick"))
    monkeypatch.setattr(BusCore, "received", lambda self, data, now: order.append("received"))
    monkeypatch.setattr(BusCore, "wake_at", property(lambda self: time.monotonic() + 0.05))
    await world.listening("node", Recorder(), limits=TransportLimits(turn_budget=1024))
    client = world.broker.clients[-1]
    await until(lambda: "tick" in order)
    order.clear()
    for _ in range(50):
        client.handler.bus_received(bytes(1000))
    time.sleep(0.1)  # noqa: ASYNC251  # the process does not run until after the deadline
    await until(lambda: "tick" in order)
    assert order[:51] == ["received"] * 50 + ["tick"]


@in_loop
async def test_frames_that_waited_for_a_lost_one_stay_within_the_budget(world: World) -> None:
    dialler, acceptor = await world.pair(limits=TransportLimits(turn_budget=16 * 1024))
    turn, turns = 0, list[int]()
    acceptor.on_frame = lambda *_: turns.append(turn)
    payloads = [b"%4d" % number + os.urandom(4000) for number in range(50)]

    lost = [True]
    world.broker.loses = lambda *_: lost.pop() if lost else False
    for payload in payloads:
        dialler.link.send(payload)
    while len(acceptor.frames) < 50:
        turn += 1
        await asyncio.sleep(0)

    assert acceptor.payloads == payloads
    assert max(turns.count(each) for each in set(turns)) <= 5


@in_loop
async def test_frames_that_waited_for_a_lost_one_are_dropped_if_the_handler_closes(
    world: World,
) -> None:
    dialler, acceptor = await world.pair()
    acceptor.on_frame = lambda link, _: link.close("one is enough")
    lost = [True]
    world.broker.loses = lambda *_: lost.pop() if lost else False
    for number in range(10):
        dialler.link.send(b"%d" % number)

    await until(lambda: acceptor.closed and dialler.closed)
    assert acceptor.payloads == [b"0"]


@in_loop
async def test_end_of_many_links_is_spread_over_turns(world: World) -> None:
    acceptor = Recorder()
    address = await world.listening("acceptor", acceptor, limits=TransportLimits(turn_budget=1024))
    for number in range(40):
        await world.transport(f"dialler {number}").dial(address)
    await until(lambda: len(acceptor.opened) == 40)
    transport_of(world, 0)._give_up()
    assert not acceptor.closed
    counts = [0]
    while counts[-1] < 40:
        await asyncio.sleep(0)
        counts.append(len(acceptor.closed))

    assert max(after - before for before, after in itertools.pairwise(counts)) <= 9


@in_loop
async def test_goodbye_that_precedes_a_refusal_is_handled_before_it(world: World) -> None:
    dialler, acceptor = await world.pair(limits=TransportLimits(turn_budget=1))
    handler = world.broker.clients[0].handler
    receive, arrived = handler.bus_received, list[bytes]()
    handler.bus_received = arrived.append  # type: ignore[method-assign, assignment]  # collect them
    for number in range(20):
        dialler.link.send(b"%d" % number)
    dialler.link.close("the shift is over")
    await until(lambda: len(arrived) == 21)
    handler.bus_received = receive  # type: ignore[method-assign]
    for data in arrived:
        receive(data)
    handler.bus_refused(bytes.fromhex(transport_of(world, 1).address.removeprefix("bus:")))

    await until(lambda: acceptor.closed)
    assert len(acceptor.frames) == 20
    assert acceptor.reasons == ["peer closed: the shift is over"]


@in_loop
async def test_frame_that_breaks_the_protocol_closes_its_link_with_one_line(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    acceptor, good, bad = Recorder(), Recorder(), Recorder()
    address = await world.listening("acceptor", acceptor)
    for name, recorder in (("good", good), ("bad", bad)):
        await world.transport(name, recorder).dial(address)

    def check(link: Link, payload: bytes) -> None:
        if payload == b"bad":
            raise ProtocolError("an unknown message")

    acceptor.on_frame = check
    bad.link.send(b"bad")
    bad.link.send(b"bad")
    good.link.send(b"good")

    await until(lambda: acceptor.closed and bad.closed and b"good" in acceptor.payloads)
    assert bad.reasons == ["peer closed: an unknown message"]
    assert not good.closed
    lines = [each.getMessage() for each in caplog.records]
    assert lines == ["link to 'bad' closed: an unknown message"]


@in_loop
async def test_handler_that_crashes_closes_the_link_and_logs_a_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    dialler, acceptor = await world.pair()

    def crash(link: Link, payload: bytes) -> None:
        raise RuntimeError("a failure of the handler")

    acceptor.on_frame = crash
    dialler.link.send(b"go")

    await until(lambda: acceptor.closed and dialler.closed)
    assert acceptor.reasons == ["internal error"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "a failure of the handler" in str(record.exc_text)


@in_loop
async def test_lost_messages_are_repaired_in_order(world: World) -> None:
    dialler, acceptor = await world.pair()
    rng = Random(7)
    world.broker.loses = lambda *_: rng.random() < 0.2
    payloads = [b"%d" % number for number in range(100)]
    for payload in payloads:
        dialler.link.send(payload)
        acceptor.link.send(payload)
    await asyncio.sleep(0.01)
    world.broker.loses = lambda *_: False
    dialler.link.send(b"last")
    acceptor.link.send(b"last")

    expected = [*payloads, b"last"]
    await until(lambda: acceptor.payloads == dialler.payloads == expected)


@in_loop
async def test_messages_beyond_the_queue_are_dropped_and_repaired(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bustransport, "MAX_QUEUED", 20_000)
    dialler, acceptor = await world.pair(limits=TransportLimits(turn_budget=1))
    payloads = [b"%3d" % number + os.urandom(4000) for number in range(20)]
    for payload in payloads:
        dialler.link.send(payload)
    await until(lambda: "messages are dropped" in caplog.text)
    dialler.link.send(b"last")  # as a heartbeat does, it reveals the gap

    await until(lambda: len(acceptor.frames) == 21)
    assert acceptor.payloads == [*payloads, b"last"]
    assert "messages are dropped, more than 20000 bytes are queued" in caplog.text


@in_loop
async def test_flood_of_empty_messages_beyond_the_queue_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bustransport, "MAX_QUEUED", 100 * bustransport.MESSAGE_COST)
    dialler, acceptor = await world.pair(limits=TransportLimits(turn_budget=1))
    handler = world.broker.clients[0].handler
    for _ in range(1000):
        handler.bus_received(b"")
    queue = cast(BusTransport, handler)._inbound
    assert len(queue) <= 101
    assert "messages are dropped" in caplog.text
    await until(lambda: not queue)
    dialler.link.send(b"later")
    await until(lambda: acceptor.payloads == [b"later"])


@in_loop
async def test_links_are_held_during_an_outage_and_frames_arrive_after_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dialler, acceptor = await world.pair()
    world.broker.stop()
    await until(lambda: dialler.held and acceptor.held)
    dialler.link.send(b"during the outage")
    world.broker.start()

    await until(lambda: acceptor.payloads == [b"during the outage"])
    await until(lambda: [held for _, held in dialler.held] == [True, False])
    assert dialler.held[0][0] == [dialler.link]
    assert not dialler.closed
    lines = [each.getMessage() for each in caplog.records]
    assert (
        len([line for line in lines if "memory://bus is gone: the server has ended" in line]) == 2
    )
    assert len([line for line in lines if "memory://bus is back after 0." in line]) == 2


@in_loop
async def test_outage_beyond_the_grace_closes_all_links(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    dialler, acceptor = await linked(world, 0.1)
    world.broker.stop()

    await until(lambda: dialler.closed and acceptor.closed)
    assert dialler.reasons == ["the carrier is away"]
    assert "has been away for 0.1 s" in caplog.text


@in_loop
async def test_outages_within_the_grace_do_not_add_up(world: World) -> None:
    dialler, _ = await linked(world, 0.4)
    for _ in range(4):
        world.broker.stop()
        await asyncio.sleep(0.15)
        world.broker.start()
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.6)

    assert not dialler.closed


@in_loop
async def test_flapping_engine_causes_few_lines(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.listening("one", Recorder())
    for _ in range(100):
        world.broker.stop()
        await asyncio.sleep(0)
        world.broker.start()
        await asyncio.sleep(0)

    assert len(caplog.records) <= 20


@in_loop
async def test_two_dials_of_one_address_open_one_link(world: World) -> None:
    acceptor, dialler = Recorder(), Recorder()
    address = await world.listening("acceptor", acceptor)
    transport = world.transport("dialler", dialler)
    await transport.listen("bus:")

    await asyncio.gather(transport.dial(address), transport.dial(address))

    assert len(dialler.opened) == 1


@in_loop
async def test_cancelled_dial_leaves_the_others_waiting_for_it(world: World) -> None:
    address = await world.listening("acceptor", Recorder())
    dialler = Recorder()
    transport = world.transport("dialler", dialler)
    await transport.listen("bus:")
    one, other = (asyncio.ensure_future(transport.dial(address)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()

    await other

    assert len(dialler.opened) == 1
    assert one.cancelled()


@in_loop
async def test_dial_during_an_outage_fails_and_is_no_refusal(world: World) -> None:
    await world.pair()
    world.broker.stop()
    await asyncio.sleep(0.01)

    with pytest.raises(DialError, match="away") as caught:
        await transport_of(world, 1).dial(f"bus:{bytes(8).hex()}")
    assert type(caught.value) is DialError


@in_loop
async def test_pending_dial_ends_with_the_transport(world: World) -> None:
    address = await world.listening("acceptor", Recorder())
    transport = world.transport("dialler")
    await transport.listen("bus:")
    world.broker.loses = lambda *_: True
    dial = asyncio.ensure_future(transport.dial(address))
    await asyncio.sleep(0.01)

    await transport.close()

    with pytest.raises(DialError, match="closed"):
        await dial
    with pytest.raises(DialError, match="closed"):
        await transport.dial(address)
    with pytest.raises(ListenError, match="closed"):
        await transport.listen("bus:")


@in_loop
async def test_engine_that_is_down_fails_the_start(world: World) -> None:
    world.broker.up = False
    with pytest.raises(CarrierError):
        await world.listening("one", Recorder())


@in_loop
async def test_abandoned_transport_sends_nothing_and_its_peer_is_refused(world: World) -> None:
    dialler, acceptor = await world.pair()
    published = world.broker.published
    world.transports[1].abandon()
    world.transports[1].abandon()

    assert world.broker.published == published
    await until(lambda: dialler.closed and acceptor.closed)
    assert "is gone" in acceptor.reasons[0]


@in_loop
async def test_forked_child_neither_sends_nor_receives(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialler, acceptor = await world.pair()
    published = world.broker.published
    with monkeypatch.context() as child:
        child.setattr(process, "generation", process.generation + 1)
        dialler.link.send(b"of the child")
        dialler.link.close("of the child")
        await transport_of(world, 1).close()
        transport_of(world, 1).abandon()
        await asyncio.sleep(0.6)  # more than two probes
        assert world.broker.published == published
    dialler.link.send(b"of the parent")

    await until(lambda: acceptor.payloads == [b"of the parent"])


@in_loop
async def test_nodes_with_different_secrets_form_no_link(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.bus.buscore.DIAL_TIMEOUT", 0.5)
    acceptor, dialler = Recorder(), Recorder()
    address = await world.listening("acceptor", acceptor, secret=b"one secret")

    with pytest.raises(DialError, match="no answer"):
        await world.transport("dialler", dialler, secret=b"another").dial(address)

    assert not acceptor.opened
    assert not dialler.opened
    assert "the secrets differ" in caplog.text
    assert len(caplog.records) <= 2


@in_loop
async def test_nodes_of_other_clusters_on_one_engine_are_never_seen(world: World) -> None:
    kitchen, hall = Recorder(), Recorder()
    address = await world.listening("acceptor", kitchen, cluster="kitchen")

    with pytest.raises(DialError):
        await world.transport("dialler", hall, cluster="hall").dial(address)

    await until(lambda: hall.alone)
    assert not hall.announced
