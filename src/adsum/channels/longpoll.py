"""The long-poll transport: phoenix.js's way where WebSockets do not get through.

A client asks with GET and is answered when there is something for it, or after a while; it sends
with POST. Its first GET makes a session, see `sessions`. What clients look at is the status in the
body; that of HTTP is 200 but for refusals.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from adsum.replication.jsontext import dump
from adsum.tasks import start_task

from .client import Client
from .connection import Connection
from .frames import V2_TEXT, Serializer, Version2
from .handshake import Origins, RejectedError, Scope, headers_of, params_of
from .hub import Hub
from .relay import Question
from .sessions import Sessions, read_token
from .websocket import Receive, Send

logger = logging.getLogger("adsum")

#: How many frames of the largest size one POST may have room for.
_MAX_BODY_FRAMES = 16

Headers = list[tuple[bytes, bytes]]
Admit = Callable[[Scope, str, "asyncio.Future[Any]"], Awaitable[tuple[Client, Serializer] | int]]
_JSON = (b"content-type", b"application/json; charset=utf-8")


class LongPoll:
    """See the module.

    Args:
        hub: What all connections share.
        origins: The sites whose pages may read the answers.
        admit: Decides who may connect.
    """

    def __init__(self, hub: Hub, origins: Origins, admit: Admit) -> None:
        self._hub = hub
        self._origins = origins
        self._admit = admit
        self._sessions = Sessions.of(hub.presence.node)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = headers_of(scope)
        try:
            self._origins.check(headers)
            token = params_of(scope).get("token", "")
        except RejectedError as error:
            logger.warning("a client that polls was refused: %s", error)
            await _answer_with(send, 403, {"status": 403}, [])
            return
        status, answer = await self._respond(scope, receive, headers, token)
        await _answer_with(send, status, answer, _cross_origin(scope["method"], headers))

    async def _respond(
        self, scope: Scope, receive: Receive, headers: dict[str, str], token: str
    ) -> tuple[int, Question]:
        """The HTTP status, and the answer, which has the status that clients look at."""
        method = scope["method"]
        if method == "OPTIONS":
            return 200, {"status": 200}
        if method == "GET":
            # What is no token of a session may be the application's own parameter of that name.
            if read_token(token) is not None:
                return 200, await self._poll(token, receive)
            return await self._begin(scope, receive)
        if method != "POST":
            return 400, {"status": 400}
        body = await _body(receive, _MAX_BODY_FRAMES * self._hub.limits.frame_size)
        if body is None:
            logger.warning("a client that polls sent too much at once")
            return 413, {"status": 413}
        try:
            text = body.decode()
        except UnicodeDecodeError:
            logger.warning("a client that polls sent what is not UTF-8")
            return 400, {"status": 400}
        # One frame on each line, or just one, as older clients send it.
        lines = "ndjson" in headers.get("content-type", "")
        return 200, await self._sessions.send(token, text, lines=lines)

    async def _begin(self, scope: Scope, receive: Receive) -> tuple[int, Question]:
        """Make a session; clients take 410 as the beginning of one."""
        gone = start_task(_disconnected(receive))
        try:
            admitted = await self._admit(scope, "longpoll", gone)
        finally:
            gone.cancel()
        if isinstance(admitted, int):
            return admitted, {"status": 403 if admitted == 403 else 500}
        client, serializer = admitted
        if isinstance(serializer, Version2):
            serializer = V2_TEXT
        token = self._sessions.begin(Connection(self._hub, client, serializer))
        return 200, {"status": 410, "token": token, "messages": []}

    async def _poll(self, token: str, receive: Receive) -> Question:
        """The answer to a request that may wait, unless its connection ends before."""
        asking = start_task(self._sessions.poll(token))
        broken = start_task(_disconnected(receive))
        try:
            await asyncio.wait({asking, broken}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                await self._sessions.break_off(token)
            return {"token": None, "messages": [], **await asking}
        finally:
            asking.cancel()
            broken.cancel()


async def _disconnected(receive: Receive) -> None:
    """Wait until the connection of a request has ended, if the server tells of that."""
    message: Any = await receive()
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()
    if message["type"] != "http.disconnect" and (await receive())["type"] != "http.disconnect":
        await asyncio.get_running_loop().create_future()


async def _body(receive: Receive, limit: int) -> bytes | None:
    """The body of a request; None if it is too large, or cut off."""
    pieces, size, more = list[bytes](), 0, True
    while more:
        message: Any = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        more = message.get("more_body", False)
        if size > limit:
            return None
    return b"".join(pieces)


def _cross_origin(method: str, headers: dict[str, str]) -> Headers:
    """What lets a page of an accepted origin read the answer."""
    origin = headers.get("origin")
    if origin is None:
        return []
    shown = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"origin"),
    ]
    if method == "OPTIONS":
        asked = headers.get("access-control-request-headers", "")
        shown += [
            (b"access-control-allow-headers", asked.encode("latin-1")),
            (b"access-control-allow-methods", b"get, post, options"),
            (b"access-control-max-age", b"3600"),
        ]
    return shown


async def _answer_with(send: Send, status: int, answer: Question, headers: Headers) -> None:
    body = dump(answer).encode()
    length = (b"content-length", str(len(body)).encode())
    shown = [_JSON, length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": shown})
    await send({"type": "http.response.body", "body": body})
