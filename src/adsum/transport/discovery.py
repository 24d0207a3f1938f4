"""Discovery: siblings on the same host, and the addresses behind a name.

Processes of one user that serve one cluster find one another through sockets in a directory::

    <runtime directory>/                 only the user can enter it
        3f2a9c01d4e5b678/                one for each cluster: a hash of its name
            9d0c41aa.sock                one for each node: a Unix socket that it listens on

There are several places for a runtime directory, because a system may lack one of them, another
user may occupy one, and a logout removes one. They follow from the user's id alone and not from
the environment, so a process of a login session and one of cron meet. A node listens in the first
safe place, and looks for others in every safe one.

A socket is renamed into place only once it listens, so one that refuses belongs to a dead process
and is removed by the node that was refused. There is no lock, no list, and nothing to clean up by
hand. Directories and sockets may vanish under a running node, so it checks its own socket and
searches for others every few seconds (see `adsum.siblings`).
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import socket
import stat
import sys
import time
from pathlib import Path

from adsum.errors import ConfigurationError, DialError
from adsum.forks import private
from adsum.transport.address import TcpAddress, UnixAddress, parse

logger = logging.getLogger("adsum.transport")

#: Where a runtime directory may be, most preferred first.
PLACES = ("/run/user/{uid}/adsum", "/tmp/adsum-{uid}", "/var/tmp/adsum-{uid}")  # noqa: S108 - checked before use
_SUFFIX = ".sock"
#: Random bytes in the name of a socket.
_TOKEN = 4
#: Seconds after which a temporary socket belongs to a process that died before renaming it.
_TEMPORARY_AGE = 60.0
#: Seconds after which the directory of a cluster is looked at by `sweep`.
_SWEEP_AGE = 86400.0
#: Directories, and sockets in each of them, that one sweep looks at.
_SWEEP_MOST = 64
#: What `sys.argv` begins with when the program is not a file.
_NAMELESS = ("", "-", "-c", "-m")


def default_cluster() -> str:
    """A cluster name that all workers of one application share, and no other application has.

    It is made of the user, the working directory and the command line. Workers that are forked
    (gunicorn) inherit them, workers that `multiprocessing` spawns (uvicorn) are given them by
    their parent. Two copies of one application started by the same command in the same directory
    are the same cluster; give `cluster=` a name of its own where that is not wanted.

    What this cannot tell apart is programs piped into the interpreter in the same directory.
    """
    signs = [os.getuid(), _working_directory(), _command_line()]
    return "auto-" + _short_hash(json.dumps(signs))


class SiblingDirectory:
    """The directory in which the nodes of one user and cluster on this host find each other.

    Args:
        cluster: The name of the cluster.
        runtime_dir: The one directory to use, which must exist, in place of those of the user.
    """

    def __init__(self, cluster: str, runtime_dir: str | None = None) -> None:
        self._name = _short_hash(cluster)
        self._places = _places(runtime_dir)
        # The reason why a place was not used, as logged last, so that it is logged once.
        self._logged: dict[Path, str] = {}

    def new_path(self) -> Path:
        """A new path for a socket, in the first safe place. Its directory exists.

        Raises:
            ConfigurationError: No place is safe: each is somebody else's, a link, open to others,
                or cannot be made. Says which and why.
        """
        unsafe: dict[Path, str] = {}
        for place in self._places:
            why = _claim(place) or _claim(place / self._name)
            if not why:
                self._log(unsafe, place)
                return place / self._name / (secrets.token_hex(_TOKEN) + _SUFFIX)
            unsafe[place] = why
        reasons = "; ".join(f"{str(place)!r} {why}" for place, why in unsafe.items())
        raise ConfigurationError(
            f"no runtime directory is safe: {reasons}; remove it, or set runtime_dir= "
            "(ADSUM_RUNTIME_DIR) to a directory that only you can enter, or siblings=False "
            "(ADSUM_SIBLINGS=no) to do without"
        )

    def find(self, own: str | None = None) -> list[str]:
        """The addresses of the nodes in every safe place, in a stable order.

        Those of processes that have just died are among them: dial, and `forget_stale` on refusal.

        Args:
            own: This node's address, left out.

        Raises:
            OSError: A directory cannot be read.
        """
        paths = [path for directory in self._safe() for path in _sockets_in(directory)]
        return [address for path in paths if (address := f"unix:{path}") != own]

    def forget_stale(self, address: str) -> None:
        """Remove the socket of a dead process, after a dial was refused.

        Any address outside the safe places is ignored. It probes once more first: nothing can
        begin to listen at a path that has refused, but the path may have been reused since.
        """
        try:
            where = parse(address, "address")
        except ConfigurationError:
            return
        if not isinstance(where, UnixAddress):
            return
        path = Path(os.path.normpath(where.path))
        if path.suffix != _SUFFIX or path.parent not in self._safe():
            return
        # Anything that is no socket refuses connections, too.
        if path.is_symlink() or not path.is_socket():
            return
        if _refuses(path):
            with contextlib.suppress(OSError):
                path.unlink()

    def leave(self) -> None:
        """Remove the directory of the cluster in every safe place, if no socket is left in it.

        A node that starts at this very moment finds its directory gone, and has to make it again.
        """
        for directory in self._safe():
            with contextlib.suppress(OSError):
                directory.rmdir()

    def sweep(self) -> None:
        """Remove the directories of other clusters whose nodes have all died without a goodbye.

        Only old directories are looked at, and only sockets that refuse are removed.
        """
        # Wall time, since that is what files carry; a living node does not refuse, however old.
        oldest = time.time() - _SWEEP_AGE
        for place in (place for place in self._places if not _fault(place)):
            for directory in _old_directories(place, oldest)[:_SWEEP_MOST]:
                if directory.name != self._name and not _fault(directory):
                    _remove_dead(directory)

    def _safe(self) -> list[Path]:
        """The directories of the cluster that exist and can be trusted."""
        places = [place for place in self._places if not _fault(place)]
        directories = [place / self._name for place in places]
        return [directory for directory in directories if not _fault(directory)]

    def _log(self, unsafe: dict[Path, str], used: Path) -> None:
        """Log each place that was not used, once for each reason."""
        for place, why in unsafe.items():
            # Where nobody is logged in, /run/user/<uid> is absent: nothing is wrong.
            if os.path.isdir(place.parent) and self._logged.get(place) != why:
                logger.warning("the runtime directory '%s' %s; using '%s'", place, why, used)
        self._logged = unsafe


def longest_socket(runtime_dir: str) -> str:
    """An address as long as any in a runtime directory, to check that it is not too long."""
    [place] = _places(runtime_dir)
    return f"unix:{place / _short_hash('') / ('0' * 2 * _TOKEN + _SUFFIX)}"


async def resolve(address: str) -> list[str]:
    """Every `ip:port` that a `host:port` stands for now: all its A and AAAA records.

    Unix sockets and IP addresses stand for themselves; a range of ports for each port of it.

    Raises:
        ConfigurationError: `address` cannot be read.
        DialError: The name cannot be resolved; it may be, later.
    """
    where = parse(address, "peers")
    if not isinstance(where, TcpAddress):
        return [str(where)]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DialError(f"{address}: {getattr(error, 'strerror', None) or error}") from error
    hosts = dict.fromkeys(str(target[0]) for _, _, _, _, target in found)
    return [str(single.with_host(host)) for host in hosts for single in where.each_port()]


def _places(runtime_dir: str | None) -> list[Path]:
    """Where the directories of clusters may be, most preferred first; none is created here."""
    if runtime_dir is not None:
        return [Path(os.path.normpath(runtime_dir), "adsum")]
    return [Path(place.format(uid=os.getuid())) for place in PLACES]


def _claim(path: Path) -> str:
    """Create a directory for this user alone, or check the one that exists.

    In a directory like /tmp, another user may have created it first.

    Returns:
        The reason why it cannot be used; empty if it can.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return f"cannot be made: {error.strerror or error}"
    return _fault(path)


