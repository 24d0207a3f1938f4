"""Fixtures: a world of every kind of transport."""

from pathlib import Path

import pytest

from adsum.transport.tls import TLS
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
