"""The WebSocket transport over a server that offers direct connections.

Frames are handed to the connection as the server reads them, and written to the transport as they
are sent: no queue, task or ASGI message lies between, unless the client is behind. The semantics
are those of `websocket`, except that a client that was given up is disconnected at once.

The extension is described in ``docs/direct-connections.md``; `adsum.channels.uvicorn` offers it.
"""

import asyncio
from collections.abc import Callable, Mapping

from adsum.channels.connection import Connection
from adsum.channels.flow.fairshare import WORK
from adsum.channels.wire.connect import Scope
from adsum.channels.wire.directpath import EXTENSION, DirectPath, Receiver
from adsum.channels.wire.frames import Wire
from adsum.channels.wire.prepared import Prepared
from adsum.httpanswer import ASGISend, Event
from adsum.tasks import cancel_task, resolve, start_task

from .websocketparts import DROPPED, RESTART, HeldFrames, accept, linger_after

#: Close code of a server that fails.
_FAILED = 1011

Open = Callable[[Receiver], DirectPath]


def offered(scope: Scope) -> Open | None:
    """The function that opens the connection directly, if the server offers it."""
    extension = (scope.get("extensions") or {}).get(EXTENSION)
    found = extension.get("open") if isinstance(extension, Mapping) else None
    return found if callable(found) else None


async def serve(
    connection: Connection,
    open_directly: Open,
    send: ASGISend,
    subprotocol: str | None,
    ahead: "asyncio.Future[Event]",
) -> None:
    """Accept a WebSocket, open it directly, and wait until it has ended.

    Args:
        connection: The connection. It is registered before the accept, so it misses no
            disconnect or stop in between.
        open_directly: See `offered`.
        send: The ASGI callable; ``websocket.connect`` has been received.
        subprotocol: The subprotocol to accept, if any.
        ahead: The pending receive of the first message, whose end this cares for.
    """
    carrier, code = _DirectCarrier(connection), None
    try:
        await accept(send, subprotocol, ahead)
        first = await _withdrawn(ahead)
        del ahead  # which refers to the frames that it was cancelled in
        carrier.open(open_directly, first)
        code = await carrier.end
    except asyncio.CancelledError:
        # Some servers cancel without a message when they stop. Their clients should reconnect.
        code = RESTART
        carrier.close_for_restart()
        raise
    finally:
        carrier.stop()
        await connection.finish(linger=linger_after(connection, code))


async def _withdrawn(ahead: "asyncio.Future[Event]") -> Event | None:
    """Cancel a receive; returns its message if there is one already, and loses none."""
    ahead.cancel()
    await asyncio.wait([ahead])
    return None if ahead.cancelled() else ahead.result()


