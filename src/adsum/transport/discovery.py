"""Discovery of peers: siblings on the same host, and the addresses behind a host name.

Processes of one user that serve one cluster find each other through sockets in a directory::

    <runtime directory>/                 only the user can enter it
        3f2a9c01d4e5b678/                one for each cluster: a hash of its name
            9d0c41aa.sock                one for each node: a Unix socket that it listens on

There are several places for a runtime directory, because a system may lack one of them, another
user may occupy one, and a logout removes one. They depend on the user's id alone and not on the
environment, so a process of a login session and a process of cron find each other. A node listens
in the first safe place, and searches every safe place for others.

A socket is renamed into place only once it listens, so a socket that refuses connections belongs to
a dead process. The node whose dial was refused removes it. There is no lock, no list, and nothing
to clean up by hand. Directories and sockets may vanish while a node runs, so it checks its own
socket and searches for others every few seconds (see `adsum.driver.siblings`).
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

#: Places of a runtime directory, most preferred first.
PLACES = ("/run/user/{uid}/adsum", "/tmp/adsum-{uid}", "/var/tmp/adsum-{uid}")  # noqa: S108 - checked before use
_SUFFIX = ".sock"
#: Random bytes in the name of a socket.
_TOKEN = 4
#: Seconds after which a temporary socket belongs to a process that died before renaming it.
_TEMPORARY_AGE = 60.0
#: Seconds without a change after which `sweep` checks the directory of a cluster.
_SWEEP_AGE = 86400.0
#: Directories that one sweep checks at most, and sockets in each of them.
_SWEEP_MOST = 64
#: Values of `sys.argv[0]` when the program is not a file.
_NAMELESS = ("", "-", "-c", "-m")


def default_cluster() -> str:
    """The default cluster name, shared by all workers of one application and by no other.

    It is a hash of the user, the working directory and the command line. Forked workers (gunicorn)
    inherit them, and workers that `multiprocessing` spawns (uvicorn) receive them from their
    parent. Two copies of one application, started by the same command in the same directory, form
    one cluster; set `cluster=` to separate them.

    Different programs that are piped into the interpreter in one directory get the same name.
    """
    signs = [os.getuid(), _working_directory(), _command_line()]
    return "auto-" + _short_hash(json.dumps(signs))


class SiblingDirectory:
    """The directory in which the nodes of one user and cluster on this host find each other.

    Args:
        cluster: The name of the cluster.
        runtime_dir: The only directory to use, which must exist; None for the places of the user.
    """

    def __init__(self, cluster: str, runtime_dir: str | None = None) -> None:
        self._name = _short_hash(cluster)
        self._places = _places(runtime_dir)
        # The last logged reason why a place was not used, so that each is logged once.
        self._logged: dict[Path, str] = {}

    def new_path(self) -> Path:
        """A new path for a socket, in the first safe place. Its directory exists.

        Raises:
            ConfigurationError: No place is safe: each belongs to another user, is a symbolic
                link, is open to others, or cannot be created. Names each and the reason.
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
            "(ADSUM_SIBLINGS=no) to run without siblings"
        )

    def find(self, own: str | None = None) -> list[str]:
        """Find the addresses of the nodes in every safe place, in a stable order.

        Processes that have just died may be among them: dial, and call `forget_stale` on refusal.

        Args:
            own: This node's address, to leave out.

        Raises:
            OSError: A directory cannot be read.
        """
        paths = [path for directory in self._safe() for path in _sockets_in(directory)]
        return [address for path in paths if (address := f"unix:{path}") != own]

    def forget_stale(self, address: str) -> None:
        """Remove the socket of a dead process, after a dial was refused.

        An address outside the safe places is ignored. The socket is probed again first: nothing
        can begin to listen at a path that has refused, but the path may have been reused since.
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
        # A file that is not a socket refuses connections, too.
        if path.is_symlink() or not path.is_socket():
            return
        if _refuses(path):
            with contextlib.suppress(OSError):
                path.unlink()

    def leave(self) -> None:
        """Remove the directory of the cluster in every safe place, if no socket is left in it.

        A node that starts at this very moment may lose its directory and must create it again.
        """
        for directory in self._safe():
            with contextlib.suppress(OSError):
                directory.rmdir()

    def sweep(self) -> None:
        """Remove the directories of other clusters in which every node has crashed.

        Only old directories are checked, and only sockets that refuse connections are removed.
        """
        # Wall time, as in file timestamps; a running node does not refuse, however old it is.
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
            # Without a login session /run/user/<uid> is absent, which is no fault.
            if os.path.isdir(place.parent) and self._logged.get(place) != why:
                logger.warning("the runtime directory '%s' %s; using '%s'", place, why, used)
        self._logged = unsafe


def longest_socket(runtime_dir: str) -> str:
    """An example of the longest address in a runtime directory, to check against the limit."""
    [place] = _places(runtime_dir)
    return f"unix:{place / _short_hash('') / ('0' * 2 * _TOKEN + _SUFFIX)}"


async def resolve(address: str) -> list[str]:
    """Resolve `host:port` to every `ip:port` of its present A and AAAA records.

    Unix sockets and IP addresses are returned as they are; a range of ports gives one address for
    each port.

    Raises:
        ConfigurationError: `address` cannot be parsed.
        DialError: The name cannot be resolved at present; a later attempt may succeed.
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
    """The parent directories of cluster directories, most preferred first; creates none."""
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
    """The sockets of nodes in a directory; other processes may remove them at any time.

    Also removes temporary sockets that are old.

    Raises:
        OSError: The directory cannot be read, for example because no descriptors are left.
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
    """The entries of a place unchanged since `oldest`, in wall time; none if it is unreadable."""
    found: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                found.append(place / entry.name)
    return found


def _remove_dead(directory: Path) -> None:
    """Remove the sockets of dead processes from a directory, then the directory if it is empty."""
    with contextlib.suppress(OSError):
        for path in _sockets_in(directory)[:_SWEEP_MOST]:
            if _refuses(path):
                path.unlink()
        directory.rmdir()


def _clean_temporary(path: Path) -> None:
    """Remove an old temporary socket, whose process died before it was renamed."""
    # Wall time, as in file timestamps; at worst a name stays, or its owner has to bind again.
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
        return ""  # Removed while we run; the command line has to distinguish applications.


def _command_line() -> list[str]:
    """The command line, equal in forked and spawned children.

    For code given by `-c` or typed in, `sys.argv` is the same for all programs; the arguments of
    the interpreter then distinguish them.
    """
    return list(sys.argv if sys.argv[:1] and sys.argv[0] not in _NAMELESS else sys.orig_argv)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
