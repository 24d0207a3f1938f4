"""An earlier version of adsum, measured in the same run as this one."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import MACHINE, Figure

#: Benchmarks that a process of its own repeats with the earlier version. Those of the chat start
#: servers of both versions by turns instead.
COMPARED = ("changes", "reads", "deltas")
_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def source_of(version: str) -> Iterator[Path]:
    """The folder of the package of an earlier version, for the length of a block.

    Args:
        version: A folder with a copy of the project, or a revision of this one.

    Raises:
        ValueError: It is neither.
    """
    if (Path(version) / "src/adsum").is_dir():
        yield (Path(version) / "src").resolve()
        return
    command = ["git", "archive", f"{version}^{{commit}}", "src"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(
            f"{version}: must be a folder with a copy of adsum, or a revision of it"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / "src"


def measure(name: str, source: Path, *, quick: bool) -> list[Figure]:
    """Run one benchmark with another version; its figures end in `: before`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks", name, "--output", folder]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(_ROOT)])}
        done = subprocess.run(
            [*command, *["--quick"] * quick],
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            print(f"  {name} with the earlier version: failed")
            return []
        return before(json.loads((Path(folder) / "results.json").read_text())["figures"])


def before(rows: list[dict[str, Any]]) -> list[Figure]:
    """The figures of a results.json, but for those of the machine, under names of their own."""
    figures = [Figure.from_json(row) for row in rows]
    return [
        replace(figure, name=f"{figure.name}: before", original="", target="")
        for figure in figures
        if figure.group != MACHINE
    ]
