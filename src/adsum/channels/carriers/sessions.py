"""`Sessions`: the long-poll sessions of a node, and forwarding to the sessions of other nodes.

A token names a session and its node, see `tokens`. So a request that reaches another worker is
forwarded, and no sticky sessions are needed.

Invariants:
- A token is checked completely by the worker that receives it. Nothing is read or forwarded for a
  token that no live member issued.
- For each session, one batch of frames at a time is read or forwarded.
- No poll waits long once this node is about to stop, also not one for a session of another node.
  Frames that this one no longer receives are sent again in answer to the next poll.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress

from adsum.channels.connection import Connection
from adsum.channels.pernode import PerNode
from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.quoting import described, quoted
from adsum.sparselog import SparseLogger

from .noderequests import NodeRequests, Question, TooLongError
from .session import PATIENCE, STOP_WINDOW, WINDOW, Session
from .textqueue import NoRoomError
from .tokens import Token, TokenRoutes

logger = logging.getLogger("adsum.channels")

#: The fields of each question, with their types.
_FIELDS: dict[str, dict[str, type]] = {
    "route": {},
    "poll": {"session": str, "number": int},
    "break off": {"session": str, "number": int},
    "send": {"session": str, "number": int, "body": str, "lines": bool},
}
_UNKNOWN = "a polling client at %s has the token of a session that has ended"


class Sessions(Observer):
    """The long-poll sessions of a node, shared by all its sockets.

    Answers the questions of other nodes about them, see `relay.Service`.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = SparseLogger(logger)
        self._requests = NodeRequests(node, self)
        self._sessions: dict[str, Session] = {}
        self._routes = TokenRoutes(
            self._ask_route, self._requests.incarnations, self._cluster, self._log
        )
        # Sessions, of any node, with frames being read or forwarded by this node.
        self._sending: set[str] = set()
        # The time limits of forwarded polls.
        self._forwarded: set[asyncio.Timeout] = set()

    def stopping(self) -> None:
        """See `Observer`: the server waits for its requests, so waiting polls are answered."""
        for session in self._sessions.values():
            session.stopping()
        for limit in self._forwarded:
            limit.reschedule(asyncio.get_running_loop().time() + STOP_WINDOW)

    def forked(self) -> None:
        """See `Observer`: the clients poll the parent."""
        self._sessions, self._sending, self._forwarded = {}, set(), set()
        self._routes.forget_parent()

    @staticmethod
    def of(node: Node) -> "Sessions":
        """The sessions of a node, created at the first call."""
        return _SESSIONS.of(node)

    def begin(self, connection: Connection) -> str:
        """Create a session; returns its first token."""
        session = Session(connection, self._forget)
        self._sessions[session.id] = session
        return self._token(session.id, 0)

    async def find(self, token: Token, address: str) -> str | None:
        """The name of the node of a session.

        Args:
            token: The token.
            address: The client's address, for the log.

        Returns:
            The name. None if the token is not authentic or its session has ended, which is
            logged, or if this node is not running.
        """
        if not self._node.running:
            return None
        own = self._node.name
        name = await self._routes.node_of(token, own, address)
        if name == own and token.session not in self._sessions:
            self._log.log(logging.INFO, _UNKNOWN, address, key=address)
            return None
        return name

    async def poll(self, name: str, token: Token) -> Question:
        """Answer a poll: waits up to `WINDOW` for frames, on the node of the session."""
        own = self._node.running and name == self._node.name
        try:
            async with nullcontext() if own else self._until_stop():
                return await self._ask(name, token, {"do": "poll"}, WINDOW + PATIENCE)
        except NoRoomError:
            return {"status": 410}
        except TimeoutError:
            return {"status": 204, "token": token.text}

    @asynccontextmanager
    async def _until_stop(self) -> AsyncIterator[None]:
        """Cancel a block soon after this node is about to stop.

        Raises:
            TimeoutError: The block was cancelled.
        """
        async with asyncio.timeout(STOP_WINDOW if self._node.stopping else None) as limit:
            self._forwarded.add(limit)
            try:
                yield
            finally:
                self._forwarded.discard(limit)

    @contextmanager
    def sending(self, token: Token) -> Iterator[bool]:
        """Reserve a session for reading and forwarding frames; yields False if it is reserved."""
        if token.session in self._sending:
            yield False
            return
        self._sending.add(token.session)
        try:
            yield True
        finally:
            self._sending.discard(token.session)

    async def send(self, name: str, token: Token, body: str, *, lines: bool) -> Question:
        """Pass frames of the client to its session; returns an answer with a status.

        Args:
            name: The node of the session.
            token: The token of the session.
            body: The body of the request.
            lines: Whether each line is a frame; otherwise the whole body is one.
        """
        question: Question = {"do": "send", "body": body, "lines": lines}
        try:
            return await self._ask(name, token, question, 2 * PATIENCE)
        except TooLongError:
            return {"status": 413}
        except NoRoomError:
            return {"status": 503}

    async def break_off(self, name: str, token: Token) -> None:
        """Abort a waiting poll whose HTTP connection has ended."""
        with suppress(NoRoomError):
            await self._ask(name, token, {"do": "break off"}, PATIENCE)

    async def _ask(self, name: str, token: Token, question: Question, patience: float) -> Question:
        """Send a question to the node of the session; status 410 if the node does not answer."""
        if not self._node.running:
            return {"status": 410}
        question = {**question, "session": token.session, "number": token.number}
        if name == self._node.name:
            return await self.answer(question)
        answer = await self._requests.ask(name, question, patience) or {}
        return answer if type(answer.get("status")) is int else {"status": 410}

    async def _ask_route(self, name: str) -> Question | None:
        with suppress(NoRoomError):
            return await self._requests.ask(name, {"do": "route"}, PATIENCE)
        return None

    def check(self, question: Question) -> None:
        """See `Service`."""
        kind = question["do"]
        if not isinstance(kind, str) or kind not in _FIELDS:
            raise ValueError(f"no question {quoted(kind)}")
        for name, expected in _FIELDS[kind].items():
            if type(question[name]) is not expected:
                raise TypeError(f"{name} of a question must not be {described(question[name])}")

    async def answer(self, question: Question) -> Question:
        """Answer a question about a session of this node, or about its route."""
        if question["do"] == "route":
            return dict(self._routes.own.dump())
        session = self._sessions.get(question["session"])
        if session is None:
            self._log.log(logging.INFO, _UNKNOWN, "another worker", key="another worker")
            return {"status": 410}
        if question["do"] == "send":
            return {"status": await session.send(question["body"], lines=question["lines"])}
        if question["do"] == "break off":
            session.break_off(question["number"])
            return {"status": 200}
        status, number, frames = await session.poll(question["number"])
        token = self._token(session.id, number) if status != 410 else None
        return {"status": status, "token": token, "messages": frames}

    def lost(self, question: Question) -> None:
        """Abort a poll whose asking node has died, and with it the HTTP connection."""
        if question["do"] == "poll" and question["session"] in self._sessions:
            self._sessions[question["session"]].break_off(question["number"])

    def closed(self) -> None:
        """See `Observer`: drops sessions of closed event loops; the others end by themselves."""
        self._log.flush()
        self._routes.forget()
        self._sending = set()
        for session in list(self._sessions.values()):
            if session.connection.loop.is_closed():
                self._forget(session)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def _cluster(self) -> str:
        return self._node.cluster if self._node.running else ""

    def _token(self, id: str, number: int) -> str:
        return self._routes.own.token(id, number)


_SESSIONS = PerNode(Sessions)
