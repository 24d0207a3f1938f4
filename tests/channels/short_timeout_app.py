"""Patience of some seconds: `uvicorn --factory tests.channels.short_timeout_app:make`."""

from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import Channel, Socket
from adsum.channels.carriers import session

#: Seconds of silence, and without a poll.
TIMEOUT = 3.0


class Room(Channel, topic="room:{room}"):
    async def join(self, payload: Any) -> None:
        self.track(payload["track"])


def make() -> Starlette:
    session.LIFETIME = TIMEOUT
    node = adsum.Node(siblings=False)
    socket = Socket(adsum.Presence(node), [Room], timeout=TIMEOUT)
    return Starlette(routes=[Mount("/socket", socket)], lifespan=node.lifespan)
