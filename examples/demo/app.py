"""One server of the demo: a room that people join over a WebSocket.

This is all that an application does with adsum. It says who is here (`track`), follows who comes
and goes (`watch`), and asks who else is in the cluster (`members`). Nothing here knows of the
other servers: started with the same ``ADSUM_CLUSTER``, they find each other.

A browser sends ``{"do": "join", "id": ..., "name": ..., "status": "here"}``, then ``update`` with
the same fields, and ``leave``. It is sent a ``hello``, then every ``diff`` of the room and, when
they change, the ``members`` of the cluster as this node sees them.
"""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import adsum

ROOM = "room:lobby"
STATUSES = ("here", "away")
ROBOTS = {"n1": ["Ada", "Konrad"], "n2": ["Grace"], "n3": ["Edsger", "Barbara"]}

node = adsum.Node()  # named, and told its cluster, by ADSUM_NAME and ADSUM_CLUSTER
presence = adsum.Presence(node)


async def room(websocket: WebSocket) -> None:
    """Serve one browser, until it goes."""
    await websocket.accept()
    with presence.watch(ROOM) as watch:
        hello = {"type": "hello", "node": node.name, "present": presence.count(ROOM)}
        await websocket.send_json(hello)
        senders = [
            asyncio.create_task(send_diffs(websocket, watch)),
            asyncio.create_task(send_members(websocket)),
        ]
        try:
            await attend(websocket)
        except WebSocketDisconnect:
            pass
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)


async def attend(websocket: WebSocket) -> None:
    """Do what the visitor says. However this ends, the visitor is not present any more."""
    commands = read_commands(websocket)
    async for command in commands:
        if command["do"] != "join":
            continue
        with presence.track(ROOM, f"visitor:{command['id']}", describe(command)) as me:
            async for change in commands:
                if change["do"] == "leave":
                    break
                me.update(describe(change))


async def send_diffs(websocket: WebSocket, watch: adsum.Watch) -> None:
    """Tell who came and went. While a slow browser is being sent one diff, others merge."""
    async for diff in watch:
        changes = {"joins": diff.joins, "leaves": diff.leaves, "updates": diff.updates}
        await websocket.send_json({"type": "diff", **changes})


async def send_members(websocket: WebSocket) -> None:
    """Tell, when it changes, what this node knows of the others."""
    told = None
    while True:
        members = [asdict(member) for member in node.members()]
        if members != told:
            await websocket.send_json({"type": "members", "members": members})
            told = members
        await asyncio.sleep(0.1)


async def read_commands(websocket: WebSocket) -> AsyncIterator[dict[str, Any]]:
    """What the visitor says, if it makes sense; an answer that says why if it does not."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            command = check(message.get("text"))
        except (ValueError, RecursionError) as error:
            await websocket.send_json({"type": "error", "message": str(error)})
        else:
            yield command


def check(text: str | None) -> dict[str, Any]:
    """Read a command; never trust what a browser sends."""
    command = json.loads(text or "")
    if not isinstance(command, dict) or command.get("do") not in ("join", "update", "leave"):
        raise ValueError("do: accepted are join, update and leave")
    if command["do"] == "leave":
        return command
    for field, most in (("id", 40), ("name", 40)):
        value = command.get(field)
        if not isinstance(value, str) or not 0 < len(value.strip()) <= most:
            raise ValueError(f"{field}: accepted are 1 to {most} characters")
    if command.get("status") not in STATUSES:
        raise ValueError(f"status: accepted are {' and '.join(STATUSES)}")
    return command


def describe(command: dict[str, Any]) -> dict[str, Any]:
    """The meta of a visitor: what the other visitors get to see."""
    return {"name": command["name"].strip(), "status": command["status"], "node": node.name}


async def robot(name: str) -> None:
    """A simulated guest, who comes and now and then looks away, so that no room is empty."""
    meta = {"name": f"guest {name}", "status": "here", "node": node.name, "robot": True}
    with presence.track(ROOM, f"robot:{node.name}:{name}", meta) as me:
        for status in itertools.cycle(["away", "here"]):
            await asyncio.sleep(random.uniform(8, 30))
            me.update({**meta, "status": status})


@asynccontextmanager
async def with_robots(_: Starlette) -> AsyncIterator[None]:
    """Keep the guests of this node while the application runs."""
    robots = [asyncio.create_task(robot(name)) for name in ROBOTS.get(node.name, ["Robin"])]
    yield
    for task in robots:
        task.cancel()
    await asyncio.gather(*robots, return_exceptions=True)


app = Starlette(
    routes=[WebSocketRoute("/room", room)],
    lifespan=node.wrap_lifespan(with_robots),
)
