"""The environment of the programs of the documentation."""

from collections.abc import Iterator

import pytest

from .fresh_environment import fresh_environment


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A fresh environment for one test."""
    with fresh_environment() as environment:
        yield environment
