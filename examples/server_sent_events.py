"""Server-sent events: the users of a room for the EventSource of a browser, from any worker.

    pip install fastapi sse-starlette 'uvicorn[standard]'
    uvicorn server_sent_events:app --workers 4

Open http://127.0.0.1:8000/?user=ann in one window, and `?user=bob` in another. Or read the stream:

    curl -N 'http://127.0.0.1:8000/rooms/1/events?user=eve'

The first event, `state`, has the metas of all users. Each later one, `diff`, has those of the users
who have changed; a user with no metas has left.
"""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import StringConstraints
from sse_starlette import EventSourceResponse

import adsum

node = adsum.Node()
presence = adsum.Presence(node)
app = FastAPI(lifespan=node.lifespan)
#: Seconds for which a user stays listed after the stream ended, since the browser connects again.
LINGER = 5
#: A room or a user; FastAPI refuses others with HTTP 422, so no stream begins.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


@app.get("/rooms/{room}/events")
async def events(room: Name, user: Name) -> EventSourceResponse:
    """Be in a room while the stream is open.

    A comment each 15 s keeps proxies from closing an idle stream. A client that reads nothing for
    30 s, although much is sent, is disconnected. `Last-Event-ID` needs no answer of its own: each
    stream begins with the whole state.
    """
    return EventSourceResponse(changes(f"room:{room}", user), ping=15, send_timeout=30)


async def changes(topic: str, user: str) -> AsyncIterator[dict[str, Any]]:
    """Track the user, and send the state, then each change; changes merge for a slow reader."""
    being_there = presence.track(topic, user, {"via": node.name}, linger=LINGER)
    with being_there, presence.watch(topic) as diffs:
        first = await anext(diffs)
        yield {"event": "state", "data": metas(topic, first.joins), "retry": 1000}
        async for diff in diffs:
            changed = {*diff.joins, *diff.leaves, *diff.updates}
            yield {"event": "diff", "data": metas(topic, changed)}


def metas(topic: str, users: Iterable[str]) -> str:
    """The present metas of users as JSON. A repeated change does no harm, so order is simple."""
    return json.dumps({user: presence.get(topic, user) for user in sorted(users)})


PAGE = """<!doctype html><title>Who is here?</title><p>Here: <span id=people></span></p>
<script type=module>
  const user = new URLSearchParams(location.search).get("user") || "ann"
  const people = new Map()
  const apply = ({data}) => {
    for (const [name, metas] of Object.entries(JSON.parse(data)))
      metas.length ? people.set(name, metas) : people.delete(name)
    document.getElementById("people").textContent = [...people.keys()].sort().join(", ")
  }
  // The browser connects again by itself, and receives a new state.
  const source = new EventSource(`/rooms/1/events?user=${encodeURIComponent(user)}`)
  source.addEventListener("state", event => { people.clear(); apply(event) })
  source.addEventListener("diff", apply)
</script>"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page that shows it."""
    return PAGE
