"""A joined, idle connection keeps what it needs later, and nothing of its beginning."""

import asyncio
import gc
import json
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest

from adsum.channels.flow.flag import Flag
from adsum.channels.uvicorn import WebSocketProtocol
from adsum.channels.wire.frames import Frame

from .leak_check import leak_checked
from .raw_websocket import TEXT, RawFrame, RawWebSocket
from .served_app import ServedApp, served_app, uvicorn_server

PLAIN, DIRECT = "websockets-sansio", "adsum.channels.uvicorn:WebSocketProtocol"
PATH = "/socket/websocket?vsn=2.0.0"
#: Connections whose objects are counted.
COUNT = 4
#: Opens a connection for the length of a block.
Connect = Callable[[int, ExitStack], Awaitable[object]]


async def opened(port: int, stack: ExitStack) -> RawWebSocket:
    """A connection that is open for the length of a block."""
    client = stack.enter_context(closing(await RawWebSocket().connect(port)))
    status, _ = await client.handshake(PATH)
    assert status == 101
    return client


async def joined(port: int, stack: ExitStack) -> None:
    """A connection with one channel, which has answered two events.

    Before the second were so many that some were held.
    """
    client = await opened(port, stack)
    for *ignored, answered in (["phx_join"], ["echo"], [*["mute"] * 200, "echo"]):
        await client.send(b"".join(map(event, [*ignored, answered])))
        assert b'"ok"' in (await client.read()).payload


def event(name: str) -> bytes:
    """A frame of the client."""
    text = json.dumps(["1", "1", "room:1", name, {"some": "thing"}])
    return RawFrame(TEXT, text.encode()).encode()


def alive(kind: type) -> list[Any]:
    """The objects of a type in this process."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is kind]


def ended_tasks() -> list[Any]:
    """The tasks that have ended, and to which something still refers."""
    return [task for task in alive(asyncio.Task) if task.done()]


def protocol_of(served: ServedApp) -> WebSocketProtocol:
    """The server's side of the only connection."""
    assert served.server is not None
    (protocol,) = served.server.server_state.connections
    assert isinstance(protocol, WebSocketProtocol)
    return protocol


class Silent:
    """An application that does nothing with its connection, directly where that is offered."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.over = asyncio.get_running_loop().create_future()
        if "adsum.direct" in scope["extensions"]:
            scope["extensions"]["adsum.direct"]["open"](self).resume_reading()
            await self.over
        else:
            await receive()

    def ended(self, code: int, reason: str) -> None:
        """See `Receiver`."""
        self.over.set_result(None)


async def deques_of_each(port: int, stack: ExitStack, connect: Connect) -> int:
    """Open connections; returns the number of deques that each has.

    It is rounded, since the thread with which pytest-xdist listens has deques of its own.
    """
    before = len(alive(deque))
    for _ in range(COUNT):
        await connect(port, stack)
    return round((len(alive(deque)) - before) / COUNT)


async def deques_of_server(ws: str) -> int:
    """The number of deques that the server itself has for each connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Silent()(scope, receive, send)

    async with uvicorn_server(app, ws=ws) as (_, port):
        with ExitStack() as stack:
            await opened(port, stack)
            return await deques_of_each(port, stack, opened)


@pytest.mark.parametrize("ws", [PLAIN, DIRECT])
@leak_checked
async def test_idle_connection_keeps_no_frame_no_ended_task_and_no_empty_queue(ws: str) -> None:
    deques = await deques_of_server(ws)
    async with served_app(ws=ws) as served:
        with ExitStack() as stack:
            await joined(served.port, stack)
            frames, ended = len(alive(Frame)), len(ended_tasks())
            assert await deques_of_each(served.port, stack, joined) == deques
            assert len(alive(Frame)) == frames
            assert len(ended_tasks()) == ended


@leak_checked
async def test_direct_connection_keeps_no_headers_of_the_handshake_besides_the_scope() -> None:
    async with served_app(ws=DIRECT) as served:
        with ExitStack() as stack:
            await joined(served.port, stack)
            protocol = protocol_of(served)
            assert not protocol.request.headers
            assert not protocol.response.headers
            assert dict(protocol.scope["headers"])[b"host"] == b"127.0.0.1"
            assert served.clients[0].headers["host"] == "127.0.0.1"


@leak_checked
async def test_protocol_has_few_enough_attributes_for_an_object_without_a_dict() -> None:
    async with served_app(ws=DIRECT) as served:
        with ExitStack() as stack:
            await joined(served.port, stack)
            protocol = protocol_of(served)
            assert len(vars(protocol)) <= 30
            for name in WebSocketProtocol.__slots__:
                assert hasattr(protocol, name), f"uvicorn no longer sets {name}"


@leak_checked
async def test_flag_wakes_all_that_wait_although_one_was_cancelled() -> None:
    flag = Flag()
    assert flag.is_set()
    assert await flag.wait()
    flag.clear()
    assert not flag.is_set()
    first, *others = [asyncio.create_task(flag.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert not [task for task in others if task.done()]
    flag.set()
    flag.clear()  # in the same turn: they were woken
    assert await asyncio.gather(*others) == [True, True]
