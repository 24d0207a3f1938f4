"""The client of the bus for NATS, on nats-py: the extra ``adsum[nats]``.

One connection publishes and subscribes. A publish with a probe has a reply subject below an inbox
of this connection; the server answers there with the status 503 if nobody subscribes, also for
subscribers at other servers of a NATS cluster. Own messages are not echoed.

nats-py gives each subscription a queue and a task of its own, which loses the order over subjects;
its reconnects wait for the old socket to empty, which a stopped server never reads; and it sends
credentials in clear text to a server that announces no TLS, also for a ``tls://`` URL. So a
subclass of its client passes messages on from its reader in order, reports each loss at once, and
refuses such a server; `BusReconnector` renews the connection. The subclass overrides private
methods. Their presence is checked when a client is made, and tests check their effect.
"""

import asyncio
import contextlib
import importlib.util
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from adsum.bus.busclient import BusHandler
from adsum.bus.busreconnector import (
    CREDENTIALS,
    PAYLOAD,
    PERMISSION,
    REACH,
    BusReconnector,
)
from adsum.bus.bussession import (
    FLUSH_TIMEOUT,
    MAX_PROBES,
    MAX_UNANSWERED,
    BusCommand,
    BusSession,
    SessionEvents,
    Verb,
    every_ping,
)
from adsum.bus.limits import LEAST_PAYLOAD
from adsum.bus.maskedurl import mask
from adsum.errors import ConfigurationError

#: Bytes that nats-py buffers before a publish waits for the socket.
_PENDING_SIZE = 64 * 1024
#: Seconds for the connection and for each answer of the handshake.
_HANDSHAKE_TIMEOUT = 4
#: Private names of nats-py that are overridden or read.
PRIVATE_NAMES = ("_process_msg", "_process_err", "_process_op_err", "_connect_command")
_NO_RESPONDERS = b"NATS/1.0 503"
_NO_TLS = "the server does not offer TLS"
#: Remedies in errors.
_WITHOUT_TLS = "let the server offer TLS, or write nats:// for a server without it"
_CERTIFICATE = "name the file of its authority as ?ca=... in the URL, and a host of its certificate"
_CLOSED = "see the log of the server, which may have reached its max_connections"
#: The error of the server for a subscription beyond its bound; the others remain.
_TOO_MANY = "maximum subscriptions exceeded"


class SmallPayloadError(NatsError):
    """The server does not accept the longest messages: links would repeat them without success."""


class NatsClient(BusReconnector):
    """A `BusClient` over NATS.

    Args:
        url: The checked setting, as ``nats://user:password@a:4222,nats://b:4222``.
        handler: Receives the events.
        name: The name of this node, for the monitoring of the server.

    Raises:
        ConfigurationError: The installed version of nats-py, or a file of the URL, cannot be used.
    """

    spreads = True

    def __init__(self, url: str, handler: BusHandler, name: str) -> None:
        super().__init__(url, handler, name)
        missing = [private for private in PRIVATE_NAMES if not hasattr(Client, private)]
        if missing:
            text = f"carrier='{mask(url)}': this version of nats-py has no {', '.join(missing)}"
            raise ConfigurationError(f"{text}; install the version that adsum[nats] requires")
        self._options = {server: _connect_options(server) for server in self._servers}

    def _make_session(self, server: str, own: str | None) -> BusSession:
        return _NatsSession(self, server, self._options[server], self.name, own)

    def _failure(self, error: Exception) -> tuple[str, str]:
        text = str(error).removeprefix("nats: ").strip("'")
        lower = text.lower()
        if isinstance(error, SmallPayloadError):
            return text, PAYLOAD
        if "permissions violation" in lower:
            return text, PERMISSION
        if "authorization" in lower or "authentication" in lower:
            return f"the server refuses the credentials ({text})", CREDENTIALS
        if isinstance(error, ssl.SSLError):
            return text, _CERTIFICATE
        if text == _NO_TLS:
            return text, _WITHOUT_TLS
        if isinstance(error, ConnectionResetError | BrokenPipeError) or "connections" in lower:
            return f"the server has closed the connection ({text})", _CLOSED
        return text or type(error).__name__, REACH


