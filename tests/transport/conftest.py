"""Fixtures: a world of every kind of transport."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from adsum.transport.tls import TLS
from tests.support.bus_servers import ENGINES, BusServer, running
from tests.support.transports import KINDS, World, make_world


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, short_path: Path) -> World:
    return make_world(request, request.param, short_path)


@pytest.fixture(params=("tcp", "tls", "unix"))
def socket_world(request: pytest.FixtureRequest, short_path: Path) -> World:
    return make_world(request, request.param, short_path)


@pytest.fixture(scope="session")
def tls(certificates: Path) -> TLS:
    return TLS.from_files(
        certificates / "node.pem", certificates / "node.key", certificates / "authority.pem"
    )


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], BusServer]]:
    """Starts a server of an engine once, for all tests of a module."""
    with ExitStack() as stack:

        @cache
        def server(engine: str) -> BusServer:
            made = ENGINES[engine](tmp_path_factory.mktemp(engine))
            stack.enter_context(running(made))
            return made

        yield server
