"""The ASGI application that Phoenix clients connect to."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from adsum.activetime import active_timeout
from adsum.errors import RefusedError
from adsum.presence import Presence
from adsum.sparselog import SparseLog
from adsum.tasks import start_task

from . import handshake, websocket
from .channel import Channel
from .client import Client
from .connection import Connection
from .frames import Serializer
from .handshake import Origins, RejectedError, Scope
from .hub import Hub
from .limits import Limits
from .longpoll import LongPoll
from .websocket import Receive, Send, receive_next

logger = logging.getLogger("adsum")

Connect = Callable[[Client], Awaitable[None]]

#: Seconds of silence after which a client is gone. Clients send a heartbeat every 30 s, and hidden
#: tabs run their timers only once a minute.
TIMEOUT = 75.0
#: Seconds of active time that `connect` may take.
CONNECT_TIMEOUT = 10.0


class Socket:
    """Channels for Phoenix clients, as an ASGI application.

    Mount it anywhere: ``app.mount("/socket", socket)`` in FastAPI and Starlette, or call it for the
    paths that you give it. Clients connect to ``/socket/websocket``, or to ``/socket/longpoll``
    where WebSockets do not get through; phoenix.js does both with ``new Socket("/socket")``. Any
    number of processes may serve it, with no sticky sessions. The node of its presence has to run
    while clients are connected; when it stops, they are told to connect again.

    Args:
        presence: Who is there. Channels track in it, and its node carries broadcasts.
        channels: The subclasses of `Channel`; the first whose pattern matches a topic serves it.
        connect: Called for each connection; raises `RefusedError` to refuse it (HTTP 403), and may
            fill in the client's `id` and `values`. It has 10 seconds, and is cancelled if the
            client goes. None accepts everybody.
        origins: The sites whose pages may connect, as ``["https://example.com",
            "//*.example.com"]``; ``["*"]`` for all. None accepts the host that is asked, whatever
            its port.
        limits: The most that a client may cost.
        timeout: Seconds of active time without a frame after which a client is gone; below 60 it
            disconnects tabs that are in the background.
        when_slow: What happens to a client that is so far behind that the changes of a topic which
            it missed are not remembered: it is sent the whole ``state``, or the connection is
            ended (``close``).

    Raises:
        ConfigurationError: A setting is wrong, or two channels have the same topic.
        UsageError: One of the channels is none, or has no topic.

    Example:
        >>> import adsum
        >>> from adsum.channels import Channel, Socket
        >>> class Room(Channel, topic="room:{room}"):
        ...     async def join(self, payload):
        ...         self.track(self.client.params["user"])
        >>> presence = adsum.Presence(adsum.Node())
        >>> socket = Socket(presence, [Room])
    """

    def __init__(
        self,
        presence: Presence,
        channels: Iterable[type[Channel]],
        *,
        connect: Connect | None = None,
        origins: Sequence[str] | None = None,
        limits: Limits | None = None,
        timeout: float = TIMEOUT,
        when_slow: Literal["state", "close"] = "state",
    ) -> None:
        self._connect = connect
        self._origins = Origins(origins)
        self._hub = Hub(presence, channels, limits or Limits(), timeout, when_slow)
        self._longpoll = LongPoll(self._hub, self._origins, self.admit)
        self._refused = 0
        self._slow = SparseLog(
            logger, "a client at %s was refused: connect took longer than %g s", logging.ERROR
        )
        self._full = SparseLog(
            logger, "a client was refused: there are %d connections already", logging.ERROR
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection or request; see the ASGI specification."""
        kind, path = scope["type"], scope.get("path", "").rstrip("/")
        if kind == "websocket":
            await self._serve_websocket(scope, receive, send, path)
        elif kind == "http" and path.endswith("/longpoll"):
            await self._longpoll.serve(scope, receive, send)
        elif kind == "http":
            await _refuse_http(send, 426 if path.endswith("/websocket") else 404)
        elif kind == "lifespan":
            raise RuntimeError("mount the socket in an application whose lifespan runs the node")

    async def broadcast(self, topic: str, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to every client on a topic, on every node.

        Best effort, as `PubSub`: what a node that cannot be reached misses is not sent again.

        Args:
            topic: As ``room:lobby``.
            event: What clients name in ``channel.on(event, ...)``.
            payload: A JSON object, at most 192 KiB as text, or bytes, at most 144 KiB.

        Raises:
            NodeClosedError: The node is not running.
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: It is not finite, too deep or too large.
        """
        await self._hub.broadcast(topic, event, payload)

    async def disconnect(self, id: str) -> None:
        """Close every connection with an id, on every node, with code 1000.

        phoenix.js from 1.8 connects again, and so is authorised anew; older ones stay away.

        Args:
            id: What `connect` gave to the clients.

        Raises:
            NodeClosedError: The node is not running.
        """
        self._hub.disconnect(id)

    def settle(self) -> bool:
        """Tell clients now of presences that are held back for some milliseconds; for tests.

        Returns:
            Whether a `fetch` function is still being waited for.
        """
        return self._hub.settle()

    def stats(self) -> dict[str, int]:
        """Counters and gauges, for metrics: cheap enough to be read every second.

        Returns:
            ``connections`` (those that were given up included, until the server reports their
            ends), ``channels``, ``followers`` (channels that are told who is there),
            ``refused`` (connections), ``frames_received``, ``frames_sent`` and ``bytes_sent``;
            counters since the process began.
        """
        return {**self._hub.stats(), "refused": self._refused}

    async def admit(
        self, scope: Scope, transport: str, gone: "asyncio.Future[Any]"
    ) -> tuple[Client, Serializer] | int:
        """Let a client connect, or say with which HTTP status it is refused.

        While `connect` decides, the client counts as connected. Make its connection at once after
        this, so that its place is not given away.

        Args:
            scope: As ASGI has it.
            transport: How the client connects.
            gone: Done when the client has gone, so `connect` is cancelled.
        """
        try:
            client, serializer = handshake.read(scope, self._origins, transport)
        except RejectedError as error:
            logger.warning("a client at %s was refused: %s", _address(scope), error)
            return self._refuse(403)
        if not self._is_open():
            return self._refuse(503)
        try:
            if self._connect is not None and not await self._decide(self._connect, client, gone):
                return self._refuse(503)
        except RefusedError as error:
            logger.info("a client at %s was refused: %.200r", _address(scope), error.response)
            return self._refuse(403)
        except Exception:
            logger.exception("a client at %s was refused: connect crashed", _address(scope))
            return self._refuse(403)
        if not self._is_open():  # any more: `connect` may have taken its time
            return self._refuse(503)
        return client, serializer

    async def _decide(self, connect: Connect, client: Client, gone: "asyncio.Future[Any]") -> bool:
        """Call `connect`; False if it took too long, or the client has gone."""
        loop, admission = asyncio.get_running_loop(), object()
        self._hub.admissions.add(admission)
        try:
            async with active_timeout(CONNECT_TIMEOUT) as timeout:

                def interrupt(_: object) -> None:
                    with contextlib.suppress(RuntimeError):  # the decision came in this turn, too
                        timeout.reschedule(loop.time())

                gone.add_done_callback(interrupt)
                try:
                    await connect(client)
                finally:
                    gone.remove_done_callback(interrupt)
            return not gone.done()
        except TimeoutError:
            if not timeout.expired():
                raise
            if not gone.done():
                self._slow.log(client.address, CONNECT_TIMEOUT, key=client.address)
            return False
        finally:
            self._hub.admissions.discard(admission)

    def _is_open(self) -> bool:
        if not self._hub.presence.node.running:
            logger.error("a client was refused: the node is not running; see Node.lifespan")
            return False
        if self._hub.is_full:
            self._full.log(self._hub.limits.connections)
            return False
        return True

    def _refuse(self, status: int) -> int:
        self._refused += 1
        return status

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        await receive()  # websocket.connect
        if not path.endswith("/websocket"):
            await _deny(scope, send, 404)
            return
        # The end of the connection, if it comes before the decision; else the first frame.
        ahead = start_task(receive_next(receive))
        try:
            admitted = await self.admit(scope, "websocket", ahead)
            if not isinstance(admitted, int):
                offered = scope.get("subprotocols", ())
                protocol = handshake.SUBPROTOCOL if handshake.SUBPROTOCOL in offered else None
                connection = Connection(self._hub, *admitted)
                await websocket.serve(connection, receive, send, protocol, ahead)
                return
        finally:
            ahead.cancel()
        await _deny(scope, send, admitted)


async def _deny(scope: Scope, send: Send, status: int) -> None:
    """Refuse an upgrade. A close before the handshake is a 403 with every server.

    The extension is for other statuses alone, for some servers log each use of it as an error.
    """
    if status == 403 or "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.http.response.start", "status": status, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b""})


async def _refuse_http(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0")]
    if status == 426:
        headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _address(scope: Scope) -> str:
    peer = scope.get("client")
    return str(peer[0]) if peer else "?"
