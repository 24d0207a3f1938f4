"""One server of the demo: a room for phoenix.js, where people are present with their devices.

This is all that an application does with adsum. A class serves the room: whoever joins is tracked,
and phoenix.js is told who comes and goes. Nothing here knows of the other servers: told where the
others are, they make one room together.

Who connects with a ``user`` is there, once for each device; who connects without only looks on.

Beside the room each server has a service, see `traffic`.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, on
from traffic import Traffic

ROOM = "room:lobby"
STATUSES = ("here", "away", "typing")
ROBOTS = {"n1": ["Ada", "Konrad"], "n2": ["Grace"], "n3": ["Edsger", "Barbara"]}

node = adsum.Node()  # named, and told of the others, by ADSUM_NAME, ADSUM_PEERS and so on
presence = adsum.Presence(node)
traffic = Traffic(node)


class Room(Channel, topic="room:{room}"):
    """One device in the room, from its join until it leaves or its connection is lost."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.spawn(self.tell_members())
        self.user = self.client.assigns["user"]
        if self.user is None:
            self.follow()
            self.spawn(self.tell_traffic())
        else:
            self.me = self.track(self.user, describe(payload))
        return {"node": node.name}

    @on("update")
    async def update(self, payload: Any) -> dict[str, Any]:
        """Another name; or here, away, typing."""
        self.only_who_is_there()
        self.me.update(describe(payload))
        return {}

    @on("shout")
    async def shout(self, payload: Any) -> dict[str, Any]:
        """Say something to everybody in the room, on every server."""
        self.only_who_is_there()
        await self.broadcast("shout", {"user": self.user, "text": text(payload, "text", 200)})
        return {}

    def only_who_is_there(self) -> None:
        if self.user is None:
            raise RefusedError("you only look on; connect with a user")

    async def tell_members(self) -> None:
        """Tell the page, when it changes, what this node knows of the others."""
        told = None
        while True:
            fields = ("name", "status", "entries", "lag")
            members = [{field: getattr(it, field) for field in fields} for it in node.members()]
            if members != told:
                self.push("members", {"members": members})
                told = members
            await asyncio.sleep(0.1)

    async def tell_traffic(self) -> None:
        """Tell the page, when it changes, which servers answer the requests of this one."""
        told = None
        while True:
            if traffic.answered is not told:
                told = traffic.answered
                self.push("traffic", {"answered": dict(told)})
            await asyncio.sleep(0.1)


def describe(payload: Any) -> dict[str, Any]:
    """The meta of a device: what everybody gets to see of it."""
    meta = {field: text(payload, field, 40) for field in ("name", "device", "status")}
    if meta["status"] not in STATUSES:
        raise RefusedError(f"status: must be one of {', '.join(STATUSES)}")
    return {**meta, "node": node.name}


def text(payload: Any, field: str, most: int) -> str:
    """A text that a browser sent; never trust what a browser sends."""
    value = payload.get(field) if isinstance(payload, dict) else None
    if not isinstance(value, str) or not 0 < len(value.strip()) <= most:
        raise RefusedError(f"{field}: must have 1 to {most} characters")
    return value.strip()


async def connect(client: Client) -> None:
    """Take anybody at their word for who they are; yours would look at `client.token`."""
    user = client.params.get("user")
    client.assigns["user"] = None if user is None else f"visitor:{text(client.params, 'user', 40)}"


async def robot(name: str) -> None:
    """A simulated guest, who comes and now and then looks away, so that no room is empty."""
    meta = {"name": f"guest {name}", "device": "robot", "status": "here", "node": node.name}
    with presence.track(ROOM, f"robot:{node.name}:{name}", meta) as me:
        for status in itertools.cycle(["away", "here"]):
            await asyncio.sleep(random.uniform(8, 30))
            me.update({**meta, "status": status})


@asynccontextmanager
async def with_robots(_: Starlette) -> AsyncIterator[None]:
    """Keep the guests and the service of this node while the application runs."""
    robots = [asyncio.create_task(robot(name)) for name in ROBOTS.get(node.name, ["Robin"])]
    async with traffic.running():
        yield
    for task in robots:
        task.cancel()
    await asyncio.gather(*robots, return_exceptions=True)


socket = Socket(presence, [Room], connect=connect)
app = Starlette(routes=[Mount("/socket", socket)], lifespan=node.wrap_lifespan(with_robots))
