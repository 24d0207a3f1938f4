"""Clients that are phoenix.js itself, unmodified, here in a Node.js process that takes orders."""

from pathlib import Path
from typing import Any, Protocol

from adsum.cli import phoenixjs
from tests.support.order_process import DRIVER, OrderProcess
from tests.support.phoenixjs_library import phoenix_directory

COMMANDS = Path(__file__).with_name("clients.mjs")


class Clients(Protocol):
    """Any number of phoenix.js clients, wherever they run."""

    async def start(self) -> None:
        """Be ready for clients."""

    async def stop(self) -> None:
        """End them all."""

    async def ask(self, command: str, **how: Any) -> Any:
        """Tell a client to do something, see `clients.mjs`, and wait for the answer."""

    async def look(self) -> dict[str, Any]:
        """What every client shows, and what it has announced since the last look."""


class NodeClients(OrderProcess):
    """All in one process of Node.js."""

    def __init__(self) -> None:
        super().__init__(_command)

    async def look(self) -> dict[str, Any]:
        """See `Clients`."""
        looks: dict[str, Any] = await self.ask("look")
        return looks


def _command() -> list[str]:
    library = phoenix_directory() / "phoenix.mjs"
    return [str(phoenixjs.node_path()), str(DRIVER), str(library), str(COMMANDS)]
