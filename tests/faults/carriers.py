"""Links over sockets, or over a real server of each carrier: the parameter `carrier` of a test."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.bus_servers import ENGINES, BusServer, running
from tests.support.measurements import SOCKETS, recording

from .namespaces import Host

#: Shorter than the usual ones, which only the record is worth.
_SHORT = {"heartbeat_interval": 0.5, "down_after": 3.0}


def over(*usual: str) -> pytest.MarkDecorator:
    """Run a test with links over sockets, or over each of some carriers.

    Args:
        usual: ``sockets``, ``nats`` or ``redis``; none for a test that only the record is worth.
            The record has the rows of all carriers.
    """
    names = [*usual, *(name for name in ENGINES if recording() and name not in usual)]
    params = [pytest.param(None if name == SOCKETS else name, id=name) for name in names]
    if not params:
        params = [pytest.param(None, marks=pytest.mark.skip(reason="runs with `make faults`"))]
    return pytest.mark.parametrize("carrier", params, indirect=True)


class Carrier:
    """The servers of one engine that a test starts; they end with a stack.

    Attributes:
        name: As in the URL.
        settings: The durations of nodes for which a test has no others.
    """

    def __init__(self, name: str, directory: Path, stack: ExitStack) -> None:
        self.name = name
        self.settings: dict[str, float] = {} if recording() else _SHORT
        self._directory, self._stack = directory, stack

    def start(self, host: Host | None = None, **options: Any) -> BusServer:
        """Start a server, on a host of a network if one is given."""
        if host is not None:
            options |= {"host": str(host.address), "prefix": host.prefix}
        server = ENGINES[self.name](self._directory, **options)
        self._stack.enter_context(running(server))
        return server
