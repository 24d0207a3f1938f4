"""An application that gives clients little time: `uvicorn tests.channels.short_timeout_app:app`."""

from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import Channel, Socket
from adsum.channels.carriers import session

#: Seconds of silence, and without a poll.
TIMEOUT = 1.0
session.LIFETIME = TIMEOUT

node = adsum.Node(siblings=False)
presence = adsum.Presence(node)


class Room(Channel, topic="room:{room}"):
    async def join(self, payload: Any) -> None:
        self.track(payload["track"])


app = Starlette(
    routes=[Mount("/socket", Socket(presence, [Room], timeout=TIMEOUT))],
    lifespan=node.lifespan,
)
