"""Server processes with a room on the web: that of adsum, and what both sides have in common."""

import asyncio
import socket
import time
from typing import Any

import adsum
from benchmarks.host import knows
from benchmarks.measure import resident_bytes
from benchmarks.waiting import until


class WebServer:
    """A uvicorn, as its command line would start it; every method is an order from the parent."""

    def __init__(self) -> None:
        self._serving: asyncio.Task[None] | None = None

    async def serve(self, app: Any, deflate: bool) -> int:
        """Serve an application on a free port of the loopback; returns the port."""
        import uvicorn

        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws_per_message_deflate=deflate
        )
        server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0), backlog=config.backlog)
        self._serving = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        return int(listener.getsockname()[1])

    def cpu(self) -> float:
        """Seconds of CPU that this process has used, those of the system for it included."""
        return time.process_time()

    def resident(self) -> int:
        """See `resident_bytes`."""
        return resident_bytes()


class AdsumServer(WebServer):
    """A node, and a room whose members may change their metas as often as they like."""

    async def start(self, peers: str, deflate: bool) -> tuple[str, int]:
        """Start; returns the address of the node and the port for the browsers."""
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from benchmarks.rooms import make_socket

        self._node = adsum.Node(
            cluster="benchmark", siblings=False, listen="127.0.0.1:0", peers=peers or None
        )
        app = Starlette(
            routes=[Mount("/socket", make_socket(adsum.Presence(self._node)))],
            lifespan=self._node.lifespan,
        )
        port = await self.serve(app, deflate)
        return self._node.address or "", port

    async def settle(self, members: int) -> None:
        """Wait until this node knows so many others."""
        await until(lambda: knows(self._node, members, 0))
