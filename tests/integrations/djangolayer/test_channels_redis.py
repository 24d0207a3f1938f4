"""The layer passes the tests that channels_redis has of its own layers.

They are in the source distribution of channels_redis, which pip downloads once into the cache of
pytest. All of them take half a minute, because many wait for a second or for an expiry; by default
those that wait are left out. `TEST_CHANNELS_REDIS=all` runs all.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.environment import clean_environment
from tests.support.markdown_pages import ROOT

pytestmark = pytest.mark.processes

VERSION = "4.3.0"
FILES = ("test_core.py", "test_pubsub.py")
#: Packages that these tests import beside those of the tests of adsum.
PLUGINS = ("pytest-asyncio==1.5.0", "async-timeout==5.0.1")
#: Words in the names of tests that wait for seconds.
WAITING = ("expiry", "hang", "basic", "capacity", "multiple_hosts")
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
#: Seconds for one download.
PATIENCE = 60.0


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    try:
        ended = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip did not finish within {PATIENCE:g} s: pip {' '.join(arguments)}")
    if ended.returncode:
        pytest.skip(f"pip has no network, or not these packages: {ended.stderr.strip()[-300:]}")


@pytest.fixture
def suite(pytestconfig: pytest.Config) -> Path:
    """A folder with the tests of channels_redis, and the packages that they import."""
    folder = pytestconfig.cache.mkdir(f"channels_redis-{VERSION}")
    if not (folder / "plugins").exists():
        pip("install", "--no-deps", "--target", str(folder / "installing"), *PLUGINS)
        (folder / "installing").rename(folder / "plugins")
    archive = folder / f"channels_redis-{VERSION}.tar.gz"
    if not archive.exists():
        options = ("--no-binary", ":all:", "--no-deps", "--dest", str(folder))
        pip("download", *options, f"channels_redis=={VERSION}")
    with tarfile.open(archive) as packed:
        for name in FILES:
            packed.extract(f"channels_redis-{VERSION}/tests/{name}", folder, filter="data")
    (folder / "pytest.ini").write_text(INI)
    return folder


def test_layer_passes_the_tests_of_channels_redis(suite: Path) -> None:
    environment = clean_environment()
    paths = [str(suite / "plugins"), str(ROOT / "src"), str(ROOT)]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    left_out = () if environment.get("TEST_CHANNELS_REDIS") == "all" else WAITING
    options = [
        *("-p", "tests.integrations.djangolayer.redis_shim", "-p", "no:cacheprovider"),
        *("-c", str(suite / "pytest.ini"), "--rootdir", str(suite), "-q"),
        *("-k", " and ".join(["test", *[f"not {word}" for word in left_out]])),
    ]
    files = [str(suite / f"channels_redis-{VERSION}/tests" / name) for name in FILES]
    command = [sys.executable, "-m", "pytest", *options, *files]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "skipped" not in ended.stdout
