"""Unix sockets between processes of different users: the other user is a real one."""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum.errors import HandshakeError
from adsum.transport import discovery
from adsum.transport.options import TransportOptions
from adsum.transport.sockets import SocketTransport
from adsum.transport.users import foreign_user
from tests.support.transports import Recorder, identity
from tests.support.waiting import DEADLINE, until

#: The user of the children; any but this one will do.
NOBODY = 65534
SECRET = b"a shared secret"
DIFFER = "the peer belongs to user {}, this process to user {}; without a secret"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory as /tmp: every user may use it."""
    with tempfile.TemporaryDirectory(prefix="adsum") as path:
        os.chmod(path, 0o1777)
        yield Path(path)


@contextmanager
def child_of_nobody(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Run `work` in a process of another user; yields a function that returns its result.

    It must have a limit to its waiting. The function returns None until there is a result.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.set_blocking(reader, False)

    def result() -> Any:
        try:
            text = os.read(reader, 65536)
        except BlockingIOError:
            return None
        assert text, "the child failed"
        return json.loads(text)

    try:
        yield result
    finally:
        os.close(reader)
        os.waitpid(child, 0)


async def wait_for(result: Callable[[], Any]) -> Any:
    found: list[Any] = []

    def has_result() -> bool:
        found[:] = [outcome for outcome in [result()] if outcome is not None]
        return bool(found)

    await until(has_result)
    return found[0]


def dial(path: Path, secret: bytes | None) -> str:
    """Dial a node as soon as it listens; returns the error, or "linked"."""

    async def attempt() -> str:
        await until(lambda: path.exists() and os.access(path, os.W_OK))
        transport = SocketTransport(
            identity("nobody's"), Recorder(), TransportOptions(secret=secret)
        )
        try:
            await transport.dial(f"unix:{path}")
        except HandshakeError as error:
            return str(error)
        finally:
            await transport.close()
        return "linked"

    return asyncio.run(attempt())


def squat(path: Path) -> bool:
    """Listen where a node is expected; returns whether the first that connected said anything."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(10)
        hidden = path.with_name("hidden")
        listening.bind(str(hidden))
        os.chmod(hidden, 0o777)
        listening.listen()
        hidden.rename(path)
        accepted, _ = listening.accept()
        accepted.settimeout(10)
        with accepted:
            return accepted.recv(1) != b""


def listen(path: Path, secret: bytes | None, result: Callable[[], Any]) -> tuple[Recorder, Any]:
    """Listen where every user may connect, until the child has its result."""
    handler = Recorder()

    async def run() -> Any:
        node = SocketTransport(identity("node"), handler, TransportOptions(secret=secret))
        await node.listen(f"unix:{path}")
        os.chmod(path, 0o777)  # as an administrator may do; the node itself closes it to others
        outcome = await wait_for(result)
        await node.close()
        return outcome

    return handler, asyncio.run(run())


@as_root
def test_node_without_a_secret_rejects_other_users(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared / "node"
    with child_of_nobody(lambda: dial(path, None)) as result:
        handler, outcome = listen(path, None, result)

    assert not handler.opened
    assert DIFFER.format(NOBODY, 0) in outcome, "the dialler is told why"
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "node@1: an inbound connection was refused: a process of this host: the peer"
    )
    assert DIFFER.format(NOBODY, 0) in line


@as_root
def test_other_user_with_the_secret_is_linked(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared / "node"
    with child_of_nobody(lambda: dial(path, SECRET)) as result:
        handler, outcome = listen(path, SECRET, result)

    assert (outcome, len(handler.opened)) == ("linked", 1)
    assert not caplog.records


@as_root
def test_node_without_a_secret_sends_no_hello_to_another_users_listener(shared: Path) -> None:
    path = shared / "node"

    async def attempt() -> str:
        await until(path.exists)
        dialler = SocketTransport(identity("node"), Recorder(), TransportOptions())
        with pytest.raises(HandshakeError) as caught:
            await dialler.dial(f"unix:{path}")
        await dialler.close()
        return str(caught.value)

    with child_of_nobody(lambda: squat(path)) as result:
        assert DIFFER.format(NOBODY, 0) in asyncio.run(attempt())
        assert asyncio.run(wait_for(result)) is False


@as_root
def test_node_starts_beside_a_peer_of_another_user_and_logs_it_once(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared / "peer"

    async def start() -> None:
        await until(path.exists)
        settings = {"siblings": False, "peers": f"unix:{path}", "join_timeout": 600.0}
        async with asyncio.timeout(DEADLINE), adsum.Node(cluster="users", **settings) as node:  # type: ignore[arg-type]  # of several types
            assert len(node.members()) == 1

    with child_of_nobody(lambda: squat(path)):
        asyncio.run(start())
    [line] = [record.getMessage() for record in caplog.records]
    assert DIFFER.format(NOBODY, 0) in line


@as_root
def test_nodes_meet_elsewhere_when_another_user_has_taken_their_directory(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = [f"{shared}/first-{{uid}}", f"{shared}/second-{{uid}}"]
    monkeypatch.setattr(discovery, "PLACES", places)
    first, second = (Path(place.format(uid=0)) for place in places)

    async def meet() -> None:
        await until(first.exists)
        async with adsum.Node(cluster="users") as one, adsum.Node(cluster="users") as other:
            assert len(one.members()) == len(other.members()) == 2

    def occupy() -> bool:
        first.mkdir(mode=0o777)
        return True

    with child_of_nobody(occupy):
        asyncio.run(meet())
    lines = {record.getMessage() for record in caplog.records}
    assert lines == {
        f"the runtime directory '{first}' belongs to user {NOBODY}; using '{second}'",
    }
    assert not list(first.iterdir())


@pytest.mark.parametrize(
    ("user", "own", "secret", "foreign"),
    [
        (1000, 1000, None, False),
        (0, 1000, None, False),
        (1001, 1000, None, True),
        (1000, 0, None, True),
        (1001, 1000, SECRET, False),
        (None, 1000, None, False),
    ],
)
def test_without_a_secret_a_peer_is_of_the_own_user_or_of_root(
    monkeypatch: pytest.MonkeyPatch,
    user: int | None,
    own: int,
    secret: bytes | None,
    foreign: bool,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: own)
    assert bool(foreign_user(user, secret)) is foreign
