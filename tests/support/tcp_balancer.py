"""A TCP balancer in front of the nodes of a test: each connection goes to the next one that lives.

It is what a deployment has there. A test can break the connections of one client, hold up what is
sent to it, or let no WebSockets through.
"""

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass

CHUNK = 65536
#: Bytes that wait in the kernel for a client that is held up.
_BUFFER = 65536
_CLIENT = re.compile(rb"[?&]client=([\w-]+)")
_UPGRADE = re.compile(rb"^upgrade: *websocket", re.IGNORECASE | re.MULTILINE)


@dataclass(eq=False, slots=True)
class Route:
    """One connection of a client.

    Attributes:
        client: What the client calls itself in its URL; None if it says nothing.
        node: Where it leads.
        writers: To the client, and to the node.
    """

    client: str | None
    node: str
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]

    def break_off(self) -> None:
        """End it as a cable that is pulled out ends it: with a reset, and no farewell."""
        for writer in self.writers:
            _reset(writer)


class Balancer:
    """See the module.

    Attributes:
        ports: Where each node listens that lives.
        delay: Seconds that everything takes on its way to a client, at least.
        upgrades: Whether WebSockets get through.
        refused: How many did not.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.delay = 0.0
        self.upgrades = True
        self.refused = 0
        self.port = 0
        self._turn = 0
        # Set for a client that is not held up any more.
        self._held: dict[str, asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self._routes: set[Route] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for route in list(self._routes):
                route.break_off()
            await self._server.wait_closed()

    def node_of(self, client: str) -> str | None:
        """Which node a client is connected to."""
        return next((route.node for route in self._routes if route.client == client), None)

    def drop(self, client: str) -> int:
        """Break the connections of a client; returns how many there were."""
        routes = [route for route in self._routes if route.client == client]
        for route in routes:
            route.break_off()
        return len(routes)

    def hold(self, client: str) -> None:
        """Pass on to a client nothing of what is sent to it, as if it did not read."""
        self._held[client] = asyncio.Event()

    def release(self, client: str) -> None:
        """Pass everything on."""
        self._held.pop(client).set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        route: Route | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not self._passes(head):
                writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            node, far_reader, far_writer = await self._dial()
            found = _CLIENT.search(head.partition(b"\r\n")[0])
            client = found[1].decode() if found else None
            route = Route(client, node, (writer, far_writer))
            self._routes.add(route)
            far_writer.write(head)
            await self._carry(reader, far_reader, route)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two is gone
        finally:
            if route is not None:
                self._routes.discard(route)
                route.writers[1].close()
            writer.close()

    async def _dial(self) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the node whose turn it is, or to the next one that answers."""
        for _ in range(len(self.ports)):
            names = sorted(self.ports)
            self._turn += 1
            name = names[self._turn % len(names)]
            with contextlib.suppress(OSError):
                return name, *await _connect(self.ports[name])
        raise ConnectionError("no node lives")

    async def _carry(
        self, reader: asyncio.StreamReader, far_reader: asyncio.StreamReader, route: Route
    ) -> None:
        """Pass on what comes, until either side ends it."""
        to_client, to_node = route.writers
        ways = [
            asyncio.create_task(self._pass_to_node(reader, to_node)),
            asyncio.create_task(self._pass_to_client(far_reader, to_client, route.client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_to_node(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            if not self._passes(data):
                return
            sink.write(data)
            await sink.drain()

    async def _pass_to_client(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: str | None
    ) -> None:
        while data := await source.read(CHUNK):
            await asyncio.sleep(self.delay)
            if client in self._held:
                await self._held[client].wait()
            sink.write(data)
            await sink.drain()

    def _passes(self, data: bytes) -> bool:
        if self.upgrades or not _UPGRADE.search(data):
            return True
        self.refused += 1
        return False


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return await asyncio.open_connection(sock=connection)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
