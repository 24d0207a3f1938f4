"""Siblings find one another on a host, and nobody else can put himself among them."""

import asyncio
import logging
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
from adsum.transport.discovery import SiblingDirectory, default_cluster, resolve

#: The places of these tests, most preferred first; each has a parent directory of its own.
PLACES = ("run/adsum", "tmp/adsum-{uid}", "var/adsum-{uid}")


@pytest.fixture(autouse=True)
def places(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three places for a runtime directory, whose parents exist."""
    monkeypatch.setattr(discovery, "PLACES", [str(short_path / place) for place in PLACES])
    found = [short_path / place.format(uid=os.getuid()) for place in PLACES]
    for place in found:
        place.parent.mkdir()
    return found


def bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    return sock


def occupy(place: Path) -> None:
    """Make a place unsafe."""
    place.mkdir()
    place.chmod(0o750)


def test_directories_are_for_this_user_alone(places: list[Path]) -> None:
    directory = SiblingDirectory("cluster").new_path().parent

    assert directory.parent == places[0]
    assert [path.stat().st_mode & 0o777 for path in (directory, places[0])] == [0o700, 0o700]
    assert SiblingDirectory("cluster").new_path().parent == directory
    assert SiblingDirectory("another").new_path().parent != directory


def test_any_cluster_name_leaves_room_for_a_socket(places: list[Path]) -> None:
    longest = SiblingDirectory("../../etc/" + "é" * 200).new_path()

    assert longest.parent.parent == places[0]
    assert len(str(longest)) <= SUN_PATH_LIMIT


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "TMPDIR", "HOME"])
def test_places_follow_from_the_user_and_not_from_the_environment(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    before = discovery._places(None)

    monkeypatch.setenv(variable, str(tmp_path))

    assert discovery._places(None) == before
    assert all(str(os.getuid()) in str(place) for place in before)


def test_user_id_is_part_of_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    here = discovery._places(None)
    monkeypatch.setattr("os.getuid", lambda: 4711)

    assert not set(here) & set(discovery._places(None))


def test_absent_place_is_skipped_silently(
    places: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    places[0].parent.rmdir()

    assert SiblingDirectory("cluster").new_path().parent.parent == places[1]
    assert not caplog.records


def test_unsafe_place_is_skipped_and_logged_once(
    places: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    occupy(places[0])
    directory = SiblingDirectory("cluster")

    used = {directory.new_path().parent.parent for _ in range(3)}

    assert used == {places[1]}
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"'{places[0]}' is open to others" in record.getMessage()
    assert str(places[1]) in record.getMessage()


def test_place_that_another_user_occupies_is_skipped(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may make a directory below /tmp."""
    places[0].mkdir(mode=0o700)
    lstat = Path.lstat

    def foreign(path: Path) -> os.stat_result:
        status = lstat(path)
        mine = path != places[0]
        return status if mine else os.stat_result([*status[:4], os.getuid() + 1, *status[5:10]])

    monkeypatch.setattr(Path, "lstat", foreign)
    directory = SiblingDirectory("cluster")

    assert directory.new_path().parent.parent == places[1]
    assert list(places[0].iterdir()) == []


def test_no_safe_place_is_an_error_that_names_each(places: list[Path]) -> None:
    occupy(places[0])
    places[1].write_text("")
    places[2].parent.rmdir()

    with pytest.raises(ConfigurationError) as caught:
        SiblingDirectory("cluster").new_path()

    for text in (
        f"'{places[0]}' is open to others (mode 750, not 700)",
        f"'{places[1]}' is not a directory",
        f"'{places[2]}' cannot be made: No such file or directory",
        "remove it, or set runtime_dir= (ADSUM_RUNTIME_DIR)",
    ):
        assert text in str(caught.value)


def test_given_runtime_directory_replaces_all_places(tmp_path: Path, places: list[Path]) -> None:
    directory = SiblingDirectory("cluster", str(tmp_path))

    path = directory.new_path()

    assert path.parent.parent == tmp_path / "adsum"
    with bind(SiblingDirectory("cluster").new_path()):
        assert directory.find() == []
    path.parent.rmdir()
    path.parent.parent.chmod(0o750)
    with pytest.raises(ConfigurationError, match="open to others"):
        directory.new_path()


def test_link_in_place_of_the_directory_is_not_followed(places: list[Path], tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir(mode=0o700)
    for place in places:
        place.symlink_to(trap)

    with pytest.raises(ConfigurationError, match="but a link"):
        SiblingDirectory("cluster").new_path()

    assert list(trap.iterdir()) == []


def test_siblings_are_the_sockets_of_the_cluster_without_ones_own() -> None:
    directory = SiblingDirectory("cluster")
    paths = sorted(directory.new_path() for _ in range(3))
    sockets = [bind(path) for path in [*paths, SiblingDirectory("another").new_path()]]
    (paths[0].parent / "plain.sock").write_text("not a socket")

    assert directory.find(f"unix:{paths[1]}") == [f"unix:{paths[0]}", f"unix:{paths[2]}"]
    for sock in sockets:
        sock.close()


def test_siblings_are_found_in_every_safe_place(places: list[Path]) -> None:
    directory = SiblingDirectory("cluster")
    sockets, found = [], []
    for place in places:
        path = directory.new_path()
        assert path.parent.parent == place
        sockets.append(bind(path))
        found.append(f"unix:{path}")
        place.chmod(0o755)  # so that the next one is used
    assert directory.find() == []

    for place in places:
        place.chmod(0o700)

    assert directory.find() == found
    for sock in sockets:
        sock.close()


def test_search_creates_nothing(places: list[Path]) -> None:
    assert SiblingDirectory("cluster").find() == []
    assert not any(place.exists() for place in places)


def test_socket_of_a_dead_process_is_removed_from_every_place(places: list[Path]) -> None:
    directory = SiblingDirectory("cluster")
    paths = []
    for place in places:
        paths.append(directory.new_path())
        bind(paths[-1]).close()
        place.chmod(0o755)
    for place in places:
        place.chmod(0o700)

    for path in paths:
        directory.forget_stale(f"unix:{path}")

    assert directory.find() == []
    directory.leave()
    assert [list(place.iterdir()) for place in places] == [[], [], []]


def test_socket_of_a_living_process_stays() -> None:
    directory = SiblingDirectory("cluster")
    path = directory.new_path()
    with bind(path) as sock:
        sock.listen()
        directory.forget_stale(f"unix:{path}")

        assert directory.find() == [f"unix:{path}"]
        directory.leave()
        assert path.exists()


def test_nothing_outside_the_directory_of_the_cluster_is_ever_removed(
    places: list[Path], short_path: Path
) -> None:
    siblings = SiblingDirectory("cluster")
    directory = siblings.new_path().parent
    outside = short_path / "outside.sock"
    above = places[0] / "above.sock"
    foreign = SiblingDirectory("another").new_path()
    for path in (outside, above, foreign):
        bind(path).close()
    plain = directory / "plain.sock"
    plain.write_text("not a socket")
    other = directory / "other"
    bind(other).close()

    for path in (outside, above, foreign, plain, other):
        siblings.forget_stale(f"unix:{path}")
    siblings.forget_stale(f"unix:{directory}/../../../outside.sock")
    siblings.forget_stale("localhost:7400")
    siblings.forget_stale("nonsense")

    assert all(path.exists() for path in (outside, above, foreign, plain, other))


def test_nothing_in_an_unsafe_place_is_removed(places: list[Path]) -> None:
    directory = SiblingDirectory("cluster")
    path = directory.new_path()
    bind(path).close()
    places[0].chmod(0o755)

    directory.forget_stale(f"unix:{path}")
    assert path.exists()
    path.unlink()
    directory.leave()

    assert path.parent.exists()


def test_temporary_names_are_removed_when_they_are_old() -> None:
    siblings = SiblingDirectory("cluster")
    directory = siblings.new_path().parent
    old, new = directory / ".old", directory / ".new"
    for path in (old, new):
        bind(path).close()
    past = time.time() - 120
    os.utime(old, (past, past))

    siblings.find()

    assert [path.name for path in directory.iterdir()] == [".new"]


def test_sweep_removes_old_clusters_of_dead_processes_and_nothing_else(places: list[Path]) -> None:
    dead, alive, young, foreign = (
        SiblingDirectory(name).new_path() for name in ("dead", "alive", "young", "foreign")
    )
    listener = bind(alive)
    listener.listen()
    for path in (dead, young, foreign):
        bind(path).close()
    foreign.with_name("notes.txt").touch()
    long_ago = time.time() - 2 * discovery._SWEEP_AGE
    for path in (dead, alive, foreign):
        os.utime(path.parent, (long_ago, long_ago))

    SiblingDirectory("mine").sweep()

    left = {path.name for path in places[0].iterdir()}
    assert left == {path.parent.name for path in (alive, young, foreign)}
    assert alive.is_socket()
    assert young.is_socket()
    assert foreign.with_name("notes.txt").exists()
    listener.close()


def test_sweep_of_places_that_are_absent_or_unsafe_does_nothing(places: list[Path]) -> None:
    occupy(places[1])
    (places[1] / "0123456789abcdef").mkdir(mode=0o700)
    os.utime(places[1] / "0123456789abcdef", (0, 0))

    SiblingDirectory("mine").sweep()

    assert (places[1] / "0123456789abcdef").is_dir()


def test_name_is_resolved_to_every_address_and_port_of_it(
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
def test_address_without_a_name_stands_for_itself(address: str) -> None:
    assert asyncio.run(resolve(address)) == [address]


def test_name_that_is_not_known_is_an_error_that_may_pass() -> None:
    with pytest.raises(DialError, match=r"nobody\.invalid:7400"):
        asyncio.run(resolve("nobody.invalid:7400"))


def test_default_cluster_is_that_of_the_command_and_the_directory(
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


def test_programs_given_on_the_command_line_are_distinguished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
def test_workers_of_one_uvicorn_have_the_same_default_cluster(tmp_path: Path, how: str) -> None:
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
