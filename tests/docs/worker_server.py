"""A program of a how-to page under uvicorn with several workers, shared by the tests of a file."""

import asyncio
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.asyncio.client import ClientConnection, connect

from tests.support.environment import RUNTIME_DIR, clean_environment
from tests.support.ports import free_port
from tests.support.socket_owner import owner_of
from tests.support.waiting import DEADLINE, eventually, until

from .example_processes import EXAMPLES, WORKERS

_numbers = itertools.count(1)


class WorkerServer:
    """A running server; uvicorn starts a worker again after it was killed.

    Attributes:
        port: Its port on the loopback address.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def post(self, path: str, value: Any) -> Any:
        """Post JSON to any worker; returns the JSON of the answer, None if it is empty."""
        header = {"content-type": "application/json"}
        request = Request(self.url(path), json.dumps(value).encode(), header)
        with urlopen(request, timeout=DEADLINE) as answer:
            return json.loads(answer.read() or "null")

    def stop(self) -> None:
        """Ask it to stop, and wait for its end; nothing of it is left."""
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        finally:
            with suppress(ProcessLookupError):  # no worker is left
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it with all of its workers, as a crash of the machine does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE)
        eventually(lambda: not _accepts(self.port), "its workers have ended")

    def output(self) -> str:
        """Everything that its processes have printed so far."""
        return self._log.read_text()

    async def worker_of(self, client: ClientConnection | int) -> int:
        """The worker that serves a client, given its connection or its port."""
        port = client if isinstance(client, int) else client.local_address[1]
        return int(await until(lambda: owner_of(self.port, port), "a worker accepts"))

    async def each_worker_answers(self, path: str, expected: Any) -> None:
        """Wait until each worker answers a request with this JSON."""
        agreed: set[int] = set()

        async def all_agree() -> bool:
            worker, answer = await asyncio.to_thread(self._ask, path)
            (agreed.add if answer == expected else agreed.discard)(worker)
            return len(agreed) == WORKERS

        await until(all_agree, f"each worker answers {path} with {expected}")

    def _ask(self, path: str) -> tuple[int, Any]:
        """A worker, and its answer to a request over a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with closing(connection):
            connection.connect()
            port: int = connection.sock.getsockname()[1]
            worker: int = eventually(lambda: owner_of(self.port, port), "a worker accepts")
            connection.request("GET", path)
            return worker, json.loads(connection.getresponse().read())

    @asynccontextmanager
    async def on_two_workers(self, path: str) -> AsyncIterator[list[ClientConnection]]:
        """Two WebSocket clients at different workers; `{number}` in the path differs for each.

        There are no others. The two read any number of messages ahead; a client that stops at a
        bound notices the end of its connection only after 40 seconds.
        """
        async with AsyncExitStack() as stack:
            found: dict[int, ClientConnection] = {}
            async with asyncio.timeout(DEADLINE):
                while len(found) < WORKERS:
                    url = self.url(path.format(number=next(_numbers)), "ws")
                    client = await stack.enter_async_context(
                        connect(url, proxy=None, max_queue=None)
                    )
                    if found.setdefault(await self.worker_of(client), client) is not client:
                        await client.close()
            yield list(found.values())


@contextmanager
def worker_server(app: str, at: int = 0, /, **variables: str) -> Iterator[WorkerServer]:
    """Serve a program of `examples` with two workers; at the end it has logged no traceback.

    Args:
        app: The application, as uvicorn names it.
        at: The port; 0 for a free one.
        variables: More of its environment.
    """
    with tempfile.TemporaryDirectory(prefix="adsum") as folder:
        port, log = at or free_port(), Path(folder) / "log"
        cluster = {"ADSUM_CLUSTER": f"docs-{secrets.token_hex(4)}", RUNTIME_DIR: folder}
        usual = ["--port", str(port), "--workers", str(WORKERS), "--log-level", "warning"]
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", app, *usual],
                cwd=EXAMPLES,
                env={**clean_environment(), **cluster, **variables},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            server = WorkerServer(process, port, log)
            workers: set[int | None] = set()
            ended = process.poll
            eventually(lambda: ended() is not None or _all_accept(port, workers), "all accept")
            yield server
        finally:
            server.stop()
        assert "Traceback" not in log.read_text(), log.read_text()


def _accepts(port: int) -> bool:
    """Whether anybody listens at a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def _all_accept(port: int, workers: set[int | None]) -> bool:
    """Connect once more, and add the process that has accepted the connection."""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as client:
        number: int = client.getsockname()[1]
        workers.add(eventually(lambda: owner_of(port, number), "a worker accepts"))
    return len(workers) == WORKERS


async def receive(client: ClientConnection, right: Callable[[Any], bool]) -> Any:
    """Receive JSON until a message is right, and return that."""
    async with asyncio.timeout(DEADLINE):
        while not right(message := json.loads(await client.recv())):
            pass
    return message


def kill(worker: int) -> None:
    """End one worker as a crash does."""
    os.kill(worker, signal.SIGKILL)
