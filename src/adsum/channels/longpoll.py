"""The long-poll transport: phoenix.js's way where WebSockets do not get through.

A client asks with GET and is answered when there is something for it, or after a while; it sends
with POST. Its first GET makes a session, which a token names. The token also names the node that
has the session, so a request that reaches another worker is passed on, and no sticky sessions are
needed.

Invariant: each frame reaches the client once. The token of an answer numbers it, and the answer is
kept until the client asks with that number; asked with the number before, it is given again. A
token cannot be guessed, and to whoever does not know it, it opens nothing.
"""

import asyncio
import base64
import binascii
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from adsum.replication.jsontext import dump

from .client import Client
from .connection import Connection
from .frames import V2_TEXT, Serializer, Version2, Wire
from .handshake import Origins, RejectedError, Scope, headers_of, params_of
from .hub import Hub
from .relay import Question, Relay
from .websocket import Receive, Send

logger = logging.getLogger("adsum")

#: Seconds that a GET waits, that a session lives without one, and that it lives after one has
#: broken off: phoenix.js then begins a new one, and from a tab that was closed nothing comes.
WINDOW, LIFETIME, LIFETIME_IF_BROKEN = 10.0, 30.0, 3.0
#: Frames, and about how many characters, in one answer.
_MAX_FRAMES, _MAX_ANSWER = 100, 256 * 1024
#: How many frames of the largest size one POST may have room for.
_MAX_BODY_FRAMES = 16
#: Seconds within which another node answers what does not wait.
_PATIENCE = 5.0

Headers = list[tuple[bytes, bytes]]
Admit = Callable[[Scope, str], Awaitable[tuple[Client, Serializer] | int]]
_JSON = (b"content-type", b"application/json; charset=utf-8")


