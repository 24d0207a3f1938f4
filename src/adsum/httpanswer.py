"""Whole answers to HTTP requests, of which nobody may have read the body."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from adsum.tasks import cancel_task, start_task

Event = MutableMapping[str, Any]
ASGIReceive = Callable[[], Awaitable[Event]]
ASGISend = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


async def answer_http(
    receive: ASGIReceive, send: ASGISend, status: int, headers: Headers, body: bytes = b""
) -> None:
    """Answer an HTTP request, and drop the part of its body that has not been read.

    A server that hands over the body through a queue (Hypercorn) waits for the queue's reader, and
    would otherwise keep the connection of a client that has gone for ever.

    Args:
        receive: The ASGI callable of the request.
        send: The ASGI callable of the request.
        status: The HTTP status.
        headers: Those to send beside the length of the body.
        body: The body to send.
    """
    length = (b"content-length", str(len(body)).encode())
    dropping = start_task(until_disconnected(receive))
    try:
        started = {"type": "http.response.start", "status": status, "headers": [length, *headers]}
        await send(started)
        await send({"type": "http.response.body", "body": body})
    finally:
        cancel_task(dropping)


async def until_disconnected(receive: ASGIReceive) -> None:
    """Drop the body of a request until its connection ends, if the server reports that."""
    message = await receive()
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()
    if message["type"] != "http.disconnect" and (await receive())["type"] != "http.disconnect":
        await asyncio.get_running_loop().create_future()
