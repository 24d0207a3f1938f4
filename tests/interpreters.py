"""Run fast tests on the other versions of CPython that are supported: `make interpreters`.

Each version that is on the PATH or among those of pyenv gets an environment of its own,
`.venv-3.12` for example, with the requirements of these tests. There the tests of the core, of
nodes, services, channels and the layer for Django Channels run twice: with usual tasks and with
eager tasks. One of them has the oldest libraries that `adsum.channels.uvicorn` supports. A version
that is absent costs one line.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: The minor versions besides the one that runs all tests.
VERSIONS = ("3.12", "3.13")
#: The version with the oldest supported libraries, and these.
OLDEST = ("3.12", "uvicorn==0.53.0", "websockets==16.0")
REQUIREMENTS = (
    "pyproject.toml",
    "requirements-interpreters.txt",
    "constraints.txt",
    "tests/interpreters.py",
)
#: The loops of applications run in these; the core has no tasks.
WITH_TASKS = (
    "tests/node",
    "tests/services",
    "tests/channels",
    "tests/testing",
    "tests/integrations/djangolayer",
)
#: The core without its property tests and trials, which take most of the time.
CORE = ("tests/replication", "--ignore-glob=*/test_laws_*", "--ignore-glob=*/test_trials.py")
#: It checks that each run has the tasks that it should.
OWN = "tests/test_interpreters.py"
#: All cores take part; some tests wait, so there are three workers for two cores.
WORKERS = (os.cpu_count() or 2) * 3 // 2
PARALLEL = (f"--numprocesses={WORKERS}", "--dist=worksteal")
#: The arguments of each run of pytest.
RUNS = ((*CORE, *WITH_TASKS, OWN), ("--eager-tasks", *WITH_TASKS, OWN))
PYTEST = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-m",
    "not processes and not slow",
    *PARALLEL,
)
#: Modules are compiled as they are imported: most of those that are installed never are.
INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
#: The share of examples. These runs look for differences between versions; the run of all tests
#: searches for the rest.
EFFORT = "0.3"


def candidates(version: str) -> Iterator[Path]:
    """The places in which a version may be installed."""
    if (found := shutil.which(f"python{version}")) is not None:
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def works(python: Path, version: str) -> bool:
    """Whether an executable is that version, and can make environments.

    A shim of pyenv is on the PATH for versions that it refuses to run, and Debian's Python has no
    pip.
    """
    script = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def find(version: str) -> Path | None:
    """The executable of a version, or None where there is none that works."""
    return next((python for python in candidates(version) if works(python, version)), None)


def environment(version: str, python: Path) -> Path:
    """The executable of an environment with the requirements; made or brought up to date."""
    folder = ROOT / f".venv-{version}"
    own, installed = folder / "bin" / "python", folder / ".installed"
    newest = max((ROOT / name).stat().st_mtime for name in REQUIREMENTS)
    if not installed.exists() or installed.stat().st_mtime < newest:
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [own, *INSTALL, "-r", "requirements-interpreters.txt", "-e", "."], cwd=ROOT, check=True
        )
        if version == OLDEST[0]:
            subprocess.run([own, *INSTALL, *OLDEST[1:]], check=True)
        installed.touch()
    return own


def environments() -> dict[str, Path]:
    """The environments of the versions that are here, made side by side; a line for each other."""
    found = {version: find(version) for version in VERSIONS}
    for version in VERSIONS:
        if found[version] is None:
            print(f"CPython {version} is absent: its tests are left out", flush=True)
    with ThreadPoolExecutor() as threads:
        made = {
            version: threads.submit(environment, version, python)
            for version, python in found.items()
            if python is not None
        }
    return {version: future.result() for version, future in made.items()}


def passes(version: str, python: Path) -> bool:
    """Run the tests on a version, in its environment."""
    print(f"CPython {version}, with usual tasks and with eager ones:", flush=True)
    environ = {"TEST_EFFORT": EFFORT, **os.environ}
    runs = [subprocess.run([python, *PYTEST, *run], cwd=ROOT, env=environ) for run in RUNS]
    return not any(run.returncode for run in runs)


if __name__ == "__main__":
    failed = [version for version, python in environments().items() if not passes(version, python)]
    sys.exit(f"failed on CPython {', '.join(failed)}" if failed else 0)
