"""The soft limit on open files, and how close this process is to it.

Each link and each client takes one file descriptor. At the limit a process accepts no connection
and dials nobody, and its application cannot open files either. The usual limit of 1,024 is plenty
for most clusters and too little for a server with many clients, so a node warns before it is
reached.
"""

import fcntl
import logging
import resource

logger = logging.getLogger("adsum")

#: Descriptors to keep free at the start, for handshakes, clients and files of the application.
RESERVE = 64
#: Share of the limit from which on a process is close to it.
CLOSE = 0.8
#: Seconds between two warnings that a process is close to the limit.
WARNING_INTERVAL = 60.0
#: Descriptors looked at in one check.
SAMPLES = 1024
_ADVICE = "raise it (ulimit -n, LimitNOFILE= of systemd)"


class OpenFiles:
    """Warns before this process runs out of file descriptors.

    Args:
        name: The node that warns.
    """

    def __init__(self, name: object) -> None:
        self._name = name
        # When the next warning may be logged.
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
    """How many files this process may open; None if there is no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def open_files(limit: int) -> int:
    """How many descriptors below `limit` are in use.

    Exact up to a limit of `SAMPLES`. Above, it is estimated from so many descriptors at equal
    distances, which is accurate because the kernel hands out the lowest free one.
    """
    step = -(-limit // SAMPLES)
    return min(limit, step * sum(_is_open(descriptor) for descriptor in range(0, limit, step)))


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True
