"""Users in a room in Django: a consumer that tracks them, and a page that lists them.

    pip install '..[django]' uvicorn websockets
    uvicorn django_presence:application --workers 2
    python -m websockets "ws://127.0.0.1:8000/rooms/1/?user=ann"
    curl http://127.0.0.1:8000/rooms/1/

The page lists the users of both workers, and so does each message to a client.
"""

import secrets
from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from adsum.integrations.django import PresenceMixin, apresent

if not settings.configured:  # a project of your own has them in a file of their own
    settings.configure(
        SECRET_KEY=secrets.token_urlsafe(),  # there are no sessions here
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["adsum.integrations.django"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "adsum.integrations.django.ChannelLayer",
                "CONFIG": {"cluster": "shop"},
            }
        },
    )

django_application = get_asgi_application()  # sets Django up

PAGE = engines["django"].from_string(
    """{% load adsum %}{% present topic as users %}<!doctype html><title>Room {{ room }}</title>
<p>{{ users|length }} here: {% for user in users %}{{ user }} {% endfor %}</p>
"""
)


class Visitor:
    """A user, as far as presences need one. Yours come from `AuthMiddlewareStack`."""

    is_authenticated = True

    def __init__(self, name: str) -> None:
        self.pk = name

    def get_username(self) -> str:
        return self.pk


class Room(PresenceMixin, AsyncJsonWebsocketConsumer):
    """One connection of a user in a room; it receives the users after each change."""

    def presence_topic(self) -> str:
        return f"room:{self.scope['url_route']['kwargs']['room']}"

    async def presence_changed(self, event: dict[str, Any]) -> None:
        users = await apresent(event["topic"])
        await self.send_json({"users": [user.name for user in users]})


def page(request: HttpRequest, room: str) -> HttpResponse:
    """The users of a room, from any worker, by the template tag."""
    return HttpResponse(PAGE.render({"room": room, "topic": f"room:{room}"}))


async def websocket(scope: Any, receive: Any, send: Any) -> None:
    """Believe everybody; `AuthMiddlewareStack` takes the user from the session."""
    query = parse_qs(scope["query_string"].decode())
    scope["user"] = Visitor(query.get("user", ["somebody"])[0][:100])
    await routes(scope, receive, send)


urlpatterns = [path("rooms/<slug:room>/", page)]
routes = URLRouter([path("rooms/<slug:room>/", Room.as_asgi())])
application = ProtocolTypeRouter({"http": django_application, "websocket": websocket})
