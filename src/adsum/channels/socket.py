"""`Socket`: the ASGI application that Phoenix clients connect to."""

from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal

from adsum.arguments import async_function, refuse
from adsum.httpanswer import ASGIReceive, ASGISend
from adsum.presence import Presence
from adsum.tasks import cancel_task, start_task

from .carriers import direct, websocket
from .carriers.asgi import deny_websocket, receive_next, refuse_http
from .carriers.longpoll import LongPoll
from .channel import Channel
from .clientadmission import ClientAdmission, Connect
from .connection import Connection
from .disconnects import Disconnects
from .limits import Limits
from .socketparts import SocketParts
from .wire.connect import SUBPROTOCOL, Scope
from .wire.frames import BinaryFrames
from .wire.origins import Origins

#: Seconds of silence after which a client is considered gone. Clients send a heartbeat every 30 s,
#: and hidden tabs run their timers only once a minute.
TIMEOUT = 75.0


class Socket:
    """Channels for Phoenix clients, as an ASGI application.

    Mount it at any path, as ``app.mount("/socket", socket)`` in FastAPI and Starlette, or call it
    as an ASGI application. Clients connect to ``/socket/websocket``, or to ``/socket/longpoll``
    where WebSockets are blocked; phoenix.js does both with ``new Socket("/socket")``. Any number of
    processes may serve it, without sticky sessions. The node of its presence must run while clients
    are connected; when it stops, clients are disconnected with a close code that makes them
    reconnect.

    Args:
        presence: The presences that channels track in; its node carries the broadcasts.
        channels: Subclasses of `Channel`; the first one with a pattern that matches a topic serves
            it.
        connect: Called for each connection; raises `RefusedError` to refuse it (HTTP 403), and may
            set the client's `id` and `assigns`. It may take 10 seconds, and is cancelled if the
            client goes. None accepts every client.
        origins: The sites that may connect, by scheme, host and port, as
            ``["https://example.com", "//*.example.com"]``. Without a scheme, both http and https
            are accepted; without a port, the default one; a star stands for any subdomain. Also
            accepted are ``"null"``, origins of applications as ``"app://local"``, and ``"*"`` for
            all. None accepts the host in the ``Host`` header, with any port.
        limits: Resource limits for each client.
        timeout: Seconds of active time without a frame after which a client is considered gone. A
            value below 60 disconnects tabs in the background.
        when_slow: Action for a client that missed changes of a topic that are no longer kept:
            ``state`` sends it the whole state, ``close`` closes the connection.
        binary_frames: The binary frames of clients whose forms are not those of phoenix.js, see
            `BinaryFrames`. They are used for version 2 of the protocol; version 1 has none, and
            clients that poll are sent none.

    Raises:
        ConfigurationError: A setting is wrong; names it, its value, and the accepted values.
            An entry of `channels` is not a channel class, has no topic, or cannot be reached
            because of the order.

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
        binary_frames: BinaryFrames | None = None,
    ) -> None:
        if connect is not None:
            async_function("connect", connect, "client")
        if origins is not None and not _are_texts(origins):
            refuse("origins", origins, "a list of texts, as ['https://example.com'], or None")
        accepted = Origins(origins)
        given = Limits() if limits is None else limits
        self._shared = SocketParts(presence, channels, given, timeout, when_slow, binary_frames)
        self._admission = ClientAdmission(self._shared, connect, accepted)
        self._longpoll = LongPoll(self._shared, accepted, self._admission.admit)

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
        """Serve one connection or request; see the ASGI specification."""
        kind, path = scope["type"], scope.get("path", "").rstrip("/")
        if kind == "websocket":
            serving = await self._upgrade(scope, receive, send, path)
            if serving is not None:
                await serving
        elif kind == "http" and path.endswith("/longpoll"):
            await self._longpoll.serve(scope, receive, send)
        elif kind == "http":
            await refuse_http(receive, send, 426 if path.endswith("/websocket") else 404)
        elif kind == "lifespan":
            raise RuntimeError(
                "the socket runs no lifespan: mount it in an application whose lifespan runs the "
                "node"
            )

    async def broadcast(self, topic: str, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to every client on a topic, on every node.

        Best effort, as `PubSub`: a node that cannot be reached misses the event; nothing is resent.
        It returns, and waits for other nodes, as `Channel.broadcast` does.

        Args:
            topic: As ``room:lobby``.
            event: The event name, as in ``channel.on(event, ...)`` of phoenix.js.
            payload: A JSON object, at most 192 KiB as text, or bytes, at most 192 KiB.

        Raises:
            NodeNotRunningError: The node is not running.
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: The payload is not finite, too deep or too large; or the event is reserved:
                it begins with ``phx_`` or is one of presences, as ``presence_diff``.
        """
        await self._shared.broadcasts.broadcast(topic, event, payload)

    async def disconnect(self, id: str) -> None:
        """Close every connection with an id, on every node, with code 1000.

        phoenix.js from 1.8 on reconnects, and so calls `connect` again; older ones stay away.

        Args:
            id: The `Client.id` that `connect` has set.

        Raises:
            NodeNotRunningError: The node is not running.
        """
        Disconnects.of(self._shared.presence.node).disconnect(id)

    def flush_presences(self) -> bool:
        """Send batched presence changes now, without the delay of milliseconds; for tests.

        Returns:
            Whether a `fetch` call is still under way.
        """
        return self._shared.feeds.flush_presences()

    def stats(self) -> dict[str, int]:
        """Counters and gauges for metrics, cheap enough to read every second.

        Returns:
            ``connections`` (including those given up, until the server reports their ends),
            ``channels``, ``followers`` (channels that are sent presences),
            ``refused_connections_total`` (connections), ``received_frames_total``,
            ``sent_frames_total`` and ``sent_bytes_total``. Counters count since the process began.
        """
        return {
            **self._shared.registry.stats(),
            "followers": self._shared.feeds.followers,
            "refused_connections_total": self._admission.refused,
        }

    def __repr__(self) -> str:
        shared = self._shared
        return (
            f"<Socket of {len(shared.routes)} channels, {len(shared.registry.connections)} "
            f"connections, on {shared.presence.node!r}>"
        )

    async def _upgrade(
        self, scope: Scope, receive: ASGIReceive, send: ASGISend, path: str
    ) -> Coroutine[Any, Any, None] | None:
        """Admit or refuse a WebSocket; returns what serves it, to be awaited at once.

        So nothing of the admission is kept while the connection lasts.
        """
        await receive()  # websocket.connect
        if not path.endswith("/websocket"):
            await deny_websocket(scope, send, 404)
            return None
        # The next message: the end of the connection, if it comes during `connect`, or a frame.
        ahead = start_task(receive_next(receive))
        serving: Coroutine[Any, Any, None] | None = None
        try:
            admitted = await self._admission.admit(scope, "websocket", ahead)
            if not isinstance(admitted, int):
                offered = scope.get("subprotocols", ())
                protocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
                connection = Connection(self._shared, *admitted)
                open_directly = direct.offered(scope)
                if open_directly is not None:
                    serving = direct.serve(connection, open_directly, send, protocol, ahead)
                else:
                    serving = websocket.serve(connection, receive, send, protocol, ahead)
                return serving
        finally:
            if serving is None:
                cancel_task(ahead)
        await deny_websocket(scope, send, admitted)
        return None


def _are_texts(origins: Any) -> bool:
    is_list = isinstance(origins, Collection) and not isinstance(origins, str | bytes)
    return is_list and all(isinstance(one, str) for one in origins)
