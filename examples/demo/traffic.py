"""A service on each server, and a steady stream of requests from each to the live instances.

Every server answers with its name, and registers the address at which it does. Every server also
asks, ten times a second, whichever instance is next, and counts who answers. Kill one, and the
requests go to the others; cut the network, and each side asks its own.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator

import adsum

SERVICE = "names"
#: Seconds between two requests, and those after which another instance is asked.
INTERVAL, PATIENCE = 0.1, 0.3
#: Requests that are counted together: those of a second.
COUNTED = 10


class Traffic:
    """The service of one server and its requests.

    Args:
        node: The node of the server.

    Attributes:
        answered: How many of the last requests each server has answered; "" for those that failed.
    """

    def __init__(self, node: adsum.Node) -> None:
        self.answered = Counter[str]()
        self._node = node
        self._services = adsum.Services(node, pick="round_robin", rest=1.0)
        # Where others reach the service: a relay of the demo, which the cut in the network stops.
        self._path = os.environ.get("DEMO_ANSWERS", "")
        self._under_way = set[asyncio.Task[None]]()
        self._counting = Counter[str]()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve and ask while the application runs."""
        server = await asyncio.start_unix_server(self._answer, f"{self._path}.inside")
        asking = asyncio.create_task(self._keep_asking())
        async with server, self._services.register(SERVICE, f"unix:{self._path}"):
            yield
        for task in [asking, *self._under_way]:
            task.cancel()
        await asyncio.gather(asking, *self._under_way, return_exceptions=True)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(f"{self._node.name}\n".encode())
            await writer.drain()
        writer.close()

    async def _keep_asking(self) -> None:
        while True:
            task = asyncio.create_task(self._request())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(INTERVAL)

    async def _request(self) -> None:
        """Ask one instance, and another one if that fails: a name may be asked for twice."""
        try:
            name = await self._services.call(SERVICE, ask, idempotent=True)
        except (OSError, adsum.NoInstanceError):
            name = ""
        self._counting[name] += 1
        if self._counting.total() == COUNTED:
            self.answered, self._counting = self._counting, Counter()


async def ask(instance: adsum.Instance) -> str:
    """Ask one instance for its name."""
    async with asyncio.timeout(PATIENCE):
        path = instance.address.removeprefix("unix:")
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            name = (await reader.readline()).decode().strip()
        finally:
            writer.close()
    if not name:
        raise ConnectionResetError("closed without an answer")
    return name
