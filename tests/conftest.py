"""Fixtures of all suites, a record of measurements for the documentation, and eager tasks."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from .eager import start_tasks_eagerly
from .support.certificates import make_authority, sign
from .support.compatibility import CellRecord
from .support.environment import clean_environment
from .support.measurements import SOCKETS, Measured, Record

# No example is timed, as the machine may be busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_record = Record()
_cells = CellRecord()
_serial = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--eager-tasks", action="store_true", help="see tests/eager.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--eager-tasks"):
        start_tasks_eagerly()


def pytest_sessionfinish() -> None:
    _record.save()
    _cells.save()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes in what the test measures."""
    parameters = getattr(request.node, "callspec", None)
    carrier = parameters.params.get("carrier") if parameters else None
    return Measured(_record, request.node.nodeid, over=carrier or SOCKETS)


@pytest.fixture
def compat_cells() -> CellRecord:
    """Takes in cells of the tables of clients, servers and proxies."""
    return _cells


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of nodes that the user of this machine has."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def cluster_name() -> str:
    """A cluster that nobody else on this host has."""
    return f"test-{os.getpid()}-{next(_serial)}"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for sockets: the system limits their paths to about 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="adsum-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority, and a certificate for a node signed by it."""
    directory = tmp_path_factory.mktemp("certificates")
    make_authority(directory, "authority")
    sign(directory, "node", "authority")
    return directory
