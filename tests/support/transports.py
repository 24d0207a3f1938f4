"""Transports of every kind for one test: made, connected, and closed with it."""

import asyncio
import functools
import itertools
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, cast

import pytest

from adsum.bus.buslink import BusLink
from adsum.bus.bustransport import BusTransport
from adsum.bus.carrierurl import make_client
from adsum.transport.address import TcpAddress, UnixAddress, parse
from adsum.transport.contract import Link, LinkHandler, NodeIdentity, Transport
from adsum.transport.handshake import VERSIONS
from adsum.transport.limits import TransportLimits
from adsum.transport.link import StreamLink
from adsum.transport.options import TransportOptions
from adsum.transport.sockets import SocketTransport
from adsum.transport.streamconnection import StreamConnection
from adsum.transport.tls import TLS
from adsum.transport.turns import TurnBudget

from .bus_servers import ENGINES
from .memory_bus import MemoryBroker
from .memory_transport import MemoryNetwork, MemoryTransport, connect
from .raw_peer import RawPeer
from .waiting import DEADLINE, until

P = ParamSpec("P")

#: Links over streams.
KINDS = ("tcp", "tls", "unix", "memory")
#: Virtual links: over a bus in memory, and over real servers.
BUS_KINDS = ("bus", *ENGINES)

_serial = itertools.count()


class ConnectingBusTransport(BusTransport):
    """A transport on a bus that connects at its first dial, as one on sockets does."""

    has_listened = False

    async def listen(self, address: str = "bus:") -> str:
        self.has_listened = True
        return await super().listen(address)

    async def dial(self, address: str) -> None:
        if not self.has_listened:
            await self.listen()
        await super().dial(address)

    def connections(self) -> list[BusLink]:
        return list(self._links.values())


#: A transport on a bus is cast to it: most tests use the common part.
AnyTransport = SocketTransport | MemoryTransport


