"""Fixtures: a world of every kind of transport."""

from pathlib import Path

import pytest

from adsum.transport.tls import TLS
from tests.support.transports import World

KINDS = ("tcp", "tls", "unix", "memory")


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, short_path: Path) -> World:
    return make_world(request, request.param, short_path)


@pytest.fixture(params=("tcp", "tls", "unix"))
def socket_world(request: pytest.FixtureRequest, short_path: Path) -> World:
    return make_world(request, request.param, short_path)


def make_world(request: pytest.FixtureRequest, kind: str, directory: Path) -> World:
    tls = request.getfixturevalue("tls") if kind == "tls" else None
    return World(kind, directory, tls)


@pytest.fixture(scope="session")
def tls(certificates: Path) -> TLS:
    return TLS.from_files(
        certificates / "node.pem", certificates / "node.key", certificates / "authority.pem"
    )
