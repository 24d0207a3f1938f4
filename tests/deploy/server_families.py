"""Servers with several workers, each with its command; started, reloaded, asked for its workers."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.environment import clean_environment
from tests.support.http_json import fetch_json
from tests.support.markdown_pages import ROOT, blocks
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

APP = Path(__file__).with_name("worker_app.py")
#: The same application, for a server that takes those of FastAPI only.
_FASTAPI = """
from fastapi import FastAPI
from worker_app import app as inner, lifespan

app = FastAPI(lifespan=lifespan)
app.mount("/", inner)
"""


@dataclass(frozen=True)
class ServerFamily:
    """A server, and how it is run.

    Attributes:
        name: The server, and its kind of workers.
        package: Whose version is shown.
        command: With places for the number of workers and the port.
        reload: The signal that replaces the workers; None where each process is restarted in turn.
        processes: Whether each worker is a server of its own, on a port of its own.
        direct: Whether its connections are direct.
        survives: Whether it replaces a killed worker; else it ends.
        short: Whether it is started in every run; other tests do that for some.
    """

    name: str
    package: str
    command: str
    reload: signal.Signals | None = signal.SIGHUP
    processes: bool = False
    direct: bool = False
    survives: bool = True
    short: bool = True

    @property
    def title(self) -> str:
        return f"{self.name} {version(self.package)}"


_GUNICORN = (
    "gunicorn worker_app:app --bind 127.0.0.1:{port} --graceful-timeout 2 --workers {workers} "
    "--worker-class "
)
SERVERS = [
    ServerFamily(
        "uvicorn",
        "uvicorn",
        "uvicorn worker_app:app --port {port} --workers {workers} --timeout-graceful-shutdown 3",
        short=False,
    ),
    ServerFamily(
        "fastapi run", "fastapi-cli", "fastapi run fastapi_app.py --port {port} --workers {workers}"
    ),
    ServerFamily("gunicorn, UvicornWorker", "gunicorn", _GUNICORN + "uvicorn_worker.UvicornWorker"),
    ServerFamily(
        "gunicorn, DirectWorker", "gunicorn", _GUNICORN + "direct.DirectWorker", direct=True
    ),
    ServerFamily("gunicorn, asgi", "gunicorn", _GUNICORN + "asgi"),
    ServerFamily(
        "hypercorn",
        "hypercorn",
        "hypercorn worker_app:app --bind 127.0.0.1:{port} --workers {workers} --graceful-timeout 1",
        survives=False,
        short=False,
    ),
    ServerFamily(
        "granian",
        "granian",
        "granian --interface asgi --port {port} --workers {workers} --respawn-failed-workers "
        "worker_app:app",
    ),
    ServerFamily(
        "daphne, processes",
        "daphne",
        "daphne -b 127.0.0.1 -p {port} worker_app:application",
        reload=None,
        processes=True,
        short=False,
    ),
]


def write_files(directory: Path) -> None:
    """Write the application, and the worker class of the page on direct connections."""
    (directory / APP.name).write_text(APP.read_text())
    page = blocks(ROOT / "docs/direct-connections.md")
    (worker,) = (block.text for block in page if "class DirectWorker" in block.text)
    (directory / "direct.py").write_text(worker)
    (directory / "fastapi_app.py").write_text(_FASTAPI)


class Workers:
    """A server with its workers.

    Args:
        family: The server.
        directory: Where the application is.
        environment: Settings of its nodes, as ``ADSUM_*``.
        count: How many workers.
    """

    def __init__(
        self, family: ServerFamily, directory: Path, environment: Mapping[str, str], count: int
    ) -> None:
        self.family = family
        self.count = count
        self.ports = [free_port() for _ in range(count if family.processes else 1)]
        self._directory = directory
        self._environment = {**clean_environment(), **environment}
        self._log = directory / "server.log"
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> float:
        """Start it; returns the seconds until all workers agree on the members."""
        began = time.monotonic()
        self._processes = [await self._launch(port) for port in self.ports]
        await self.until_agreed()
        return time.monotonic() - began

    async def until_agreed(self, without: Sequence[str] = ()) -> dict[str, Any]:
        """Wait until each worker lists all workers, none of which is one of these names."""

        async def agreed() -> dict[str, Any] | None:
            names = await self.names()
            metas = {name: meta for name, meta in names.items() if name not in without}
            for process in self._processes:
                assert process.returncode is None, self.log
            same = all(meta.get("listed") == sorted(metas) for meta in metas.values())
            return metas if len(metas) == self.count and same else None

        metas: dict[str, Any] = await until(agreed, f"{self.count} workers agree")
        return metas

    async def until_forgotten(self, name: str) -> float:
        """Wait until no worker lists a member; returns the seconds."""
        began = time.monotonic()

        async def forgotten() -> bool:
            metas = await self.names()
            return bool(metas) and all(
                name not in meta.get("listed", [name])
                for other, meta in metas.items()
                if other != name
            )

        await until(forgotten, f"nobody lists {name}")
        return time.monotonic() - began

    async def names(self) -> dict[str, Any]:
        """Each worker by the name of its node, as any of them lists it; empty without an answer."""
        answers = [await self.get(port) for port in self.ports]
        return next((answer["workers"] for answer in answers if answer), {})

    async def cluster(self) -> str:
        return str((await self.get(self.ports[0]))["cluster"])

    async def get(self, port: int) -> Any:
        return await asyncio.to_thread(fetch_json, f"http://127.0.0.1:{port}/workers")

    async def reload(self) -> None:
        """Replace all workers, as the server does it, and wait until the new ones agree."""
        before = list(await self.names())
        if self.family.reload is not None:
            self._processes[0].send_signal(self.family.reload)
        else:
            for index, port in enumerate(self.ports):
                await end(self._processes[index])
                self._processes[index] = await self._launch(port)
                await until(partial(self.get, port), "it serves again")
        await self.until_agreed(without=before)

    async def replace(self, pid: int) -> None:
        """Start a process again that has died, as a supervisor does."""
        (index,) = (i for i, process in enumerate(self._processes) if process.pid == pid)
        await self._processes[index].wait()
        self._processes[index] = await self._launch(self.ports[index])
        await until(partial(self.get, self.ports[index]), "it serves again")

    async def ended(self) -> None:
        """Wait for the end of all its processes."""
        async with asyncio.timeout(DEADLINE):
            for process in self._processes:
                await process.wait()

    async def terminate(self) -> int:
        """Ask it to stop; returns its exit code, the highest if there are several processes."""
        return max([await end(process) for process in self._processes])

    async def kill(self) -> None:
        """End it, with all its workers, if it still runs."""
        for process in self._processes:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def _launch(self, port: int) -> asyncio.subprocess.Process:
        command = self.family.command.format(port=port, workers=self.count).split()
        with self._log.open("a") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *command,
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


async def end(process: asyncio.subprocess.Process) -> int:
    process.terminate()
    async with asyncio.timeout(DEADLINE):
        return await process.wait()
