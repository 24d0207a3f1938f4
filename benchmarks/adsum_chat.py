"""The chat of adsum that is measured: `uvicorn benchmarks.adsum_chat:app`."""

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import Channel, Limits, Socket, on
from benchmarks.rooms import UNLIMITED, Room


class Chat(Channel, topic="chat:{room}"):
    @on("echo")
    async def echo(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return payload

    @on("shout")
    async def shout(self, payload: Mapping[str, Any]) -> None:
        await self.broadcast("shout", payload)


node = adsum.Node()
socket = Socket(adsum.Presence(node), [Chat, Room], limits=Limits(updates=UNLIMITED))
app = Starlette(routes=[Mount("/socket", socket)], lifespan=node.lifespan)
