"""The transport of nodes in production: TCP, TLS over TCP, and Unix sockets."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Coroutine, Iterable, Sequence

from adsum.activetime import active_timeout
from adsum.errors import DialError, DialRefusedError, HandshakeError, ListenError
from adsum.forks import private
from adsum.quoting import printable
from adsum.tasks import cancel_task, start_task
from adsum.transport.address import Address, TcpAddress, UnixAddress, parse, parse_one, plain_ip
from adsum.transport.contract import LinkHandler, NodeIdentity
from adsum.transport.credentials import peer_uid
from adsum.transport.linkpool import LinkPool
from adsum.transport.listeners import Listener, TcpPlace, open_all
from adsum.transport.options import TransportOptions
from adsum.transport.streamconnection import StreamConnection
from adsum.transport.tls import require_security
from adsum.transport.users import foreign_user

_REFUSED = (errno.ECONNREFUSED, errno.ENOENT)
#: Seconds to wait before accepting again when the process is out of file descriptors or memory.
_ACCEPT_PAUSE = 0.2
#: Seconds of real time for asyncio's TLS handshake timeout: never earlier than `active_timeout`.
_TLS_TIMEOUT = 24 * 3600.0


class SocketTransport(LinkPool):
    """Moves frames over TCP, TLS and Unix sockets; fulfils `Transport`.

    Belongs to the event loop that it is first used in. Construction has no effects.

    Args:
        identity: The identity of the node. Set the attribute again once the bound addresses are
            known.
        handler: Receives the events of links.
        options: The options that all links share.

    Raises:
        ConfigurationError: No peer would accept the identity.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        handler: LinkHandler,
        options: TransportOptions,
    ) -> None:
        super().__init__(identity, handler, options)
        # Listener and accepting task by bound address.
        self._listeners: dict[str, tuple[Listener, asyncio.Task[None]]] = {}
        # A task for each accepted connection, until TLS, if any, is set up.
        self._accepting: set[asyncio.Task[None]] = set()
        # The sockets of these connections, for the same time.
        self._raw: dict[StreamConnection, socket.socket] = {}
        self._closed: asyncio.Event | None = None

    async def listen(self, address: str) -> str:
        """Accept links at `address`; returns the address bound. See `Transport.listen`.

        Args:
            address: `host:port`; `host:first-last` binds the first free port; port 0 binds any;
                `unix:/path` replaces the socket of a process that is gone.

        Raises:
            ConfigurationError: `address` cannot be parsed.
            ListenError: It cannot be listened on; names the reason and a remedy.
        """
        return (await self.listen_all([address]))[0]

    async def listen_all(self, addresses: Sequence[str]) -> list[str]:
        """Accept links at all of these addresses, or at none; returns the bound ones, in order.

        An IPv4 and an IPv6 address with equal ports, such as `0.0.0.0:7400-7407` and
        `[::]:7400-7407`, are bound to the same port. `[::]` accepts IPv4 too, except on a port of
        an IPv4 address among `addresses`.

        Args:
            addresses: As in `listen`.

        Raises:
            ConfigurationError: An address cannot be parsed.
            ListenError: An address cannot be listened on; names it, the reason and a remedy.
        """
        wanted = [await _resolve_local(parse(address)) for address in addresses]
        listeners = open_all(wanted)
        if self.closing:
            for listener in listeners:
                listener.close()
            raise ListenError(f"{', '.join(addresses)}: the transport is closed")
        return [self._accept_at(listener) for listener in listeners]

    def is_in_place(self, address: str) -> bool:
        """Whether the Unix socket at an address that `listen` returned can still be connected to.

        A logout or a cleaner of temporary files may remove or replace its file.
        """
        listener, _ = self._listeners[address]
        return listener.is_in_place

    async def stop_listening(self, address: str) -> None:
        """Accept no more links at an address that `listen` returned. Open links are kept."""
        listener, accepting = self._listeners[address]
        try:
            await _cancel([accepting])
        finally:
            listener.close()
            # Removed last: if the event loop is closed meanwhile, `abandon` closes the listener.
            self._listeners.pop(address, None)

    async def dial(self, address: str) -> None:
        """Open a link to the node that listens at `address`. See `Transport.dial`.

        Every IP address of the host is tried in turn. Cancelling leaves no open socket.

        Raises:
            ConfigurationError: `address` cannot be dialled, or not without protection.
            DialRefusedError: Nothing listens there.
            DialError: The peer could not be reached in time.
            HandshakeError: The peer was reached, but it and this node cannot form a link, for
                example over a Unix socket of another user without a secret; `SelfDialError` if it
                is this node.
        """
        where = parse_one(address, "address")
        # The settings were checked, but peers send addresses, too.
        require_security([address], self.options.secret, self.options.tls, "address")
        with self.connecting(address):
            if isinstance(where, UnixAddress):
                sock, tls = self._connect_own(where), None
            else:
                sock = await self._connect_tcp(where)
                tls = self.options.tls.client if self.options.tls else None
        try:
            protected = self._is_protected(sock, peer_uid(sock))
            greeting = self.begin_dial(address, protected=protected)
        except DialError:
            sock.close()
            raise
        with self.attempt(greeting) as outcome:
            await self._start(greeting.connection, sock, tls, where)
            await outcome

    async def close(self) -> None:
        """Stop listening and close every link; returns when their sockets are closed.

        Links first send their queued frames and a goodbye; a peer that does not read delays this by
        at most `TransportLimits.close_grace`. Idempotent; concurrent callers wait for the same end.
        Does nothing in a forked child: sockets and files are the parent's.
        """
        if self.inherited:
            return
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = asyncio.Event()
        self._closing = True
        try:
            for address in list(self._listeners):
                await self.stop_listening(address)
            # Not sooner: a task cancelled before its first step would leave its socket open.
            await _cancel(self._accepting)
            await self.close_connections()
        finally:
            self._closed.set()

    def abandon(self) -> None:
        """Free all addresses and abort all links, without waiting and without a goodbye.

        Use it after the event loop was closed or `close` was cancelled. The addresses are free
        when this returns, and peers lose their links at once. Idempotent.
        """
        self._closing = True
        for listener, accepting in self._listeners.values():
            cancel_task(accepting)
            listener.close()
        self._listeners.clear()
        for connection in self.connections():
            connection.hang_up()

    def _is_protected(self, sock: socket.socket, user: int | None) -> bool:
        """Whether only a member or a process of this user can be at the other end, as `user`."""
        if sock.family == socket.AF_UNIX:
            return user == os.geteuid()
        return self.options.tls is not None and self.options.tls.mutual

    # Accepting.

    def _accept_at(self, listener: Listener) -> str:
        address = str(listener.address)
        own = self.options.tls
        tls = own.server if own and isinstance(listener.address, TcpAddress) else None
        work = self._accept_forever(listener, tls)
        self._listeners[address] = listener, start_task(work)
        return address

    async def _accept_forever(self, listener: Listener, tls: ssl.SSLContext | None) -> None:
        while not self.closing:
            # `_accept_one` does not yield while connections are pending, so a flood of them would
            # block the event loop.
            await asyncio.sleep(0)
            try:
                sock, origin = await _accept_one(listener.sock)
            except ConnectionError:
                continue  # The peer left before its connection was accepted.
            except OSError as error:
                self.troubled(f"{listener.address} cannot accept: {error}")
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            ip = plain_ip(origin[0]) if isinstance(origin, tuple) else None
            user = peer_uid(sock)
            protected = self._is_protected(sock, user)
            connection = self.accept_connection(ip, user, protected=protected)
            if connection is None:
                sock.close()
            else:
                self._raw[connection] = sock
                _run(self._accept(connection, sock, tls), self._accepting)

    async def _accept(
        self, connection: StreamConnection, sock: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()
        limits = self.limits
        try:
            async with active_timeout(limits.handshake_timeout):
                await loop.connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=tls,
                    # The event loop accepts these arguments with TLS only.
                    ssl_handshake_timeout=_TLS_TIMEOUT if tls else None,
                    ssl_shutdown_timeout=limits.close_grace if tls else None,
                )
        except ssl.SSLError as error:
            connection.abort("TLS failed")
            self.refused(f"{connection.describe()}: TLS failed: {printable(str(error), 200)}")
        except OSError as error:
            connection.abort(f"connection lost: {error}")
        except BaseException:
            connection.abort("the node is closing")
            raise
        finally:
            self._raw.pop(connection, None)

    def drop(self, connection: StreamConnection) -> None:
        """Abort an unproven connection; a TLS handshake under way fails at once."""
        sock = self._raw.get(connection)
        if sock is not None:
            with contextlib.suppress(OSError):  # the peer was faster
                sock.shutdown(socket.SHUT_RDWR)
        super().drop(connection)

    # Dialling.

    def _connect_own(self, where: UnixAddress) -> socket.socket:
        """Connect to a Unix socket of this user or of root; with a secret, of any user."""
        sock = _connect_unix(where)
        foreign = foreign_user(peer_uid(sock), self.options.secret)
        if foreign:
            sock.close()
            raise HandshakeError(f"{where}: {foreign}")
        return sock

    async def _connect_tcp(self, where: TcpAddress) -> socket.socket:
        loop = asyncio.get_running_loop()
        seconds = self.limits.connect_timeout
        try:
            async with active_timeout(seconds):
                found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise DialError(f"{where}: its name was not resolved within {seconds:g} s") from None
        except OSError as error:
            raise DialError(f"{where}: {error.strerror or error}") from error
        failures: list[OSError] = []
        for family, kind, protocol, _, target in found:
            try:
                async with active_timeout(seconds):
                    return await _connect(family, kind, protocol, target)
            except OSError as error:  # Includes TimeoutError.
                failures.append(error)
        raise _dial_error(str(where), failures, seconds)

    async def _start(
        self,
        connection: StreamConnection,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        where: TcpAddress | UnixAddress,
    ) -> None:
        loop = asyncio.get_running_loop()
        limits = self.limits
        name = where.host if tls and isinstance(where, TcpAddress) else None
        try:
            async with active_timeout(limits.handshake_timeout):
                await loop.create_connection(
                    lambda: connection,
                    sock=sock,
                    ssl=tls,
                    server_hostname=name,
                    ssl_handshake_timeout=_TLS_TIMEOUT if tls else None,
                    ssl_shutdown_timeout=limits.close_grace if tls else None,
                )
        except TimeoutError:
            seconds = limits.handshake_timeout
            raise DialError(f"{where}: no TLS handshake within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise HandshakeError(f"{where}: TLS failed: {printable(str(error), 200)}") from error
        except OSError as error:
            raise DialError(f"{where}: {error.strerror or error}") from error


def _run(work: Coroutine[None, None, None], among: set[asyncio.Task[None]]) -> None:
    task = start_task(work)
    among.add(task)
    task.add_done_callback(among.discard)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)


