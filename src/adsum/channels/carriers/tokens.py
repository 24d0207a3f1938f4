"""Session tokens of long polling: every worker can verify any token, and none reveals a node.

A token is ``route.session.number.mac``: the route of the session's node, the session, the number of
the last response, and a message authentication code over these three. Route and key are random and
new for each incarnation of a node, so a token reveals nothing about the node and expires with the
incarnation.

A route begins with a mark of its cluster, 16 bits of a hash. With it a worker distinguishes a token
of a stopped worker, which is usual, from a token of another cluster behind the same proxy, which is
a mistake.

The danger is a forged token: a worker that forwards its request spends its links on a client that
was never admitted. So a worker verifies the token before it reads the body of a request, and sends
no request to other nodes for a forged one.

Verification needs the routes and keys of the other members. A worker requests them over links that
have passed the handshake, so no secret has to be configured, and no stranger gets a key:

- A worker asks only members with an unknown route, and only when a token has an unknown route. So
  a token that arrives before its route waits for the answer, and in a settled cluster no requests
  are sent.
- Members without channels do not answer. Each is asked with exponential backoff, and a token waits
  for `PATIENCE` at most.
- A key belongs to one incarnation of a member, and is dropped when that incarnation ends.
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

#: Seconds of active time that a token waits for the answers of members with unknown routes.
PATIENCE = 5.0
#: Seconds until a member that did not answer is asked again: the first pause, and the longest.
AGAIN, AGAIN_MOST = 1.0, 30.0
#: Bytes of the mark of a cluster; random bytes in a route and in a session; bytes of a key and of
#: an authentication code.
_MARK, _ROUTE, _SESSION, _KEY, _MAC = 2, 12, 24, 32, 16

_FOREIGN = (
    "a polling client at %s has a token of another cluster than %s: workers behind one proxy "
    "need the same ADSUM_CLUSTER"
)
_STOPPED = (
    "a polling client at %s has a token of a worker that has stopped, or that this one has no "
    "link to; workers on several hosts need ADSUM_PEERS"
)
_FORGED = "a polling client at %s has a forged token"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as received from a client, not verified yet."""

    route: str
    session: str
    number: int
    mac: str

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Parse a token; None if the text is not one."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            return None
        return cls(found[1], found[2], int(found[3]), found[4])

    @property
    def text(self) -> str:
        """The token as the client sent it."""
        return f"{self.route}.{self.session}.{self.number}.{self.mac}"


@dataclass(frozen=True, slots=True)
class Route:
    """The route of one incarnation of a node, and the key that signs its tokens."""

    id: str
    key: bytes

    @classmethod
    def draw(cls, cluster: str) -> Self:
        """Create a random route and key for a node of a cluster."""
        return cls(_mark(cluster) + secrets.token_urlsafe(_ROUTE), secrets.token_bytes(_KEY))

    @classmethod
    def load(cls, value: Any) -> Self:
        """Decode a route that a member has sent.

        Raises:
            ValueError: The value is not a valid route and key.
        """
        id, key = value.get("route"), value.get("key")
        if not (isinstance(id, str) and isinstance(key, str) and _ROUTE_ID.fullmatch(id)):
            raise ValueError("not a route")
        if len(key) != 2 * _KEY:
            raise ValueError("not a key")
        return cls(id, bytes.fromhex(key))

    def dump(self) -> dict[str, str]:
        """Encode the route and its key as a JSON object, for `load`."""
        return {"route": self.id, "key": self.key.hex()}

    def token(self, session: str, number: int) -> str:
        """Sign the token of a session for the response of a number."""
        return f"{self.id}.{session}.{number}.{self._mac(session, number)}"

    def proves(self, token: Token) -> bool:
        """Whether a token was signed with the key of this route; compares in constant time."""
        return compare_digest(self._mac(token.session, token.number), token.mac)

    def _mac(self, session: str, number: int) -> str:
        text = f"{self.id}.{session}.{number}".encode()
        return _text(hashlib.blake2b(text, key=self.key, digest_size=_MAC).digest())


def new_session() -> str:
    """Create a random session name that cannot be guessed."""
    return secrets.token_urlsafe(_SESSION)