class _OrderedClient(Client):
    """A client of nats-py that passes on messages in the order of the connection."""

    def __init__(self, session: "_NatsSession", needs_tls: bool) -> None:
        super().__init__()
        self._adsum_session = session
        self._needs_tls = needs_tls

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self._adsum_session.message(subject, data, headers)

    async def _process_op_err(self, e: Exception) -> None:
        self._adsum_session.end(e)
        with contextlib.suppress(OSError):  # it writes to the lost connection
            await super()._process_op_err(e)

    async def _process_err(self, err_msg: str) -> None:
        if _TOO_MANY in err_msg.lower():  # nats-py would close the connection
            self._adsum_session.events.dropped(err_msg.strip("'"))
        else:
            await super()._process_err(err_msg)

    def _connect_command(self) -> bytes:
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise NatsError(_NO_TLS)
        return super()._connect_command()


class _NatsSession(BusSession):
    """One connection to one server of NATS."""

    def __init__(
        self,
        events: SessionEvents,
        server: str,
        options: dict[str, Any],
        name: str,
        own: str | None,
    ) -> None:
        super().__init__(events)
        self._own = own
        self._options = {**options, "name": name}
        self._client = _OrderedClient(self, server.startswith("tls://"))
        self._inbox = b""
        self._subscriptions: dict[str, Subscription] = {}
        # By number, in the order of the publishes. Any client may publish on the inbox.
        self._probes: dict[bytes, object] = {}
        self._next_probe = 0
        self._error: Exception | None = None
        self._opened = False

    async def open(self, subjects: Sequence[str]) -> None:
        """Connect and subscribe."""
        try:
            await self._client.connect(**self._options, error_cb=self._failed, closed_cb=self._lost)
        except NatsError:
            raise self._error or NatsError("no connection") from None
        if self._client.max_payload < LEAST_PAYLOAD:
            raise SmallPayloadError(f"its max_payload is {self._client.max_payload} bytes")
        self._error = None
        inbox = self._client.new_inbox()
        self._inbox = f"{inbox}.".encode()
        await self._client.subscribe(f"{inbox}.*")
        if self._own is not None:
            await self._client.publish(self._own, b"")  # an error arrives before the next answer
        await self.subscribe_now(subjects)
        self._opened = True
        self._start(every_ping(self._check))

    async def subscribe_now(self, subjects: Sequence[str]) -> None:
        """Subscribe, and wait for the answer to a ping after it."""
        for subject in subjects:
            await self._subscribe(subject)
        await self._flush(_HANDSHAKE_TIMEOUT)
        if self._error is not None:
            raise self._error

    @property
    def unwritten(self) -> int:
        """Bytes in the buffers of nats-py and of the transport."""
        transport = self._transport()
        buffered = transport.get_write_buffer_size() if transport is not None else 0
        return int(self._client.pending_data_size) + buffered

    def message(self, subject: bytes, data: bytes, headers: bytes) -> None:
        """Pass on a message, or the refusal that it states."""
        if not subject.startswith(self._inbox):
            self.events.received(data)
        elif headers and headers.startswith(_NO_RESPONDERS):
            number = subject[len(self._inbox) :]
            if number in self._probes:
                self.events.refused(self._probes.pop(number))

    async def _write(self, batch: Sequence[BusCommand]) -> None:
        for command in batch:
            try:
                await self._pass_on(command)
            except NatsError as error:
                if self._client.is_closed:
                    raise
                self.events.dropped(f"{type(error).__name__} {error}")

    async def _pass_on(self, command: BusCommand) -> None:
        if command.verb is Verb.PUBLISH:
            reply = "" if command.probe is None else self._remember(command.probe)
            await self._client.publish(command.subject, command.data, reply=reply)
        elif command.verb is Verb.SUBSCRIBE:
            await self._subscribe(command.subject)
        elif (subscription := self._subscriptions.pop(command.subject, None)) is not None:
            await subscription.unsubscribe()

    async def _subscribe(self, subject: str) -> None:
        if subject not in self._subscriptions:
            self._subscriptions[subject] = await self._client.subscribe(subject)

    def _remember(self, probe: object) -> str:
        """Store a probe, instead of the oldest one if there are many, and return its inbox."""
        if len(self._probes) >= MAX_PROBES:
            del self._probes[next(iter(self._probes))]
        self._next_probe += 1
        number = b"%d" % self._next_probe
        self._probes[number] = probe
        return (self._inbox + number).decode()

    async def _finish(self) -> None:
        await self._flush(int(FLUSH_TIMEOUT))
        await self._client.close()

    async def _flush(self, seconds: int) -> None:
        """Wait until the server has handled all commands.

        nats-py writes the ping of `flush` past its buffer, so that is written first.
        """
        while self._client.pending_data_size and not self._client.is_closed:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0)
        await self._client.flush(seconds)

    def _check(self) -> None:
        """End the session if nats-py has closed the connection for any reason."""
        if self._client.is_closed:
            self.end(self._client.last_error or "the connection is closed")

    async def _failed(self, error: Exception) -> None:
        """Store the first error of the handshake, or log one that the connection survives."""
        self._error = self._error or error
        if self._opened and "permissions violation" in str(error).lower():
            self.events.dropped(str(error))

    async def _lost(self) -> None:
        self.end(self._client.last_error or "the server closed the connection")

    def _transport(self) -> asyncio.WriteTransport | None:
        stream = getattr(self._client, "_transport", None)
        writer = getattr(stream, "_io_writer", None)
        return writer.transport if writer is not None else None

    def _transports(self) -> Sequence[asyncio.BaseTransport]:
        transport = self._transport()
        return [] if transport is None else [transport]


