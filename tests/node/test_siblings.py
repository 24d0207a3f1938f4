"""Siblings stay in touch when sockets and directories vanish under them."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

import adsum
from adsum.driver import socketdriver
from adsum.driver.openfiles import OpenFiles
from adsum.driver.siblings import Siblings
from adsum.replication.effects import Dial
from adsum.replication.engine import Engine
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.transport.discovery import SiblingDirectory
from tests.support.environment import RUNTIME_DIR
from tests.support.nodes import run, running
from tests.support.waiting import DEADLINE, eventually, until
from tests.support.worker_processes import Workers, sibling_sockets


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory of the test, which it may remove."""
    with tempfile.TemporaryDirectory(prefix="adsum-") as path:
        monkeypatch.setenv(RUNTIME_DIR, path)
        yield Path(path, "adsum")


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks happen so often that no test has to wait for one."""
    monkeypatch.setattr(socketdriver, "CHECK_INTERVAL", 0.02)


def socket_of(node: adsum.Node) -> Path:
    """The path of the socket that siblings of a node dial."""
    return Path(str(node.addresses[-1]).removeprefix("unix:"))


def remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace_by_file(path: Path) -> None:
    remove(path)
    path.write_text("of another process")


@contextlib.contextmanager
def no_free_descriptors() -> Iterator[None]:
    """No file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("removed", ["sockets", "cluster", "everything"])
