"""What the kernel tells of a process: its memory, its open files, its connections."""

import os
from ipaddress import IPv4Address
from pathlib import Path

from tests.support.worker_processes import Process

_ESTABLISHED = "01"


def megabytes(process: Process) -> float:
    """The memory that a process has in use, RSS."""
    pages = int(_of(process, "statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def descriptors(process: Process) -> int:
    """How many files and sockets a process has open."""
    return len(list(_of(process, "fd").iterdir()))


def connections(process: Process, address: IPv4Address) -> int:
    """How many TCP connections to an address are established, where a process runs."""
    remote = address.packed[::-1].hex().upper()  # The kernel prints it as it lies in memory.
    lines = [line.split() for line in _of(process, "net/tcp").read_text().splitlines()[1:]]
    return sum(words[2].startswith(remote) and words[3] == _ESTABLISHED for words in lines)


def _of(process: Process, file: str) -> Path:
    return Path(f"/proc/{process.process.pid}/{file}")
