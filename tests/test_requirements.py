"""The requirements name every package that the tests and the examples import."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = [
    line
    for name in ("requirements-dev.txt", "requirements-interpreters.txt")
    for line in (ROOT / name).read_text().splitlines()
]
#: Modules that a file imports from beside it.
FOLDERS = ("benchmarks", "examples", "tests")
LOCAL = {path.stem for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")} | {*FOLDERS}


def imported(path: Path) -> Iterator[str]:
    """The top-level modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (name.partition(".")[0] for name in names)


def normal(name: str) -> str:
    """The name of a package as PyPI compares it, without versions, extras and markers."""
    return re.split(r"[^\w.-]", name, maxsplit=1)[0].lower().replace("_", "-")


def test_requirements_are_enough_to_run_the_tests() -> None:
    named = {normal(line) for line in LINES if not line.startswith(("#", "-"))} | {"adsum"}
    if "-e .[demo]" in LINES:
        named |= {normal(line) for line in requires("adsum") or () if "demo" in line}
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("examples/**/*.py")]
    modules = {module for path in files for module in imported(path)}
    modules -= sys.stdlib_module_names | LOCAL
    packages = packages_distributions()
    missing = {m for m in modules if not named & {normal(name) for name in packages.get(m, [])}}
    assert missing == set()


def test_requirements_are_pinned() -> None:
    assert "-c constraints.txt" in LINES
