"""Many processes as several clusters, called cells: the name of a room says which cell has it.

    pip install fastapi 'uvicorn[standard]'
    CELLS=a,b SERVED=a uvicorn cells:app --port 8001
    CELLS=a,b SERVED=b uvicorn cells:app --port 8002
    CELLS=a,b uvicorn cells:app --port 8003                 # in every cell: a directory

    curl http://127.0.0.1:8003/rooms/1/cell                 # route by this: a is served at 8001
    python -m websockets ws://127.0.0.1:8001/rooms/1/ann    # stays until Ctrl-D; sends each line
    curl http://127.0.0.1:8003/rooms/1                      # the users, at a server of its cell
    curl http://127.0.0.1:8003/totals                       # of all cells, at a directory

A server that lacks a cell of a room answers HTTP 421, and 403 to a WebSocket: ask for the cell
again. To add cell c, restart the servers of a and b three times, step by step, with:

    CELLS=a,b ALSO=a,b,c SERVED=a,c     rooms that move are tracked in c too
    CELLS=a,b READ=a,b,c SERVED=a,c     they are read in c, and their messages are sent there
    CELLS=a,b,c SERVED=a                they are refused here; start the servers of c before

Those of b have SERVED=b,c and SERVED=b. Each step ends before the next one begins.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from hashlib import blake2b
from typing import Annotated

from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from pydantic import StringConstraints

import adsum

#: A room or a user; FastAPI refuses others, a WebSocket with HTTP 403.
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
#: Characters of a text; any text of this length fits into a message.
MAX_TEXT = 10_000


def names(variable: str, default: str = "") -> list[str]:
    """The cells that a variable of the environment names."""
    return [name for name in os.environ.get(variable, default).split(",") if name]


#: The cells by which rooms are routed, those in which rooms are read, those of another step of a
#: move, and those that this server serves.
CELLS = names("CELLS", "a,b")
READ, ALSO = names("READ") or CELLS, names("ALSO") or CELLS
SERVED = names("SERVED") or sorted({*CELLS, *READ, *ALSO})

nodes = {cell: adsum.Node(cluster=f"cells-example-{cell}") for cell in SERVED}
presences = {cell: adsum.Presence(node) for cell, node in nodes.items()}
pubsubs = {cell: adsum.PubSub(node) for cell, node in nodes.items()}


def cell_of(topic: str, cells: list[str]) -> str:
    """The cell with the highest hash of cell and topic, so topics move to a new cell only."""
    return max(cells, key=lambda cell: blake2b(f"{cell} {topic}".encode()).digest())


def cells_of(topic: str) -> set[str]:
    """The cells in which a topic is tracked: one, or two while it moves."""
    return {cell_of(topic, cells) for cells in (CELLS, READ, ALSO)}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the nodes; they join at the same time."""
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as joining:
            for node in nodes.values():
                joining.create_task(stack.enter_async_context(node))
        yield


app = FastAPI(lifespan=lifespan)


async def forward(websocket: WebSocket, messages: adsum.Subscription) -> None:
    """Send the messages of a room to one user."""
    with suppress(WebSocketDisconnect, RuntimeError):  # the connection has ended
        async for message in messages:
            await websocket.send_json(message.payload)


@app.websocket("/rooms/{room}/{user}")
async def enter(websocket: WebSocket, room: Name, user: Name) -> None:
    """Be in a room while the connection lives, and send each text to everybody in it."""
    topic = f"room:{room}"
    cells = cells_of(topic)
    if not cells <= nodes.keys():
        raise WebSocketException(1008, "another server has this room")
    await websocket.accept()
    with ExitStack() as stack:
        for cell in cells:
            messages = stack.enter_context(pubsubs[cell].subscribe(topic))
            forwarding = asyncio.create_task(forward(websocket, messages))
            stack.callback(forwarding.cancel)
            stack.enter_context(presences[cell].track(topic, user))
        async for text in websocket.iter_text():
            message = {"from": user, "text": text[:MAX_TEXT]}
            # Published in one cell: a server of each step subscribes in it, so none gets it twice.
            await pubsubs[cell_of(topic, READ)].publish(topic, message)


@app.get("/rooms/{room}/cell")
async def find(room: Name) -> str:
    """The cell of a room, at any server: for a proxy, or a client that selects a server."""
    return cell_of(f"room:{room}", CELLS)


@app.get("/rooms/{room}")
async def who(room: Name) -> list[str]:
    """The users in a room of a cell that this server serves."""
    cell = cell_of(f"room:{room}", READ)
    if cell not in nodes:
        raise HTTPException(421, f"cell {cell} has this room")
    return list(presences[cell].list(f"room:{room}"))


@app.get("/totals")
async def totals() -> dict[str, int]:
    """Rooms and users in all cells, at a server that serves all of them."""
    if missing := set(READ) - nodes.keys():
        raise HTTPException(421, f"this server does not serve {sorted(missing)}")
    rooms = [
        (cell, topic)
        for cell in READ
        for topic in presences[cell].topics("room:")
        if cell_of(topic, READ) == cell  # while a topic moves it is in two cells
    ]
    return {
        "rooms": len(rooms),
        "users": sum(presences[cell].count(topic) for cell, topic in rooms),
    }
