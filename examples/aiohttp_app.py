"""Channels with aiohttp, which is no ASGI server: a bridge of some dozens of lines.

    pip install '..[demo]' aiohttp
    python aiohttp_app.py

Start it in several terminals: the processes share port 8000 (or what PORT says), and are one
cluster. Open http://127.0.0.1:8000/?user=ann in several tabs.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, on
from adsum.cli import phoenixjs

node = adsum.Node()
presence = adsum.Presence(node)


class Room(Channel, topic="room:{room}"):
    """One user in a room."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.track(self.client.assigns["user"])
        return {"worker": os.getpid()}

    @on("shout")
    async def shout(self, payload: Any) -> None:
        """Pass it on to everybody in the room."""
        await self.broadcast("shout", payload)


async def connect(client: Client) -> None:
    """Believe everybody; see `fastapi_channels.py` for tokens."""
    user = client.params.get("user", "somebody")
    if not 0 < len(user) <= 100:
        raise RefusedError("user: must have 1 to 100 characters")
    client.assigns["user"] = user


class Bridge:
    """An ASGI application in a route of aiohttp: ``add_route("*", path, Bridge(it).serve)``.

    Nothing is buffered here. The application reads when it asks for more, and waits while it sends
    to a client that does not read; so it knows who is slow.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one request or connection."""
        if request.headers.get("upgrade", "").lower() == "websocket":
            connection = Connection(request)
            await self._application(connection.scope, connection.receive, connection.send)
            return connection.response or web.Response(status=connection.refused)
        exchange = Exchange(request)
        await self._application(exchange.scope, exchange.receive, exchange.send)
        return exchange.response


class Exchange:
    """One request and its response."""

    def __init__(self, request: web.Request) -> None:
        self.scope = scope_of(request, "http")
        self.response = web.StreamResponse()
        self._request = request
        self._whole = False

    async def receive(self) -> dict[str, Any]:
        if self._whole:
            await asyncio.Event().wait()  # until aiohttp cancels the handler: the client is gone
        body = await self._request.content.readany()
        self._whole = self._request.content.at_eof()
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.response.set_status(message["status"])
            for name, value in message.get("headers", ()):
                self.response.headers.add(name.decode(), value.decode("latin-1"))
            await self.response.prepare(self._request)
        else:
            await self.response.write(message.get("body", b""))


KINDS = {WSMsgType.TEXT: "text", WSMsgType.BINARY: "bytes"}


class Connection:
    """One WebSocket; there is no response while it is not accepted."""

    def __init__(self, request: web.Request) -> None:
        self.scope = scope_of(request, "websocket")
        self.response: web.WebSocketResponse | None = None
        self.refused = 403
        self._request = request
        self._begun = False

    async def receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            return {"type": "websocket.connect"}
        if self.response is not None:
            message = await self.response.receive()
            if message.type in KINDS:
                return {"type": "websocket.receive", KINDS[message.type]: message.data}
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            chosen = [message["subprotocol"]] if message.get("subprotocol") else []
            # Compression would cost memory for each connection, and time for each frame.
            response = web.WebSocketResponse(protocols=chosen, compress=False)
            await response.prepare(self._request)
            self.response = response
        elif message["type"] == "websocket.http.response.start":
            self.refused = message["status"]
        elif self.response is not None:
            await self._pass_on(self.response, message)

    async def _pass_on(self, response: web.WebSocketResponse, message: Any) -> None:
        if message["type"] == "websocket.close":
            reason = (message.get("reason") or "").encode()
            await response.close(code=message.get("code", 1000), message=reason)
        elif message.get("text") is not None:
            await response.send_str(message["text"])
        else:
            await response.send_bytes(message["bytes"])


def scope_of(request: web.Request, kind: str) -> dict[str, Any]:
    """What ASGI calls a scope: what is known of a request."""
    offered = request.headers.get("sec-websocket-protocol", "")
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return {
        "type": kind,
        "method": request.method,
        "path": request.path,
        "query_string": request.query_string.encode(),
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "subprotocols": [name.strip() for name in offered.split(",") if name],
        "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
        "extensions": {"websocket.http.response": {}},
    }


# The application.


async def run_node(app: web.Application) -> AsyncIterator[None]:
    """Run the node while the application runs."""
    async with node:
        yield


async def stop_node(app: web.Application) -> None:
    """Stop it before connections are waited for: clients are told to connect again, and go."""
    await node.stop()


async def who(request: web.Request) -> web.Response:
    """Who is in a room, on every process, and which process says so."""
    present = presence.list(f"room:{request.match_info['room']}")
    return web.json_response({"worker": os.getpid(), "present": present})


PAGE = """<!doctype html><title>Channels with aiohttp</title>
<p>Here: <span id=people></span></p><ol id=log></ol><input id=text placeholder="say something">
<script type=module>
  import {Presence, Socket} from "/phoenix.mjs"  // with a bundler: npm install phoenix

  const [people, log, text] =
    ["people", "log", "text"].map(id => document.getElementById(id))
  const user = new URLSearchParams(location.search).get("user") || "somebody"
  const socket = new Socket("/socket", {params: {user}, longPollFallbackMs: 3000})
  const room = socket.channel("room:1")
  const presence = new Presence(room)

  presence.onSync(() => { people.textContent = presence.list(name => name).join(", ") })
  room.on("shout", ({text}) => {
    const line = document.createElement("li")
    line.textContent = text
    log.append(line)
  })
  text.onchange = () => room.push("shout", {text: `${user}: ${text.value}`})
  room.join()
  socket.connect()
</script>"""


async def page(request: web.Request) -> web.Response:
    """The room."""
    return web.Response(text=PAGE, content_type="text/html")


async def phoenix(request: web.Request) -> web.FileResponse:
    """The client; npm fetches it, once. In an application of your own it is in the bundle."""
    directory = await asyncio.to_thread(phoenixjs.install)
    headers = {"content-type": "text/javascript"}
    return web.FileResponse(directory / "phoenix.mjs", headers=headers)


socket = Socket(presence, [Room], connect=connect)
app = web.Application()
app.cleanup_ctx.append(run_node)
app.on_shutdown.append(stop_node)
app.router.add_get("/", page)
app.router.add_get("/phoenix.mjs", phoenix)
app.router.add_get("/rooms/{room:[^/]{1,100}}", who)
app.router.add_route("*", "/socket/{transport}", Bridge(socket).serve)

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    web.run_app(app, host="127.0.0.1", port=port, reuse_port=True, handler_cancellation=True)