async def _resolve_local(where: Address) -> UnixAddress | TcpPlace:
    """Resolve the IP addresses of a host to listen on."""
    if isinstance(where, UnixAddress):
        return where
    if not where.host:
        return TcpPlace(where, [(socket.AF_INET, "0.0.0.0")])  # noqa: S104 - what it asks for
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenError(f"{where}: {error.strerror or error}") from error
    # IPv4 first: clients that try only IPv4 then reach a name with both, such as localhost.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return TcpPlace(where, [(family, str(target[0])) for family, _, _, _, target in found])


async def _accept_one(listening: socket.socket) -> tuple[socket.socket, object]:
    """Accept a connection and make it private to this process, in one step.

    `loop.sock_accept` returns a turn of the event loop later; a fork in between would copy the
    socket.
    """
    while True:
        try:
            sock, origin = listening.accept()
        except BlockingIOError:
            await _readable(listening.fileno())
        else:
            private(sock).setblocking(False)
            return sock, origin


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def _connect(
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    protocol: int,
    target: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
) -> socket.socket:
    sock = private(socket.socket(family, kind, protocol))
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_unix(where: UnixAddress) -> socket.socket:
    """Connect to a Unix socket without waiting: the kernel accepts or refuses at once.

    `loop.sock_connect` misreads the EAGAIN of a full backlog as a connection under way, and then
    as an established one.
    """
    try:
        sock = private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    except OSError as error:  # no more files may be opened
        raise _dial_error(str(where), [error], 0) from error
    try:
        sock.setblocking(False)
        sock.connect(where.path)
    except OSError as error:
        sock.close()
        raise _dial_error(str(where), [error], 0) from error
    return sock


def _dial_error(where: str, failures: list[OSError], seconds: float) -> DialError:
    if failures and all(failure.errno in _REFUSED for failure in failures):
        return DialRefusedError(f"{where}: nothing listens there")
    reasons = dict.fromkeys(_reason(failure, seconds) for failure in failures)
    return DialError(f"{where}: {'; '.join(reasons) or 'the name has no address'}")


def _reason(failure: OSError, seconds: float) -> str:
    if isinstance(failure, BlockingIOError):
        return "the peer is too busy to accept"
    if isinstance(failure, TimeoutError) and failure.errno is None:
        return f"no answer within {seconds:g} s"
    return failure.strerror or str(failure)
