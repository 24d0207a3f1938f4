"""The demo: the servers, and one page that shows them and lets a visitor be unkind to them.

The page is served from here, because it must live when servers die. It talks to each server
directly, with phoenix.js; here it only asks for signals to be sent and for the network to be cut,
and hears what the servers were seen to do.
"""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from adsum.cli import phoenixjs
from cluster import ACTIONS, Cluster, RefusedError
from engine import EngineError
from process import StartError

PAGE = Path(__file__).with_name("page")
APP = Path(__file__).with_name("app.py")
WORDS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}


def run(nodes: int = 3, port: int = 0, carrier: str | None = None) -> int:
    """Run until interrupted; returns the exit code.

    Args:
        nodes: How many servers.
        port: Where the page is served, the servers on the ports after it; 0 takes free ones.
        carrier: ``nats`` or ``redis``, an engine over which the servers are linked; None for none.
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
        return asyncio.run(serve(nodes, listener, port + 1 if port else 0, carrier))


class PageServer(uvicorn.Server):
    """Leaves signals alone: they concern the servers of the cluster, too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    nodes: int, listener: socket.socket, first_port: int, carrier: str | None = None
) -> int:
    """Start everything, serve the page, and on a signal end everything in order."""
    port = listener.getsockname()[1]
    try:
        cluster = Cluster(nodes, first_port, carrier)
    except EngineError as error:
        print(f"adsum demo: --carrier {carrier}: {error}", file=sys.stderr)
        return 1
    app = make_app(cluster)
    server = PageServer(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
    end_on_signals(server, cluster)
    over = f" over {cluster.engine.program}" if cluster.engine is not None else ""
    print(f"{WORDS[nodes]} servers are starting, to form one cluster{over} ...", flush=True)
    try:
        app.mount("/phoenix", StaticFiles(directory=await asyncio.to_thread(phoenixjs.install)))
        app.mount("/", StaticFiles(directory=PAGE, html=True))
        async with cluster:
            print(f"\n    open  http://127.0.0.1:{port}\n", flush=True)
            print("Ctrl-C ends everything.", flush=True)
            await server.serve(sockets=[listener])
    except (StartError, EngineError, phoenixjs.InstallError) as error:
        print(f"adsum demo: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        pass  # interrupted before there was anything to serve
    return 0


def end_on_signals(server: uvicorn.Server, cluster: Cluster) -> None:
    """Ctrl-C, a polite kill and a closed terminal end the demo, at whatever point it is."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        if not server.started and not server.should_exit and main is not None:
            main.cancel()
        server.should_exit = True
        cluster.end()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)


def make_app(cluster: Cluster) -> Starlette:
    """What the page asks for; the page itself is mounted once all of it is there."""
    app = Starlette(
        routes=[
            Route("/state", state),
            Route("/nodes/{name}/{action}", act, methods=["POST"]),
            Route("/network/split/{name}", split, methods=["POST"]),
            Route("/network/heal", heal, methods=["POST"]),
            Route("/engine/{action}", engine, methods=["POST"]),
            Route("/events", events),
            Route("/app.py", source),
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
    if name not in cluster.servers or action not in ACTIONS:
        return JSONResponse({"error": f"there is no {action} of {name}"}, 404)
    return await attempt(request, lambda: cluster.act(action, name))


async def split(request: Request) -> JSONResponse:
    """Cut the network after a server."""
    cluster: Cluster = request.app.state.cluster
    name = request.path_params["name"]
    if name not in cluster.servers:
        return JSONResponse({"error": f"there is no {name}"}, 404)
    return await attempt(request, lambda: cluster.split(name))


async def heal(request: Request) -> JSONResponse:
    """Mend the network."""
    return await attempt(request, request.app.state.cluster.heal)


async def engine(request: Request) -> JSONResponse:
    """Kill the engine that carries the links, or start it again."""
    action = request.path_params["action"]
    if action not in ("kill", "start"):
        return JSONResponse({"error": f"there is no {action} of the engine"}, 404)
    return await attempt(request, lambda: request.app.state.cluster.act_on_engine(action))


async def attempt(request: Request, work: Callable[[], Awaitable[None] | None]) -> JSONResponse:
    """Do something to the cluster, if the demo's own page asks and it makes sense."""
    if not from_own_page(request):
        return JSONResponse({"error": "only the demo's own page may do this"}, 403)
    try:
        doing = work()
        if doing is not None:
            await doing
    except (RefusedError, StartError, EngineError) as error:
        return JSONResponse({"error": str(error)}, 409)
    return JSONResponse(request.app.state.cluster.describe())


def from_own_page(request: Request) -> bool:
    """Whether no other site's page makes the browser send this."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def source(request: Request) -> FileResponse:
    """What each server runs, to be read on the page."""
    return FileResponse(APP, media_type="text/plain")


async def events(request: Request) -> StreamingResponse:
    """What `state` answers, whenever it changes; an `EventSource` of the page reads it."""
    return StreamingResponse(states(request.app.state.cluster), media_type="text/event-stream")


async def states(cluster: Cluster) -> AsyncIterator[str]:
    while not cluster.ending:
        changed = cluster.changed
        yield f"data: {json.dumps(cluster.describe())}\n\n"
        await changed.wait()
