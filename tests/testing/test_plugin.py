"""The pytest plugin costs runs that do not use it nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import sys

imported = [name for name in sys.modules if name.partition(".")[0] == "adsum"]


def test_nothing_of_adsum_is_imported_for_tests_that_do_not_use_it():
    assert imported == []


def test_fixture_makes_clusters(cluster):
    workers = cluster(2)
    workers[0].presence.track("room:1", "ann", owner=None)
    workers.settle()
    workers.assert_online("room:1", "ann")
"""


def test_importing_the_plugin_imports_nothing_else() -> None:
    script = """
import sys
import pytest

before = set(sys.modules)
import _adsum_pytestplugin
assert set(sys.modules) - before == {"_adsum_pytestplugin"}
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


@pytest.mark.processes
def test_pytest_loads_the_plugin_and_not_adsum(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in ended.stdout, ended.stdout
