"""The bounds and the end of a WebSocket that both of its transports share."""

from typing import Final

from adsum.channels.connection import Connection

#: Bytes of frames that are read ahead and held under backpressure; bytes counted for each held
#: frame besides its own.
MAX_HELD: Final = 64 * 1024
FRAME_COST: Final = 64
#: Bytes of the budget (see `fairshare`) that it costs to drop a received frame.
DROPPED: Final = 32
#: Close code of a server that restarts.
RESTART: Final = 1012


def linger_after(connection: Connection, code: int | None) -> float:
    """Seconds for which the presences of a connection stay after it has ended with a close code.

    A server that restarts ends its connections before it stops the node. Their presences linger as
    after `Node.stop`, so that clients that reconnect elsewhere are never seen to leave.
    """
    return connection.shared.registry.lingers(restarts=code == RESTART)