class _DirectCarrier:
    """Moves the frames of a connection both ways, and holds those that it cannot handle yet."""

    __slots__ = (
        "_code",
        "_connection",
        "_due",
        "_held",
        "_room",
        "_taking",
        "_transport",
        "_writing",
        "end",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # None before the connection is opened, and once it has ended.
        self._transport: DirectPath | None = None
        #: Done with the close code when the connection has ended and its frames are dispatched.
        self.end: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        # Close code of an end that waits for the held frames.
        self._code: int | None = None
        # Received frames that wait for the client's share or for room; None if there are none.
        self._held: HeldFrames | None = None
        # Whether the client's turn to have held frames handled is due; the wait for room.
        self._due = False
        self._room: asyncio.Task[None] | None = None
        # Whether a frame is being taken out of the outbox; whether the client's turn to have
        # frames written is due.
        self._taking = self._writing = False

    def open(self, open_directly: Open, first: Event | None) -> None:
        """Open the connection, whose first message may have been received already."""
        self._transport = transport = open_directly(self)
        self._connection.attach(self)
        if first is not None and first["type"] != "websocket.receive":
            self.ended(first.get("code", 1005), "")
            return
        if first is not None:
            text = first.get("text")
            self.received(first["bytes"] if text is None else text)
        transport.resume_reading()

    # Called by the server, see `Receiver`.

    def received(self, data: Wire) -> None:
        """Dispatch a frame, or hold it until the client's share and its connection have room."""
        connection = self._connection
        if (
            self._held
            or self._due
            or connection.full
            or not connection.share.spend(self._cost(data))
        ):
            self._hold(data)
        else:
            connection.receive(data)

    def writable(self) -> None:
        """Continue to write queued frames."""
        outbox = self._connection.outbox
        if outbox or outbox.closing is not None:
            self.filled()

    def ended(self, code: int, reason: str) -> None:
        """End, once the held frames are dispatched; those beyond backpressure are dropped."""
        self._transport = None
        self._code = code
        if not self._held or self._connection.full:
            resolve(self.end, code)
        else:
            # Room that a handler makes by beginning wakes nobody, see `Connection.wait_room`.
            self._continue()

    # Called by the connection, see `Carrier`.

    def write(self, frame: Wire | Prepared) -> bool:
        """See `Carrier`."""
        transport = self._transport
        return transport is not None and transport.write(frame)

    def filled(self) -> None:
        """See `Carrier`: write queued frames, in the client's turns, while there is room."""
        transport = self._transport
        if self._taking or self._writing or transport is None:
            return
        if transport.has_room:  # otherwise `writable` is called
            self._writing = True
            self._connection.share.call(WORK, self._write_queued)

    def give_up(self) -> None:
        """See `Carrier`."""
        if self._transport is not None:
            self._transport.abort()

    def close_for_restart(self) -> None:
        """Close with code 1012, if the connection is open."""
        if self._transport is not None:
            self._transport.close(RESTART, "")

    def stop(self) -> None:
        """Handle and write nothing any more."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._held = None
        cancel_task(self._room)

    # Incoming.

    def _cost(self, data: Wire) -> int:
        return WORK + len(data) if self._connection.outbox.closing is None else DROPPED

    def _hold(self, data: Wire) -> None:
        self._connection.note_activity()
        if self._held is None:
            self._held = HeldFrames()
        self._held.put(data)
        if self._held.full and self._transport is not None:
            self._transport.pause_reading()
        self._continue()

    def _continue(self) -> None:
        """Dispatch held frames in the client's next turn, or once its connection has room."""
        held = self._held
        if self._due or not held:
            return
        if self._connection.full:
            if self._room is None:
                self._room = start_task(self._wait_room())
        else:
            self._due = True
            self._connection.share.call(self._cost(held.first), self._dispatch_held)

    async def _wait_room(self) -> None:
        await self._connection.wait_room()
        self._room = None
        self._continue()

    def _dispatch_held(self) -> None:
        connection, held = self._connection, self._held
        spent = True
        try:
            while spent and held and not connection.full:
                connection.receive(held.take())
                spent = not held or connection.share.spend(self._cost(held.first))
        except Exception as error:
            connection.shared.log.crashed("a frame could not be handled", error=error)
            if self._transport is not None:
                self._transport.close(_FAILED, "")
        self._due = False
        if not held:
            self._held = None
        if self._code is not None and (not held or connection.full):
            resolve(self.end, self._code)
        elif held:
            self._continue()
        elif self._transport is not None:
            self._transport.resume_reading()

    # Outgoing.

    def _write_queued(self) -> None:
        self._writing = False
        outbox, share = self._connection.outbox, self._connection.share
        self._taking = True
        try:
            while self._transport is not None and self._transport.has_room:
                frame = outbox.take()
                if frame is None:
                    if outbox.closing is not None:
                        self._transport.close(outbox.closing.code, outbox.closing.reason)
                    return
                share.charge(len(frame))
                self._transport.write(frame)
                if outbox and not share.spend(WORK):
                    self._writing = True
                    share.call(WORK, self._write_queued)
                    return
        except Exception as error:
            self._connection.shared.log.crashed("a frame could not be made", error=error)
            if self._transport is not None:
                self._transport.close(_FAILED, "")
        finally:
            self._taking = False
