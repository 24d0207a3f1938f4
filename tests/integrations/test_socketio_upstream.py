"""The tests of python-socketio for its managers, with the managers of adsum in place of its own.

They are part of its source distribution, which pip fetches here, and are not in this repository.
All of them apply: 49 of the asynchronous manager, 51 of the other one.
"""

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.environment import clean_environment
from tests.support.markdown_pages import ROOT

pytestmark = pytest.mark.processes

#: The files with tests of managers over a queue.
FILES = ("tests/async/test_pubsub_manager.py", "tests/common/test_pubsub_manager.py")
#: Seconds for pip, and for the tests.
TIMEOUT = 60


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The unpacked source distribution of the installed version; skips where there is none."""
    package = f"python-socketio=={version('python-socketio')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
    command += ["--no-binary", ":all:", "--timeout", "10", "--dest", str(tmp_path), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if done.returncode:
        pytest.skip(f"the sources of {package} cannot be fetched: {done.stderr.strip()[-300:]}")
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    return tmp_path / archive.name.removesuffix(".tar.gz")


def test_tests_of_python_socketio_pass_with_the_managers_of_adsum(sources: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])
    plugins = ["-p", "socketio_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir=.", *plugins, *FILES],
        cwd=sources,
        env=clean_environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout
    written = sum((sources / file).read_text().count("    def test_") for file in FILES)
    written += sum((sources / file).read_text().count("async def test_") for file in FILES)
    assert re.search(rf"^{written} passed in ", done.stdout, re.MULTILINE), done.stdout
