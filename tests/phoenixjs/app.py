"""A server for the tests with phoenix.js: rooms, what they list, and a page; one node per process.

Run as a script it serves with uvicorn or hypercorn, and says on standard output when it does; its
one argument is a JSON object, see `Options`. `uvicorn app:app` serves it with any number of
workers. The settings of the node come from the environment.
"""

import asyncio
import json
import logging
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import adsum
from adsum.channels import (
    Channel,
    ChannelPresence,
    Client,
    Limits,
    RefusedError,
    Socket,
    intercept,
    on,
)
from adsum.channels.carriers import session


@dataclass(frozen=True, slots=True)
class Options:
    """How a server of the tests is.

    Attributes:
        server: ``uvicorn``, ``hypercorn``, or ``direct`` for uvicorn with direct connections.
        port: Where it listens on the loopback interface; 0 for any free port.
        upgrades: Whether WebSockets get through, which some proxies do not allow.
        keep_alive: Whether requests of one client may share a connection, and so a worker.
        timeout: Seconds after which a silent client is gone.
        origins: The sites that may connect, if not those of the host.
        library: The directory of phoenix.js, for the page that loads it.
        updates: How many a client may make in ten seconds, if not as many as always.
        buffer: Bytes that wait in the kernel for a client, if not as many as always.
        when_slow: What happens to a client that is far behind.
        lifetime: Seconds that a long-poll session lives without a poll, if not as long as always.
    """

    server: str = "uvicorn"
    port: int = 0
    upgrades: bool = True
    keep_alive: bool = True
    timeout: float = 75.0
    origins: list[str] | None = None
    library: str | None = None
    updates: int = Limits().updates
    buffer: int | None = None
    when_slow: Literal["state", "close"] = "state"
    lifetime: float | None = None


#: Workers are started by uvicorn, which gives them no arguments of ours.
OPTIONS = Options(**json.loads(os.environ.get("PHOENIXJS_OPTIONS", "{}")))


class PlannedError(Exception):
    """What a client asked a channel to crash with."""


class Commanded(Channel):
    """A channel to which things happen that its client does not ask for, see `command`.

    Attributes:
        place: Where its client is present.
        presence: Its presence there.
    """

    place = ""
    presence: ChannelPresence | None = None

    async def terminate(self, reason: str) -> None:
        OPEN.discard(self)

    def enter(self, place: str, meta: Any, **how: Any) -> None:
        """Track the client, and obey commands."""
        OPEN.add(self)
        self.place = place
        self.presence = self.track(self.client.assigns["user"], meta, topic=place, **how)


#: The channels of this process that obey commands.
OPEN: set[Commanded] = set()


