"""Warnings when this process approaches the soft limit on open files (RLIMIT_NOFILE).

Each link and each client takes one file descriptor. At the limit a process can neither accept nor
dial connections, and its application cannot open files either. The usual limit of 1,024 suffices
for most clusters but not for a server with many clients, so a node warns before it is reached.
"""

import fcntl
import logging
import resource

logger = logging.getLogger("adsum.node")

#: Descriptors to keep free at the start, for handshakes, clients and files of the application.
RESERVE = 64
#: Share of the limit, from 0 to 1, at which a node warns.
CLOSE = 0.8
#: Seconds between two warnings that a process is close to the limit.
WARNING_INTERVAL = 60.0
#: Descriptors examined in one check at most.
SAMPLES = 1024
_ADVICE = "raise it (ulimit -n, LimitNOFILE= of systemd)"


class OpenFiles:
    """Warns before this process runs out of file descriptors.

    Args:
        name: The node that warns.
    """

    def __init__(self, name: object) -> None:
        self._name = name
        # Monotonic seconds before which no further warning is logged.
        self._quiet_until = float("-inf")

    def check_start(self, peers: int) -> None:
        """Warn if the limit is too low for links to this many peers."""
        limit = soft_limit()
        if limit is None or (used := open_files(limit)) + peers + RESERVE <= limit:
            return
        text = (
            "%s: the soft limit on open files is %d, too low for the %d that are open, %d peers, "
            "and %d for handshakes, clients and the application; %s"
        )
        logger.warning(text, self._name, limit, used, peers, RESERVE, _ADVICE)

    def check(self, now: float) -> None:
        """Warn if this process is close to the limit, at most once a minute.

        Args:
            now: The present, in monotonic seconds.
        """
        if now < self._quiet_until:
            return
        limit = soft_limit()
        if limit is None or (used := open_files(limit)) < CLOSE * limit:
            return
        self._quiet_until = now + WARNING_INTERVAL
        text = "%s: %d of %d files are open, and every link and every client takes one; %s"
        logger.warning(text, self._name, used, limit, _ADVICE)


def soft_limit() -> int | None:
    """The number of files that this process may open; None if there is no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def open_files(limit: int) -> int:
    """Count the descriptors below `limit` that are in use.

    Exact up to a limit of `SAMPLES`. Above that, the count is estimated from `SAMPLES` descriptors
    at equal distances, which is accurate because the kernel assigns the lowest free descriptor.
    """
    step = -(-limit // SAMPLES)
    return min(limit, step * sum(_is_open(descriptor) for descriptor in range(0, limit, step)))


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True
