"""The sdist has everything that tests and documentation need, and the wheel is built from it."""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
#: Everything at the top of the sdist.
IN_SDIST = {
    *("src", "tests", "docs", "examples", "benchmarks"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"),
    *(
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
        "requirements-dev.txt",
        "requirements-interpreters.txt",
    ),
    *(".gitignore", ".pre-commit-config.yaml", "PKG-INFO"),
}

pytestmark = pytest.mark.processes


@dataclass
class Distributions:
    """Both distributions, unpacked."""

    sdist: Path
    wheel: Path


def build(project: Path, target: str, into: Path) -> Path:
    """Build a distribution as pip does, without the environment that pip makes for it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    done = subprocess.run(
        command, cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = into.iterdir()
    return built


def files(folder: Path) -> set[str]:
    """The paths of all files in a folder, relative to it; without caches of bytecode."""
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def packed(folder: Path) -> set[PurePosixPath]:
    """The paths of all files of an unpacked distribution."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {PurePosixPath(path.relative_to(folder)) for path in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    with tarfile.open(build(ROOT, "sdist", folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data")
    (sdist,) = (folder / "source").iterdir()
    with zipfile.ZipFile(build(sdist, "wheel", folder / "wheel")) as wheel:
        wheel.extractall(folder / "installed")
    return Distributions(sdist, folder / "installed")


def test_sdist_has_what_tests_and_pages_need(built: Distributions) -> None:
    assert {path.name for path in built.sdist.iterdir()} == IN_SDIST
    for folder in ("src/adsum", "tests", "docs", "examples", "benchmarks"):
        sources = {path for path in files(ROOT / folder) if path.endswith((".py", ".md", ".mjs"))}
        assert sources <= files(built.sdist / folder)


def test_sdist_has_no_caches_and_no_local_files(built: Distributions) -> None:
    for path in packed(built.sdist):
        assert path.suffix not in (".pyc", ".so", ".log", ".db"), path
        hidden = {part for part in path.parts if part.startswith((".", "__pycache__"))}
        assert hidden <= {".gitignore", ".pre-commit-config.yaml"}, path
        assert not {"dist", "build", "node_modules"} & set(path.parts), path


def test_wheel_has_the_package_the_plugin_and_nothing_else(built: Distributions) -> None:
    (information,) = built.wheel.glob("*.dist-info")
    tops = {path.name for path in built.wheel.iterdir()}
    assert tops == {"adsum", "_adsum_pytestplugin.py", information.name}
    assert (built.wheel / "adsum/py.typed").is_file()
    demo = {f"cli/demo/{path}" for path in files(ROOT / "examples/demo")}
    assert {str(path) for path in packed(built.wheel / "adsum")} == (
        files(ROOT / "src/adsum") | demo
    )


def test_wheel_names_its_programs_and_no_requirements_of_the_core(built: Distributions) -> None:
    (information,) = built.wheel.glob("*.dist-info")
    points = (information / "entry_points.txt").read_text()
    assert "[console_scripts]\nadsum = adsum.cli:main" in points
    assert "[pytest11]\nadsum = _adsum_pytestplugin" in points
    metadata = message_from_string((information / "METADATA").read_text())
    required = metadata.get_all("Requires-Dist", [])
    assert required
    assert all("extra ==" in each for each in required)
    assert (information / "licenses/LICENSE").is_file()


def test_demo_of_the_wheel_is_found(built: Distributions) -> None:
    script = f"""
import sys

sys.path.insert(0, {str(built.wheel)!r})
from adsum import cli

print(cli._demo_directory())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=built.wheel, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == built.wheel / "adsum/cli/demo"
