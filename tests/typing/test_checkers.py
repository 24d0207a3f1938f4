"""Type checkers accept the uses of the public API, and refuse the misuses.

pyright is run as basedpyright, whose wheel contains all of it; pyright's own downloads it.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFUSED = HERE / "refused.py"
#: Classes whose base classes, of another library, have no types.
UNTYPED_BASES = "adsum.integrations.socketio."


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module of this environment, in which checkers find its packages."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
def test_mypy_finds_exactly_the_stated_errors(tmp_path: Path) -> None:
    checked = run("mypy", "--cache-dir", str(tmp_path), str(HERE))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_pyright_finds_exactly_the_stated_errors() -> None:
    checked = run("basedpyright", "--pythonpath", sys.executable)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_public_names_have_known_types() -> None:
    checked = run("basedpyright", "--verifytypes", "adsum", "--ignoreexternal", "--outputjson")
    report = json.loads(checked.stdout)["typeCompleteness"]
    assert report["pyTypedPath"].endswith("py.typed")
    unknown = [
        symbol["name"]
        for symbol in report["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
        if not symbol["name"].startswith(UNTYPED_BASES)
    ]
    assert unknown == []


def test_each_misuse_is_refused_by_both() -> None:
    lines = REFUSED.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            line = lines[node.lineno - 1]
            assert "# type: ignore[" in line, line
            assert "# pyright: ignore[" in line, line
