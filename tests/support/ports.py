"""Free TCP ports, for programs that cannot choose one themselves.

They are below those that the kernel gives to outgoing connections: one of those could take a
port between the test's look and the moment at which the program listens. No port is given twice
by one process, and each process begins elsewhere.
"""

import itertools
import random
import socket
from pathlib import Path

#: The state of a listening socket in `/proc/net/tcp`.
_LISTEN = "0A"
FIRST, LAST = 10_000, 19_999
_turns = itertools.count(random.SystemRandom().randrange(LAST + 1 - FIRST))


def free_port() -> int:
    """A port on the loopback address that nobody listens on."""
    for turn in itertools.islice(_turns, LAST + 1 - FIRST):
        port = FIRST + turn % (LAST + 1 - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"no free port from {FIRST} to {LAST}")


def free_port_range(count: int) -> tuple[int, int]:
    """Consecutive free ports: the first and the last."""
    firsts = range(20_000, 30_000, count)
    start = random.SystemRandom().randrange(len(firsts))
    for first in (*firsts[start:], *firsts[:start]):
        probes = [socket.socket() for _ in range(count)]
        try:
            for offset, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        else:
            return first, first + count - 1
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError(f"no {count} consecutive free ports")


def listens(pid: int, port: int) -> bool:
    """Whether a socket listens on a port in the network namespace of a process."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return any(row[1].endswith(f":{port:04X}") and row[3] == _LISTEN for row in rows)
