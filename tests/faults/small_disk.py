"""A small disk of its own for the sockets of nodes, which can be filled."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

#: So little that a test fills it at once.
BYTES, FILES = 64 * 1024, 64


class Disk:
    """A file system in memory.

    Attributes:
        path: Where it is mounted.
        prefix: What to put before a command that shall keep its sockets there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = ("env", f"ADSUM_RUNTIME_DIR={path}")
        self._filling = path / "filling"

    def fill_with_bytes(self) -> None:
        """Leave no space, but room for files without content."""
        self._filling.mkdir()
        with suppress(OSError), (self._filling / "large").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert os.statvfs(self.path).f_bfree == 0

    def fill_with_files(self) -> None:
        """Leave room for no file more."""
        self._filling.mkdir()
        with suppress(OSError):
            for number in range(2 * FILES):
                (self._filling / str(number)).touch()
        assert os.statvfs(self.path).f_ffree == 0

    def clear(self) -> None:
        """Take away what it was filled with."""
        shutil.rmtree(self._filling)


@contextmanager
def small_disk(name: str) -> Iterator[Disk]:
    """Mount a disk, and take it away; skip the test where nothing can be mounted."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root and `mount`")
    path = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    options = f"size={BYTES},nr_inodes={FILES},mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, name, str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
        try:
            yield Disk(path)
        finally:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
    finally:
        path.rmdir()
