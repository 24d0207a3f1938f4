"""Peer credentials of a Unix socket: the user id that the kernel recorded at `connect`.

The kernel reports it, and the peer cannot choose it. On a platform without such a call, and for a
socket of another family, it is None, and callers treat the peer as a stranger.
"""

import contextlib
import socket
import struct
import sys

#: Linux: `struct ucred` is pid, uid, gid. The uid of a user that is unmapped in the user namespace
#: of this process is the overflow uid, usually 65534; that of a socket without a peer is 2**32 - 1.
_UCRED = struct.Struct("=iII")

#: macOS: level and option of `struct xucred`, which begins with its version and the uid.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED = struct.Struct("=II")
_XUCRED_VERSION = 0
_XUCRED_SIZE = 76


def peer_uid(sock: socket.socket) -> int | None:
    """The user id of the process at the other end of a connected Unix socket; None if unknown."""
    # The call fails on a closed socket and on one whose peer is already gone.
    with contextlib.suppress(OSError, struct.error):
        if sock.family != socket.AF_UNIX:
            return None
        if sys.platform == "linux":
            packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _ = _UCRED.unpack(packed)
            # A socket without a peer has no process.
            return uid if pid or uid != 2**32 - 1 else None
        if sys.platform == "darwin":
            packed = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE)
            version, uid = _XUCRED.unpack_from(packed)
            return uid if version == _XUCRED_VERSION else None
    return None
