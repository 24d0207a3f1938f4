"""A message engine in one process, and its client, for tests of virtual links without a server.

Only the engine is replaced: the core, the transport and everything above it are the real ones. All
clients share one event loop. Messages arrive in the order in which they were published, each in a
later turn of the loop.
"""

import asyncio
from collections.abc import Callable, Sequence

from adsum.bus.busclient import BusClient, BusHandler
from adsum.errors import CarrierError


class MemoryBroker:
    """The engine: subjects, refusals, restarts, and loss.

    Attributes:
        up: Whether it runs.
        hangs: Whether connections to it are never answered.
        clients: All clients that have connected, in order, the abandoned ones included.
        loses: Decides about each message, by sender, receiver and data, whether it is lost.
        published: Number of messages published.
    """

    def __init__(self) -> None:
        self.up, self.hangs = True, False
        self.clients: list[MemoryBusClient] = []
        self.loses: Callable[[MemoryBusClient, MemoryBusClient, bytes], bool] = lambda *_: False
        self.published = 0

    def stop(self) -> None:
        """End, as by kill -9: all clients lose their connections, and messages on their way."""
        self.up = False
        for client in self.clients:
            client.lose("the server has ended")

    def start(self) -> None:
        """Run again: the clients come back by themselves."""
        self.up = True
        for client in self.clients:
            client.restore()

    def make_client(self, url: str, handler: BusHandler, name: str) -> BusClient:
        """A client, for the driver of a node; the URL is ignored."""
        return MemoryBusClient(self, handler)

    def deliver(
        self, sender: "MemoryBusClient", subject: str, data: bytes, probe: object | None
    ) -> None:
        """Deliver a message to all others that have subscribed, or report that nobody has."""
        if not self.up:
            return
        receivers = [
            client
            for client in self.clients
            if client is not sender and client.connected and subject in client.subjects
        ]
        for receiver in receivers:
            if not self.loses(sender, receiver, data):
                receiver.handler.bus_received(data)
        if not receivers and probe is not None and sender.connected:
            sender.handler.bus_refused(probe)


class MemoryBusClient:
    """A `BusClient` of a `MemoryBroker`.

    Attributes:
        handler: Receives its events.
        subjects: Its subscriptions.
    """

    def __init__(self, broker: MemoryBroker, handler: BusHandler) -> None:
        self.handler = handler
        self.subjects: set[str] = set()
        self._broker = broker
        self._connected = self._ended = False

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def backlog(self) -> int:
        return 0

    async def connect(self, subjects: Sequence[str]) -> None:
        await asyncio.sleep(0)
        if self._broker.hangs:
            await asyncio.Event().wait()
        if not self._broker.up:
            raise CarrierError("memory://bus: nothing listens there; start the server")
        self.subjects.update(subjects)
        self._connected = True
        self._broker.clients.append(self)
        self.handler.bus_connected()

    def publish(self, subject: str, data: bytes, probe: object | None = None) -> None:
        if self._connected:
            self._broker.published += 1
            loop = asyncio.get_running_loop()
            loop.call_soon(self._broker.deliver, self, subject, data, probe)

    def subscribe(self, subject: str) -> None:
        self.subjects.add(subject)

    def unsubscribe(self, subject: str) -> None:
        self.subjects.discard(subject)

    async def close(self) -> None:
        await asyncio.sleep(0)  # all that was published before is delivered
        self.abandon()

    def abandon(self) -> None:
        """Disconnect for good; from then on nobody receives messages here."""
        self._ended, self._connected = True, False

    def lose(self, reason: str) -> None:
        """Lose the connection, while the others keep theirs."""
        if self._connected:
            self._connected = False
            asyncio.get_running_loop().call_soon(self.handler.bus_disconnected, reason)

    def restore(self) -> None:
        """Be connected again, unless it has ended."""
        if not self._ended and not self._connected:
            self._connected = True
            asyncio.get_running_loop().call_soon(self.handler.bus_connected)
