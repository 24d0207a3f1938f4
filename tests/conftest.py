"""What all tests share: a record of what is measured for the documentation, and eager tasks."""

import pytest

from .eager import start_tasks_eagerly
from .measuring import Measured, Record

_record = Record()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--eager-tasks", action="store_true", help="see tests/eager.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--eager-tasks"):
        start_tasks_eagerly()


def pytest_sessionfinish() -> None:
    _record.save()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes in what the test measures."""
    return Measured(_record, request.node.nodeid)
