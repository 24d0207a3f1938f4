"""An application whose channels do as payloads ask, served by uvicorn in the loop of the test."""

import socket as sockets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, on
from tests.support.nodes import running
from tests.support.waiting import until

#: The server's implementation of WebSockets; the fixture `each_carrier` sets it.
WS = "auto"
#: Ends of channels: the topic and the reason.
Ends = list[tuple[str, str]]


class Room(Channel, topic="room:{room}"):
    """Does what the payload of its join and its events say."""

    async def join(self, payload: Any) -> dict[str, Any] | None:
        if "refuse" in payload:
            raise RefusedError(payload["refuse"])
        if "crash" in payload:
            raise RuntimeError("the join crashes")
        if "track" in payload:
            self.me = self.track(payload["track"], payload.get("meta"))
        if "follow" in payload:
            self.follow()
        return payload.get("response")  # type: ignore[no-any-return]  # what the test says

    @on("echo")
    @on("bin")
    async def echo(self, payload: Any) -> Any:
        return payload

    @on("refuse")
    async def refuse(self, payload: Any) -> None:
        raise RefusedError(payload)

    @on("mute")
    async def mute(self, payload: Any) -> None:
        """Reply nothing."""

    @on("crash")
    async def crash(self, payload: Any) -> None:
        raise RuntimeError("the handler crashes")

    @on("halt")
    async def halt(self, payload: Any) -> dict[str, Any]:
        self.stop()
        return {"bye": True}

    @on("shout")
    async def shout(self, payload: Any) -> None:
        await self.broadcast("shout", payload)

    @on("whisper")
    async def whisper(self, payload: Any) -> None:
        await self.broadcast_from("shout", payload)

    @on("tell me")
    @on("tell")
    async def tell_me(self, payload: Any) -> None:
        self.push("told", payload)

    @on("track")
    async def track_me(self, payload: Any) -> dict[str, Any]:
        self.me = self.track(payload["key"], payload.get("meta"))
        return {}

    @on("update")
    async def update(self, payload: Any) -> dict[str, Any]:
        self.me.update(payload)
        return {}

    @on("untrack")
    async def untrack(self, payload: Any) -> dict[str, Any]:
        self.me.untrack()
        return {}

    async def terminate(self, reason: str) -> None:
        self.client.assigns["ends"].append((self.topic, reason))


class ServedApp:
    """One worker of an application: a node, its presences, a socket, and what was seen.

    Args:
        node: The worker's node; one of its own by default.
        settings: Those of the socket.
    """

    def __init__(self, node: adsum.Node | None = None, **settings: Any) -> None:
        self.node = adsum.Node(siblings=False) if node is None else node
        self.presence = adsum.Presence(self.node, fetch=settings.pop("fetch", None))
        self.ends: Ends = []
        self.clients: list[Client] = []
        #: The server's implementation of WebSockets.
        self.ws = settings.pop("ws", WS)
        channels: Sequence[type[Channel]] = settings.pop("channels", [Room])
        self.socket = Socket(self.presence, channels, connect=self._connect, **settings)
        self.port = 0
        #: The server, once it has begun.
        self.server: uvicorn.Server | None = None

    async def _connect(self, client: Client) -> None:
        if client.params.get("refused"):
            raise RefusedError("go away")
        if client.params.get("crash"):
            raise RuntimeError("connect crashes")
        client.id = client.params.get("id")
        client.assigns["ends"] = self.ends
        self.clients.append(client)

    def keys(self, topic: str) -> list[str]:
        """Who is present on a topic."""
        return list(self.presence.list(topic))


@asynccontextmanager
async def serving(served_app: ServedApp) -> AsyncIterator[ServedApp]:
    """Serve an application whose node runs on a free port of this host, in this event loop."""
    async with uvicorn_server(served_app.socket, ws=served_app.ws) as (server, port):
        served_app.server, served_app.port = server, port
        yield served_app


@asynccontextmanager
async def uvicorn_server(
    app: Any, *, proto: int = sockets.IPPROTO_TCP, **settings: Any
) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve an ASGI application in this event loop; gives the server and its port.

    Args:
        app: The application.
        proto: The protocol's number of the listening socket, by which asyncio sees that it is TCP
            and sends without delay; 0 with ``uvicorn --workers``.
        settings: Those of `uvicorn.Config`.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        ws_ping_interval=None,
        access_log=False,
        **settings,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with sockets.socket(proto=proto) as sock:
        sock.bind(("127.0.0.1", 0))
        await server.startup([sock])
        try:
            yield server, sock.getsockname()[1]
        finally:
            await _end(server)


async def _end(server: uvicorn.Server) -> None:
    """As `Server.shutdown` does, without its pauses."""
    for listener in server.servers:
        listener.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    state = server.server_state
    await until(lambda: not state.connections and not state.tasks, "requests do not end")


@asynccontextmanager
async def served_app(**settings: Any) -> AsyncIterator[ServedApp]:
    """A served application with a node of its own."""
    made = ServedApp(**settings)
    async with made.node, serving(made):
        yield made


@asynccontextmanager
async def two_served_apps(
    cluster: str, **settings: Any
) -> AsyncIterator[tuple[ServedApp, ServedApp]]:
    """Two served workers of one application, which know each other."""
    async with running(2, cluster=cluster) as nodes, AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(serving(ServedApp(node, **settings))) for node in nodes
        ]
        yield one, two
