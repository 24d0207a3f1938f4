"""Listening sockets: binding TCP addresses and Unix paths, and removing them again."""

import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from adsum.errors import ListenError
from adsum.forks import private
from adsum.transport.address import Address, TcpAddress, UnixAddress

_BACKLOG = 128
_IN_USE = (errno.EADDRINUSE,)
#: Ports to try when the kernel chooses a port for the first of several addresses.
_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """A resolved TCP address to listen on.

    Attributes:
        address: The address as configured, with its range of ports.
        candidates: Families and IP addresses of its host, most preferred first.
    """

    address: TcpAddress
    candidates: list[tuple[socket.AddressFamily, str]]

    @property
    def is_ipv4(self) -> bool:
        """Whether the most preferred IP address is an IPv4 address."""
        return bool(self.candidates) and self.candidates[0][0] == socket.AF_INET

    @property
    def ports(self) -> tuple[int, int]:
        """The range of ports, both ends inclusive; (0, 0) if the kernel chooses."""
        return self.address.port, self.address.last_port


@dataclass(slots=True)
class Listener:
    """A listening socket.

    Attributes:
        sock: The socket, non-blocking.
        address: The address that it listens at, with the bound port.
        inode: Device and inode of its file, if it has one, to recognise a replaced file.
    """

    sock: socket.socket
    address: Address
    inode: tuple[int, int] | None = None

    @property
    def ipv4_port(self) -> int | None:
        """The port of an IPv4 socket; None for any other socket."""
        return int(self.sock.getsockname()[1]) if self.sock.family == socket.AF_INET else None

    @property
    def is_in_place(self) -> bool:
        """Whether its file, if it has one, exists and was not replaced."""
        if not isinstance(self.address, UnixAddress):
            return True
        try:
            return _inode(self.address.path) == self.inode
        except OSError:
            return False

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket unless it was replaced."""
        if isinstance(self.address, UnixAddress) and self.is_in_place:
            _unlink(self.address.path)
        self.sock.close()


def open_all(wanted: Sequence[UnixAddress | TcpPlace]) -> list[Listener]:
    """Listen at all of these addresses, or at none.

    An IPv4 and an IPv6 address with equal ports, such as 0.0.0.0:7400-7407 and [::]:7400-7407, are
    bound to the same port. `[::]` accepts IPv4 too, except on a port of an IPv4 address in
    `wanted`.

    Returns:
        One listener for each of the addresses, in order.

    Raises:
        ListenError: An address cannot be listened on; names it, the reason and a remedy.
    """
    tcp = {index: place for index, place in enumerate(wanted) if isinstance(place, TcpPlace)}
    opened: dict[int, Listener] = {}
    with contextlib.ExitStack() as undo:
        for index, place in enumerate(wanted):
            if isinstance(place, UnixAddress):
                opened[index] = open_unix(place)
                undo.callback(opened[index].close)
        for group in _pair_families(tcp):
            for index, listener in zip(group, _open_tcp(list(group.values()), opened), strict=True):
                opened[index] = listener
                undo.callback(listener.close)
        undo.pop_all()
    return [opened[index] for index in range(len(wanted))]


def open_unix(address: UnixAddress) -> Listener:
    """Listen on a Unix socket that only this user can connect to.

    The socket is created under a temporary name and renamed into place once it listens, so a path
    that refuses connections proves that its owner is gone.

    Raises:
        ListenError: The path cannot be created, belongs to a living process, or is not a socket; or
            this process may open no more files.
    """
    path = address.path
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(3)}")
    try:
        _refuse_taken(path)
        with contextlib.ExitStack() as undo:
            sock = private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            undo.callback(sock.close)
            sock.setblocking(False)
            sock.bind(temporary)
            undo.callback(_unlink, temporary)
            os.chmod(temporary, 0o600)
            sock.listen(_BACKLOG)
            inode = _inode(temporary)
            os.rename(temporary, path)
            undo.pop_all()
    except OSError as error:
        raise ListenError(
            f"{address}: {error.strerror or error}; the directory must exist and be writable, "
            "and its path a few bytes shorter than the system's limit"
        ) from error
    return Listener(sock, address, inode)


def _pair_families(tcp: Mapping[int, TcpPlace]) -> list[dict[int, TcpPlace]]:
    """Group addresses to bind on one port: alone, or IPv4 with IPv6; groups with IPv4 first."""
    ipv6 = {index: place for index, place in tcp.items() if not place.is_ipv4}
    groups = []
    for index, place in tcp.items():
        if place.is_ipv4:
            twin = next((i for i, other in ipv6.items() if other.ports == place.ports), None)
            groups.append({index: place, **({} if twin is None else {twin: ipv6.pop(twin)})})
    return [*groups, *({index: place} for index, place in ipv6.items())]


def _open_tcp(group: Sequence[TcpPlace], opened: Mapping[int, Listener]) -> list[Listener]:
    """Listen at each address of a group on the first port that is free for all of them."""
    ipv4 = {listener.ipv4_port for listener in opened.values()}
    failure: ListenError | None = None
    for port in _ports(group):
        try:
            return _open_on_port(group, port, ipv4)
        except ListenError as error:
            failure = error
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _IN_USE:
                break
    assert failure is not None  # noqa: S101 - no range of ports is empty
    raise failure


def _ports(group: Sequence[TcpPlace]) -> Iterable[int]:
    first, last = group[0].ports
    if first == 0 and len(group) > 1:
        return [0] * _ATTEMPTS  # The kernel chooses for the first address alone.
    return range(first, last + 1)


def _open_on_port(
    group: Sequence[TcpPlace], port: int, ipv4: Collection[int | None]
) -> list[Listener]:
    opened: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for place in group:
            own = {listener.ipv4_port for listener in opened}
            sock = _bind_any(place, port, {*ipv4, *own})
            undo.callback(sock.close)
            port = sock.getsockname()[1]
            host = place.address.host or "0.0.0.0"  # noqa: S104 - what an empty host asks for
            opened.append(Listener(sock, TcpAddress(host, port, port)))
        undo.pop_all()
    return opened


def _bind_any(place: TcpPlace, port: int, ipv4: Collection[int | None]) -> socket.socket:
    """Bind the first IP address of a host that can be bound; a port in use ends the search.

    Args:
        place: The address.
        port: The port, 0 for any.
        ipv4: The IPv4 ports on which this node listens.

    Raises:
        ListenError: No IP address of the host can be bound.
    """
    failure: OSError | None = None
    for family, ip in place.candidates:
        try:
            return _bind(family, ip, port, dual_stack=ip == "::" and port not in ipv4)
        except OSError as error:
            failure = error
            if error.errno in _IN_USE:
                break
    raise ListenError(f"{place.address}: {_advice(place.address, failure)}") from failure


def _bind(family: socket.AddressFamily, ip: str, port: int, *, dual_stack: bool) -> socket.socket:
    sock = private(socket.socket(family, socket.SOCK_STREAM))
    try:
        sock.setblocking(False)
        # Without it a restarted node cannot bind its previous port for a minute (TIME_WAIT).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual_stack))
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
            f"{taken} taken; set a range of ports, as host:{first}-{first + 7}, of which every "
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
        raise ListenError(f"unix:{path}: the file there is not a socket; move it away")
    with private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # Busy, or no permission: a living process listens.
    raise ListenError(f"unix:{path}: a running process listens there; choose another path")


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _inode(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
