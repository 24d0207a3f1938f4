"""Tokens of clients that poll: every worker can check one completely, and none reveals a node.

A token is ``route.session.number.mac``: the route of the node that has the session, the session,
the number of the last answer, and a code that authenticates these three. Route and key are random,
and new for each life of a node, so a token says nothing about the node and is void after it.

A route begins with a mark of its cluster, 16 bits of a hash. By it a worker tells the token of a
worker that has stopped, which is usual, from that of another cluster behind the same proxy, which
is a mistake.

The danger is a token that nobody issued. A worker that passes its request on spends its links on
somebody who was never admitted. So a worker checks a token before it reads the body of a request,
and asks nobody about a forged one.

For this a worker needs the routes and keys of the other members. It asks them over links that have
passed the handshake, so no secret has to be configured, and no stranger gets a key:

- Asked are members whose route is unknown, and only when a token has a route that is unknown. So a
  token that outruns its route waits for the answer, and in a settled cluster nothing is asked.
- Members without channels do not answer. Each is asked ever less often, and a token waits for
  `PATIENCE` at most.
- A key belongs to one life of a member. It is forgotten when that life ends.
"""

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Self

from adsum.activetime import active_timeout
from adsum.quoting import quoted
from adsum.sparselog import SparseLogger
from adsum.tasks import cancel_task, start_task

#: Seconds that a token waits for the members that may know its route.
PATIENCE = 5.0
#: Seconds until a member that did not answer is asked again: at first, and at most.
AGAIN, AGAIN_MOST = 1.0, 30.0
#: Bytes of the mark of a cluster; random bytes in a route and in a session; bytes of a key and of a
#: code.
_MARK, _ROUTE, _SESSION, _KEY, _MAC = 2, 12, 24, 32, 16

_FOREIGN = (
    "a client at %s that polls has a token of another cluster than %s: workers behind one proxy "
    "need the same ADSUM_CLUSTER"
)
_STOPPED = (
    "a client at %s that polls has a token of a worker that has stopped, or that this one has no "
    "link to; workers on several hosts need ADSUM_PEERS"
)
_FORGED = "a client at %s that polls has a forged token"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as a client sent it; whether it is authentic is not known yet."""

    route: str
    session: str
    number: int
    mac: str

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The token in a text; None if the text cannot be one."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            return None
        return cls(found[1], found[2], int(found[3]), found[4])


@dataclass(frozen=True, slots=True)
class Route:
    """The way to the sessions in one life of a node, and the key of their tokens."""

    id: str
    key: bytes

    @classmethod
    def draw(cls, cluster: str) -> Self:
        """A new one, of a node of a cluster."""
        return cls(_mark(cluster) + secrets.token_urlsafe(_ROUTE), secrets.token_bytes(_KEY))

    @classmethod
    def load(cls, value: Any) -> Self:
        """The one that a member has sent.

        Raises:
            ValueError: It is none.
        """
        id, key = value.get("route"), value.get("key")
        if not (isinstance(id, str) and isinstance(key, str) and _ROUTE_ID.fullmatch(id)):
            raise ValueError("not a route")
        if len(key) != 2 * _KEY:
            raise ValueError("not a key")
        return cls(id, bytes.fromhex(key))

    def dump(self) -> dict[str, str]:
        """What `load` reads."""
        return {"route": self.id, "key": self.key.hex()}

    def token(self, session: str, number: int) -> str:
        """The token of a session after an answer."""
        return f"{self.id}.{session}.{number}.{self._mac(session, number)}"

    def proves(self, token: Token) -> bool:
        """Whether the key of this route made a token."""
        return compare_digest(self._mac(token.session, token.number), token.mac)

    def _mac(self, session: str, number: int) -> str:
        text = f"{self.id}.{session}.{number}".encode()
        return _text(hashlib.blake2b(text, key=self.key, digest_size=_MAC).digest())


def new_session() -> str:
    """A name for a session that cannot be guessed."""
    return secrets.token_urlsafe(_SESSION)


class _Unanswered:
    """A member whose route is unknown: when it may be asked again."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.pause = AGAIN
        self.ask_at = float("-inf")