def _fault(path: Path) -> str:
    """The reason why a directory cannot be trusted; empty if it can."""
    try:
        status = path.lstat()
    except OSError as error:
        return f"cannot be used: {error.strerror or error}"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory" + (", but a link" if stat.S_ISLNK(status.st_mode) else "")
    if status.st_uid != os.getuid():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & 0o077:
        return f"is open to others (mode {stat.S_IMODE(status.st_mode):o}, not 700)"
    return ""


def _sockets_in(directory: Path) -> list[Path]:
    """The sockets of nodes in a directory, which may be removed at any time.

    Raises:
        OSError: The directory cannot be read, as where no descriptors are left.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    paths = [directory / name for name in names]
    for path in paths:
        if path.name.startswith("."):
            _clean_temporary(path)
    return [path for path in paths if path.suffix == _SUFFIX and path.is_socket()]


def _old_directories(place: Path, oldest: float) -> list[Path]:
    """What has not changed in a place since some wall time; nothing if it cannot be read."""
    found: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                found.append(place / entry.name)
    return found


def _remove_dead(directory: Path) -> None:
    """Remove the sockets of dead processes from a directory, and it if none is left."""
    with contextlib.suppress(OSError):
        for path in _sockets_in(directory)[:_SWEEP_MOST]:
            if _refuses(path):
                path.unlink()
        directory.rmdir()


def _clean_temporary(path: Path) -> None:
    """Remove a socket that a process bound and did not live to rename."""
    # Wall time, since that is what files carry; at worst a name is kept, or its owner binds anew.
    oldest = time.time() - _TEMPORARY_AGE
    with contextlib.suppress(OSError):
        if path.lstat().st_mtime < oldest:
            path.unlink()


def _refuses(path: Path) -> bool:
    try:
        with private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # Removed under our feet; the command line has to tell.


def _command_line() -> list[str]:
    """The arguments, as forked and spawned children see them too.

    Code given by `-c` or typed in leaves nothing telling in `sys.argv`; what the interpreter was
    started with then keeps different programs apart.
    """
    return list(sys.argv if sys.argv[:1] and sys.argv[0] not in _NAMELESS else sys.orig_argv)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
