"""The WebSocket transport: one ASGI connection carries one `Connection`.

A client that does not read is eventually given up, but an ASGI application cannot abort a
connection. The server holds its socket, with all buffered data, until the client reads or
disconnects, or the server itself aborts it. So until the server reports the end, a connection that
was given up still counts against the limit of connections.
"""

import asyncio
import contextlib
import logging
from typing import Any

from adsum.activetime import active_timeout
from adsum.channels.connection import Connection
from adsum.channels.flow.fairshare import WORK
from adsum.channels.flow.standingtask import StandingTask
from adsum.channels.wire.frames import Wire
from adsum.channels.wire.prepared import Prepared, wire_of
from adsum.httpanswer import ASGIReceive, ASGISend, Event
from adsum.sparselog import error_text
from adsum.tasks import cancel_task, start_task

from .asgi import receive_next
from .websocketparts import DROPPED, RESTART, HeldFrames, accept, linger_after

logger = logging.getLogger("adsum.channels")

#: Seconds of active time that sending the close of a server that restarts may take.
_CLOSE_PATIENCE = 1.0


async def serve(
    connection: Connection,
    receive: ASGIReceive,
    send: ASGISend,
    subprotocol: str | None,
    ahead: "asyncio.Future[Event]",
) -> None:
    """Accept a WebSocket, and carry frames both ways until either side closes it.

    Args:
        connection: The connection. It is registered before the accept, so it misses no
            disconnect or stop in between.
        receive: The ASGI callable; ``websocket.connect`` has been received.
        send: The ASGI callable.
        subprotocol: The subprotocol to accept, if any.
        ahead: The pending receive of the first message, whose end this cares for.
    """
    carrier, code = _Carrier(connection, send), None
    try:
        await accept(send, subprotocol, ahead)
        connection.attach(carrier)
        reading = _read(connection, receive, ahead)
        del ahead  # the reader drops it with the first message
        code = await reading
    except asyncio.CancelledError:
        if not carrier.interrupted:
            # Some servers cancel without a message when they stop. Their clients should reconnect.
            code = RESTART
            await carrier.close_for_restart()
            raise
        if carrier.task.uncancel():
            carrier.given_up = False  # the server has cancelled it as well, and reports no end
            raise
    finally:
        if carrier.given_up:
            connection.shared.registry.given_up.add(connection)
        else:
            carrier.stop()
        try:
            await connection.finish(linger=linger_after(connection, code))
            if carrier.given_up:
                # The writer still sends the close, should the client read again.
                await _wait_for_end(connection, receive)
        finally:
            carrier.stop()
            connection.shared.registry.given_up.discard(connection)


async def _read(
    connection: Connection, receive: ASGIReceive, ahead: "asyncio.Future[Event] | None"
) -> int | None:
    """Receive and dispatch frames until the connection ends; returns its close code.

    Under backpressure a few more frames are read and held, so that the end of the connection
    behind them is noticed: a client that has gone should not stay present.
    """
    held: HeldFrames | None = None
    try:
        while True:
            while held and not connection.full and connection.closing is None:
                await _dispatch(connection, held.take())
            held = held or None
            if connection.full:
                if held and held.full:
                    await connection.wait_room()
                    continue
                ahead = ahead or start_task(receive_next(receive))
                if not await _message_arrived(ahead, connection):
                    continue
            message = await (receive() if ahead is None else ahead)
            ahead = None
            if message["type"] != "websocket.receive":
                return message.get("code")
            if connection.closing is not None:
                held = None
                await connection.share.turn(DROPPED)
                continue
            connection.note_activity()
            text = message.get("text")
            data = message["bytes"] if text is None else text
            if not held and not connection.full:
                await _dispatch(connection, data)
                continue
            held = held or HeldFrames()
            held.put(data)
    finally:
        cancel_task(ahead)


async def _dispatch(connection: Connection, data: Wire) -> None:
    cost = WORK + len(data)
    if not connection.share.spend(cost):
        await connection.share.turn(cost)
    connection.receive(data)


async def _wait_for_end(connection: Connection, receive: ASGIReceive) -> None:
    """Receive and drop frames until the server reports the end of the connection."""
    while (await receive())["type"] == "websocket.receive":
        await connection.share.turn(DROPPED)


async def _message_arrived(ahead: "asyncio.Future[Event]", connection: Connection) -> bool:
    """Wait for a message or for room to handle held frames; returns whether a message came."""
    room = asyncio.ensure_future(connection.wait_room())
    either: set[asyncio.Future[Any]] = {room, ahead}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return ahead.done()
    finally:
        room.cancel()


class _Carrier:
    """Writer of a connection: sends queued frames, at once while the server takes them at once.

    A standing task sends them, which rests while none are queued. It is advanced in place, so a
    frame whose sending does not wait costs no turn of the event loop.
    """

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

    def __init__(self, connection: Connection, send: ASGISend) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task")
        #: The task that reads.
        self.task: asyncio.Task[Any] = task
        #: Whether that task was cancelled by this object.
        self.interrupted = False
        #: Whether the client was given up: it takes no frames, not even the close.
        self.given_up = False
        self._stopped = False
        # Whether a writer is scheduled and waits for its turn to begin.
        self._due = False
        self._connection = connection
        self._send = send
        # None before the first frame.
        self._writer: StandingTask | None = None

    def filled(self) -> None:
        """See `Carrier`: let the writer send in the client's turn, unless it is sending."""
        if self._stopped or self._due or not (self._writer is None or self._writer.resting):
            return
        self._due = True
        self._connection.share.call(WORK, self._begin)

    def write(self, frame: Wire | Prepared) -> bool:
        """See `Carrier`: an ASGI server is sent frames by a task."""
        return False

    def give_up(self) -> None:
        """See `Carrier`: stop reading, and wait for the server to report the end."""
        self.given_up = not self._stopped and not self.interrupted
        self._interrupt()

    def _interrupt(self) -> None:
        if not self._stopped and not self.interrupted:
            self.interrupted = True
            self.task.cancel()

    def _interrupt_soon(self) -> None:
        # The writer may run inside a call of the reader. If the reader then received the end of the
        # connection without a wait, the cancellation would reach its last steps.
        self._connection.loop.call_soon(self._interrupt)

    def _begin(self) -> None:
        self._due = False
        if self._stopped:
            return
        if self._writer is None:
            self._writer = StandingTask(self._write)
        else:
            self._writer.begin(self._write_queued())

    def stop(self) -> None:
        """Stop the writer; nothing is sent any more."""
        self._stopped = True
        if self._writer is not None:
            cancel_task(self._writer.task)

    async def close_for_restart(self) -> None:
        """Stop the writer and close with code 1012, if the client still takes frames."""
        self.stop()
        with contextlib.suppress(TimeoutError):  # the client takes no frames any more
            async with active_timeout(_CLOSE_PATIENCE):
                await self._sent({"type": "websocket.close", "code": RESTART})

    async def _write(self, standing: StandingTask) -> None:
        while True:
            await self._write_queued()
            await standing

    async def _write_queued(self) -> None:
        """Send all queued frames, and the close behind them."""
        outbox, share = self._connection.outbox, self._connection.share
        try:
            while (entry := outbox.take()) is not None:
                frame = wire_of(entry)
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
            self._connection.shared.log.crashed("a frame could not be made", error=error)
            self._interrupt_soon()

    async def _sent(self, message: Event) -> bool:
        try:
            await self._send(message)
        except Exception as error:
            # The client is gone; servers report this with different exceptions.
            logger.debug("a frame was not sent: %s", error_text(error))
            self._interrupt_soon()
            return False
        return True
