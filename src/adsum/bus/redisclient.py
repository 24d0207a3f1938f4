"""The client of the bus for Redis and Valkey, on redis-py: the extra ``adsum[redis]``.

One connection subscribes, another one publishes; the loss of either ends the session. Publishes are
sent in pipelined batches on one connection, so their order is kept. The answer to each is the
number of receivers: 0 is the refusal, or 1 on a subject that this client subscribes to. Before
publishes that follow a subscription, the session waits for its confirmation, because the two
connections have no common order.

A client receives its own messages on subjects that it subscribes to. Receivers are counted on the
connected server only. So with several URLs the one that is the master is used, and a server in
cluster mode is refused: there, each server counts its own subscribers, and would refuse messages
that arrive.

redis-py's own pools and retries are not used, because a repeated publish would break the order.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from adsum.bus.busclient import BusHandler
from adsum.bus.busreconnector import (
    CREDENTIALS,
    PERMISSION,
    REACH,
    BusReconnector,
)
from adsum.bus.bussession import (
    MAX_UNANSWERED,
    PING_INTERVAL,
    BusCommand,
    BusSession,
    SessionEvents,
    Verb,
    every_ping,
)
from adsum.bus.maskedurl import mask, scrubbed
from adsum.errors import ConfigurationError

#: Messages received in one turn of the event loop.
_RECEIVE_SLICE = 128
#: Remedies in errors.
_CERTIFICATE = (
    "name the file of its authority as ?ssl_ca_certs=... in the URL, and a host of its certificate"
)
_CLOSED = (
    "see the log of the server, which may have reached its maxclients; if its port is one for TLS, "
    "write rediss://"
)
_SILENT = "; if its port is one without TLS, write redis://"
#: Parts of the errors of redis-py for a connection that the server has closed.
_SIGNS_OF_CLOSING = ("max number of clients", "closed", "lost", "reset", "broken pipe")
#: Options that the session relies on; a URL must not name them.
_FORCED: dict[str, Any] = {
    "protocol": 2,
    "decode_responses": False,
    "socket_timeout": None,
    "health_check_interval": 0,
    "client_name": None,
}


class NotUsableError(RedisError):
    """The server cannot carry the links: it is no master, or in cluster mode."""


class RedisClient(BusReconnector):
    """A `BusClient` over Redis or Valkey.

    Args:
        url: The checked setting, as ``redis://user:password@a:6379,redis://b:6379``.
        handler: Receives the events.
        name: The name of this node, for ``CLIENT LIST``.

    Raises:
        ConfigurationError: redis-py does not accept a URL.
    """

    def __init__(self, url: str, handler: BusHandler, name: str) -> None:
        super().__init__(url, handler, name)
        self._pools = {server: _pool(server) for server in self._servers}

    @property
    def _unanswered_remedy(self) -> str:
        return REACH + (_SILENT if self.server.startswith("rediss:") else "")

    def _make_session(self, server: str, own: str | None) -> BusSession:
        needs_master = len(self._servers) > 1
        return _RedisSession(self, self._pools[server], self.name, needs_master, own)

    def _failure(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, NotUsableError):
            return str(error), "name a master in the setting that is not in cluster mode"
        if isinstance(error, AuthenticationError):
            return f"the server refuses the credentials ({error})", CREDENTIALS
        if isinstance(error, NoPermissionError):
            return str(error), PERMISSION
        text = str(error)
        if isinstance(error, RedisConnectionError):
            if "certificate" in text.lower():
                return text, _CERTIFICATE
            if any(sign in text.lower() for sign in _SIGNS_OF_CLOSING):
                return f"the server has closed the connection ({text})", _CLOSED
        return text or type(error).__name__, REACH


class _RedisSession(BusSession):
    """Two connections to one server of Redis."""

    def __init__(
        self,
        events: SessionEvents,
        pool: ConnectionPool,
        name: str,
        needs_master: bool,
        own: str | None,
    ) -> None:
        super().__init__(events)
        self._own_subject = own
        self._subscriber = _connection(pool)
        self._publisher = _connection(pool)
        self._name = name
        self._needs_master = needs_master
        # The answers that the subscriber will receive next, in the order of their commands.
        self._awaited: deque[asyncio.Future[None]] = deque()
        # The subjects that this client subscribes to: it is among their receivers itself.
        self._own: set[str] = set()
        # Bytes of publishes that the server has not answered.
        self._in_flight = 0
        # Pings since the last answer, of each connection.
        self._unheard = 0
        self._unanswered = 0
        # Held while commands and answers use the publisher.
        self._exchanging = asyncio.Lock()

    async def open(self, subjects: Sequence[str]) -> None:
        """Connect both connections, check the server, and subscribe."""
        await _connect(self._publisher)
        await self._check_server()
        await _connect(self._subscriber)
        self._start(self._receive(), every_ping(self._count), self._ping())
        await self.subscribe_now(subjects)

    async def subscribe_now(self, subjects: Sequence[str]) -> None:
        """Subscribe, and wait for the confirmations."""
        answers = [await self._send("SUBSCRIBE", subject) for subject in subjects]
        await asyncio.gather(*answers)
        self._own.update(subjects)

    @property
    def unwritten(self) -> int:
        """Bytes of the batch that the server has not answered yet."""
        return self._in_flight

    # Publisher.

    async def _check_server(self) -> None:
        """Name the connection, and check the mode of the server as far as it permits.

        Raises:
            NotUsableError: The server is in cluster mode, or is a replica beside other servers.
        """
        name = "".join(c if c.isascii() and c.isalnum() else "-" for c in self._name)
        answers = await self._ask(("CLIENT", "SETNAME", f"adsum-{name}"), ("INFO", "cluster"))
        if isinstance(answers[1], bytes) and b"cluster_enabled:1" in answers[1]:
            raise NotUsableError("the server is in cluster mode")
        if self._needs_master:
            self._check_role((await self._ask(("ROLE",)))[0])
        if self._own_subject is not None:  # nobody subscribes to it yet
            [answer] = await self._ask(("PUBLISH", self._own_subject, b""))
            if isinstance(answer, ResponseError):
                raise answer

    def _check_role(self, answer: object) -> None:
        if isinstance(answer, ResponseError):
            raise answer
        if not isinstance(answer, list) or not answer or answer[0] != b"master":
            raise NotUsableError("the server is not the master")

    async def _ask(self, *commands: tuple[str | bytes, ...]) -> list[Any]:
        """Send commands on the publisher, and return their answers; errors are answers too.

        Raises:
            AuthenticationError: The server demands credentials.
            RedisError: The connection is lost.
        """
        async with self._exchanging:
            packed = self._publisher.pack_commands(commands)
            await self._publisher.send_packed_command(packed, check_health=False)
            return [await self._answer() for _ in commands]

    async def _answer(self) -> object:
        try:
            answer = await self._publisher.read_response()
        except ResponseError as error:
            answer = error
        self._unanswered = 0
        return answer

    async def _write(self, batch: Sequence[BusCommand]) -> None:
        for publishes, group in groupby(batch, lambda command: command.verb is Verb.PUBLISH):
            run = list(group)
            await (self._publish(run) if publishes else self._change(run))

    async def _publish(self, run: Sequence[BusCommand]) -> None:
        self._in_flight = sum(command.size for command in run)
        answers = await self._ask(*[("PUBLISH", one.subject, one.data) for one in run])
        self._in_flight = 0
        for command, answer in zip(run, answers, strict=True):
            if isinstance(answer, ResponseError):
                self.events.dropped(str(answer))
            elif answer <= (command.subject in self._own) and command.probe is not None:
                self.events.refused(command.probe)

    async def _ping(self) -> None:
        """Demand answers on both connections, again and again; with several servers, the role."""
        while True:
            await asyncio.sleep(PING_INTERVAL)
            await self._subscriber.send_command("PING", check_health=False)
            if self._needs_master:
                self._check_role((await self._ask(("ROLE",)))[0])
            else:
                await self._ask(("PING",))

    # Subscriber.

    async def _change(self, run: Sequence[BusCommand]) -> None:
        """Subscribe and unsubscribe in one round trip; later publishes wait for the answers."""
        answers = [await self._send(command.verb.name, command.subject) for command in run]
        for command, answer in zip(run, answers, strict=True):
            try:
                await answer
            except ResponseError as error:
                self.events.dropped(str(error))
                continue
            if command.verb is Verb.SUBSCRIBE:
                self._own.add(command.subject)
            else:
                self._own.discard(command.subject)

    async def _send(self, verb: str, subject: str) -> "asyncio.Future[None]":
        answer: asyncio.Future[None] = self._loop.create_future()
        answer.add_done_callback(_retrieve)
        self._awaited.append(answer)
        await self._subscriber.send_command(verb, subject, check_health=False)
        return answer

    async def _receive(self) -> None:
        count = 0
        while True:
            try:
                answer = await self._subscriber.read_response()
            except ResponseError as error:
                self._confirm(error)
                continue
            self._unheard = 0
            if isinstance(answer, list) and answer[0] == b"message":
                self.events.received(answer[2])
            elif isinstance(answer, list) and answer[0] in (b"subscribe", b"unsubscribe"):
                self._confirm(None)
            count += 1
            if count % _RECEIVE_SLICE == 0:
                await asyncio.sleep(0)

    def _confirm(self, error: RedisError | None) -> None:
        """Resolve the oldest awaited answer."""
        if not self._awaited or (answer := self._awaited.popleft()).done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    # Loss.

    def _count(self) -> None:
        self._unheard += 1
        self._unanswered += 1
        if max(self._unheard, self._unanswered) > MAX_UNANSWERED:
            self.end(f"the server has not answered {MAX_UNANSWERED} pings")

    def end(self, reason: object) -> None:
        """Note the loss of a connection, and fail the subscriptions that await an answer."""
        super().end(reason)
        while self._awaited and not self._loop.is_closed():
            self._confirm(RedisError(str(reason)))

    async def _finish(self) -> None:
        """Do nothing: an idle writer has the answers to all publishes."""

    def _transports(self) -> Sequence[asyncio.BaseTransport]:
        writers = (_writer_of(self._publisher), _writer_of(self._subscriber))
        return [writer.transport for writer in writers if writer is not None]

    def abandon(self) -> None:
        """Disconnect at once; the loop may be closed."""
        super().abandon()
        for connection in (self._publisher, self._subscriber):
            # redis-py would warn of a connection that was not closed, and close it again.
            if _writer_of(connection) is not None:
                connection._reader = connection._writer = None


def _retrieve(answer: "asyncio.Future[None]") -> None:
    """Mark the error of an answer as seen: the one before it may have ended the session."""
    if not answer.cancelled():
        answer.exception()


def _writer_of(connection: AbstractConnection) -> asyncio.StreamWriter | None:
    """The private writer of a connection of redis-py; a test checks that it is there."""
    writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
    return writer


def _connection(pool: ConnectionPool) -> AbstractConnection:
    """A new connection, not connected yet."""
    made: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # of redis-py
    return made


async def _connect(connection: AbstractConnection) -> None:
    await connection.connect()  # type: ignore[no-untyped-call]  # of redis-py


def _pool(server: str) -> ConnectionPool:
    """The options of a URL, as a factory of connections.

    Raises:
        ConfigurationError: redis-py does not accept the URL.
    """
    fixed = [name for name, _ in parse_qsl(urlsplit(server).query) if name in _FORCED]
    if fixed:
        text = f"carrier='{mask(server)}': must be without the option {fixed[0]}"
        raise ConfigurationError(text)
    try:
        pool = ConnectionPool.from_url(server, retry=Retry(NoBackoff(), 0), **_FORCED)
        _connection(pool)
    except (AttributeError, TypeError, ValueError, OSError, RedisError) as error:
        reason = scrubbed(error, server)
        text = f"carrier='{mask(server)}': must have options that redis-py accepts: {reason}"
        raise ConfigurationError(text) from None
    return pool
