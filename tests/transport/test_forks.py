"""A transport that a forked child inherits: it forms no link, and removes nothing of its parent."""

import asyncio

import pytest

from adsum.errors import DialError
from tests.support.forked_child import in_child, living_child
from tests.support.transports import Recorder, World, in_loop
from tests.support.waiting import until


@in_loop
async def test_dial_by_inherited_transport_is_refused(socket_world: World) -> None:
    acceptor = Recorder()
    address = await socket_world.listening("acceptor", acceptor)
    dialler = socket_world.transport("dialler")

    def dial() -> str:
        with pytest.raises(DialError) as raised:
            asyncio.run(dialler.dial(address))
        return str(raised.value)

    assert in_child(dial) == f"{address}: the transport is closed"
    assert not acceptor.opened
    await dialler.dial(address)
    await until(lambda: acceptor.opened)


@in_loop
async def test_close_of_inherited_transport_keeps_links_and_files(socket_world: World) -> None:
    dialler, acceptor = await socket_world.pair()

    def close() -> None:
        for transport in socket_world.transports:
            asyncio.run(transport.close())

    in_child(close)
    dialler.link.send(b"still here")
    await until(lambda: acceptor.payloads == [b"still here"])
    for address in socket_world.bound:
        await socket_world.transport("late").dial(address)
    assert not dialler.closed
    assert not acceptor.closed


@in_loop
async def test_connection_that_parent_ends_is_lost_while_child_lives(socket_world: World) -> None:
    _, acceptor = await socket_world.pair()
    with living_child():
        for transport in socket_world.transports:
            for connection in transport.connections():
                if connection.dialled is not None:
                    connection.abort("the process is killed")
        await until(lambda: acceptor.closed)
