"""Two transports as one: sockets for siblings, and a bus for all other nodes."""

import asyncio
from collections.abc import Iterable

from adsum.bus.busdials import SCHEME
from adsum.bus.buslink import BusLink
from adsum.bus.bustransport import BusTransport
from adsum.transport.contract import Link
from adsum.transport.sockets import SocketTransport


class CombinedTransport:
    """Fulfils `Transport` with two others: an address and a link show which of them they are of.

    Args:
        sockets: The transport for siblings.

    Attributes:
        bus: The transport for all other nodes; None until it is made.
    """

    def __init__(self, sockets: SocketTransport) -> None:
        self.bus: BusTransport | None = None
        self._sockets = sockets

    async def listen(self, address: str) -> str:
        """See `Transport.listen`."""
        return await self._of(address).listen(address)

    async def dial(self, address: str) -> None:
        """See `Transport.dial`."""
        await self._of(address).dial(address)

    def send(self, links: Iterable[Link], payload: bytes) -> None:
        """See `Transport.send`: all links over the bus in one call."""
        near, far = list[Link](), list[Link]()
        for link in links:
            (far if isinstance(link, BusLink) else near).append(link)
        self._sockets.send(near, payload)
        if far and self.bus is not None:
            self.bus.send(far, payload)

    async def close(self) -> None:
        """See `Transport.close`: both at once."""
        closing = [self._sockets.close()]
        if self.bus is not None:
            closing.append(self.bus.close())
        await asyncio.gather(*closing)

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        self._sockets.abandon()
        if self.bus is not None:
            self.bus.abandon()

    def _of(self, address: str) -> SocketTransport | BusTransport:
        if self.bus is not None and address.startswith(SCHEME):
            return self.bus
        return self._sockets
