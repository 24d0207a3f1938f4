"""A node, and servers in the event loop of a test, each an instance of a service."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import adsum

from .raw_server import RawServer


@asynccontextmanager
async def registered(
    *names: str, **settings: Any
) -> AsyncIterator[tuple[adsum.Services, list[RawServer]]]:
    """A node and some servers, each an instance of ``users``."""
    node = adsum.Node(siblings=False)
    services = adsum.Services(node, **settings)
    async with node, AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(RawServer(name)) for name in names]
        for server in servers:
            services.register("users", server.address)
        yield services, servers