def in_loop(scenario: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test to its end in a loop of its own, then close its `world`."""

    @functools.wraps(scenario)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        async def run() -> None:
            try:
                async with asyncio.timeout(2 * DEADLINE):
                    await scenario(*args, **kwargs)
            finally:
                for value in kwargs.values():
                    if isinstance(value, World):
                        await value.close()

        asyncio.run(run())

    return test


def identity(name: str, *, cluster: str = "cluster", incarnation: int = 1) -> NodeIdentity:
    return NodeIdentity(cluster, name, incarnation, ())


@dataclass(eq=False)
class Recorder:
    """A handler that remembers everything it is told, and checks the order it is told in."""

    opened: list[Link] = field(default_factory=list)
    frames: list[tuple[Link, bytes]] = field(default_factory=list)
    writable: list[bool] = field(default_factory=list)
    closed: list[tuple[Link, str]] = field(default_factory=list)
    #: Called with every frame, after it was recorded; may raise.
    on_frame: Callable[[Link, bytes], None] | None = None
    #: True while a handler method runs: another call meanwhile would be re-entrant.
    busy: bool = False
    #: The events of a bus, beyond those of links.
    announced: list[str] = field(default_factory=list)
    alone: int = 0
    held: list[tuple[list[Link], bool]] = field(default_factory=list)
    open_topics: list[bool] = field(default_factory=list)
    writable_topics: list[bool] = field(default_factory=list)
    heard: list[tuple[Link, bytes]] = field(default_factory=list)
    #: Called with every frame on a topic, after it was recorded; may raise.
    on_topic: Callable[[Link, bytes], None] = lambda link, payload: None

    def node_announced(self, address: str, sibling: bool) -> None:
        assert not self.busy
        self.announced.append(address)

    def found_alone(self) -> None:
        assert not self.busy
        self.alone += 1

    def links_held(self, links: Iterable[Link], held: bool) -> None:
        assert not self.busy
        self.held.append((list(links), held))

    def topics_open(self, is_open: bool) -> None:
        assert not self.busy
        self.open_topics.append(is_open)

    def topics_writable(self, writable: bool) -> None:
        assert not (self.busy and writable)
        self.writable_topics.append(writable)

    def topic_received(self, link: Link, payload: bytes) -> None:
        assert not self.busy
        self._assert_live(link)
        self.heard.append((link, payload))
        self.on_topic(link, payload)

    def link_opened(self, link: Link) -> None:
        assert link not in self.opened
        self.opened.append(link)

    def frame_received(self, link: Link, payload: bytes) -> None:
        assert not self.busy
        self._assert_live(link)
        self.frames.append((link, payload))
        if self.on_frame is not None:
            self.busy = True
            try:
                self.on_frame(link, payload)
            finally:
                self.busy = False

    def link_writable(self, link: Link, writable: bool) -> None:
        assert not (self.busy and writable)
        self._assert_live(link)
        self.writable.append(writable)

    def link_closed(self, link: Link, reason: str) -> None:
        assert not self.busy
        self._assert_live(link)
        self.closed.append((link, reason))

    def _assert_live(self, link: Link) -> None:
        assert link in self.opened
        assert link not in [closed for closed, _ in self.closed]

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.frames]

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.closed]

    @property
    def link(self) -> StreamLink:
        link = self.opened[-1]
        assert isinstance(link, StreamLink | BusLink)
        return cast(StreamLink, link)  # tests of a bus use its common part


class World:
    """Makes transports of one kind, connects them, and closes them all.

    Args:
        kind: One of `KINDS` or `BUS_KINDS`.
        directory: For Unix sockets.
        tls: The certificates, if the kind is ``tls``.
        carrier: The URL of the server that carries the links; that of a bus in memory by default.

    Attributes:
        cluster: The cluster of its nodes, which have a server to themselves or share it with the
            clusters of other tests.
    """

    def __init__(
        self, kind: str, directory: Path, tls: TLS | None, carrier: str | None = None
    ) -> None:
        self.kind = kind
        self.network = MemoryNetwork()
        self.broker = MemoryBroker()
        self.cluster = "cluster" if carrier is None else f"cluster-{next(_serial)}"
        self._directory = directory
        self._tls = tls
        self._carrier = carrier
        self.transports: list[AnyTransport] = []
        self.bound: dict[str, AnyTransport] = {}
        self._servers: list[asyncio.Server] = []
        self._raw: list[RawPeer] = []

    @property
    def is_bus(self) -> bool:
        """Whether its links are virtual."""
        return self.kind in BUS_KINDS

    def again(self) -> "World":
        """A world of the same kind without transports."""
        return World(self.kind, self._directory, self._tls, self._carrier)

    def transport(
        self,
        name: str,
        handler: Recorder | None = None,
        *,
        cluster: str | None = None,
        incarnation: int = 1,
        secret: bytes | None = b"a shared secret",
        limits: TransportLimits | None = None,
        versions: tuple[int, int] = VERSIONS,
    ) -> AnyTransport:
        who = identity(name, cluster=cluster or self.cluster, incarnation=incarnation)
        handler = handler or Recorder()
        limits = limits or TransportLimits()
        options = TransportOptions(secret=secret, limits=limits, versions=versions)
        made: AnyTransport
        if self.kind == "memory":
            made = MemoryTransport(self.network, who, handler, options)
        elif self.is_bus:
            made = cast(AnyTransport, self._bus_transport(who, handler, secret, limits))
        else:
            made = SocketTransport(who, handler, replace(options, tls=self._tls))
        # What the type checker proves here: both are what the contract says.
        contract: tuple[Transport, LinkHandler] = (made, handler)
        assert all(contract)
        self.transports.append(made)
        return made

    def _bus_transport(
        self, who: NodeIdentity, handler: Recorder, secret: bytes | None, limits: TransportLimits
    ) -> ConnectingBusTransport:
        assert secret is not None
        carrier = self._carrier or "memory://bus"
        make = self.broker.make_client if self._carrier is None else make_client
        return ConnectingBusTransport(
            who,
            handler,
            partial(make, carrier, name=who.name),
            secret=secret,
            carrier=carrier,
            grace=DEADLINE,
            turns=TurnBudget(limits.turn_budget),
        )

    async def listening(self, name: str, handler: Recorder, **settings: object) -> str:
        """A transport that listens; returns where."""
        transport = self.transport(name, handler, **settings)  # type: ignore[arg-type]  # passed on
        address = await transport.listen(self.free_address(name))
        self.bound[address] = transport
        return address

    async def pair(self, **settings: object) -> tuple[Recorder, Recorder]:
        """Two nodes with one link: the dialler's recorder and the acceptor's."""
        dialler, acceptor = Recorder(), Recorder()
        address = await self.listening("acceptor", acceptor, **settings)
        await self.transport("dialler", dialler, **settings).dial(address)  # type: ignore[arg-type]  # passed on
        await until(lambda: acceptor.opened)
        return dialler, acceptor

    def free_address(self, name: str) -> str:
        if self.is_bus:
            return "bus:"
        return f"unix:{self._directory}/{name}" if self.kind == "unix" else "127.0.0.1:0"

    def _raw_peer(self) -> RawPeer:
        self._raw.append(RawPeer())
        return self._raw[-1]

    async def connect_raw(self, address: str) -> RawPeer:
        """A peer that sends what it likes."""
        raw = self._raw_peer()
        loop = asyncio.get_running_loop()
        where = parse(address)
        if self.kind == "memory":
            bound = self.bound[address]
            assert isinstance(bound, MemoryTransport)
            connection = bound.accept_connection()
            assert connection is not None
            connect(raw, connection)
            await until(lambda: raw.wire)
        elif isinstance(where, UnixAddress):
            await loop.create_unix_connection(lambda: raw, where.path)
        else:
            await loop.create_connection(lambda: raw, where.host, where.port, ssl=self._client())
        return raw

    async def proved_raw(self, address: str, name: str = "raw") -> RawPeer:
        """A raw peer that has completed the handshake."""
        raw = await self.connect_raw(address)
        await raw.greet(identity(name), b"a shared secret")
        return raw

    async def connect_bare(self, address: str) -> RawPeer:
        """A raw peer that does not wait for TLS: who is refused never gets that far."""
        raw = self._raw_peer()
        loop = asyncio.get_running_loop()
        where = parse(address)
        if isinstance(where, UnixAddress):
            await loop.create_unix_connection(lambda: raw, where.path)
        else:
            await loop.create_connection(lambda: raw, where.host, where.port)
        return raw

    async def silent_listener(self, greeting: bytes = b"") -> str:
        """Somebody who accepts connections, says `greeting` and nothing else, and reads nothing."""

        def silent() -> RawPeer:
            raw = self._raw_peer()
            raw.greeting = greeting
            return raw

        loop = asyncio.get_running_loop()
        if self.kind == "memory":
            return await self._silent_in_memory(silent)
        if self.kind == "unix":
            path = str(self._directory / "silent")
            self._servers.append(await loop.create_unix_server(silent, path))
            return f"unix:{path}"
        context = self._tls.server if self._tls is not None else None
        server = await loop.create_server(silent, "127.0.0.1", 0, ssl=context)
        self._servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _silent_in_memory(self, protocol: Callable[[], asyncio.Protocol]) -> str:
        silent = self.transport("silent")
        assert isinstance(silent, MemoryTransport)
        silent.accept_connection = lambda *_, **__: protocol()  # type: ignore[method-assign, assignment]  # any protocol does
        return await silent.listen("silent")

    def connections_of(self, name: str) -> list[StreamConnection]:
        """What the transport of a node holds, with an open link or not."""
        found = next(made for made in self.transports if made.identity.name == name)
        return found.connections()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for raw in self._raw:
            if raw.wire is not None and not raw.hung_up:
                raw.wire.abort()
                await until(lambda raw=raw: raw.hung_up)  # type: ignore[misc]  # bound now
        for transport in self.transports:
            await transport.close()
            assert not transport.connections(), "a closed transport holds connections"

    def _client(self) -> ssl.SSLContext | None:
        return self._tls.client if self._tls is not None else None


def bound_port(address: str) -> int:
    where = parse(address)
    assert isinstance(where, TcpAddress)
    return where.port


def make_world(request: pytest.FixtureRequest, kind: str, directory: Path) -> World:
    tls = request.getfixturevalue("tls") if kind == "tls" else None
    carrier = request.getfixturevalue("server_of")(kind).url if kind in ENGINES else None
    return World(kind, directory, tls, carrier)
