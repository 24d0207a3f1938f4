"""The uid of a Unix peer, asked of the kernel."""

import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from adsum.transport.credentials import peer_uid

known = pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="no such call here")


@known
def test_both_ends_of_a_unix_connection_see_the_uid_of_the_other() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX) as dialled,
    ):
        path = str(Path(directory) / "s")
        listening.bind(path)
        listening.listen()
        dialled.connect(path)
        accepted, _ = listening.accept()
        with accepted:
            assert peer_uid(accepted) == os.getuid()
            assert peer_uid(dialled) == os.getuid()


def test_socket_without_a_unix_peer_has_no_uid() -> None:
    with socket.socket(socket.AF_UNIX) as unconnected, socket.socket(socket.AF_INET) as tcp:
        assert peer_uid(unconnected) is None
        assert peer_uid(tcp) is None
    assert peer_uid(unconnected) is None


@known
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_uid_of_another_user_is_seen() -> None:
    # The kernel records the user at `connect`, in the thread that calls it.
    path = str(Path(tempfile.mkdtemp(dir="/tmp")) / "s")
    other = 12345
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        Path(path).chmod(0o777)
        Path(path).parent.chmod(0o755)
        child = os.fork()
        if child == 0:
            try:
                os.setuid(other)
                dialled = socket.socket(socket.AF_UNIX)
                dialled.connect(path)
                dialled.recv(1)
            finally:
                os._exit(0)
        accepted, _ = listening.accept()
        with accepted:
            assert peer_uid(accepted) == other
        os.waitpid(child, 0)
    Path(path).unlink()
    Path(path).parent.rmdir()
