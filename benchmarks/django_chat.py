"""The chat of Django Channels that is measured: `uvicorn benchmarks.django_chat:app`.

A room is a group: in the channel layer over Redis that its documentation recommends, or in that of
adsum if there is no Redis.
"""

import os
from typing import Any

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

from benchmarks.contenders import LAYER, REDIS

#: Messages that may wait for one client; the default of 100 would drop some of a flood.
_CAPACITY = 10_000


def _layer() -> dict[str, Any]:
    """The channel layer; the name of the cluster is in the environment."""
    if REDIS not in os.environ:
        backend = "adsum.integrations.django.ChannelLayer"
        return {"BACKEND": backend, "CONFIG": {"capacity": _CAPACITY}}
    redis = {
        "address": os.environ[REDIS],
        # redis-py would give up after 5 s, which is how long the layer waits for a message.
        "socket_timeout": None,
        # The layer opens a connection for each client that leaves at the same time.
        "max_connections": 9_000,
    }
    backend = os.environ.get(LAYER, "channels_redis.core.RedisChannelLayer")
    return {"BACKEND": backend, "CONFIG": {"hosts": [redis], "capacity": _CAPACITY}}


class Chat(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content: dict[str, Any], **_: Any) -> None:
        if content["event"] == "echo":
            await self.send_json(content)
        else:
            message = {"type": "shout", "payload": content["payload"]}
            await self.channel_layer.group_send(self.room, message)

    async def shout(self, message: dict[str, Any]) -> None:
        """Called with each message of the group."""
        await self.send_json({"event": "shout", "payload": message["payload"]})


settings.configure(
    CHANNEL_LAYERS={"default": _layer()}, SECRET_KEY="benchmark", ALLOWED_HOSTS=["*"]
)
django.setup()
_routes = [path("chat/<room>", Chat.as_asgi())]
app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(_routes)})
