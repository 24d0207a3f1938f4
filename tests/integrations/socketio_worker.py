"""A worker of a Socket.IO application in the event loop of a test, with a client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import socketio
import uvicorn

import adsum
from adsum.integrations.socketio import AsyncAdsumManager
from tests.support.nodes import running
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

#: The topic of the default channel.
TOPIC = "socketio:socketio"


class Site:
    """A worker of a Socket.IO application in the loop of the test, and a client of it."""

    def __init__(self, node: adsum.Node, serializer: str = "default", **settings: Any) -> None:
        self.manager = AsyncAdsumManager(node, **settings)
        self.server = socketio.AsyncServer(
            async_mode="asgi", client_manager=self.manager, serializer=serializer
        )
        self.client = socketio.AsyncClient(reconnection=False, serializer=serializer)
        self.received: list[Any] = []
        self.client.on("said", self.received.append)
        self.port = free_port()

    async def connect(self) -> str:
        """Connect the client; returns its id at the server."""
        await self.client.connect(
            f"http://127.0.0.1:{self.port}", transports=["websocket"], wait_timeout=DEADLINE
        )
        return str(self.client.get_sid())

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        app = socketio.ASGIApp(self.server)
        server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="error"))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started, "the server starts")
        try:
            yield
        finally:
            await self.client.disconnect()
            server.should_exit = True
            await serving


@asynccontextmanager
async def sites(cluster: str, **settings: Any) -> AsyncIterator[tuple[list[adsum.Node], Site]]:
    """Two nodes, and a site on the second with a connected client."""
    async with running(2, cluster=cluster) as nodes:
        site = Site(nodes[1], **settings)
        async with site.served():
            await site.connect()
            yield nodes, site
