"""The search for other versions of CPython, and eager tasks."""

import asyncio
import sys
from pathlib import Path

import pytest

from . import interpreters
from .eager import start_tasks_eagerly

HERE = f"3.{sys.version_info.minor}"


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no Python: an empty PATH, and an empty folder of pyenv."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def test_absent_versions_are_left_out_with_one_line_each(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interpreters.environments() == {}
    assert capsys.readouterr().out.splitlines() == [
        "CPython 3.12 is absent: its tests are left out",
        "CPython 3.13 is absent: its tests are left out",
    ]


def test_shim_that_refuses_to_run_is_passed_over_for_the_version_of_pyenv(home: Path) -> None:
    executable(home / "bin" / f"python{HERE}", "echo 'pyenv: command not found' >&2; exit 127")
    assert interpreters.find(HERE) is None
    python = home / f"pyenv/versions/{HERE}.1/bin/python{HERE}"
    executable(python, f'exec {sys.executable} "$@"')
    assert interpreters.find(HERE) == python


def test_another_version_under_the_name_is_not_accepted(home: Path) -> None:
    executable(home / "bin" / "python3.99", f'exec {sys.executable} "$@"')
    assert interpreters.find("3.99") is None


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python has eager tasks")
def test_eager_tasks_are_refused_before_3_12() -> None:
    with pytest.raises(pytest.UsageError, match=r"no eager tasks; 3\.12 is the first"):
        start_tasks_eagerly()


def test_tasks_start_eagerly_where_the_option_is_given(pytestconfig: pytest.Config) -> None:
    started = []

    async def start() -> None:
        started.append(1)

    async def main() -> list[int]:
        task = asyncio.create_task(start())
        at_once = list(started)
        await task
        return at_once

    assert asyncio.run(main()) == ([1] if pytestconfig.getoption("--eager-tasks") else [])
