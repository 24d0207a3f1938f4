"""Discovery: siblings on the same host, and the addresses behind a name.

Processes of one user that serve one cluster find one another through sockets in a directory::

    <runtime directory>/adsum/           only the user can enter it
        3f2a9c01d4e5b678/                one for each cluster: a hash of its name
            9d0c41aa.sock                one for each node: a Unix socket that it listens on

A socket is renamed into place only once it listens, so one that refuses belongs to a dead process
and is taken away by whoever meets it. There is no lock, no list, and nothing to clean up by hand.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

from adsum.errors import ConfigurationError, DialError
from adsum.forks import private
from adsum.transport.address import TcpAddress, UnixAddress, parse

_SUFFIX = ".sock"
#: Seconds after which a temporary socket belongs to a process that died before renaming it.
_TEMPORARY_AGE = 60.0
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


def cluster_directory(cluster: str) -> Path:
    """The directory of the sockets of one cluster's nodes on this host, made if need be.

    Raises:
        ConfigurationError: It, or the directory that holds it, is not safe: somebody else's, a
            link, or open to others. Nothing in it can then be trusted.
    """
    runtime = _runtime_directory()
    _secure_directory(runtime)
    directory = runtime / _short_hash(cluster)
    _secure_directory(directory)
    return directory


def sibling_socket_path(cluster: str) -> Path:
    """A new path for this node's socket; nothing is created there.

    Raises:
        ConfigurationError: The directory of the cluster is not safe, or its path is too long.
    """
    path = cluster_directory(cluster) / (secrets.token_hex(4) + _SUFFIX)
    parse(f"unix:{path}", "XDG_RUNTIME_DIR or TMPDIR")
    return path


def siblings(cluster: str, own: str | None = None) -> list[str]:
    """The addresses of nodes of `cluster` on this host, in a stable order.

    Those of processes that have just died are among them: dial, and `forget_stale` what refuses.

    Args:
        cluster: The cluster's name.
        own: This node's address, left out.

    Raises:
        ConfigurationError: The directory of the cluster is not safe.
    """
    directory = cluster_directory(cluster)
    _clean_temporaries(directory)
    paths = sorted(directory.glob(f"*{_SUFFIX}"))
    found = (f"unix:{path}" for path in paths if path.is_socket())
    return [address for address in found if address != own]


def forget_stale(address: str) -> None:
    """Take away the socket of a dead process, after a dial was refused.

    Only sockets in this user's runtime directory are touched; any other address is ignored. It
    probes once more first: nothing can begin to listen at a path that has refused, but the path
    may have been reused since.
    """
    try:
        where = parse(address, "address")
        runtime = _runtime_directory()
    except ConfigurationError:
        return
    if not isinstance(where, UnixAddress):
        return
    path = Path(os.path.normpath(where.path))
    if path.suffix != _SUFFIX or path.parent.parent != runtime:
        return
    # Anything that is no socket refuses connections, too.
    if path.is_symlink() or not path.is_socket():
        return
    if _refuses(path):
        with contextlib.suppress(OSError):
            path.unlink()


def leave(cluster: str) -> None:
    """Take away the directory of a cluster, if no socket is left in it.

    A node that starts at this very moment finds its directory gone, and has to make it again.
    """
    with contextlib.suppress(OSError, ConfigurationError):
        (_runtime_directory() / _short_hash(cluster)).rmdir()


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


def _runtime_directory() -> Path:
    """Where this user's sockets are; not created here."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/"):
        with contextlib.suppress(OSError):
            status = os.stat(given)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                return Path(os.path.normpath(given), "adsum")
    return Path(os.path.normpath(tempfile.gettempdir()), f"adsum-{os.getuid()}")


def _secure_directory(path: Path) -> None:
    """Create a directory for this user alone, or verify that the one that is there is such.

    In a directory like /tmp anybody may have been there first.
    """
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
    except OSError as error:
        raise _unsafe(path, f"cannot be used: {error.strerror or error}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise _unsafe(path, "is not a directory" + (", but a link" if path.is_symlink() else ""))
    if status.st_uid != os.getuid():
        raise _unsafe(path, f"belongs to user {status.st_uid}")
    if status.st_mode & 0o077:
        raise _unsafe(path, f"is open to others (mode {stat.S_IMODE(status.st_mode):o}, not 700)")


def _unsafe(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the runtime directory {str(path)!r} {why}; remove it, or set XDG_RUNTIME_DIR to a "
        "directory that only you can enter, or siblings=False (ADSUM_SIBLINGS=no) to do without"
    )


def _clean_temporaries(directory: Path) -> None:
    """Remove sockets that a process bound and did not live to rename."""
    # Wall time, since that is what files carry; at worst a name is kept, or its owner binds anew.
    oldest = time.time() - _TEMPORARY_AGE
    for path in directory.glob(".*"):
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
