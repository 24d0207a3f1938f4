"""An application for several worker processes: `uvicorn --workers 2
tests.channels.multi_worker_app:app`."""

import os
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import Channel, Socket, on

node = adsum.Node()
presence = adsum.Presence(node)


class Room(Channel, topic="room:{room}"):
    """Says which process serves it, and lets everybody be heard."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.track(payload["track"])
        return {"process": os.getpid(), "members": len(node.members())}

    @on("shout")
    async def shout(self, payload: Any) -> None:
        await self.broadcast("shout", payload)


app = Starlette(
    routes=[Mount("/socket", Socket(presence, [Room]))],
    lifespan=node.lifespan,
)
