"""Fixtures of all suites, a record of measurements for the documentation, and eager tasks."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from .eager import start_tasks_eagerly
from .support import compatibility
from .support.certificates import make_authority, sign
from .support.environment import clean_environment
from .support.measurements import SOCKETS, Measured, Record

# No example is timed, as the machine may be busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_record = Record()
_compatible: list[compatibility.Row] = []
_serial = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--eager-tasks", action="store_true", help="see tests/eager.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--eager-tasks"):
        start_tasks_eagerly()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist=loadgroup`, the suites that wait most of the time have a worker each."""
    for item in items:
        suite = item.path.relative_to(Path(__file__).parent).parts[0]
        group = suite if suite in ("bus", "faults") else "others"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_sessionfinish() -> None:
    _record.save()
    compatibility.save(_compatible)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes in what the test measures."""
    parameters = getattr(request.node, "callspec", None)
    carrier = parameters.params.get("carrier") if parameters else None
    return Measured(_record, request.node.nodeid, over=carrier or SOCKETS)


@pytest.fixture
def compatible(request: pytest.FixtureRequest) -> compatibility.Compatible:
    """Takes in what the test has seen to work with a program or a library of others."""
    return compatibility.Compatible(_compatible, request.node.nodeid)


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
