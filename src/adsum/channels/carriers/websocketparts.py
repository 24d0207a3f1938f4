"""The accept, the bounds and the end of a WebSocket, shared by both of its transports."""

import asyncio
from collections import deque
from typing import Final

from adsum.channels.connection import Connection
from adsum.channels.wire.frames import Wire
from adsum.httpanswer import ASGISend, Event
from adsum.tasks import cancel_task

#: Bytes of frames that are read ahead and held under backpressure; bytes counted for each held
#: frame besides its own.
MAX_HELD: Final = 64 * 1024
FRAME_COST: Final = 64
#: Bytes of the budget (see `fairshare`) that it costs to drop a received frame.
DROPPED: Final = 32
#: Close code of a server that restarts.
RESTART: Final = 1012


async def accept(send: ASGISend, subprotocol: str | None, ahead: "asyncio.Future[Event]") -> None:
    """Accept the upgrade of a client.

    Args:
        send: The ASGI callable.
        subprotocol: The subprotocol to accept, if any.
        ahead: The pending receive of the first message; cancelled if this fails.
    """
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
    except BaseException:
        cancel_task(ahead)
        raise


class HeldFrames:
    """Received frames that cannot be handled yet, in order.

    A connection has such an object only while it holds frames: an empty deque takes 0.7 kB.
    """

    __slots__ = ("_frames", "_size")

    def __init__(self) -> None:
        self._frames: deque[Wire] = deque()
        self._size = 0

    def put(self, frame: Wire) -> None:
        """Hold a frame behind the others."""
        self._frames.append(frame)
        self._size += len(frame) + FRAME_COST

    def take(self) -> Wire:
        """Remove and return the first frame; there must be one."""
        frame = self._frames.popleft()
        self._size -= len(frame) + FRAME_COST
        return frame

    @property
    def first(self) -> Wire:
        """The first frame; there must be one."""
        return self._frames[0]

    @property
    def full(self) -> bool:
        """Whether no more should be read: the frames exceed `MAX_HELD`."""
        return self._size > MAX_HELD

    def __bool__(self) -> bool:
        """Whether any frame is held."""
        return bool(self._frames)


def linger_after(connection: Connection, code: int | None) -> float:
    """Seconds for which the presences of a connection stay after it has ended with a close code.

    A server that restarts ends its connections before it stops the node. Their presences linger as
    after `Node.stop`, so that clients that reconnect elsewhere are never seen to leave.
    """
    return connection.shared.registry.lingers(restarts=code == RESTART)
