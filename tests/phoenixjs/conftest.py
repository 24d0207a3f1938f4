"""What every test with phoenix.js needs: phoenix.js, and a place for the sockets of nodes."""

import tempfile
from collections.abc import Iterator

import pytest

from tests.support.phoenixjs_library import phoenix_directory


@pytest.fixture(autouse=True)
def _phoenix(request: pytest.FixtureRequest) -> None:
    """Skip at once where phoenix.js is needed and cannot be had."""
    if request.node.get_closest_marker("processes"):
        phoenix_directory()


@pytest.fixture(scope="package", autouse=True)
def _runtime_directory() -> Iterator[None]:
    """A directory of their own for the sockets of nodes that are killed."""
    with tempfile.TemporaryDirectory(prefix="ph-") as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADSUM_RUNTIME_DIR", path)
        yield
