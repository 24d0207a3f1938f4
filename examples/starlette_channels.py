"""Channels with Starlette: who types and who is away, a lobby that counts rooms, and muting.

    pip install '..[demo]'
    uvicorn starlette_channels:app --workers 4 --ws-per-message-deflate false

Open http://127.0.0.1:8000/?room=1&user=ann in several tabs, with other rooms and users.
"""

import asyncio
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, intercept, on
from adsum.cli import phoenixjs

node = adsum.Node()
presence = adsum.Presence(node)


class Room(Channel, topic="room:{room}"):
    """One user in a room."""

    # In a larger room nobody reads the list any more: browsers are told how many there are.
    counts_above = 200

    async def join(self, payload: Any) -> None:
        self.user: str = self.client.assigns["user"]
        self.muted: set[str] = set()
        self.me = self.track(self.user, {"state": "here"})
        # The room is present in the lobby, once for each user in it.
        self.track(self.params["room"], topic="lobby")

    @on("state")
    async def state(self, payload: Any) -> None:
        """Type, be away, or be back: an update is one diff, and nobody sees the user leave."""
        state = field(payload, "state")
        if state not in ("here", "typing", "away"):
            raise RefusedError("state: must be here, typing or away")
        self.me.update({"state": state})

    @on("say")
    async def say(self, payload: Any) -> None:
        """Say something to everybody else."""
        await self.broadcast_from("said", {"user": self.user, "text": field(payload, "text")})

    @on("mute")
    async def mute(self, payload: Any) -> dict[str, Any]:
        """Hear no more of somebody, in this room and on this device."""
        self.muted.add(field(payload, "user"))
        return {"muted": sorted(self.muted)}

    @intercept("said")
    async def hear(self, payload: Any) -> Any:
        """Called for this client before something said goes to it; None keeps it back."""
        return None if payload["user"] in self.muted else payload


class Lobby(Channel, topic="lobby"):
    """One observer of the rooms: sees which there are, and with how many; is not seen."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.follow()
        return {"worker": os.getpid()}


def field(payload: Any, name: str) -> str:
    """A text that a browser sent; what else it may have sent is refused."""
    value = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= 500:
        raise RefusedError(f"{name}: must have 1 to 500 characters")
    return value


async def connect(client: Client) -> None:
    """Believe everybody; see `fastapi_channels.py` for tokens."""
    client.assigns["user"] = field(client.params, "user")


PAGE = """<!doctype html><title>Channels with Starlette</title>
<p>Rooms: <span id=rooms></span></p><p>Here: <span id=people></span></p><ol id=log></ol>
<input id=text placeholder="say something">
<script type=module>
  import {Presence, Socket} from "/phoenix.mjs"  // with a bundler: npm install phoenix

  const [rooms, people, log, text] =
    ["rooms", "people", "log", "text"].map(id => document.getElementById(id))
  const query = new URLSearchParams(location.search)
  const socket = new Socket("/socket", {params: {user: query.get("user") || "somebody"}})
  const lobby = socket.channel("lobby")
  const room = socket.channel(`room:${query.get("room") || 1}`)
  const inLobby = new Presence(lobby)
  const inRoom = new Presence(room)

  inLobby.onSync(() => {
    rooms.textContent = inLobby.list((name, {metas}) => `${name} (${metas.length})`).join(", ")
  })
  inRoom.onSync(() => {
    people.textContent = inRoom.list((name, {metas}) => `${name}: ${metas[0].state}`).join(", ")
  })
  room.on("presence_count", ({count}) => { people.textContent = `${count} users` })
  room.on("said", ({user, text}) => {
    const line = document.createElement("li")
    line.textContent = `${user}: ${text}`
    line.onclick = () => room.push("mute", {user}).receive("ok", () => {
      line.textContent = `${user}: ${text} (muted)`
    })
    log.append(line)
  })
  lobby.join()
  room.join()
  socket.connect()

  const state = () => document.hidden ? "away" : text.value ? "typing" : "here"
  let told = "here"
  const tell = () => {
    if (told !== state()) room.push("state", {state: told = state()})
  }
  text.oninput = document.onvisibilitychange = tell
  text.onchange = () => {
    if (text.value) room.push("say", {text: text.value})
    text.value = ""
    tell()
  }
</script>"""


async def page(request: Request) -> Response:
    """The room and the lobby. Click on what somebody said to mute them."""
    return HTMLResponse(PAGE)


async def phoenix(request: Request) -> Response:
    """The client; npm fetches it, once. In an application of your own it is in the bundle."""
    directory = await asyncio.to_thread(phoenixjs.install)
    return FileResponse(directory / "phoenix.mjs", media_type="text/javascript")


app = Starlette(
    routes=[
        Route("/", page),
        Route("/phoenix.mjs", phoenix),
        Mount("/socket", Socket(presence, [Room, Lobby], connect=connect)),
    ],
    lifespan=node.lifespan,
)
