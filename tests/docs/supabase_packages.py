"""The packages of Supabase, unmodified, installed once into the cache of the user.

`COMPAT=1` installs the newest versions instead of the pinned ones, into a temporary folder.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from adsum.cli import phoenixjs
from tests.support.compatibility import is_whole

#: The newest version that was tested, and one that speaks version 1 of the protocol.
NEW, OLD = "2.119.1", "2.11.2"
#: Versions between these, which `COMPAT=1` tests too. 2.100 to 2.110 are not among them: when a
#: presence is tracked again, they keep its old meta, since they have deleted its ref.
VERSIONS = ("2.10.7", "2.15.5", "2.95.0", "2.112.0")
PYPI = ("realtime==2.34.1", "websockets==15.0.1")
COMPAT = is_whole()
#: Seconds after which an installation has failed.
_PATIENCE = 60


@cache
def realtime_js(version: str) -> Path:
    """The main file of a version of realtime-js."""
    package = f"@supabase/realtime-js@{version}"
    node = phoenixjs.node_path()
    npm = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error"]
    place = _installed(package, [str(node), str(npm), "install", package, *flags, "--prefix"])
    return place / "node_modules/@supabase/realtime-js/dist/main/index.js"


@cache
def pypi_realtime() -> Path:
    """The folder of the package `realtime` of PyPI, for the path of Python.

    Its versions of httpx and pydantic are those of the tests; of websockets it needs another one.
    """
    versions = ("realtime", "websockets<16") if COMPAT else PYPI
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", *versions, "--target"]
    return _installed("-".join(versions), pip)


def _installed(name: str, command: list[str]) -> Path:
    """The folder of an installation; the command gets a temporary folder as its last argument."""
    place = _cache() / name.replace("/", "-")
    if not place.is_dir():
        with tempfile.TemporaryDirectory(dir=place.parent) as aside:
            made = Path(aside, "made")
            made.mkdir()
            run = [*command, str(made)]
            ended = subprocess.run(run, capture_output=True, text=True, timeout=_PATIENCE)
            if ended.returncode:
                pytest.skip(f"{name} cannot be installed: {ended.stderr.strip()[-300:]}")
            made.rename(place)
    return place


@cache
def _cache() -> Path:
    if COMPAT:
        folder = tempfile.mkdtemp(prefix="adsum-")
        atexit.register(shutil.rmtree, folder)
        return Path(folder)
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    found = (given if given.is_absolute() else Path.home() / ".cache") / "adsum"
    found.mkdir(parents=True, exist_ok=True)
    return found
