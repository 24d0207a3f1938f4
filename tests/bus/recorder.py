"""A handler that stores the events of a client, and clients that a test makes with it."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from adsum.bus.busreconnector import BusReconnector
from adsum.bus.carrierurl import make_client
from tests.support.bus_servers import BusServer
from tests.support.waiting import until

#: Starts a server of an engine, with options of its class.
MakeServer = Callable[..., BusServer]


class Recorder:
    """A handler that stores the events of its client."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.refused: list[object] = []
        #: "connected", or the reason of a loss, with the time of each.
        self.changes: list[str] = []
        self.times: list[float] = []
        self.when_connected: Callable[[], None] = lambda: None

    def bus_received(self, data: bytes) -> None:
        self.received.append(data)

    def bus_refused(self, probe: object) -> None:
        self.refused.append(probe)

    def bus_connected(self) -> None:
        self._note("connected")
        self.when_connected()

    def bus_disconnected(self, reason: str) -> None:
        self._note(reason)

    @property
    def losses(self) -> list[str]:
        return [change for change in self.changes if change != "connected"]

    def _note(self, change: str) -> None:
        self.changes.append(change)
        self.times.append(time.monotonic())


def make(url: str, handler: Recorder, name: str = "node") -> BusReconnector:
    """The client of a setting."""
    client = make_client(url, handler, name)
    assert isinstance(client, BusReconnector)
    return client


@asynccontextmanager
async def connected(
    url: str, *subjects: str, name: str = "node"
) -> AsyncIterator[tuple[BusReconnector, Recorder]]:
    """A connected client and its handler; it is closed with the block."""
    handler = Recorder()
    client = make(url, handler, name)
    await client.connect(subjects)
    try:
        yield client, handler
    finally:
        await client.close()


async def exchange(
    sender: BusReconnector, subject: str, receiver: Recorder, text: bytes = b"ping"
) -> None:
    """Publish until the receiver has received, as the links do; a bus may lose messages."""
    count = receiver.received.count(text)

    async def arrived() -> bool:
        sender.publish(subject, text)
        return receiver.received.count(text) > count

    await until(arrived, f"{text!r} arrives on {subject}")


def alternates(changes: Sequence[str]) -> bool:
    """Whether connections and losses alternate, beginning with a connection."""
    return all((one == "connected") == (at % 2 == 0) for at, one in enumerate(changes))
