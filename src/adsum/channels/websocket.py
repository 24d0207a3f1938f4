"""The WebSocket transport: one ASGI connection carries one `Connection`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .connection import Connection

logger = logging.getLogger("adsum")

#: The close code of a server that restarts.
_RESTART = 1012

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


async def serve(connection: Connection, receive: Receive, send: Send) -> None:
    """Carry frames both ways, until either side ends it. The handshake is done."""
    carrier, code = _Carrier(connection, send), None
    try:
        connection.attach(carrier.filled, carrier.abort)
        code = await _read(connection, receive)
    except asyncio.CancelledError:
        if not carrier.aborted:
            raise
        carrier.task.uncancel()
    finally:
        carrier.stop()
        # A server that restarts ends its connections before it stops the node. What is present then
        # lingers as it does after `Node.stop`, so that clients that come elsewhere never leave.
        linger = connection.hub.presence.node.settings.linger if code == _RESTART else 0.0
        await connection.finish(linger=linger)


async def _read(connection: Connection, receive: Receive) -> int | None:
    """Take in what comes until the connection ends; returns its close code."""
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return message.get("code")
        text = message.get("text")
        await connection.receive(message["bytes"] if text is None else text)


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
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    def abort(self) -> None:
        """Break off."""
        if not self._stopped:
            self.aborted = True
            self.task.cancel()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        if self._writer is not None:
            self._writer.cancel()

    async def _write(self) -> None:
        outbox = self._connection.outbox
        try:
            while (frame := outbox.take()) is not None:
                kind = "text" if isinstance(frame, str) else "bytes"
                await self._send({"type": "websocket.send", kind: frame})
            if outbox.closing is not None:
                code, reason = outbox.closing.code, outbox.closing.reason
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:
            # The client is gone; servers say so in different ways.
            logger.debug("a frame was not sent: %r", error)
            self.abort()
        finally:
            self._writer = None