class Routes:
    """The routes of this node and of the other members.

    Args:
        ask: Asks a member for its route; None if it does not answer.
        lives: The members that live, this node excluded, each with its incarnation.
        cluster: Gives the name of the cluster.
        log: Where refused tokens are logged.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[dict[str, Any] | None]],
        lives: Callable[[], dict[str, int]],
        cluster: Callable[[], str],
        log: SparseLogger,
    ) -> None:
        self._ask = ask
        self._lives = lives
        self._cluster = cluster
        self._log = log
        self._own: Route | None = None
        # By life of a member; those of former lives are removed before members are asked.
        self._known: dict[tuple[str, int], Route] = {}
        self._unanswered: dict[tuple[str, int], _Unanswered] = {}

    @property
    def own(self) -> Route:
        """The route of this life of this node."""
        if self._own is None:
            self._own = Route.draw(self._cluster())
        return self._own

    async def node_of(self, token: Token, own: str, address: str) -> str | None:
        """The node that issued a token; None, and a log line, if no live member did.

        Args:
            token: The token.
            own: The name of this node.
            address: Where the client is, for the log.
        """
        found = self._find(token.route, own)
        if found is None:
            await self._learn(token.route)
            found = self._find(token.route, own)
        if found is None:
            self._complain(token, address)
            return None
        name, route = found
        if not route.proves(token):
            self._log.warning(_FORGED, address, key=address)
            return None
        return name

    def _complain(self, token: Token, address: str) -> None:
        cluster = self._cluster()
        if token.route.startswith(_mark(cluster)):
            self._log.log(logging.INFO, _STOPPED, address)
        else:
            self._log.warning(_FOREIGN, address, quoted(cluster))

    def forget(self) -> None:
        """The life of this node has ended: its tokens are void, and what it knew is of no use."""
        for unanswered in self._unanswered.values():
            cancel_task(unanswered.task)
        self.forget_parent()

    def forget_parent(self) -> None:
        """As `forget`, in a forked child, which cancels no task of its parent."""
        self._own, self._known, self._unanswered = None, {}, {}

    def _find(self, id: str, own: str) -> tuple[str, Route] | None:
        if id == self.own.id:
            return own, self.own
        for (name, incarnation), route in self._known.items():
            if route.id == id and self._lives().get(name) == incarnation:
                return name, route
        return None

    async def _learn(self, id: str) -> None:
        """Ask the members whose route is unknown, until one has this route or all have answered."""
        with contextlib.suppress(TimeoutError):
            async with active_timeout(PATIENCE):
                while asked := self._ask_members():
                    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                    if any(route.id == id for route in self._known.values()):
                        return

    def _ask_members(self) -> "list[asyncio.Task[None]]":
        """Ask each member that is due; returns all questions that are under way."""
        lives = set(self._lives().items())
        self._known = {life: route for life, route in self._known.items() if life in lives}
        for life in self._unanswered.keys() - lives:
            cancel_task(self._unanswered.pop(life).task)
        now = asyncio.get_running_loop().time()
        for life in lives - self._known.keys():
            unanswered = self._unanswered.setdefault(life, _Unanswered())
            if unanswered.task is None and unanswered.ask_at <= now:
                unanswered.task = start_task(self._ask_member(life, unanswered))
        return [one.task for one in self._unanswered.values() if one.task is not None]

    async def _ask_member(self, life: tuple[str, int], unanswered: _Unanswered) -> None:
        answer = None
        try:
            answer = await self._ask(life[0])
        finally:
            unanswered.task = None
            unanswered.ask_at = asyncio.get_running_loop().time() + unanswered.pause
            unanswered.pause = min(2 * unanswered.pause, AGAIN_MOST)
        if self._unanswered.get(life) is not unanswered:
            return  # that life has ended, or that of this node
        with contextlib.suppress(ValueError):
            self._known[life] = Route.load(answer or {})
            del self._unanswered[life]


def _mark(cluster: str) -> str:
    return _text(hashlib.blake2b(cluster.encode(), digest_size=_MARK).digest())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _length(size: int) -> int:
    """Characters of so many bytes, as `_text` makes them."""
    return len(_text(bytes(size)))


_CHARACTER = "[A-Za-z0-9_-]"
_ROUTE_LENGTH = _length(_MARK) + _length(_ROUTE)
_ROUTE_ID = re.compile(f"{_CHARACTER}{{{_ROUTE_LENGTH}}}")
_TOKEN = re.compile(
    rf"({_CHARACTER}{{{_ROUTE_LENGTH}}})\.({_CHARACTER}{{{_length(_SESSION)}}})"
    rf"\.(0|[1-9][0-9]{{0,14}})\.({_CHARACTER}{{{_length(_MAC)}}})"
)
