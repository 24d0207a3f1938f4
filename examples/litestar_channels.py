"""Litestar channels on several workers: chat rooms with their users, without Redis.

    pip install '..[litestar]' 'uvicorn[standard]'
    uvicorn litestar_channels:app --workers 4 --ws-max-size 131072

    python -m websockets ws://127.0.0.1:8000/rooms/1/ann    # in one terminal
    python -m websockets ws://127.0.0.1:8000/rooms/1/bob    # in another one
    curl http://127.0.0.1:8000/rooms/1
    curl http://127.0.0.1:8000/announcements -H 'content-type: application/json' -d '"lunch"'

A text that Ann sends is received by everybody in the room, on all workers.
"""

from typing import Annotated, Any

from litestar import Litestar, WebSocket, get, post, websocket
from litestar.channels import ChannelsPlugin
from litestar.params import Body, Parameter

import adsum
from adsum.integrations.litestar import AdsumChannelsBackend

EVERYBODY = "everybody"
#: Characters of an announcement.
MAX_TEXT = 10_000
#: A room or a user; Litestar refuses others.
Name = Annotated[str, Parameter(min_length=1, max_length=100)]

node = adsum.Node()
presence = adsum.Presence(node)
channels = ChannelsPlugin(AdsumChannelsBackend(node), arbitrary_channels_allowed=True)


@websocket("/rooms/{room:str}/{user:str}")
async def chat(socket: WebSocket[Any, Any, Any], room: Name, user: Name) -> None:
    """Send each text of a client to its room, and the texts of the room to the client."""
    topic = f"room:{room}"
    async with channels.start_subscription([topic, EVERYBODY]) as subscriber:
        await socket.accept()
        with presence.track(topic, user):
            async with subscriber.run_in_background(socket.send_text, join=False):
                async for text in socket.iter_data("text"):
                    channels.publish(f"{user}: {text}", topic)


@get("/rooms/{room:str}")
async def users(room: Name) -> list[str]:
    """The users of a room, whichever worker they are connected to."""
    return list(presence.list(f"room:{room}"))


@post("/announcements", status_code=204)
async def announce(data: Annotated[str, Body(max_length=MAX_TEXT)]) -> None:
    """Send a text to everybody."""
    channels.publish(data, EVERYBODY)


app = Litestar([chat, users, announce], plugins=[channels])
