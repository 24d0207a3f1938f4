"""Polls that wait longer than a test: `uvicorn --factory tests.channels.endless_polls_app:make`."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import adsum
from adsum.channels import Channel, Socket
from adsum.channels.carriers import session, sessions
from tests.support.waiting import DEADLINE


class Room(Channel, topic="room:{room}"):
    async def join(self, payload: Any) -> None: ...


def make() -> Starlette:
    session.WINDOW = vars(sessions)["WINDOW"] = 10 * DEADLINE
    node = adsum.Node()
    socket = Socket(adsum.Presence(node), [Room])

    async def count_polls(request: Request) -> JSONResponse:
        """The polls that wait at a session of this worker, or are forwarded to another one."""
        found = sessions.Sessions.of(node)
        own = [one for one in found._sessions.values() if one._poll and not one._poll.done()]
        return JSONResponse({"own": len(own), "forwarded": len(found._forwarded)})

    routes = [Route("/polls", count_polls), Mount("/socket", socket)]
    return Starlette(routes=routes, lifespan=node.lifespan)
