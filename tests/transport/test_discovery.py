"""Siblings find one another on a host, and nobody else can put himself among them."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adsum.errors import ConfigurationError, DialError
from adsum.transport import discovery
from adsum.transport.address import SUN_PATH_LIMIT
from adsum.transport.discovery import (
    cluster_directory,
    default_cluster,
    forget_stale,
    resolve,
    sibling_socket_path,
    siblings,
)


@pytest.fixture(autouse=True)
def runtime(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_directory))
    return short_directory / "adsum"


def bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    return sock


def test_the_directories_are_for_this_user_alone(runtime: Path) -> None:
    directory = cluster_directory("cluster")

    assert directory.parent == runtime
    assert [path.stat().st_mode & 0o777 for path in (directory, runtime)] == [0o700, 0o700]
    assert cluster_directory("cluster") == directory
    assert cluster_directory("another") != directory


def test_any_cluster_name_leaves_room_for_a_socket(runtime: Path) -> None:
    longest = sibling_socket_path("../../etc/" + "é" * 200)

    assert longest.parent.parent == runtime
    assert len(str(longest)) <= SUN_PATH_LIMIT


@pytest.mark.parametrize("value", ["", "relative", "/nowhere/at/all", __file__])
def test_without_a_runtime_directory_of_its_own_it_is_below_the_temporary_one(
    value: str, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.setattr("tempfile.tempdir", str(short_directory))

    assert cluster_directory("cluster").parent == short_directory / f"adsum-{os.getuid()}"


def test_somebody_elses_runtime_directory_is_not_used(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(short_directory))
    mine = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: mine + 1)

    assert discovery._runtime_directory() == short_directory / f"adsum-{mine + 1}"


def test_a_directory_that_belongs_to_another_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.mkdir(mode=0o700)
    mine = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: mine + 1)

    with pytest.raises(ConfigurationError, match=f"belongs to user {mine}"):
        discovery._secure_directory(runtime)


def test_a_directory_open_to_others_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o750)

    with pytest.raises(
        ConfigurationError, match=r"open to others \(mode 750, not 700\).*remove it"
    ):
        cluster_directory("cluster")


def test_a_link_in_place_of_the_directory_is_refused(runtime: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir(mode=0o700)
    runtime.symlink_to(trap)

    with pytest.raises(ConfigurationError, match="but a link"):
        cluster_directory("cluster")

    assert list(trap.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_refused(runtime: Path) -> None:
    runtime.write_text("")

    with pytest.raises(ConfigurationError, match="is not a directory"):
        cluster_directory("cluster")


def test_siblings_are_the_sockets_of_the_cluster_without_ones_own() -> None:
    paths = sorted(sibling_socket_path("cluster") for _ in range(3))
    sockets = [bind(path) for path in [*paths, sibling_socket_path("another")]]
    (paths[0].parent / "plain.sock").write_text("not a socket")
    own = f"unix:{paths[1]}"

    assert siblings("cluster", own) == [f"unix:{paths[0]}", f"unix:{paths[2]}"]
    for sock in sockets:
        sock.close()


def test_the_socket_of_a_dead_process_is_taken_away() -> None:
    path = sibling_socket_path("cluster")
    bind(path).close()

    forget_stale(f"unix:{path}")

    assert siblings("cluster") == []


def test_the_socket_of_a_living_process_stays() -> None:
    path = sibling_socket_path("cluster")
    with bind(path) as sock:
        sock.listen()
        forget_stale(f"unix:{path}")

        assert siblings("cluster") == [f"unix:{path}"]


def test_nothing_outside_the_runtime_directory_is_ever_taken_away(
    runtime: Path, short_directory: Path
) -> None:
    directory = cluster_directory("cluster")
    outside = short_directory / "outside.sock"
    above = runtime / "above.sock"
    for path in (outside, above):
        bind(path).close()
    plain = directory / "plain.sock"
    plain.write_text("not a socket")
    other = directory / "other"
    bind(other).close()

    for path in (outside, above, plain, other):
        forget_stale(f"unix:{path}")
    forget_stale(f"unix:{directory}/../../outside.sock")
    forget_stale("localhost:7400")
    forget_stale("nonsense")

    assert all(path.exists() for path in (outside, above, plain, other))


def test_temporary_names_are_taken_away_when_they_are_old() -> None:
    directory = cluster_directory("cluster")
    old, new = directory / ".old", directory / ".new"
    for path in (old, new):
        bind(path).close()
    past = time.time() - 120
    os.utime(old, (past, past))

    siblings("cluster")

    assert [path.name for path in directory.iterdir()] == [".new"]


def test_a_name_is_resolved_to_every_address_and_port_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> list[str]:
        async def records(*args: object, **kwargs: object) -> list[object]:
            found = [("10.0.0.1", 1), ("2001:db8::1", 1, 0, 0), ("10.0.0.1", 1)]
            return [(None, None, None, "", target) for target in found]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", records)
        return await resolve("nodes.example.org:7400-7401")

    assert asyncio.run(scenario()) == [
        "10.0.0.1:7400",
        "10.0.0.1:7401",
        "[2001:db8::1]:7400",
        "[2001:db8::1]:7401",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:7400", "[::1]:7400", "unix:/run/a.sock"])
def test_an_address_without_a_name_stands_for_itself(address: str) -> None:
    assert asyncio.run(resolve(address)) == [address]


def test_a_name_that_is_not_known_is_an_error_that_may_pass() -> None:
    with pytest.raises(DialError, match=r"nobody\.invalid:7400"):
        asyncio.run(resolve("nobody.invalid:7400"))


def test_the_default_cluster_is_that_of_the_command_and_the_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["app.py", "--port", "1"])
    here = default_cluster()
    assert default_cluster() == here
    assert re.fullmatch("auto-[0-9a-f]{16}", here)

    monkeypatch.setattr("sys.argv", ["other.py", "--port", "1"])
    assert default_cluster() != here
    monkeypatch.setattr("sys.argv", ["app.py", "--port", "1"])
    monkeypatch.chdir(tmp_path)
    assert default_cluster() != here


def test_programs_given_on_the_command_line_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["-c"])
    monkeypatch.setattr("sys.orig_argv", ["python", "-c", "one()"])
    one = default_cluster()
    monkeypatch.setattr("sys.orig_argv", ["python", "-c", "other()"])

    assert default_cluster() != one


APPLICATION = """
import os
from adsum.transport.discovery import default_cluster

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print(f"CLUSTER {os.getpid()} {default_cluster()} END", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.processes
@pytest.mark.parametrize("how", ["uvicorn", "python -m uvicorn"])
def test_the_workers_of_one_uvicorn_have_the_same_default_cluster(tmp_path: Path, how: str) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "application.py").write_text(APPLICATION)
    script = str(Path(sys.executable).with_name("uvicorn"))
    command = [script] if how == "uvicorn" else [sys.executable, "-m", "uvicorn"]
    one = clusters_of_workers(
        [*command, "application:app", "--workers", "3", "--port", "0"], tmp_path
    )
    another = clusters_of_workers(
        [*command, "application:app", "--workers", "2", "--port", "0"], tmp_path
    )

    assert len(one) == len(another) == 1
    assert one != another


def clusters_of_workers(command: list[str], directory: Path) -> set[str]:
    """What the workers print, once all of them have."""
    workers = int(command[command.index("--workers") + 1])
    server = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert server.stdout is not None
    try:
        seen: dict[str, str] = {}
        for line in server.stdout:
            # What several processes print may come in one line.
            seen.update(re.findall(r"CLUSTER (\d+) (\S+) END", line))
            if len(seen) == workers:
                break
        assert len(seen) == workers
        return set(seen.values())
    finally:
        server.send_signal(signal.SIGINT)
        server.stdout.read()
        server.stdout.close()
        server.wait()