def test_removed_socket_is_replaced_and_newcomers_find_the_node(
    cluster_name: str, directory: Path, removed: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as nodes:
            before = [socket_of(node) for node in nodes]
            paths = {"sockets": before, "cluster": [before[0].parent], "everything": [directory]}
            remove(*paths[removed])
            await until(lambda: all(socket_of(node).is_socket() for node in nodes))
            async with adsum.Node(cluster=cluster_name) as newcomer:
                await until(lambda: newcomer.stats()["links"] == 2)
                assert {member.status for member in newcomer.members()} == {"self", "up"}
            assert not set(before) & {socket_of(node) for node in nodes}

    with caplog.at_level(logging.WARNING):
        run(main())
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert all("was removed; listening at unix:" in r.getMessage() for r in caplog.records)
    assert not list(directory.iterdir())


@pytest.mark.parametrize("direct", [True, False], ids=["direct link", "link over a carrier"])
def test_found_sibling_is_dialled_unless_it_has_a_direct_link(
    cluster_name: str, directory: Path, direct: bool
) -> None:
    async def main() -> None:
        async with adsum.Node(name="sibling", cluster=cluster_name) as sibling:
            assert isinstance(sibling.driver, socketdriver.SocketDriver)
            address = f"unix:{socket_of(sibling)}"
            engine = Engine(Replica("me", 1), Timing(), Random(1), 0.0)
            peer = sibling.driver.replica
            engine.link_up(1, peer, (address, "bus:1"), None, 0.0, direct=direct)
            engine.take_effects()
            found = SiblingDirectory(cluster_name, str(directory.parent))
            Siblings(found, sibling.driver.sockets, engine).find()
            engine.tick(0.0)
            dials = [effect.address for effect in engine.take_effects() if isinstance(effect, Dial)]
            assert dials == ([] if direct else [address])

    run(main())


@pytest.mark.slow
@pytest.mark.usefixtures("_impatient")
def test_sockets_removed_repeatedly_lose_no_message_and_log_no_error(
    cluster_name: str, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def flood(pubsub: adsum.PubSub, sent: list[int], stop: asyncio.Event) -> None:
        while not stop.is_set():
            assert await pubsub.publish("t", {"n": len(sent)}) == 0
            sent.append(len(sent))
            await asyncio.sleep(0.0005)

    async def main() -> None:
        async with running(2, cluster=cluster_name) as nodes:
            pubsubs = [adsum.PubSub(node) for node in nodes]
            inboxes = [pubsub.subscribe("t", limit=100_000) for pubsub in pubsubs]
            await until(lambda: all(node.stats()["links"] == 1 for node in nodes))
            stop, sent = asyncio.Event(), [list[int](), list[int]()]
            floods = [
                asyncio.create_task(flood(*pair, stop)) for pair in zip(pubsubs, sent, strict=True)
            ]
            for _ in range(4):
                await asyncio.sleep(1.1)  # longer than both ends take for a dial at once
                remove(directory)
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*floods)
            await asyncio.sleep(0.2)
            for inbox in inboxes:
                senders = [(await anext(inbox)).sender for _ in range(len(sent[0] + sent[1]))]
                assert [senders.count(node.name) for node in nodes] == [*map(len, sent)]

    with caplog.at_level(logging.WARNING):
        run(main())
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.usefixtures("_impatient", "directory")
def test_socket_that_another_process_replaced_is_left_alone(cluster_name: str) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as [node]:
            path = socket_of(node)
            replace_by_file(path)
            await until(lambda: socket_of(node) != path)
            assert socket_of(node).is_socket()
        assert list(path.parent.iterdir()) == [path]

    run(main())


@pytest.mark.usefixtures("_impatient", "directory")
def test_lost_socket_accepts_no_more_links_and_siblings_stop_dialling_it(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = list[str]()
    monkeypatch.setattr(Engine, "remove_seed", lambda _, address: removed.append(address))

    async def main() -> None:
        async with running(2, cluster=cluster_name) as [one, _]:
            path = socket_of(one)
            elsewhere = path.with_name("elsewhere")
            path.rename(elsewhere)
            await until(lambda: f"unix:{path}" in removed)
            await until(lambda: socket_of(one) != path)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_unix_connection(elsewhere)

    run(main())


@pytest.mark.usefixtures("_impatient", "directory")
def test_directory_that_cannot_be_read_forgets_no_sibling(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    removed, failures = list[str](), list[str]()
    monkeypatch.setattr(Engine, "remove_seed", lambda _, address: removed.append(address))

    def no_descriptors(path: Path) -> list[str]:
        failures.append(str(path))
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        async with running(2, cluster=cluster_name):
            monkeypatch.setattr("os.listdir", no_descriptors)
            await until(lambda: len(failures) > 3)

    with caplog.at_level(logging.INFO):
        run(main())
    assert removed == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.usefixtures("_impatient", "directory")
def test_links_outlive_the_socket_and_peers_learn_the_new_address(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as [one, two]:
            presence, seen = adsum.Presence(one), adsum.Presence(two)
            diffs = seen.watch("room")
            presence.track("room", "ann", owner=None)
            await until(lambda: seen.count("room") == 1)
            old = socket_of(one)
            old.unlink()

            def address_at_two() -> str:
                return next(m.address for m in two.members() if m.name == one.name)

            await until(lambda: address_at_two() != f"unix:{old}")
            assert address_at_two() == f"unix:{socket_of(one)}"
            assert two.stats()["links"] >= 1
            presence.track("room", "bob", owner=None)
            async for diff in diffs:
                assert diff.leaves == {}
                if "bob" in diff.joins:
                    break

    run(main())


@pytest.mark.usefixtures("_impatient")
def test_failing_renewal_is_logged_once_and_repeated(
    cluster_name: str, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as [node]:
            replace_by_file(directory)
            await until(lambda: "siblings that start cannot find this node" in caplog.text)
            await asyncio.sleep(0.2)
            assert len(caplog.records) == 1
            remove(directory)
            await until(lambda: socket_of(node).is_socket())
            async with adsum.Node(cluster=cluster_name) as newcomer:
                await until(lambda: newcomer.stats()["links"] == 1)

    with caplog.at_level(logging.WARNING):
        run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.usefixtures("_impatient", "directory")
def test_lost_socket_without_free_descriptors_is_logged_once_and_replaced_later(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(OpenFiles, "check", lambda *_: None)

    async def main() -> None:
        async with running(1, cluster=cluster_name) as [node]:
            path = socket_of(node)
            with no_free_descriptors():
                remove(path)
                await until(lambda: "cannot find this node" in caplog.text)
                await asyncio.sleep(0.2)
            await until(lambda: socket_of(node) != path)

    with caplog.at_level(logging.WARNING):
        run(main())
    records = [record for record in caplog.records if record.name == "adsum.node"]
    assert [record.levelname for record in records] == ["ERROR", "WARNING"]
    assert "Too many open files" in records[0].getMessage()


@pytest.mark.usefixtures("directory")
def test_start_without_free_descriptors_raises_listen_error(cluster_name: str) -> None:
    async def main() -> None:
        node = adsum.Node(cluster=cluster_name)
        with no_free_descriptors(), pytest.raises(adsum.ListenError, match="Too many open files"):
            await node.start()
        async with node:
            assert node.joined

    run(main())


@pytest.mark.usefixtures("_impatient")
def test_failing_check_is_logged_once_in_an_interval(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = list[float]()

    def fail(_: OpenFiles, now: float) -> None:
        calls.append(now)
        raise ValueError("a bug")

    monkeypatch.setattr(OpenFiles, "check", fail)

    async def main() -> None:
        async with adsum.Node(siblings=False):
            await until(lambda: len(calls) > 2)

    run(main())
    assert len(caplog.records) == 1
    assert "a check of siblings and open files failed: ValueError" in caplog.text


@pytest.mark.usefixtures("_impatient", "directory")
def test_known_siblings_are_not_dialled_again(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        dialled = list[str]()
        dial = socketdriver.SocketDriver._dial

        def record(run: socketdriver.SocketDriver, address: str) -> None:
            dialled.append(address)
            dial(run, address)

        monkeypatch.setattr(socketdriver.SocketDriver, "_dial", record)
        async with running(2, cluster=cluster_name) as [one, _]:
            await asyncio.sleep(0.2)
            assert dialled == [one.address]

    run(main())


@pytest.mark.processes
def test_respawned_worker_finds_the_others_after_the_directory_was_removed(
    cluster_name: str, directory: Path
) -> None:
    with Workers() as workers:
        started = [workers.start(cluster=cluster_name, name=f"w{n}") for n in range(3)]
        for number, worker in enumerate(started):
            worker.ask("track", "room", f"user {number}", {})
        for worker in started:
            eventually(partial(worker.lists, "user 0", "user 1", "user 2"), "they agree")
        shutil.rmtree(directory)
        started[0].signal(signal.SIGKILL)
        started[0].process.wait()
        started[0] = workers.start(cluster=cluster_name, name="w0")
        started[0].ask("track", "room", "user 0 again", {})
        for worker in started:
            eventually(partial(worker.lists, "user 0 again", "user 1", "user 2"), "they agree")
        others = {worker.name for worker in started}
        for worker in started:
            linked = others - {worker.name}
            eventually(partial(worker.is_linked_to, *linked), "all are linked")


@pytest.mark.processes
def test_process_without_xdg_runtime_dir_meets_one_with_it(
    cluster_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job of cron and a login shell."""
    monkeypatch.delenv(RUNTIME_DIR, raising=False)
    with Workers() as workers:
        login = workers.start(
            cluster=cluster_name,
            prefix=("env", f"XDG_RUNTIME_DIR={tmp_path}", f"TMPDIR={tmp_path}"),
        )
        cron = workers.start(
            cluster=cluster_name, prefix=("env", "-u", "XDG_RUNTIME_DIR", "-u", "TMPDIR")
        )
        for worker, other in ((login, cron), (cron, login)):
            eventually(partial(worker.is_linked_to, other.name), "they link")
        assert os.listdir(tmp_path) == []
        for worker in (login, cron):
            worker.signal(signal.SIGTERM)
            worker.process.wait(timeout=DEADLINE)
        assert sibling_sockets(cluster_name) == []


BRIEF = """
import asyncio, sys
import adsum

async def main():
    async with adsum.Node(cluster=sys.argv[1]) as node:
        await adsum.PubSub(node).publish("room", {})

asyncio.run(main())
"""


@pytest.mark.processes
@pytest.mark.usefixtures("directory")
def test_process_that_publishes_and_stops_at_once_causes_no_warning(
    cluster_name: str, tmp_path: Path
) -> None:
    logs = [tmp_path / "one", tmp_path / "other"]
    with Workers() as workers:
        for log in logs:
            workers.start(cluster=cluster_name, log=log)
        for _ in range(5):
            command = [sys.executable, "-W", "error", "-c", BRIEF, cluster_name]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
            assert done.stderr == ""
    assert [log.read_text() for log in logs] == ["", ""]
