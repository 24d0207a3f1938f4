"""Channels with FastAPI: one sign-in for HTTP and sockets, and endpoints that speak to rooms.

    pip install '..[demo]' fastapi
    export APP_SECRET=$(python -c 'import secrets; print(secrets.token_urlsafe())')
    uvicorn fastapi_channels:app --workers 4 --ws-per-message-deflate false

Open http://127.0.0.1:8000/ in several tabs, under several names. Each tab talks to whichever worker
took its connection, and all of them show the same room.
"""

import asyncio
import hmac
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel, Field, StringConstraints

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, on
from adsum.cli import phoenixjs


def secret() -> bytes:
    """The key that signs tokens, the same in every worker; without one nothing starts."""
    given = os.environ.get("APP_SECRET", "")
    if len(given) < 32:
        print("APP_SECRET: must be set, to 32 characters or more", file=sys.stderr)
        sys.exit(3)  # uvicorn and gunicorn then stop, instead of starting workers again and again
    return given.encode()


SECRET = secret()
TOKEN_LIFETIME = 24 * 3600.0

node = adsum.Node()
presence = adsum.Presence(node)


# Who is it? The same for HTTP requests and for sockets.


def sign(user: str, now: float) -> str:
    """A token: who, until when, and a signature that only this application can make."""
    claim = f"{user}:{now + TOKEN_LIFETIME:.0f}"
    return f"{claim}:{hmac.digest(SECRET, claim.encode(), 'sha256').hex()}"


def user_of(token: str | None, now: float) -> str | None:
    """Whose token it is; None if it is nobody's, or too old."""
    claim, _, signature = (token or "").rpartition(":")
    expected = hmac.digest(SECRET, claim.encode(), "sha256").hex()
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        return None
    user, _, until = claim.rpartition(":")
    return user if now < float(until) else None


async def signed_in(authorization: Annotated[str, Header()] = "") -> str:
    """The user of an HTTP request."""
    user = user_of(authorization.removeprefix("Bearer "), time.time())
    if user is None:
        raise HTTPException(401, "POST /token first")
    return user


async def connect(client: Client) -> None:
    """The user of a socket; the token is what phoenix.js was given as `authToken`."""
    user = user_of(client.token, time.time())
    if user is None:
        raise RefusedError("no token, or an old one")
    client.id = f"user:{user}"
    client.assigns["user"] = user


# What happens in a room.


class Room(Channel, topic="room:{room}"):
    """One user in a room, from the join until the connection ends."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.user: str = self.client.assigns["user"]
        self.me = self.track(self.user, {"mood": "here"})
        return {"worker": os.getpid()}

    @on("say")
    async def say(self, payload: Any) -> dict[str, Any]:
        """Say something to everybody in the room, on every worker."""
        await self.broadcast("said", {"user": self.user, "text": text_of(payload)})
        return {}

    @on("mood")
    async def mood(self, payload: Any) -> dict[str, Any]:
        """Show it beside the name."""
        self.me.update({"mood": text_of(payload)})
        return {}


def text_of(payload: Any) -> str:
    """What a browser sent, if it is what it should be; the refusal is the browser's reply."""
    match payload:
        case {"text": str(text)} if 0 < len(text) <= 500:
            return text
    raise RefusedError("text: must have 1 to 500 characters")


# The application.

socket = Socket(presence, [Room], connect=connect)


async def the_socket() -> Socket:
    """The socket, for endpoints; a dependency, so that tests can put another in its place."""
    return socket


User = Annotated[str, Depends(signed_in)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Channels = Annotated[Socket, Depends(the_socket)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What this application opens and closes itself; without any, `lifespan=node.lifespan`."""
    with presence.track("workers", str(os.getpid())):
        yield


app = FastAPI(lifespan=node.wrap_lifespan(lifespan))
app.mount("/socket", socket)


class Login(BaseModel):
    """Who wants in."""

    user: str = Field(min_length=1, max_length=40)


class Notice(BaseModel):
    """Something to say."""

    text: str = Field(min_length=1, max_length=500)


@app.post("/token")
async def token(login: Login) -> dict[str, str]:
    """Sign in. This believes everybody; yours asks for a password."""
    return {"token": sign(login.user, time.time())}


@app.get("/rooms/{room}")
async def who(room: Name, user: User) -> dict[str, Any]:
    """Who is in a room, on all workers, and which worker says so."""
    return {"worker": os.getpid(), "present": presence.list(f"room:{room}")}


@app.post("/rooms/{room}/notices", status_code=202)
async def notify(room: Name, notice: Notice, user: User, channels: Channels) -> None:
    """Say something to everybody in a room, without being in it."""
    await channels.broadcast(f"room:{room}", "notice", {"user": user, "text": notice.text})


@app.delete("/connections", status_code=202)
async def disconnect(user: User, channels: Channels) -> None:
    """Close every connection of the user, on every worker.

    phoenix.js connects again, and `connect` decides anew. A token that shall not open the door any
    more has to be refused there: look it up among those that you have revoked.
    """
    await channels.disconnect(f"user:{user}")


@app.get("/workers")
async def workers() -> dict[str, Any]:
    """The workers that serve this application, and the one that says so."""
    return {"worker": os.getpid(), "workers": list(presence.list("workers"))}


# The page.

PAGE = """<!doctype html><title>Channels with FastAPI</title>
<p id=status></p><ul id=people></ul><ol id=log></ol>
<input id=say placeholder="say something"> <input id=mood placeholder="your mood">
<button id=leave>Disconnect me everywhere</button>
<script type=module>
  import {Presence, Socket} from "/phoenix.mjs"  // with a bundler: npm install phoenix

  const [status, people, log, say, mood, leave] =
    ["status", "people", "log", "say", "mood", "leave"].map(id => document.getElementById(id))
  const json = {"content-type": "application/json"}
  const user = prompt("Your name?", "ann") || "ann"
  const login = {method: "POST", headers: json, body: JSON.stringify({user})}
  const {token} = await (await fetch("/token", login)).json()

  const socket = new Socket("/socket", {authToken: token, longPollFallbackMs: 3000})
  const room = socket.channel("room:1")
  const presence = new Presence(room)
  const show = (list, text) => {
    const line = document.createElement("li")
    line.textContent = text
    list.append(line)
  }

  presence.onSync(() => {
    people.replaceChildren()
    presence.list((name, {metas}) => show(people, `${name}: ${metas.map(it => it.mood)}`))
  })
  room.on("said", ({user, text}) => show(log, `${user}: ${text}`))
  room.on("notice", ({user, text}) => show(log, `notice by ${user}: ${text}`))
  room.join().receive("ok", ({worker}) => { status.textContent = `served by ${worker}` })
  socket.connect()

  say.onchange = () => room.push("say", {text: say.value})
    .receive("error", ({reason}) => alert(reason))
  mood.onchange = () => room.push("mood", {text: mood.value})
  leave.onclick = () =>
    fetch("/connections", {method: "DELETE", headers: {authorization: `Bearer ${token}`}})
</script>"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The room."""
    return PAGE


@app.get("/phoenix.mjs")
async def phoenix() -> FileResponse:
    """The client; npm fetches it, once. In an application of your own it is in the bundle."""
    directory = await asyncio.to_thread(phoenixjs.install)
    return FileResponse(directory / "phoenix.mjs", media_type="text/javascript")
