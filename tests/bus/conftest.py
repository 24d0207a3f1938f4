"""Both engines for one suite, and certificates that clients can verify."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.bus_servers import ENGINES, BusServer, running
from tests.support.certificates import make_authority, sign

from .recorder import MakeServer


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine."""
    return str(request.param)


@pytest.fixture
def make_server(engine: str, tmp_path: Path) -> Iterator[MakeServer]:
    """Starts servers of an engine, which end with the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> BusServer:
            server = ENGINES[engine](tmp_path, **options)
            stack.enter_context(running(server))
            return server

        yield make


@pytest.fixture
def server(make_server: MakeServer) -> BusServer:
    """A server that needs no credentials."""
    return make_server()


@pytest.fixture(scope="session")
def address_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, and a certificate of the loopback address."""
    directory = tmp_path_factory.mktemp("bus-certificates")
    make_authority(directory, "authority")
    sign(directory, "server", "authority", address="127.0.0.1")
    return directory