class Room(Commanded, topic="room:{room}"):
    """Everybody in the room sees who is there; observers are not seen themselves."""

    async def join(self, payload: Any) -> dict[str, Any]:
        if self.params["room"] == "cellar":
            raise RefusedError("unauthorized")
        if payload.get("observe"):
            self.follow()
        else:
            # Some clients send no payload when they join.
            meta = payload.get("meta") or {"of": self.client.assigns["user"]}
            self.enter(self.topic, meta, linger=payload.get("linger", 0))
        return {"node": node.name, "transport": self.client.transport, "token": self.client.token}

    @on("update")
    async def update(self, payload: Any) -> dict[str, Any]:
        if self.presence is None:
            raise RefusedError("an observer has no presence")
        self.presence.update(payload)
        return {}

    @on("crash")
    async def crash(self, payload: Any) -> None:
        raise PlannedError

    @on("refuse")
    async def refuse(self, payload: Any) -> None:
        raise RefusedError("no")

    @on("stop")
    async def end(self, payload: Any) -> dict[str, Any]:
        self.stop()
        return {"stopping": True}

    @on("shout")
    async def shout(self, payload: Any) -> dict[str, Any]:
        await self.broadcast("shout", payload)
        return {"heard": True}

    @on("echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @on("bytes")
    async def send_bytes(self, payload: Any) -> None:
        """Send bytes back in the ways in which nobody waits for them."""
        self.push("pushed", payload)
        await self.broadcast("broadcast", payload)

    @intercept("whisper")
    async def whisper(self, payload: Any) -> Any:
        return payload if payload["to"] == self.client.assigns["user"] else None

    @on("whisper")
    async def send_whisper(self, payload: Any) -> None:
        await self.broadcast("whisper", payload)


class RealtimeRoom(Commanded, topic="realtime:room:{room}"):
    """A room as clients of Supabase's Realtime know it: they are present when they say so."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.follow()
        return {}

    @on("presence")
    async def be_present(self, payload: Any) -> dict[str, Any]:
        if self.presence is None:
            self.enter(self.topic, payload["payload"])
        else:
            self.presence.update(payload["payload"])
        return {}

    @on("echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @on("refuse")
    async def refuse(self, payload: Any) -> None:
        raise RefusedError("no")


class Control(Commanded, topic="__absinthe__:control"):
    """GraphQL as clients of Absinthe know it: documents, and data of subscriptions.

    It has three documents, so it needs no parser of GraphQL. The place of a subscription is in its
    variables.
    """

    async def join(self, payload: Any) -> dict[str, Any]:
        return {}

    @on("doc")
    async def execute(self, payload: Any) -> dict[str, Any]:
        variables = payload["variables"]
        match re.split(r"\W+", payload["query"])[1]:
            case "Echo":
                return {"data": {"echo": variables}}
            case "Refuse":
                raise RefusedError("no")
        self.enter(variables["topic"], variables["meta"])
        number = f"__absinthe__:doc:{id(self.presence)}"
        self.spawn(self.send_presences(number, self.presence))
        self.spawn(self.send_shouts(number, self.presence))
        return {"subscriptionId": number}

    @on("unsubscribe")
    async def unsubscribe(self, payload: Any) -> dict[str, Any]:
        if self.presence is not None:
            self.presence.untrack()
        return {"subscriptionId": payload["subscriptionId"]}

    async def send_presences(self, number: str, own: ChannelPresence | None) -> None:
        with presence.watch(self.place) as diffs:
            async for _ in diffs:
                self.send(number, own, {"presences": presence.list(self.place)})

    async def send_shouts(self, number: str, own: ChannelPresence | None) -> None:
        with pubsub.subscribe(self.place) as messages:
            async for message in messages:
                self.send(number, own, {"shout": message.payload})

    def send(self, number: str, own: ChannelPresence | None, data: dict[str, Any]) -> None:
        """Send data of a subscription, unless its client has ended it."""
        if own is not None and own.active:
            answer = {"subscriptionId": number, "result": {"data": data}}
            self.push("subscription:data", answer)


async def connect(client: Client) -> None:
    user = client.params.get("user")
    if not user:
        raise RefusedError("nobody may come in without a name")
    if client.token is not None and not client.token.startswith("token of"):
        raise RefusedError("the token is wrong")
    client.id = f"users:{user}"
    client.assigns["user"] = user


async def presences(request: Request) -> JSONResponse:
    """What the node lists on a topic; phoenix.js has to show the same."""
    return JSONResponse(presence.list(request.path_params["topic"]))


async def members(request: Request) -> JSONResponse:
    return JSONResponse({member.name: member.status for member in node.members()})


async def stats(request: Request) -> JSONResponse:
    return JSONResponse(channels.stats())


async def disconnect(request: Request) -> JSONResponse:
    await channels.disconnect(request.path_params["id"])
    return JSONResponse({})


async def command(request: Request) -> JSONResponse:
    """Let something happen to the channels of a user in a place: ``crash`` or ``away``."""
    place, user, event = (request.path_params[name] for name in ("topic", "user", "event"))
    for channel in list(OPEN):
        if channel.place == place and channel.client.assigns["user"] == user:
            if event == "crash":
                channel.spawn(fail())
            elif channel.presence is not None:
                channel.presence.update({"of": user, "away": True})
    return JSONResponse({})


async def fail() -> None:
    raise PlannedError


async def shout(request: Request) -> JSONResponse:
    """Broadcast to a place, in the words of each kind of client."""
    place, payload = request.path_params["topic"], {"text": "h\u00e4\u00df \U0001f600"}
    wrapped = {"type": "broadcast", "event": "shout", "payload": payload}
    is_realtime = place.startswith("realtime:")
    await channels.broadcast(
        place, *(("broadcast", wrapped) if is_realtime else ("shout", payload))
    )
    await pubsub.publish(place, payload)
    return JSONResponse({})


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    async with node:
        print(json.dumps({"name": node.name, "port": port}), flush=True)
        yield


if OPTIONS.lifetime is not None:
    session.LIFETIME = OPTIONS.lifetime
node = adsum.Node()
presence = adsum.Presence(node)
pubsub = adsum.PubSub(node)
channels = Socket(
    presence,
    [Room, RealtimeRoom, Control],
    connect=connect,
    origins=OPTIONS.origins,
    timeout=OPTIONS.timeout,
    limits=Limits(updates=OPTIONS.updates),
    when_slow=OPTIONS.when_slow,
)
port = OPTIONS.port
_HERE = Path(__file__).parent
_inner = Starlette(
    routes=[
        Route("/presences/{topic}", presences),
        Route("/members", members),
        Route("/stats", stats),
        Route("/disconnect/{id}", disconnect, methods=["POST"]),
        Route("/command/{topic}/{user}/{event}", command, methods=["POST"]),
        Route("/shout/{topic}", shout, methods=["POST"]),
        Mount("/socket", channels),
        Route("/page", lambda _: FileResponse(_HERE / "page.html")),
        Route("/page/clients.mjs", lambda _: FileResponse(_HERE / "clients.mjs")),
        Mount("/phoenix", StaticFiles(directory=OPTIONS.library or _HERE)),
    ],
    lifespan=lifespan,
)


async def app(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The application, behind what may lie between it and its clients."""
    if scope["type"] == "websocket" and not OPTIONS.upgrades:
        await receive()
        await send({"type": "websocket.close"})
        return

    async def send_once(message: Any) -> None:
        """Let each request have a connection of its own, which may be that of any worker."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    await _inner(scope, receive, send if OPTIONS.keep_alive else send_once)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line is about anything else than the crashes that tests ask for.

    A line for several crashes has the traceback as text, so it is known by its own.
    """
    planned = record.exc_info is not None and record.exc_info[0] is PlannedError
    return not planned and "the handler of 'crash' crashed" not in record.getMessage()


def _serve_with_uvicorn(listener: socket.socket, ws: str = "auto") -> None:
    import uvicorn

    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=3, ws=ws
    )
    uvicorn.Server(config).run(sockets=[listener])


def _serve_with_hypercorn(listener: socket.socket) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = 3
    config.loglevel = "WARNING"
    stopped = asyncio.Event()

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await serve(app, config, shutdown_trigger=stopped.wait)

    asyncio.run(main())


def _main() -> None:
    global port
    handler = logging.StreamHandler()
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Of links that break it warns, as it should; in these tests it is about clients.
    logging.getLogger("adsum.transport").setLevel(logging.ERROR)
    listener = socket.create_server(("127.0.0.1", OPTIONS.port), backlog=1024)
    if OPTIONS.buffer is not None:  # the connections inherit it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, OPTIONS.buffer)
    port = listener.getsockname()[1]
    serve: dict[str, Callable[[socket.socket], None]] = {
        "uvicorn": _serve_with_uvicorn,
        "direct": partial(_serve_with_uvicorn, ws="adsum.channels.uvicorn:WebSocketProtocol"),
        "hypercorn": _serve_with_hypercorn,
    }
    serve[OPTIONS.server](listener)


if __name__ == "__main__":
    _main()
