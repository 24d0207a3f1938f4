"""The demo: the servers, and one page that shows them and lets a visitor be unkind to them.

The page is served from here, because it must live when servers die. It talks to each server
directly; here it only asks for signals to be sent, and hears what the servers were seen to do.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from cluster import ACTIONS, Cluster, RefusedError, StartError

PAGE = Path(__file__).with_name("page")
WORDS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}


def run(nodes: int = 3, port: int = 0) -> int:
    """Run until interrupted; returns the exit code.

    Args:
        nodes: How many servers.
        port: Where the page is served, the servers on the ports after it; 0 takes free ones.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # so that whoever is as fast as a script finds an open door
    except OSError as error:
        print(f"adsum demo: port {port}: {error.strerror}", file=sys.stderr)
        return 1
    with listener:
        return asyncio.run(serve(nodes, listener, port + 1 if port else 0))


class PageServer(uvicorn.Server):
    """Leaves signals alone: they concern the servers of the cluster, too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(nodes: int, listener: socket.socket, first_port: int) -> int:
    """Start everything, serve the page, and on a signal end everything in order."""
    cluster = Cluster(nodes, first_port)
    config = uvicorn.Config(make_app(cluster), log_config=None, timeout_graceful_shutdown=2)
    server = PageServer(config)
    end_on_signals(server)
    print(f"{WORDS[nodes]} servers are starting, to form one cluster ...", flush=True)
    try:
        async with cluster:
            print(f"\n    open  http://127.0.0.1:{listener.getsockname()[1]}\n", flush=True)
            print("Ctrl-C ends everything.", flush=True)
            await server.serve(sockets=[listener])
    except StartError as error:
        print(f"adsum demo: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        pass  # interrupted before there was anything to serve
    return 0


def end_on_signals(server: uvicorn.Server) -> None:
    """Ctrl-C, a polite kill and a closed terminal end the demo, at whatever point it is."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        if not server.started and not server.should_exit and main is not None:
            main.cancel()
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)


def make_app(cluster: Cluster) -> Starlette:
    """The page, and what it asks for."""
    app = Starlette(
        routes=[
            Route("/state", state),
            Route("/nodes/{name}/{action}", act, methods=["POST"]),
            WebSocketRoute("/events", events),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        # Other sites must not reach this page under a name of theirs.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )
    app.state.cluster = cluster
    return app


async def state(request: Request) -> JSONResponse:
    """The servers, and the last incidents with their timings."""
    return JSONResponse(request.app.state.cluster.describe())


async def act(request: Request) -> JSONResponse:
    """Kill, pause, resume or restart a server."""
    cluster: Cluster = request.app.state.cluster
    name, action = request.path_params["name"], request.path_params["action"]
    if not from_own_page(request):
        return JSONResponse({"error": "only the demo's own page may do this"}, 403)
    if name not in cluster.servers or action not in ACTIONS:
        return JSONResponse({"error": f"there is no {action} of {name}"}, 404)
    try:
        await cluster.act(action, name)
    except (RefusedError, StartError) as error:
        return JSONResponse({"error": str(error)}, 409)
    return JSONResponse(cluster.describe())


def from_own_page(request: Request) -> bool:
    """Whether no other site's page makes the browser send this."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def events(websocket: WebSocket) -> None:
    """What `state` answers, whenever it changes."""
    await websocket.accept()
    sender = asyncio.create_task(send_states(websocket))
    with contextlib.suppress(WebSocketDisconnect):
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    sender.cancel()


async def send_states(websocket: WebSocket) -> None:
    cluster: Cluster = websocket.app.state.cluster
    while True:
        changed = cluster.changed
        await websocket.send_json(cluster.describe())
        await changed.wait()