class Session:
    """One client that polls."""

    def __init__(self, connection: Connection, ended: Callable[["Session"], None]) -> None:
        self.id = secrets.token_urlsafe(32)
        self.connection = connection
        # The answer that the client may not have got, and its number.
        self._number = 0
        self._frames: list[str] = []
        self._poll: asyncio.Future[None] | None = None
        self._ended = ended
        self._finishing: asyncio.Task[None] | None = None
        self._expiry = self._expire_later(LIFETIME)
        # Whether the request that waits, or waited last, has broken off.
        self._broken = False
        connection.attach(self._wake, self.end)

    async def poll(self, number: int) -> tuple[int, int, list[str]]:
        """A status, the number of the answer, and frames."""
        self._wake()  # of two that wait the older one is answered, with nothing
        self.connection.heard_at = self.connection.hub.now()
        if number == self._number - 1:
            return 200, self._number, self._frames
        if number != self._number:
            return 410, 0, []
        self._expiry.cancel()
        self._broken = False
        if not self._has_more():
            waiting = self._poll = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait([waiting], timeout=WINDOW)
            except asyncio.CancelledError:
                if self._poll is waiting:
                    self._broken = True
                    self._live_on()
                raise
            if self._poll is not waiting:
                return 204, number, []  # another request waits; what comes is for that one
        self._live_on()
        return self._answer()

    def break_off(self) -> None:
        """Nobody gets the answer to the request that waits, or waited last."""
        self._broken = True
        if self._poll is not None and not self._poll.done():
            self._wake()
        else:
            self._live_on()

    async def send(self, lines: list[str]) -> int:
        """Take in what the client sends; returns a status."""
        for line in lines:
            if self.connection.closing is None:
                await self.connection.receive(_wire(line))
        return 200 if self.connection.closing is None else 410

    def end(self) -> None:
        """The client is gone, or is to go."""
        if self._finishing is None:
            self._expiry.cancel()
            self._ended(self)
            finish = self.connection.finish()
            self._finishing = asyncio.get_running_loop().create_task(finish)
            self._wake()

    def _answer(self) -> tuple[int, int, list[str]]:
        frames, size = list[str](), 0
        while len(frames) < _MAX_FRAMES and size < _MAX_ANSWER:
            frame = self.connection.outbox.take()
            if frame is None:
                break
            if isinstance(frame, str):
                frames.append(frame)
                size += len(frame)
        if frames:
            self._number += 1
            self._frames = frames
            return 200, self._number, frames
        if self.connection.closing is not None:
            self.end()
            return 410, 0, []
        return 204, self._number, []

    def _has_more(self) -> bool:
        return bool(self.connection.outbox) or self.connection.closing is not None

    def _wake(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _live_on(self) -> None:
        self._expiry.cancel()
        self._expiry = self._expire_later(LIFETIME_IF_BROKEN if self._broken else LIFETIME)

    def _expire_later(self, lifetime: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(lifetime, self.end)


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
        self._sessions: dict[str, Session] = {}
        self._relay = Relay(hub.presence.node, self._answer, self._lost)

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
            is_session = _read_token(token) is not None
            if is_session:
                return 200, await self._poll(token, receive)
            return await self._begin(scope)
        if method != "POST":
            return 400, {"status": 400}
        body = await _body(receive, _MAX_BODY_FRAMES * self._hub.limits.frame_size)
        if body is None:
            logger.warning("a client that polls sent too much at once")
            return 413, {"status": 413}
        try:
            lines = _lines(body.decode(), headers)
        except UnicodeDecodeError:
            logger.warning("a client that polls sent what is not UTF-8")
            return 400, {"status": 400}
        return 200, await self._ask(token, {"do": "send", "lines": lines}, _PATIENCE)

    async def _begin(self, scope: Scope) -> tuple[int, Question]:
        """Make a session; clients take 410 as the beginning of one."""
        admitted = await self._admit(scope, "longpoll")
        if isinstance(admitted, int):
            return admitted, {"status": 403 if admitted == 403 else 500}
        client, serializer = admitted
        if isinstance(serializer, Version2):
            serializer = V2_TEXT
        session = Session(Connection(self._hub, client, serializer), self._forget)
        self._sessions[session.id] = session
        return 200, {"status": 410, "token": self._token(session.id, 0), "messages": []}

    async def _poll(self, token: str, receive: Receive) -> Question:
        """The answer to a request that may wait, unless its connection ends before."""
        loop = asyncio.get_running_loop()
        asking = loop.create_task(self._ask(token, {"do": "poll"}, WINDOW + _PATIENCE))
        broken = loop.create_task(_disconnected(receive))
        try:
            await asyncio.wait({asking, broken}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                await self._ask(token, {"do": "break off"}, _PATIENCE)
            return {"token": None, "messages": [], **await asking}
        finally:
            asking.cancel()
            broken.cancel()

    async def _ask(self, token: str, question: Question, patience: float) -> Question:
        """Ask the node that has the session; 410 if there is none."""
        found = _read_token(token)
        if found is None or not self._hub.presence.node.running:
            return {"status": 410}
        name, id, number = found
        question = {**question, "session": id, "number": number}
        if name == self._hub.presence.node.name:
            return await self._answer(question)
        if name not in {member.name for member in self._hub.presence.node.members()}:
            return {"status": 410}
        return await self._relay.ask(name, question, patience) or {"status": 410}

    async def _answer(self, question: Question) -> Question:
        """Answer for a session that is here."""
        session = self._sessions.get(question["session"])
        if session is None:
            return {"status": 410}
        if question["do"] == "send":
            return {"status": await session.send(question["lines"])}
        if question["do"] == "break off":
            session.break_off()
            return {"status": 200}
        status, number, frames = await session.poll(question["number"])
        token = self._token(session.id, number) if status != 410 else None
        return {"status": status, "token": token, "messages": frames}

    def _lost(self, question: Question) -> None:
        """The node that asked has died, and with it the connection of the client."""
        session = self._sessions.get(question["session"])
        if session is not None and question["do"] == "poll":
            session.break_off()

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def _token(self, id: str, number: int) -> str:
        name = base64.urlsafe_b64encode(self._hub.presence.node.name.encode()).decode()
        return f"{name}.{id}.{number}"


def _read_token(token: str) -> tuple[str, str, int] | None:
    """The node, the session and the number that a token names; None if it is none."""
    try:
        name, id, number = token.split(".")
        return base64.urlsafe_b64decode(name.encode()).decode(), id, int(number)
    except (ValueError, binascii.Error):
        return None


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


def _lines(body: str, headers: dict[str, str]) -> list[str]:
    """The frames in a body: one on each line, or just one, as older clients send it."""
    if "ndjson" not in headers.get("content-type", ""):
        return [body]
    return [line.rstrip("\r") for line in body.split("\n") if line.strip()]


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


def _wire(line: str) -> Wire:
    """A frame as it was before phoenix.js put bytes into base64."""
    if line[:1] in ("[", "{"):
        return line
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return line  # which is no frame, and is treated as such
