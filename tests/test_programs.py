"""`make programs` installs the programs that tests start, or names them in one line."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make")
PACKAGES = "caddy chromium haproxy iproute2 nats-server nginx openssl redis-server"

pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")


def stub(folder: Path, name: str, script: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def programs(folder: Path) -> str:
    """What `make programs` prints where these are all the programs that there are."""
    done = subprocess.run(
        [str(MAKE), "-s", "--no-print-directory", "programs", f"SYSTEM={folder}"],
        cwd=ROOT,
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_user_without_rights_is_given_one_line_that_names_the_missing_packages(
    tmp_path: Path,
) -> None:
    stub(tmp_path, "id", "echo 1000")
    stub(tmp_path, "apt-get")
    line = "Tests will be skipped; for all of them run: sudo apt-get install"
    assert programs(tmp_path) == f"{line} {PACKAGES}\n"
    stub(tmp_path, "ip")
    assert (
        programs(tmp_path)
        == f"{line} caddy chromium haproxy nats-server nginx openssl redis-server\n"
    )


def test_root_of_a_debian_has_the_missing_packages_installed(tmp_path: Path) -> None:
    stub(tmp_path, "id", "echo 0")
    stub(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/asked')
    assert programs(tmp_path) == ""
    update, install = (tmp_path / "asked").read_text().splitlines()
    assert update.split()[0] == "update"
    assert install == f"install -qq -y --no-install-recommends {PACKAGES}"


def test_root_of_another_system_is_given_the_line(tmp_path: Path) -> None:
    stub(tmp_path, "id", "echo 0")
    assert programs(tmp_path).count("\n") == 1


def test_complete_programs_install_and_print_nothing(tmp_path: Path) -> None:
    for name in (
        "id",
        "caddy",
        "chromium",
        "haproxy",
        "ip",
        "nats-server",
        "nginx",
        "openssl",
        "redis-server",
    ):
        stub(tmp_path, name)
    assert programs(tmp_path) == ""
