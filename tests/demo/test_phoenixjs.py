"""phoenix.js is installed once, whole, and with advice where it cannot be."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from adsum.cli import phoenixjs
from adsum.cli.phoenixjs import InstallError, install, node_path

FILES = {"phoenix.mjs", "phoenix.cjs.js", "phoenix.min.js"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing listens there, and npm has nothing in store."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))


@pytest.mark.processes
def test_what_is_installed_is_the_version_that_is_asked_for() -> None:
    static = install()
    assert {file.name for file in static.iterdir()} >= FILES
    assert '"version": "1.8.16"' in (static.parents[1] / "package.json").read_text()
    version = subprocess.run([node_path(), "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("v")


@pytest.mark.processes
def test_several_processes_may_install_at_once_and_the_next_one_needs_no_npm(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "from adsum.cli.phoenixjs import install; print(install())"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = {process.communicate()[0].strip() for process in running}
    monkeypatch.setattr(phoenixjs, "_npm", None)  # calling it would fail
    assert places == {str(install())}
    assert [place.name for place in (cache / "adsum").iterdir()] == ["phoenix-1.8.16"]


@pytest.mark.processes
@pytest.mark.usefixtures("no_registry")
def test_without_a_registry_it_says_so_and_leaves_nothing_behind(cache: Path) -> None:
    with pytest.raises(InstallError, match=r"could not fetch phoenix@1\.8\.16(.|\n)*ECONNREFUSED"):
        install()
    assert not [*(cache / "adsum").iterdir()]


@pytest.mark.usefixtures("cache")
def test_without_node_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallError, match=r"pip install '\.\[demo\]'"):
        install()


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    (cache / "adsum").write_text("in the way")
    with pytest.raises(InstallError, match="cannot be put into"):
        install()


def test_a_relative_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / ".cache" / "adsum" / "phoenix-1.8.16"
    place.mkdir(parents=True)
    assert install() == place / "node_modules" / "phoenix" / "priv" / "static"
