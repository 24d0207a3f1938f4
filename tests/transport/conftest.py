"""Fixtures: a world of every kind of transport, and certificates made for this run."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.transport.tls import TLS

from .harness import World

KINDS = ("tcp", "tls", "unix", "memory")


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, short_directory: Path) -> World:
    return make_world(request, request.param, short_directory)


@pytest.fixture(params=("tcp", "tls", "unix"))
def socket_world(request: pytest.FixtureRequest, short_directory: Path) -> World:
    return make_world(request, request.param, short_directory)


def make_world(request: pytest.FixtureRequest, kind: str, directory: Path) -> World:
    tls = request.getfixturevalue("tls") if kind == "tls" else None
    return World(kind, directory, tls)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for the name of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="adsum") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority, and a certificate for a node signed by it."""
    directory = tmp_path_factory.mktemp("certificates")
    make_authority(directory, "authority")
    sign(directory, "node", "authority")
    return directory


@pytest.fixture(scope="session")
def tls(certificates: Path) -> TLS:
    return TLS.from_files(
        certificates / "node.pem", certificates / "node.key", certificates / "authority.pem"
    )


def make_authority(directory: Path, name: str) -> None:
    openssl(
        directory,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )


def sign(directory: Path, name: str, authority: str) -> None:
    openssl(
        directory,
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    openssl(
        directory,
        *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem"),
        *("-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.pem"),
    )


def openssl(directory: Path, *arguments: str) -> None:
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("the openssl command, which makes the test certificates, is not installed")
    subprocess.run([command, *arguments], cwd=directory, check=True, capture_output=True)
