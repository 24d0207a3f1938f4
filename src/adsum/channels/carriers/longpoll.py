"""The long-poll transport: the fallback of phoenix.js where WebSockets are blocked.

A client polls with GET, which is answered when frames are queued for it, or after a timeout; it
sends with POST. Its first GET creates a session, see `sessions`. Clients read the status in the
response body; the HTTP status is 200 except for refusals.

Anyone can send these requests. So the body of a POST is kept only after its token was found
authentic, one at a time for each session, and is bounded in size and time. No cache may store a
response, since responses contain tokens.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from adsum.activetime import active_timeout
from adsum.channels.client import Client
from adsum.channels.connection import Connection
from adsum.channels.socketparts import SocketParts
from adsum.channels.wire.connect import Scope, address_of, headers_of, params_of
from adsum.channels.wire.frames import Serializer
from adsum.channels.wire.origins import Origins, RejectedError
from adsum.httpanswer import ASGIReceive, ASGISend, Headers, answer_http, until_disconnected
from adsum.tasks import cancel_task, start_task
from adsum.values.jsontext import dump

from .asgi import NO_STORE
from .noderequests import Question
from .sessions import Sessions
from .tokens import Token

#: Frames of the largest size that the body of one POST may hold.
_MAX_BODY_FRAMES = 16
#: Seconds of active time that a request body may take, as long as phoenix.js waits for the request.
BODY_PATIENCE = 20.0

#: The status for a poll whose session is gone. The original answers 410, as for a new session, and
#: phoenix.js before 1.8.2 then believes that it is connected again, while its channels are joined
#: nowhere. To 500 every version connects again and rejoins.
_SESSION_GONE = 500

Admit = Callable[[Scope, str, "asyncio.Future[Any]"], Awaitable[tuple[Client, Serializer] | int]]
_JSON = (b"content-type", b"application/json; charset=utf-8")
_TOO_LARGE = "the body is too large"


class LongPoll:
    """Serves the long-poll requests of a socket.

    Args:
        shared: Shared by all connections of the socket.
        origins: The sites that may connect, and whose pages may read the responses.
        admit: Checks a new client; returns it, or the HTTP status of a refusal.
    """

    def __init__(self, shared: SocketParts, origins: Origins, admit: Admit) -> None:
        self._shared = shared
        self._origins = origins
        self._admit = admit
        self._sessions = Sessions.of(shared.presence.node)

    async def serve(self, scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
        """Answer one HTTP request."""
        try:
            headers = headers_of(scope)
            self._origins.check(headers)
            token = params_of(scope).get("token", "")
        except RejectedError as error:
            address = address_of(scope)
            text = "a polling client at %s was refused: %s"
            self._shared.log.warning(text, address, str(error), key=address)
            await _answer_with(receive, send, 403, {"status": 403}, [])
            return
        try:
            status, answer = await self._respond(scope, receive, headers, Token.read(token))
        except Exception as error:
            self._shared.log.crashed("a request of a polling client crashed", error=error)
            status, answer = 500, {"status": 500}
        await _answer_with(receive, send, status, answer, _cross_origin(scope["method"], headers))

    async def _respond(
        self, scope: Scope, receive: ASGIReceive, headers: dict[str, str], token: Token | None
    ) -> tuple[int, Question]:
        """Handle a request; returns the HTTP status and the body, with the status for clients."""
        method = scope["method"]
        if method == "OPTIONS":
            return 200, {"status": 200}
        if method == "GET":
            # A token in another format may be the application's own parameter of that name.
            if token is None:
                return await self._begin(scope, receive)
            return 200, await self._poll(token, receive, address_of(scope))
        if method == "POST":
            return await self._handle_post(token, receive, headers, address_of(scope))
        return 400, {"status": 400}

    async def _handle_post(
        self, token: Token | None, receive: ASGIReceive, headers: dict[str, str], address: str
    ) -> tuple[int, Question]:
        """Handle a POST. Its body is kept only if its session is known and no other POST runs."""
        name = None if token is None else await self._sessions.find(token, address)
        if token is None or name is None:
            return 200, {"status": 410}
        with self._sessions.sending(token) as alone:
            if not alone:
                return 200, {"status": 409}
            limit = _MAX_BODY_FRAMES * self._shared.limits.frame_size
            try:
                body = await _body(receive, headers, limit)
            except _BodyError as error:
                if error.reason:
                    text = "a request of the polling client at %s was refused: %s"
                    self._shared.log.warning(text, address, error.reason, key=address)
                return error.status, {"status": error.status}
            # One frame on each line, or a single frame, as older clients send it.
            lines = "ndjson" in headers.get("content-type", "")
            answer = await self._sessions.send(name, token, body, lines=lines)
        status = answer["status"]
        return status if status in (413, 503) else 200, answer

    async def _begin(self, scope: Scope, receive: ASGIReceive) -> tuple[int, Question]:
        """Create a session; clients take status 410 with a token as a new session."""
        gone = start_task(until_disconnected(receive))
        try:
            admitted = await self._admit(scope, "longpoll", gone)
        finally:
            cancel_task(gone)
        if isinstance(admitted, int):
            return admitted, {"status": 403 if admitted == 403 else 500}
        token = self._sessions.begin(Connection(self._shared, *admitted))
        return 200, {"status": 410, "token": token, "messages": []}

    async def _poll(self, token: Token, receive: ASGIReceive, address: str) -> Question:
        """Answer a poll, after waiting for frames; ends early if the connection ends."""
        nothing: Question = {"token": None, "messages": []}
        name = await self._sessions.find(token, address)
        if name is None:
            return {**nothing, "status": _SESSION_GONE}
        asking = start_task(self._sessions.poll(name, token))
        broken = start_task(until_disconnected(receive))
        try:
            await asyncio.wait({asking, broken}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                await self._sessions.break_off(name, token)
            answer = {**nothing, **await asking}
            return {**answer, "status": _SESSION_GONE} if answer["status"] == 410 else answer
        finally:
            cancel_task(asking)
            cancel_task(broken)


class _BodyError(Exception):
    """The body of a request is refused.

    Args:
        status: The status of the response.
        reason: The text to log; empty to log nothing.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


async def _body(receive: ASGIReceive, headers: dict[str, str], limit: int) -> str:
    """Read the body of a request.

    Raises:
        _BodyError: It is too large, takes too long, is incomplete, or is not UTF-8.
    """
    length = headers.get("content-length", "")[:20]
    if length.isdecimal() and int(length) > limit:
        raise _BodyError(413, _TOO_LARGE)
    try:
        async with active_timeout(BODY_PATIENCE):
            return b"".join([piece async for piece in _pieces(receive, limit)]).decode()
    except TimeoutError:
        raise _BodyError(408, "the body took too long") from None
    except UnicodeDecodeError:
        raise _BodyError(400, "the body is not UTF-8") from None


async def _pieces(receive: ASGIReceive, limit: int) -> AsyncIterator[bytes]:
    size, more = 0, True
    while more:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise _BodyError(400, "")  # the client has gone; nobody receives this response
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _BodyError(413, _TOO_LARGE)
        yield piece
        more = message.get("more_body", False)


def _cross_origin(method: str, headers: dict[str, str]) -> Headers:
    """CORS headers that let a page of an accepted origin read the response."""
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


async def _answer_with(
    receive: ASGIReceive, send: ASGISend, status: int, answer: Question, headers: Headers
) -> None:
    shown = [_JSON, NO_STORE, *headers]
    await answer_http(receive, send, status, shown, dump(answer).encode())
