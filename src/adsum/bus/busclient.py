"""The seam between virtual links and an engine: the client of a bus, and its handler.

A bus publishes datagrams on subjects, without storing them. It may lose messages, and every loss is
repaired by the links above it. A client promises one order: messages of one publisher arrive at one
subscriber in the order of their publishes, over all subjects, while both stay connected.
"""

from collections.abc import Sequence
from typing import Protocol


class BusHandler(Protocol):
    """Receives the events of a client, in the event loop and never from inside a call of it.

    Messages and refusals arrive only between `bus_connected` and the following `bus_disconnected`.
    """

    def bus_received(self, data: bytes) -> None:
        """Receive a message of a subscribed subject."""

    def bus_refused(self, probe: object) -> None:
        """Receive the engine's report that no client subscribes to the subject of a publish.

        Args:
            probe: The probe of that publish.
        """

    def bus_connected(self) -> None:
        """Learn of the connection, at first or again; the server has all subscriptions."""

    def bus_disconnected(self, reason: str) -> None:
        """Learn of the loss of the connection, once for each; `BusClient.close` causes none.

        Args:
            reason: A printable text without credentials.
        """


class BusClient(Protocol):
    """A connection to the engine that is renewed for ever.

    After a loss, another server of the setting is tried at once, the same one after 50 to 100 ms;
    later attempts are at most 2 s apart. All memory is bounded: messages beyond the bounds are
    dropped and counted.
    """

    @property
    def connected(self) -> bool:
        """Whether a server is connected and has all subscriptions."""

    async def connect(self, subjects: Sequence[str]) -> None:
        """Connect and subscribe, within a bounded time; `bus_connected` is called before the end.

        Args:
            subjects: The first subjects to subscribe to; the last one is of this client alone.

        Raises:
            CarrierError: No server is reachable, the credentials are refused, or the user may not
                subscribe to a subject or publish on the last one. The text has the masked URL, the
                reason and a remedy.
        """

    def publish(self, subject: str, data: bytes, probe: object | None = None) -> None:
        """Send a message; never blocks. It is dropped while disconnected.

        Args:
            subject: Where to.
            data: The message, at most 1 MB with the default settings of NATS.
            probe: If not None, `BusHandler.bus_refused` follows with it if the engine reports no
                receiver. Only a bounded number of the newest probes is remembered.
        """

    def subscribe(self, subject: str) -> None:
        """Subscribe to one more subject, now and after each reconnect; idempotent.

        Later publishes of this client are sent after the server has the subscription.
        """

    def unsubscribe(self, subject: str) -> None:
        """End a subscription; messages that are on their way may still arrive. Idempotent."""

    @property
    def backlog(self) -> int:
        """Bytes accepted by `publish` and not yet passed to the socket of the engine."""

    async def close(self) -> None:
        """Send the backlog within a bounded time, then disconnect; idempotent."""

    def abandon(self) -> None:
        """Disconnect at once, without waiting and without the backlog; the loop may be closed."""
