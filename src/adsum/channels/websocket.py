"""The WebSocket transport: one ASGI connection carries one `Connection`."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from adsum.sparselog import error_text
from adsum.tasks import cancel_task, start_task

from .connection import Connection
from .frames import Wire

logger = logging.getLogger("adsum")

#: Bytes that are read and held of a client of whom too much waits already.
_MAX_HELD = 64 * 1024
#: The close code of a server that restarts, and seconds that saying so may take.
_RESTART, _LAST_WORD = 1012, 1.0

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


async def serve(
    connection: Connection, receive: Receive, send: Send, subprotocol: str | None
) -> None:
    """Accept, and carry frames both ways until either side ends it.

    Args:
        connection: It exists before it is accepted, so nothing that happens meanwhile misses it.
        receive: As ASGI has it; ``websocket.connect`` has been received.
        send: As ASGI has it.
        subprotocol: The one that is chosen.
    """
    carrier, code = _Carrier(connection, send), None
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        connection.attach(carrier.filled, carrier.abort)
        code = await _read(connection, receive)
    except asyncio.CancelledError:
        if not carrier.aborted:
            # So do servers that tell nothing before they stop. Their clients should come back.
            code = _RESTART
            await carrier.say_restart()
            raise
        carrier.task.uncancel()
    finally:
        carrier.stop()
        # A server that restarts ends its connections before it stops the node. What is present then
        # lingers as it does after `Node.stop`, so that clients that come elsewhere never leave.
        linger = connection.hub.lingers(restarts=code == _RESTART)
        await connection.finish(linger=linger)


async def _read(connection: Connection, receive: Receive) -> int | None:
    """Take in what comes until the connection ends; returns its close code.

    While too much waits to be handled, a little more is read and held, so that the end of the
    connection is noticed behind it: nobody should be present who has gone.
    """
    held: deque[Wire] = deque()
    ahead: asyncio.Future[Event] | None = None
    try:
        while True:
            while held and not connection.full:
                connection.receive(held.popleft())
            if connection.full:
                if sum(map(len, held)) > _MAX_HELD:
                    await connection.room()
                    continue
                ahead = ahead or asyncio.ensure_future(receive())
                if not await _came(ahead, connection):
                    continue
            message = await (receive() if ahead is None else ahead)
            ahead = None
            if message["type"] != "websocket.receive":
                return message.get("code")
            text = message.get("text")
            held.append(message["bytes"] if text is None else text)
    finally:
        if ahead is not None:
            ahead.cancel()


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

    __slots__ = ("_connection", "_send", "_stopped", "_writer", "aborted", "task")

    def __init__(self, connection: Connection, send: Send) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task")
        #: The task that reads.
        self.task: asyncio.Task[Any] = task
        #: Whether the client was given up: it takes nothing, not even the end of the connection.
        self.aborted = False
        self._stopped = False
        self._connection = connection
        self._send = send
        self._writer: asyncio.Task[None] | None = None

    def filled(self) -> None:
        """There is something to send."""
        if self._writer is None and not self._stopped:
            self._writer = start_task(self._write())

    def abort(self) -> None:
        """Break off."""
        if not self._stopped:
            self.aborted = True
            self.task.cancel()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        cancel_task(self._writer)

    async def say_restart(self) -> None:
        """Tell the client, if it can be told at all, that the server stops."""
        self.stop()
        with contextlib.suppress(TimeoutError):  # it takes nothing any more
            async with asyncio.timeout(_LAST_WORD):
                await self._sent({"type": "websocket.close", "code": _RESTART})

    async def _write(self) -> None:
        outbox = self._connection.outbox
        try:
            while (frame := outbox.take()) is not None:
                kind = "text" if isinstance(frame, str) else "bytes"
                if not await self._sent({"type": "websocket.send", kind: frame}):
                    return
            if outbox.closing is not None:
                code, reason = outbox.closing.code, outbox.closing.reason
                await self._sent({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:
            self._connection.hub.log.crashed("a frame could not be made", error=error)
            self.abort()
        finally:
            self._writer = None

    async def _sent(self, message: Event) -> bool:
        try:
            await self._send(message)
        except Exception as error:
            # The client is gone; servers say so in different ways.
            logger.debug("a frame was not sent: %s", error_text(error))
            self.abort()
            return False
        return True
