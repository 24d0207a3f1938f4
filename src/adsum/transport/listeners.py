"""Listening sockets: bound, told apart from what was there before, and taken away again."""

import contextlib
import errno
import os
import secrets
import socket
import stat
from dataclasses import dataclass

from adsum.errors import ListenError
from adsum.forks import private
from adsum.transport.address import Address, TcpAddress, UnixAddress

_BACKLOG = 128
_IN_USE = (errno.EADDRINUSE,)


@dataclass(slots=True)
class Listener:
    """A socket that listens.

    Attributes:
        sock: The socket, non-blocking.
        address: Where it listens, with the port it was given.
        inode: Device and inode of its file, if it has one: tells it from a successor's.
    """

    sock: socket.socket
    address: Address
    inode: tuple[int, int] | None = None

    def close(self) -> None:
        """Stop listening. The file of a Unix socket goes if it is still this one's."""
        if isinstance(self.address, UnixAddress) and self.inode is not None:
            with contextlib.suppress(OSError):
                if _inode(self.address.path) == self.inode:
                    os.unlink(self.address.path)
        self.sock.close()


def open_unix(address: UnixAddress) -> Listener:
    """Listen on a Unix socket that only this user can connect to.

    The socket is made under a temporary name and renamed into place once it listens, so whoever
    finds the path refusing can be sure that its owner is gone.

    Raises:
        ListenError: The path cannot be made, is taken by a living process, or by something that is
            no socket.
    """
    path = address.path
    _refuse_taken(path)
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(3)}")
    sock = private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        sock.setblocking(False)
        sock.bind(temporary)
        try:
            os.chmod(temporary, 0o600)
            sock.listen(_BACKLOG)
            inode = _inode(temporary)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        sock.close()
        raise ListenError(
            f"{address}: {error.strerror or error}; the directory must exist and be writable, "
            "and its path a few bytes shorter than the system's limit"
        ) from error
    except BaseException:
        sock.close()
        raise
    return Listener(sock, address, inode)


def open_tcp(address: TcpAddress, candidates: list[tuple[socket.AddressFamily, str]]) -> Listener:
    """Listen on the first free port of a range.

    Args:
        address: The address as configured, with its range of ports.
        candidates: Families and IP addresses that its host stands for, most preferred first.

    Raises:
        ListenError: Every port is taken, or the host is none of this machine's.
    """
    failure: OSError | None = None
    for single in address.each_port():
        for family, ip in candidates:
            try:
                sock = _bind(family, ip, single.port)
            except OSError as error:
                failure = error
                if error.errno in _IN_USE:
                    break
            else:
                port = sock.getsockname()[1]
                return Listener(sock, TcpAddress(address.host or "0.0.0.0", port, port))  # noqa: S104
        if failure is None or failure.errno not in _IN_USE:
            break
    raise ListenError(f"{address}: {_advice(address, failure)}") from failure


def _bind(family: socket.AddressFamily, ip: str, port: int) -> socket.socket:
    sock = private(socket.socket(family, socket.SOCK_STREAM))
    try:
        sock.setblocking(False)
        # Without it a restarted node waits a minute for the port of its previous life.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" takes IPv4 as well, as everyone expects of "every interface".
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ip != "::"))
        sock.bind((ip, port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _advice(address: TcpAddress, failure: OSError | None) -> str:
    if failure is None:
        return "the host has no address"
    if failure.errno in _IN_USE:
        first, last = address.port, address.last_port
        taken = f"port {first} is" if first == last else f"ports {first} to {last} are all"
        return (
            f"{taken} taken; give a range of ports, as host:{first}-{first + 7}, of which every "
            "process takes a free one, or port 0 for any"
        )
    if failure.errno == errno.EADDRNOTAVAIL:
        return "the host is not an address of this machine"
    return failure.strerror or str(failure)


def _refuse_taken(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"unix:{path}: something that is not a socket is there; move it away")
    with private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # Busy, or not ours to connect to: somebody lives there.
    raise ListenError(f"unix:{path}: a living process listens there; choose another path")


def _inode(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
