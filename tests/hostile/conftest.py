"""Fixtures: a cluster of its own for each test, reached in each way there is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .siege import Siege, siege


@pytest.fixture(params=["unix", "tcp", "secret"])
def besieged(
    request: pytest.FixtureRequest,
    cluster_name: str,  # the fixture of that name
    tmp_path: Path,
) -> Iterator[Siege]:
    with siege(cluster_name, request.param, tmp_path) as made:
        yield made


@pytest.fixture
def besieged_with_secret(cluster_name: str, tmp_path: Path) -> Iterator[Siege]:  # likewise
    with siege(cluster_name, "secret", tmp_path) as made:
        yield made
