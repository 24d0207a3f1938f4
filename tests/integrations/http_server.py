"""A process that serves HTTP under uvicorn, and registers itself.

Arguments: the cluster, and a file for the bodies of POST requests. Its first line names it. It
answers each request with the name of its node in the header `X-Server`, and no body: uvicorn sends
the head and the body of a response one after the other, and a killed server would now and then have
sent the head alone.
"""

import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import adsum

cluster, log = sys.argv[1:]
node = adsum.Node(cluster=cluster)
services = adsum.Services(node)
sock = socket.create_server(("127.0.0.1", 0))


async def answer(request: Request) -> Response:
    if body := await request.body():
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, body + b"\n")
        os.close(file)
    return Response(headers={"X-Server": node.name})


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    async with node, services.register("users", f"http://127.0.0.1:{sock.getsockname()[1]}"):
        print(json.dumps(["ready", time.monotonic(), node.name]), flush=True)
        yield


app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])], lifespan=lifespan)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[sock])