class _Unanswered:
    """Backoff of a member with an unknown route: the pause, and the time of the next request."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.pause = AGAIN
        self.ask_at = float("-inf")


class TokenRoutes:
    """The routes of this node and of the other members.

    Args:
        ask: Requests the route of a member; returns None if it does not answer.
        incarnations: Returns the live members, without this node, each with its incarnation.
        cluster: Returns the name of the cluster.
        log: The log for refused tokens.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[dict[str, Any] | None]],
        incarnations: Callable[[], dict[str, int]],
        cluster: Callable[[], str],
        log: SparseLogger,
    ) -> None:
        self._ask = ask
        self._incarnations = incarnations
        self._cluster = cluster
        self._log = log
        self._own: Route | None = None
        # By name and incarnation of a member; former incarnations are removed before each request.
        self._known: dict[tuple[str, int], Route] = {}
        self._unanswered: dict[tuple[str, int], _Unanswered] = {}

    @property
    def own(self) -> Route:
        """The route of the current incarnation of this node, created on first use."""
        if self._own is None:
            self._own = Route.draw(self._cluster())
        return self._own

    async def node_of(self, token: Token, own: str, address: str) -> str | None:
        """Verify a token; returns the name of the node that issued it.

        Args:
            token: The token.
            own: The name of this node.
            address: The client's address, for the log.

        Returns:
            The name; None, after logging the reason, if no live member issued the token.
        """
        found = self._find(token.route, own)
        if found is None:
            await self._learn(token.route)
            found = self._find(token.route, own)
        if found is None:
            self._log_unknown_route(token, address)
            return None
        name, route = found
        if not route.proves(token):
            self._log.warning(_FORGED, address, key=address)
            return None
        return name

    def _log_unknown_route(self, token: Token, address: str) -> None:
        cluster = self._cluster()
        if token.route.startswith(_mark(cluster)):
            self._log.log(logging.INFO, _STOPPED, address)
        else:
            self._log.warning(_FOREIGN, address, quoted(cluster))

    def forget(self) -> None:
        """Drop all routes and cancel all requests at the end of this node's incarnation."""
        for unanswered in self._unanswered.values():
            cancel_task(unanswered.task)
        self.forget_parent()

    def forget_parent(self) -> None:
        """Drop all routes in a forked child, which must not cancel the tasks of its parent."""
        self._own, self._known, self._unanswered = None, {}, {}

    def _find(self, id: str, own: str) -> tuple[str, Route] | None:
        if id == self.own.id:
            return own, self.own
        for (name, incarnation), route in self._known.items():
            if route.id == id and self._incarnations().get(name) == incarnation:
                return name, route
        return None

    async def _learn(self, id: str) -> None:
        """Request unknown routes until one matches, all requests have ended, or time is up."""
        with contextlib.suppress(TimeoutError):
            async with active_timeout(PATIENCE):
                while asked := self._ask_members():
                    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                    if any(route.id == id for route in self._known.values()):
                        return

    def _ask_members(self) -> "list[asyncio.Task[None]]":
        """Request the route of each member that is due; returns all pending requests."""
        incarnations = set(self._incarnations().items())
        self._known = {
            member: route for member, route in self._known.items() if member in incarnations
        }
        for member in self._unanswered.keys() - incarnations:
            cancel_task(self._unanswered.pop(member).task)
        now = asyncio.get_running_loop().time()
        for member in incarnations - self._known.keys():
            unanswered = self._unanswered.setdefault(member, _Unanswered())
            if unanswered.task is None and unanswered.ask_at <= now:
                unanswered.task = start_task(self._ask_member(member, unanswered))
        return [one.task for one in self._unanswered.values() if one.task is not None]

    async def _ask_member(self, member: tuple[str, int], unanswered: _Unanswered) -> None:
        answer = None
        try:
            answer = await self._ask(member[0])
        finally:
            unanswered.task = None
            unanswered.ask_at = asyncio.get_running_loop().time() + unanswered.pause
            unanswered.pause = min(2 * unanswered.pause, AGAIN_MOST)
        if self._unanswered.get(member) is not unanswered:
            return  # the incarnation of the member, or of this node, has ended
        with contextlib.suppress(ValueError):
            self._known[member] = Route.load(answer or {})
            del self._unanswered[member]


def _mark(cluster: str) -> str:
    return _text(hashlib.blake2b(cluster.encode(), digest_size=_MARK).digest())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _length(size: int) -> int:
    """Number of characters that `_text` makes of `size` bytes."""
    return len(_text(bytes(size)))


_CHARACTER = "[A-Za-z0-9_-]"
_ROUTE_LENGTH = _length(_MARK) + _length(_ROUTE)
_ROUTE_ID = re.compile(f"{_CHARACTER}{{{_ROUTE_LENGTH}}}")
_TOKEN = re.compile(
    rf"({_CHARACTER}{{{_ROUTE_LENGTH}}})\.({_CHARACTER}{{{_length(_SESSION)}}})"
    rf"\.(0|[1-9][0-9]{{0,14}})\.({_CHARACTER}{{{_length(_MAC)}}})"
)
