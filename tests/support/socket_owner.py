"""The process that holds the server's end of a TCP connection on the loopback address (Linux)."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: The state of an established connection in the table of the kernel.
_ESTABLISHED = "01"


def owner_of(server_port: int, client_port: int) -> int | None:
    """The process that serves a connection, by its two ports; None if it is not found.

    Between the end of the handshake and `accept` no process holds the connection.
    """
    inode = _inode(f":{server_port:04X}", f":{client_port:04X}")
    if inode in (None, "0"):
        return None
    wanted = f"socket:[{inode}]"
    return next((pid for pid in _processes() if wanted in _open_files(pid)), None)


def ports_at(server_port: int) -> list[int]:
    """The ports of all clients whose connections to a server are established."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{server_port:04X}") and fields[3] == _ESTABLISHED:
            found.append(int(fields[2].partition(":")[2], 16))
    return found


def _inode(local: str, remote: str) -> str | None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(local) and fields[2].endswith(remote):
            return fields[9]
    return None


def _processes() -> Iterable[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _open_files(pid: int) -> set[str]:
    """The targets of a process's descriptors; empty if it is not ours or has ended."""
    found = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(entry.path))
    return found
