"""Fixtures: a cluster of its own for each test, reached in each way there is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .attacked_node import AttackedNode, attacked_node


@pytest.fixture(params=["unix", "tcp", "secret"])
def attacked(
    request: pytest.FixtureRequest,
    cluster_name: str,  # the fixture of that name
    tmp_path: Path,
) -> Iterator[AttackedNode]:
    with attacked_node(cluster_name, request.param, tmp_path) as made:
        yield made


@pytest.fixture
def attacked_with_secret(cluster_name: str, tmp_path: Path) -> Iterator[AttackedNode]:  # likewise
    with attacked_node(cluster_name, "secret", tmp_path) as made:
        yield made
