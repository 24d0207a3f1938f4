"""Clients that are phoenix.js itself, unmodified, here in a Node.js process that takes orders.

Clients of other libraries take the same orders, in a process of theirs.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from adsum.cli import phoenixjs
from tests.support.order_process import OrderProcess
from tests.support.phoenixjs_library import phoenix_directory

DRIVER = Path(__file__).with_name("driver.mjs")
PYTHON_DRIVER = Path(__file__).with_name("pydriver.py")


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


class ProcessClients(OrderProcess):
    """All in one process, which reads orders line by line, see `driver.mjs`.

    Args:
        environment: Further variables of its environment.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(self._command, {**os.environ, **(environment or {})})

    def _command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    async def look(self) -> dict[str, Any]:
        """See `Clients`."""
        looks: dict[str, Any] = await self.ask("look")
        return looks


class NodeClients(ProcessClients):
    """Clients in a process of Node.js.

    Args:
        libraries: The paths of phoenix.js and, if that is tested, of ``@absinthe/socket``; without
            any, phoenix.js as the demo has it.
        environment: Further variables of its environment.
    """

    def __init__(self, *libraries: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(environment)
        self._libraries = libraries

    def _command(self) -> Sequence[str | Path]:
        libraries = self._libraries or [phoenix_directory() / "phoenix.mjs"]
        return [phoenixjs.node_path(), DRIVER, *libraries]


class PythonClients(ProcessClients):
    """Clients in a process of Python.

    Args:
        python: The interpreter, whose environment has the library.
        library: One of those that `pydriver.py` drives.
    """

    def __init__(self, python: str | Path, library: str) -> None:
        super().__init__()
        self._python = python
        self._library = library

    def _command(self) -> Sequence[str | Path]:
        return [self._python, PYTHON_DRIVER, self._library]
