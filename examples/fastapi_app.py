"""Who is in a room, over WebSocket, in any number of worker processes.

    pip install fastapi 'uvicorn[standard]'
    uvicorn fastapi_app:app --workers 4

Open http://127.0.0.1:8000/ in several tabs, under several names. Each tab talks to whichever
worker took its connection, and all of them show the same list.
"""

import asyncio
import os
from typing import Annotated

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from pydantic import StringConstraints

import adsum

node = adsum.Node()
presence = adsum.Presence(node)
app = FastAPI(lifespan=node.lifespan)
#: A room or a user; FastAPI refuses others, a WebSocket with HTTP 403.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


@app.get("/rooms/{room}")
async def who(room: Name) -> dict[str, object]:
    """Who is in a room, as this worker knows it, and which worker that is."""
    return {"worker": os.getpid(), "present": presence.list(f"room:{room}")}


@app.websocket("/rooms/{room}/{user}")
async def enter(websocket: WebSocket, room: Name, user: Name) -> None:
    """Be in a room for as long as the connection lives; a text that comes in sets the mood."""
    await websocket.accept()
    topic = f"room:{room}"
    with presence.track(topic, user, {"mood": "here"}) as me:
        teller = asyncio.create_task(tell(websocket, topic))
        try:
            async for mood in websocket.iter_text():
                me.update({"mood": mood[:100]})
        finally:
            teller.cancel()


async def tell(websocket: WebSocket, topic: str) -> None:
    """Send the list whenever it changes; a slow browser gets fewer, not more."""
    with presence.watch(topic) as diffs:
        async for _ in diffs:
            await websocket.send_json(presence.list(topic))


PAGE = """<!doctype html><title>Who is here?</title>
<p>I am <input id=mood placeholder="in a mood, press Enter"></p><ul id=people></ul>
<script type=module>
  const [mood, people] = ["mood", "people"].map(id => document.getElementById(id))
  const me = prompt("Your name?", "ann") || "ann"
  const scheme = location.protocol === "https:" ? "wss" : "ws"
  const socket = new WebSocket(`${scheme}://${location.host}/rooms/1/${encodeURIComponent(me)}`)
  socket.onmessage = ({data}) => {
    const lines = Object.entries(JSON.parse(data)).map(([key, entry]) => {
      const line = document.createElement("li")
      line.textContent = `${key}: ${entry.metas.map(meta => meta.mood).join(", ")}`
      return line
    })
    people.replaceChildren(...lines)
  }
  mood.onchange = () => socket.send(mood.value)
</script>"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page that shows it."""
    return PAGE
