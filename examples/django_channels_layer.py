"""A chat in Django Channels without Redis: consumers, a synchronous view, a worker, a command.

    pip install '..[django]' daphne websockets
    daphne -p 8000 django_channels_layer:application
    daphne -p 8001 django_channels_layer:application
    python django_channels_layer.py runworker capitals

Enter a room on one server, and type `{"text": "hello"}`, or `{"text": "!hello"}` for the worker;
speak on the other server, or from a command:

    python -m websockets ws://127.0.0.1:8000/rooms/1/
    curl -d text=hello http://127.0.0.1:8001/rooms/1/messages
    python django_channels_layer.py say 1 "closed at six"

After `pip install 'uvicorn[standard]'`, `uvicorn django_channels_layer:application --workers 2`
works as well.
"""

import os
import secrets
import sys
from typing import Any

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

if not settings.configured:  # a project of your own has them in a file of their own
    settings.configure(
        SECRET_KEY=secrets.token_urlsafe(),  # there are no sessions here
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=__name__,
        ASGI_APPLICATION="django_channels_layer.application",
        INSTALLED_APPS=["adsum.integrations.django", "channels"],
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "adsum.integrations.django.ChannelLayer",
                "CONFIG": {"cluster": "shop"},
            }
        },
    )


class Chat(AsyncJsonWebsocketConsumer):
    """One client in a room; its `!hello` is written in capitals by a worker."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(f"room.{self.room}", self.channel_name)
        await self.accept()
        await self.send_json({"process": os.getpid()})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(f"room.{self.room}", self.channel_name)

    async def receive_json(self, content: dict[str, Any], **_: Any) -> None:
        message = {"type": "message", "room": self.room, "text": str(content["text"])[:500]}
        if message["text"].startswith("!"):
            await self.channel_layer.send("capitals", message)
        else:
            await self.channel_layer.group_send(f"room.{self.room}", message)

    async def message(self, event: dict[str, Any]) -> None:
        """Called with each message to the room."""
        await self.send_json({"text": event["text"]})


class Capitals(SyncConsumer):
    """Runs in a worker, which receives its share of the messages to the channel `capitals`."""

    def message(self, event: dict[str, Any]) -> None:
        """Called with each message to the channel."""
        say(event["room"], event["text"].upper())


def say(room: str, text: str) -> None:
    """Send a message to a room from synchronous code."""
    message = {"type": "message", "text": text}
    async_to_sync(get_channel_layer().group_send)(f"room.{room}", message)


@csrf_exempt  # there are no sessions here
@require_POST
def messages(request: HttpRequest, room: str) -> HttpResponse:
    """Speak in a room without being there."""
    say(room, request.POST["text"][:500])
    return HttpResponse(status=204)


urlpatterns = [path("rooms/<slug:room>/messages", messages)]
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("rooms/<slug:room>/", Chat.as_asgi())]),
        "channel": ChannelNameRouter({"capitals": Capitals.as_asgi()}),
    }
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["say"]:  # in a project of your own this is a management command
        say(*sys.argv[2:])
    else:
        execute_from_command_line(sys.argv)
