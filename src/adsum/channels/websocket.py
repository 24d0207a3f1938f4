"""The WebSocket transport: one ASGI connection carries one `Connection`.

A client that does not read is given up in the end, but an application cannot break a connection
off: the server holds its socket, with all that waits in it, until the client reads or goes, or the
server itself gives it up. So until the server reports the end, the connection is only counted.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from adsum.activetime import active_timeout
from adsum.sparselog import error_text
from adsum.tasks import cancel_task, start_task

from .connection import Connection
from .fairshare import WORK
from .frames import Wire

logger = logging.getLogger("adsum")

#: Bytes of frames that are read and held while a client may not be read on, and bytes that count
#: for each held frame besides its own.
_MAX_HELD, _FRAME_COST = 64 * 1024, 64
#: The close code of a server that restarts, and seconds of active time that saying so may take.
_RESTART, _LAST_WORD = 1012, 1.0

#: What it costs to drop a frame: a look at its end.
_DROPPED = 32

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


async def serve(
    connection: Connection,
    receive: Receive,
    send: Send,
    subprotocol: str | None,
    ahead: "asyncio.Future[Event]",
) -> None:
    """Accept, and carry frames both ways until either side ends it.

    Args:
        connection: It exists before it is accepted, so nothing that happens meanwhile misses it.
        receive: As ASGI has it; ``websocket.connect`` has been received.
        send: As ASGI has it.
        subprotocol: The one that is chosen.
        ahead: The first message, which is being received.
    """
    carrier, code = _Carrier(connection, send), None
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        connection.attach(carrier.filled, carrier.give_up)
        code = await _read(connection, receive, ahead)
    except asyncio.CancelledError:
        if not carrier.interrupted:
            # So do servers that tell nothing before they stop. Their clients should come back.
            code = _RESTART
            await carrier.say_restart()
            raise
        if carrier.task.uncancel():
            carrier.given_up = False  # the server has cancelled it, too, and reports no end
            raise
    finally:
        if carrier.given_up:
            connection.hub.given_up.add(connection)
        else:
            carrier.stop()
        # A server that restarts ends its connections before it stops the node. What is present then
        # lingers as it does after `Node.stop`, so that clients that come elsewhere never leave.
        linger = connection.hub.lingers(restarts=code == _RESTART)
        try:
            await connection.finish(linger=linger)
            if carrier.given_up:
                # Meanwhile the client is sent the end, if it ever reads.
                await _wait_for_end(connection, receive)
        finally:
            carrier.stop()
            connection.hub.given_up.discard(connection)


async def receive_next(receive: Receive) -> Event:
    """The next message, as a coroutine, whatever kind of awaitable a server gives."""
    return await receive()


async def _read(
    connection: Connection, receive: Receive, ahead: "asyncio.Future[Event] | None"
) -> int | None:
    """Take in what comes until the connection ends; returns its close code.

    While too much waits to be handled, a little more is read and held, so that the end of the
    connection is noticed behind it: nobody should be present who has gone.
    """
    held: deque[Wire] = deque()
    held_size = 0
    try:
        while True:
            while held and not connection.full and connection.closing is None:
                data = held.popleft()
                held_size -= len(data) + _FRAME_COST
                cost = WORK + len(data)
                if not connection.share.spend(cost):
                    await connection.share.turn(cost)
                connection.receive(data)
            if connection.full:
                if held_size > _MAX_HELD:
                    await connection.room()
                    continue
                ahead = ahead or start_task(receive_next(receive))
                if not await _came(ahead, connection):
                    continue
            message = await (receive() if ahead is None else ahead)
            ahead = None
            if message["type"] != "websocket.receive":
                return message.get("code")
            if connection.closing is not None:
                held.clear()
                await connection.share.turn(_DROPPED)
                continue
            connection.heard()
            text = message.get("text")
            held.append(message["bytes"] if text is None else text)
            held_size += len(held[-1]) + _FRAME_COST
    finally:
        cancel_task(ahead)


async def _wait_for_end(connection: Connection, receive: Receive) -> None:
    """Take in what comes until the server reports the end of the connection, and drop it."""
    while (await receive())["type"] == "websocket.receive":
        await connection.share.turn(_DROPPED)


async def _came(ahead: "asyncio.Future[Event]", connection: Connection) -> bool:
    """Whether something came before there was room for what is held."""
    room = asyncio.ensure_future(connection.room())
    either: set[asyncio.Future[Any]] = {room, ahead}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return ahead.done()
    finally:
        room.cancel()


class _Carrier:
    """Sends what there is to be sent, in a task that exists only while there is something."""

    __slots__ = (
        "_connection",
        "_due",
        "_send",
        "_stopped",
        "_writer",
        "given_up",
        "interrupted",
        "task",
    )

    def __init__(self, connection: Connection, send: Send) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task")
        #: The task that reads.
        self.task: asyncio.Task[Any] = task
        #: Whether that task was cancelled here.
        self.interrupted = False
        #: Whether the client was given up: it takes nothing, not even the end of the connection.
        self.given_up = False
        self._stopped = False
        # Whether a writer waits for its turn to begin.
        self._due = False
        self._connection = connection
        self._send = send
        self._writer: asyncio.Task[None] | None = None

    def filled(self) -> None:
        """There is something to send."""
        if self._writer is None and not self._due and not self._stopped:
            self._due = True
            self._connection.share.call(WORK, self._begin)

    def give_up(self) -> None:
        """Read on no more, and wait for the server to report the end."""
        self.given_up = not self._stopped and not self.interrupted
        self._interrupt()

    def _interrupt(self) -> None:
        if not self._stopped and not self.interrupted:
            self.interrupted = True
            self.task.cancel()

    def _begin(self) -> None:
        self._due = False
        if not self._stopped:
            self._writer = start_task(self._write())

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        cancel_task(self._writer)

    async def say_restart(self) -> None:
        """Tell the client, if it can be told at all, that the server stops."""
        self.stop()
        with contextlib.suppress(TimeoutError):  # it takes nothing any more
            async with active_timeout(_LAST_WORD):
                await self._sent({"type": "websocket.close", "code": _RESTART})

    async def _write(self) -> None:
        outbox, share = self._connection.outbox, self._connection.share
        try:
            while (frame := outbox.take()) is not None:
                share.charge(len(frame))
                kind = "text" if isinstance(frame, str) else "bytes"
                if not await self._sent({"type": "websocket.send", kind: frame}):
                    return
                if outbox and not share.spend(WORK):
                    await share.turn(WORK)
            if outbox.closing is not None:
                code, reason = outbox.closing.code, outbox.closing.reason
                await self._sent({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:
            self._connection.hub.log.crashed("a frame could not be made", error=error)
            self._interrupt()
        finally:
            self._writer = None

    async def _sent(self, message: Event) -> bool:
        try:
            await self._send(message)
        except Exception as error:
            # The client is gone; servers say so in different ways.
            logger.debug("a frame was not sent: %s", error_text(error))
            self._interrupt()
            return False
        return True