def _connect_options(server: str) -> dict[str, Any]:
    """The arguments of nats-py's `connect` for a URL; credentials are not left in the URL.

    Raises:
        ConfigurationError: A file of the query options cannot be read, or nkeys is not installed.
    """
    parts = urlsplit(server)
    files = dict(parse_qsl(parts.query))
    options: dict[str, Any] = {
        "servers": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "connect_timeout": _HANDSHAKE_TIMEOUT,
        "ping_interval": 1,
        "max_outstanding_pings": MAX_UNANSWERED,
        "no_echo": True,
        "pending_size": _PENDING_SIZE,
    }
    if parts.password is not None:
        options |= {"user": unquote(parts.username or ""), "password": unquote(parts.password)}
    elif parts.username:
        options["token"] = unquote(parts.username)
    _check_credentials(server, files)
    options |= {
        option: files[name]
        for name, option in (("creds", "user_credentials"), ("nkey", "nkeys_seed"))
        if name in files
    }
    if parts.scheme == "tls" or files.keys() & {"ca", "cert"}:
        options["tls"] = _tls_context(server, files)
    return options


def _check_credentials(server: str, files: dict[str, str]) -> None:
    """Check the files of credentials; nats-py would report them as an absent server."""
    field, named = f"carrier='{mask(server)}'", files.keys() & {"creds", "nkey"}
    if named and importlib.util.find_spec("nkeys") is None:
        text = f"{field}: credentials in a file need nkeys; run: pip install 'adsum[nats]'"
        raise ConfigurationError(text)
    for name in sorted(named):
        try:
            with open(files[name], "rb"):
                pass
        except OSError as error:
            text = f"{field}: must name a readable file of credentials as {name}: {error}"
            raise ConfigurationError(text) from None


def _tls_context(server: str, files: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            context.load_cert_chain(files["cert"], files["key"])
    except OSError as error:  # ssl.SSLError too
        text = f"carrier='{mask(server)}': must name readable files of certificates: {error}"
        raise ConfigurationError(text) from None
    return context
