"""An HTTP service on several processes, and the clients of three libraries.

    pip install '..[httpx,aiohttp]' starlette uvicorn    # in examples/ of a checkout
    python service_clients.py serve         in as many terminals as you like
    python service_clients.py httpx         or aiohttp, or threads, in one more

End a server by Ctrl-C or `kill -9`, or suspend it by `kill -STOP`: requests go to the others.
"""

import asyncio
import http.client
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import adsum
from adsum.integrations.aiohttp import ServiceConnector
from adsum.integrations.httpx import ServiceTransport

# Servers and clients are started by different command lines, so the cluster needs a name.
node = adsum.Node(cluster="service-clients-example")
services = adsum.Services(node)

#: Seconds after which a client asks another server.
PATIENCE = 0.5


def serve() -> None:
    """Serve on a free port until a signal."""
    # It accepts connections from now on, so the address may be registered before uvicorn starts.
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()

    async def greet(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"hello {request.path_params['name']}, from {node.name}")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with node, services.register("greeter", f"http://{host}:{port}"):
            print(f"{node.name} serves on port {port}", flush=True)
            yield

    app = Starlette(routes=[Route("/{name}", greet)], lifespan=lifespan)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


async def ask_by_httpx() -> None:
    """Ask with httpx."""
    mounts = {"svc://": ServiceTransport(services)}
    async with node, httpx.AsyncClient(mounts=mounts, timeout=PATIENCE) as client:

        async def ask() -> str:
            return (await client.get("svc://greeter/ann")).text

        await keep_asking(ask, httpx.HTTPError)


async def ask_by_aiohttp() -> None:
    """Ask with aiohttp."""
    timeout = aiohttp.ClientTimeout(sock_connect=PATIENCE, sock_read=PATIENCE)
    connector = ServiceConnector(services)
    async with node, aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask() -> str:
            async with session.get("svc://greeter/ann") as response:
                return await response.text()

        await keep_asking(ask, aiohttp.ClientError)


async def keep_asking(ask: Callable[[], Awaitable[str]], errors: type[Exception]) -> None:
    """Ask ten times a second, and print the answers."""
    await services.wait_for("greeter", timeout=30)
    while True:
        try:
            print(await ask(), flush=True)
        except errors as error:
            print("failed:", error, flush=True)
        await asyncio.sleep(0.1)


def ask_by_threads() -> None:
    """Ask with the standard library, in a thread: any client can use `attempts`."""
    with adsum.Portal(node) as portal:
        portal.call(services.wait_for, "greeter", timeout=30)
        while True:
            try:
                print(ask_in_thread(portal), flush=True)
            except (OSError, http.client.HTTPException, adsum.NoInstanceError) as error:
                print("failed:", error, flush=True)
            time.sleep(0.1)


def ask_in_thread(portal: adsum.Portal) -> str:
    """Ask one server after the other, until one answers."""
    errors = (http.client.HTTPException,)  # besides OSError
    attempts = services.attempts("greeter", idempotent=True, failures=errors)
    while True:
        attempt = portal.call(next, attempts)
        try:
            text = fetch(attempt.instance)
        except BaseException as error:
            if not portal.call(attempt.raised, error):
                raise
        else:
            portal.call(attempt.succeeded)
            return text


def fetch(instance: adsum.Instance) -> str:
    """Ask one server."""
    address = instance.address.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", "/ann")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        match sys.argv[1:]:
            case ["serve"]:
                serve()
            case ["httpx"]:
                asyncio.run(ask_by_httpx())
            case ["aiohttp"]:
                asyncio.run(ask_by_aiohttp())
            case ["threads"]:
                ask_by_threads()
            case _:
                sys.exit("usage: service_clients.py serve|httpx|aiohttp|threads")
