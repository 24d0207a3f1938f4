"""The command line, up to where the demo begins."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from adsum.cli import main


def test_cli_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"adsum {version('adsum')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["demo", "--nodes", "1"],
        ["demo", "--port", "x"],
        ["demo", "--carrier", "pigeon"],
    ],
)
def test_cli_refuses_unknown_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [([], "demo"), (["--carrier", "nats"], "demo,nats"), (["--carrier", "redis"], "demo,redis")],
)
def test_cli_names_the_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    extras: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo", *arguments]) == 1
    assert capsys.readouterr().err.endswith(f"pip install '.[{extras}]'\n")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("carrier", "package"), [("nats", "nats-server"), ("redis", "redis-server")]
)
def test_cli_names_the_package_of_a_missing_engine(
    tmp_path: Path, carrier: str, package: str
) -> None:
    # A program in /usr/sbin would be found without the path.
    if Path("/usr/sbin", package).exists():
        pytest.skip(f"{package} is in /usr/sbin")
    done = subprocess.run(
        [sys.executable, "-m", "adsum.cli", "demo", "--carrier", carrier],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"{package} is not installed; on Debian: apt install {package}\n")
    assert "Traceback" not in done.stderr


@pytest.mark.processes
def test_cli_gives_advice_if_phoenixjs_cannot_be_fetched(tmp_path: Path) -> None:
    nothing = {"XDG_CACHE_HOME": str(tmp_path), "npm_config_cache": str(tmp_path / "npm")}
    done = subprocess.run(
        [sys.executable, "-m", "adsum.cli", "demo"],
        env={**os.environ, **nothing, "npm_config_registry": "http://127.0.0.1:1/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("adsum demo: npm could not fetch phoenix@")
    assert "Traceback" not in done.stderr
