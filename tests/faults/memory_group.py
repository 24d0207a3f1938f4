"""A control group that limits memory: who takes more is killed by the kernel, and nobody else."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.waiting import eventually

_ROOT = Path("/sys/fs/cgroup")
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


class MemoryGroup:
    """A group of processes that together may use so much memory, and no swap.

    Attributes:
        prefix: What to put before a command to run it in the group.
        limit: In bytes.
    """

    def __init__(self, path: Path, limit: int, counts: str) -> None:
        self.prefix = ("sh", "-c", _ENTER, str(path))
        self.limit = limit
        self._counts = path / counts

    def kills(self) -> int:
        """How many processes of the group the kernel has killed for want of memory."""
        counts = dict(line.split() for line in self._counts.read_text().splitlines())
        return int(counts["oom_kill"])


@contextmanager
def memory_group(name: str, limit: int) -> Iterator[MemoryGroup]:
    """Make a group, and take it away once its processes are gone; skip where it cannot be made."""
    parent, settings, counts = _kind(limit)
    path = parent / name
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"a control group cannot be made in {parent}: {error.strerror}")
    try:
        for file, value in settings.items():
            (path / file).write_text(str(value))
        yield MemoryGroup(path, limit, counts)
    finally:
        eventually(partial(_removed, path), "the group is empty")


def _kind(limit: int) -> tuple[Path, dict[str, int], str]:
    """Where groups are, what to set, and which file counts kills: in version 1 or version 2."""
    if (_ROOT / "memory/memory.limit_in_bytes").exists():
        settings = {"memory.limit_in_bytes": limit, "memory.swappiness": 0}
        return _ROOT / "memory", settings, "memory.oom_control"
    enabled = _ROOT / "cgroup.subtree_control"
    if enabled.exists() and "memory" in enabled.read_text().split():
        return _ROOT, {"memory.max": limit, "memory.swap.max": 0}, "memory.events"
    return pytest.skip(f"no control groups for memory in {_ROOT}, neither version 1 nor version 2")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True
