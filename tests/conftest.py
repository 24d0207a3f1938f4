"""A record of what tests measure, for the documentation."""

import pytest

from .measuring import Measured, Record

_record = Record()


def pytest_sessionfinish() -> None:
    _record.save()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes in what the test measures."""
    return Measured(_record, request.node.nodeid)
