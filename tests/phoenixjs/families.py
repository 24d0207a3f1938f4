"""Libraries of clients, each with its version, and the programs that run them."""

import base64
import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from adsum.cli import phoenixjs

from .clients import Clients, NodeClients, PythonClients
from .scenario import ROOM

#: Packages of npm, each with its digest.
PACKAGES = Path(__file__).with_name("packages")
#: The client of Supabase needs an older version of websockets than the tests have.
REALTIME = ("realtime==2.34.1", "websockets==15.0.1")


#: The disconnect of old versions leaves the poll at the server, so the presence stays for as long.
LEAVES_FIRST = "leave the channel before `disconnect`, which does not end the poll"


@dataclass(frozen=True)
class Family:
    """A client library over one carrier.

    Attributes:
        name: The library and its version.
        carrier: ``WebSocket`` or ``long polling``.
        clients: Makes its clients.
        how: Options of their connections.
        topic: The topic of the room, as the server knows it.
        notes: Steps that the library has no means for, each with the reason.
        short: Whether it is tested in every run.
    """

    name: str
    carrier: str
    clients: Callable[[], Clients]
    how: dict[str, Any] = field(default_factory=dict)
    topic: str = ROOM
    notes: dict[str, str] = field(default_factory=dict)
    short: bool = False

    @property
    def title(self) -> str:
        return f"{self.name}, {self.carrier}"


@functools.cache
def node_modules() -> Path:
    """The directory with the packages of npm; they are installed once for each user."""
    lock = (PACKAGES / "package-lock.json").read_bytes()
    place = phoenixjs._cache() / f"clients-{hashlib.sha256(lock).hexdigest()[:8]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".installing-", dir=place.parent) as aside:
            made = Path(aside, place.name)
            made.mkdir()
            for file in PACKAGES.iterdir():
                (made / file.name).write_bytes(file.read_bytes())
            try:
                phoenixjs._npm("ci", "--prefix", str(made), *phoenixjs._FLAGS)
            except phoenixjs.InstallError as error:
                pytest.skip(f"client libraries are missing: {error}")
            with suppress(OSError):  # another process was faster
                made.rename(place)
    return place / "node_modules"


@functools.cache
def realtime_python() -> Path:
    """An interpreter with the client of Supabase; its environment is made once for each user."""
    digest = base64.b32encode(hashlib.sha256(repr(REALTIME).encode()).digest()).decode()[:8]
    place = phoenixjs._cache() / f"realtime-{sys.version_info.minor}-{digest.lower()}"
    python = place / "bin" / "python"
    if not (place / ".installed").exists():
        venv.create(place, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([python, *install, *REALTIME], check=True)
        (place / ".installed").touch()
    return python


def packed(package: str) -> dict[str, Any]:
    """The description of a package of npm, as the lock file pins it."""
    packages = json.loads((PACKAGES / "package-lock.json").read_text())["packages"]
    found: dict[str, Any] = packages[f"node_modules/{package}"]
    return found


def phoenix(package: str, file: str, carrier: str) -> Family:
    """A version of phoenix.js over a carrier."""

    def clients() -> Clients:
        library = node_modules() / package / "priv" / "static" / file
        # Only the newest version runs without the globals of a browser.
        return NodeClients(library, environment={} if package == "phoenix" else {"BROWSER": "yes"})

    how: dict[str, Any] = {"transport": "longpoll"} if carrier == "long polling" else {}
    notes = {}
    if package in ("phoenix-1.4", "phoenix-1.5"):
        how["mergedJoins"] = True
        notes["update in place"] = "ok; `onJoin` repeats the metas before"
    if package in ("phoenix-1.4", "phoenix-1.5") and carrier == "long polling":
        notes["second tab"] = f"ok; {LEAVES_FIRST}"
    return Family(f"phoenix.js {packed(package)['version']}", carrier, clients, how, notes=notes)


def absinthe() -> Clients:
    modules = node_modules()
    return NodeClients(
        modules / "phoenix" / "priv" / "static" / "phoenix.cjs.js",
        modules / "@absinthe" / "socket" / "compat" / "cjs" / "index.js",
    )


PHOENIX = {
    "phoenix": "phoenix.mjs",
    "phoenix-1.7": "phoenix.mjs",
    "phoenix-1.6": "phoenix.mjs",
    "phoenix-1.5": "phoenix.js",
    "phoenix-1.4": "phoenix.js",
}
LISTENER = "phoenix-channels-python-client"
_LISTENS = dict.fromkeys(["reply", "error reply"], "the library only listens")
FAMILIES = [
    *(
        phoenix(package, file, carrier)
        for package, file in PHOENIX.items()
        for carrier in ("WebSocket", "long polling")
    ),
    Family(
        f"@absinthe/socket {packed('@absinthe/socket')['version']}",
        "WebSocket",
        absinthe,
        notes={"error reply": "ok; the library drops the reason"},
        short=True,
    ),
    Family(
        f"{LISTENER} {version(LISTENER)} (V1)",
        "WebSocket",
        lambda: PythonClients(sys.executable, f"{LISTENER} 1.0"),
        notes=_LISTENS,
        short=True,
    ),
    Family(
        f"{LISTENER} {version(LISTENER)} (V2)",
        "WebSocket",
        lambda: PythonClients(sys.executable, f"{LISTENER} 2.0"),
        notes={**_LISTENS, "broadcast": "the library drops it, as it names no join"},
    ),
    Family(
        REALTIME[0].replace("==", " "),
        "WebSocket",
        lambda: PythonClients(realtime_python(), "realtime"),
        topic=f"realtime:{ROOM}",
        notes={"reply": "ok; the library drops the response"},
    ),
]
