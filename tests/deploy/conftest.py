"""A directory for the program and the sockets of its nodes, and a cluster of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import write_program


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a short path and `app.py` in it; nodes of this process use it, too."""
    for name in [name for name in os.environ if name.startswith("ADSUM_")]:
        monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="adsum") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        write_program(Path(path))
        yield Path(path)
