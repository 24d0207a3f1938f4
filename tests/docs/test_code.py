"""All Python in the documentation runs, and all examples in docstrings."""

import doctest
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import adsum
from tests.support.markdown_pages import PAGES, ROOT, blocks, relative

WITH_PYTHON = [page for page in PAGES if any(b.info.startswith("python") for b in blocks(page))]
MODULES = [
    info.name
    for info in pkgutil.walk_packages(adsum.__path__, "adsum.")
    if not info.name.endswith("__main__")
]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=relative)
def test_python_of_a_page_runs(page: Path, environment: dict[str, str]) -> None:
    if "import FastAPI" in page.read_text() and importlib.util.find_spec("fastapi") is None:
        pytest.skip("needs fastapi")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_page", str(page)],
        cwd=ROOT,
        env=environment,
        timeout=30,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("name", ["adsum", *MODULES])
def test_examples_in_docstrings_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("adsum"):
            raise
        pytest.skip(f"needs {error.name}")
    assert doctest.testmod(module, raise_on_error=False).failed == 0
